"""What would be left of guided attention if the map said less? Ablations that could prove it wrong.

Takes a suite with `few` and, of its rows, the one of LEA-Net with guided attention that `--row`
names. For every fold its maps are drawn once, and every number of labelled defects and every draw
is then learned and tested with several kinds of maps, which takes milliseconds: the same images,
folds and defects as the cells of `leanet benchmark`. OUT/ablations.csv has the columns of
results.csv, a line for each arm; what stands there is not done again.

    guided          as it is
    shuffled        attention by a map whose blocks have changed places, what it expects unchanged
    other image     attention by the map of another image, what it expects unchanged
    constant        attention nowhere: plain pooling, what the map expects unchanged
    whole map of another image    attention and expectation both from there
    no expectation  attention by the map, the labels start from nothing
    no map          plain pooling, the labels start from nothing: a logistic head on frozen features
    map only        what the map expects, without any label

A gain that survives shuffled maps or those of another image is not attention.

Run: python benchmarks/few_defects_ablations.py SUITE.yaml --data_root DATA --out OUT [--draws N]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanet.benchmark.cell import Opened, fold_of, need_of, open_data
from leanet.benchmark.suite import Cell, Suite, cells, read_suite
from leanet.data.cache import images_in_unit_range
from leanet.data.few import TooFewDefectsError
from leanet.data.folds import split_parts
from leanet.files import read_csv, write_csv
from leanet.methods import guided
from leanet.methods.lea_config import Config, resolve
from leanet.methods.lea_detector import Reader
from leanet.methods.map_models import TrainingMaps, chunks, training_maps
from leanet.methods.map_options import steps_of
from leanet.methods.map_sources import find_source
from leanet.methods.supervised import Normalize
from leanet.networks.guided import GuidedNet, pool
from leanet.ops.correction import cross_corrected, fit_correction
from leanet.ops.map_steps import ablate, prepare_map
from leanet.ops.metrics import choose_threshold, image_metrics
from leanet.records import ANOMALOUS, Fold

FloatArray = NDArray[np.float64]
Arms = dict[str, tuple[FloatArray, FloatArray]]  # name -> z [N, 1] and phi [N, D] of all images


class Seen(NamedTuple):
    """Every image by each kind of map: z [N, 1] and phi [N, D]."""

    z: dict[str, FloatArray]
    phi: dict[str, FloatArray]

    def arms(self) -> Arms:
        """What each arm is given."""
        nothing = np.zeros_like(self.z["own"])
        own = self.z["own"]
        return {
            "guided": (own, self.phi["own"]),
            "shuffled": (own, self.phi["shuffled"]),
            "other image": (own, self.phi["other"]),
            "constant": (own, self.phi["constant"]),
            "whole map of another image": (self.z["other"], self.phi["other"]),
            "no expectation": (nothing, self.phi["own"]),
            "no map": (nothing, self.phi["constant"]),
            "map only": (own, np.zeros((len(own), 1))),
        }


class View(NamedTuple):
    """One fold of a data set: as learned from (out-of-fold maps) and as tested (maps by the model
    of all its normal images)."""

    learned: Seen
    tested: Seen


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("suite", type=Path)
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--row", default="LEA-Net")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--data", nargs="*", help="names of data sets; default: all")
    parser.add_argument("--folds", type=int, nargs="*", help="numbers of folds; default: all")
    given = parser.parse_args()
    suite = read_suite(given.suite, given.data_root)
    if suite.few is None:
        parser.error(f"{given.suite} has no key `few`")
    suite = dataclasses.replace(suite, few=dataclasses.replace(suite.few, draws=given.draws))
    for place, chosen in _places(suite, given.row, given.data, given.folds).items():
        file = given.out / "ablations" / f"{'-'.join(map(str, place))}.csv".replace(" ", "_")
        known = read_csv(file) if file.exists() else []
        done = {(int(row["labelled"]), int(row["draw"])) for row in known}
        todo = [cell for cell in chosen if (cell.labelled, cell.draw) not in done]
        if todo:
            started = time.monotonic()
            write_csv(file, [*known, *_rows(suite, todo, given.out)])
            print(f"{file.stem}: {len(todo)} cells, {time.monotonic() - started:.0f} s", flush=True)
    files = sorted((given.out / "ablations").glob("*.csv"))
    write_csv(given.out / "ablations.csv", [row for file in files for row in read_csv(file)])


def _places(
    suite: Suite, row: str, data: list[str] | None, folds: list[int] | None
) -> dict[tuple[str, int, int], list[Cell]]:
    found: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells(suite):
        wanted = (data is None or cell.data.name in data) and (folds is None or cell.fold in folds)
        if cell.row.name == row and wanted:
            found.setdefault((cell.data.name, cell.seed, cell.fold), []).append(cell)
    return found


def _rows(suite: Suite, chosen: list[Cell], out: Path) -> Iterator[dict[str, Any]]:
    opened = open_data(suite, chosen[0].data, chosen[0].seed, out, need_of(chosen[0].row))
    view = _look(chosen[0], opened, out)
    for cell in chosen:
        try:
            fold = fold_of(cell, opened)
        except TooFewDefectsError:
            continue
        for name in view.learned.arms():
            yield _row(cell, name, fold, opened, view)


def _row(cell: Cell, name: str, fold: Fold, opened: Opened, view: View) -> dict[str, Any]:
    """Learn from the training part of the fold by one arm, and test."""
    data, train = opened.material, list(fold.train)
    labels = np.array(data.labels)
    (z, phi), (test_z, test_phi) = view.learned.arms()[name], view.tested.arms()[name]
    truth = np.zeros(len(train), int) if name == "map only" else labels[train]
    config: Config = resolve(cell.row.config)
    correction = fit_correction(z[train], phi[train], truth, strength=config.correction)
    rows = {i: k for k, i in enumerate(train)}
    parts = [[rows[i] for i in part] for part in split_parts(train, data.samples, 5, cell.seed)]
    held = cross_corrected(z[train], phi[train], truth, parts, strength=config.correction)
    known = np.isfinite(held)
    threshold = choose_threshold(labels[train][known], held[known])
    scores = correction(test_z[list(fold.test)], test_phi[list(fold.test)])
    return {
        "data": cell.data.name,
        "row": name,
        "group": name,
        "member": "",
        "method": "leanet",
        "seed": cell.seed,
        "fold": cell.fold,
        "labelled": cell.labelled,
        "draw": cell.draw,
        "unseen": int(cell.data.unseen),
        "output": "score",
        **image_metrics(labels[list(fold.test)], scores, threshold.value),
        "trust": correction.trust[0],
        "num_train_anomalous": int(labels[train].sum()),
    }


@torch.inference_mode()
def _look(cell: Cell, opened: Opened, out: Path) -> View:
    """Draw the maps of a fold and describe every image by each kind of them."""
    config, data, runtime = resolve(cell.row.config), opened.material, opened.runtime
    fold = opened.folds[cell.fold]
    normals = tuple(i for i in fold.train if data.labels[i] != ANOMALOUS)
    parts = tuple(tuple(i for i in part if i in set(normals)) for part in fold.parts)
    fold = dataclasses.replace(fold, train=normals, parts=parts)
    source = find_source(config.map_source, config.map_model, data, runtime, config.map_options)
    source = dataclasses.replace(source, steps=steps_of(config))
    folder = out / "ablations" / "maps" / f"{cell.data.name}-{cell.seed}-{cell.fold}"
    with torch.inference_mode(mode=False), torch.no_grad():
        maps = training_maps(source, config.map_mode, fold, data, folder, runtime)
    with torch.inference_mode(mode=False):
        network = guided.prepared_network(config, fold, data, maps, runtime)
    reader = Reader(Normalize(config.mean, config.std), "image").to(runtime.device)
    drawn, before = _all(network, reader, opened, maps)
    learned = drawn.clone()
    for chosen in chunks(normals):
        learned[chosen] = maps.maps.take(chosen)
    generator = runtime.generator("other image")
    return View(
        _seen(network, before, learned, generator), _seen(network, before, drawn, generator)
    )


def _all(
    network: GuidedNet, reader: Reader, opened: Opened, maps: TrainingMaps
) -> tuple[Tensor, list[list[Tensor]]]:
    """Network maps [N, 1, S, S] of all images by the model of all normal ones, and features."""
    drawn, features = [], []
    for chosen in chunks(range(len(opened.material.samples))):
        image = images_in_unit_range(opened.material.images.take(chosen))
        raw = maps.model(image).map
        assert isinstance(raw, Tensor)
        drawn.append(prepare_map(raw, maps.preparation))
        features.append(network.look(reader.prepare(image, drawn[-1])))
    return torch.cat(drawn), features


def _seen(
    network: GuidedNet, before: list[list[Tensor]], maps: Tensor, generator: torch.Generator
) -> Seen:
    other = torch.randperm(len(maps), generator=generator)
    by_kind = {
        "own": maps,
        "shuffled": ablate(maps, "shuffled"),
        "constant": ablate(maps, "constant"),
        "other": maps[other],
    }
    z = {kind: network.prior(one).double().numpy()[:, None] for kind, one in by_kind.items()}
    phi = {kind: _pooled(network, before, one) for kind, one in by_kind.items()}
    return Seen(z, phi)


def _pooled(network: GuidedNet, before: list[list[Tensor]], maps: Tensor) -> FloatArray:
    told, start = [], 0
    for features in before:
        some = maps[start : start + len(features[0])]
        attention = network.attend(some, features)
        told.append(pool([f * m for f, m in zip(features, attention, strict=True)]))
        start += len(some)
    return torch.cat(told).double().numpy()


if __name__ == "__main__":
    main()
