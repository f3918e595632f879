"""What would be left of guided attention if the map said less? Ablations that could prove it wrong.

Takes a suite with `few` and, of its rows, the one of LEA-Net with guided attention that `--row`
names; without the fine-tuned copy, whatever `tuned_from` says. For every fold its maps are drawn
once, and every number of labelled defects and every draw is then learned and tested with several
kinds of maps, which takes milliseconds: the same images, folds and defects as the cells of
`leanet benchmark`. OUT/ablations.csv has the columns of results.csv, a line for each arm; what
stands there is not done again.

    guided          as it is
    shuffled        attention by a map whose blocks have changed places, what it expects unchanged
    other image     attention by the map of another image, what it expects unchanged
    constant        attention nowhere: plain pooling, what the map expects unchanged
    whole map of another image    attention and expectation both from there
    no expectation  attention by the map, the labels start from nothing
    no map          plain pooling, the labels start from nothing: a logistic head on frozen features
    map only        what the map expects, without any label
    feature noise, no map and feature noise    guided and no map, taught by normal images, too,
                    whose features got noise in a random region: as many as there are defects,
                    after SuperSimpleNet (Rolih et al. 2024, arXiv:2408.03143); only where the map
                    model reads the same features, so that it draws maps of the noise as well

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
from torch.nn import functional

from leanet.benchmark.cell import Opened, fold_of, need_of, open_data
from leanet.benchmark.suite import Cell, Suite, cells, read_suite
from leanet.data.cache import images_in_unit_range
from leanet.data.few import TooFewDefectsError
from leanet.data.folds import split_parts
from leanet.files import read_csv, write_csv
from leanet.methods import guided
from leanet.methods.lea_config import resolve
from leanet.methods.lea_detector import Reader, sees_the_same
from leanet.methods.map_models import TrainingMaps, chunks, training_maps
from leanet.methods.map_options import steps_of
from leanet.methods.map_sources import find_source
from leanet.methods.patches import PatchDetector
from leanet.methods.supervised import Normalize
from leanet.networks.guided import GuidedNet, pool
from leanet.ops.correction import cross_corrected, fit_correction
from leanet.ops.map_steps import ablate, prepare_map
from leanet.ops.metrics import choose_threshold, image_metrics
from leanet.ops.perlin import drawn_region, perlin_region
from leanet.records import ANOMALOUS, Fold

FloatArray = NDArray[np.float64]
Arms = dict[str, tuple[FloatArray, FloatArray]]  # name -> z [N, 1] and phi [N, D] of all images
NOISED = {"feature noise": "guided", "no map and feature noise": "no map"}  # tested as these are


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


class Noised(NamedTuple):
    """Normal images with noise in their features: what each was made from, and what each of the
    arms is given of it, as in `Arms`."""

    sources: tuple[int, ...]
    arms: Arms


class View(NamedTuple):
    """One fold of a data set: as learned from (out-of-fold maps) and as tested (maps by the model
    of all its normal images)."""

    learned: Seen
    tested: Seen
    noised: Noised


class Taught(NamedTuple):
    """What an arm learns from: z [N, 1], phi [N, D], labels [N], and for every row the sample that
    it is or was made from."""

    z: FloatArray
    phi: FloatArray
    labels: NDArray[np.int64]
    samples: tuple[int, ...]


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
        for name in (*view.learned.arms(), *view.noised.arms):
            yield _row(cell, name, fold, opened, view)


def _row(cell: Cell, name: str, fold: Fold, opened: Opened, view: View) -> dict[str, Any]:
    """Learn from the training part of the fold by one arm, and test."""
    data, strength = opened.material, resolve(cell.row.config).correction
    taught = _taught(cell, name, fold, opened, view)
    correction = fit_correction(*taught[:3], strength=strength)
    parts = split_parts(fold.train, data.samples, 5, cell.seed)
    rows = [[k for k, i in enumerate(taught.samples) if i in set(part)] for part in parts]
    held = cross_corrected(*taught[:3], rows, strength=strength)[: len(fold.train)]
    known = np.isfinite(held)
    threshold = choose_threshold(taught.labels[: len(held)][known], held[known])
    test_z, test_phi = (one[list(fold.test)] for one in view.tested.arms()[NOISED.get(name, name)])
    truth = np.array([data.labels[i] for i in fold.test])
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
        **image_metrics(truth, correction(test_z, test_phi), threshold.value),
        "trust": correction.trust[0],
        "num_train_anomalous": sum(data.labels[i] == ANOMALOUS for i in fold.train),
    }


def _taught(cell: Cell, name: str, fold: Fold, opened: Opened, view: View) -> Taught:
    """The training part, and for the arms with noise as many normal images with it as defects."""
    train = list(fold.train)
    labels = np.array([opened.material.labels[i] for i in train])
    z, phi = (one[train] for one in view.learned.arms()[NOISED.get(name, name)])
    if name == "map only":
        return Taught(z, phi, np.zeros_like(labels), fold.train)
    if name not in NOISED:
        return Taught(z, phi, labels, fold.train)
    generator = opened.runtime.generator(f"noised {cell.draw}")
    order = torch.randperm(len(view.noised.sources), generator=generator).tolist()
    added = order[: int((labels == ANOMALOUS).sum())]
    more_z, more_phi = (one[added] for one in view.noised.arms[name])
    return Taught(
        np.concatenate([z, more_z]),
        np.concatenate([phi, more_phi]),
        np.concatenate([labels, np.full(len(added), ANOMALOUS)]),
        (*train, *(view.noised.sources[k] for k in added)),
    )


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
        _seen(network, before, learned, generator),
        _seen(network, before, drawn, generator),
        _noised(network, reader, opened, maps, normals),
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


def _noised(
    network: GuidedNet,
    reader: Reader,
    opened: Opened,
    maps: TrainingMaps,
    normals: tuple[int, ...],
) -> Noised:
    """Normal images whose features get Gaussian noise of their own spread in a random region."""
    if not sees_the_same(network, reader, maps.model, opened.material.img_size):
        return Noised((), {})
    assert isinstance(maps.model, PatchDetector)
    generator, size = opened.runtime.generator("feature noise"), (opened.material.img_size,) * 2
    z, looked, plain = [], [], []
    for chosen in chunks(normals):
        image = images_in_unit_range(opened.material.images.take(chosen))
        features = network.look(reader.prepare(image, image))
        region = torch.stack([_region(size, generator) for _ in chosen]).to(image)
        noised = [f + _noise(f, region, generator) for f in features]
        drawn = maps.model.judge(noised[: len(maps.model.features.channels)]).map
        assert drawn is not None
        network_map = prepare_map(drawn, maps.preparation)
        attention = network.attend(network_map, noised)
        z.append(network.prior(network_map)[:, None])
        looked.append(pool([f * m for f, m in zip(noised, attention, strict=True)]))
        plain.append(pool(noised))
    own, phi, constant = (torch.cat(one).double().numpy() for one in (z, looked, plain))
    given = {"feature noise": (own, phi), "no map and feature noise": (0 * own, constant)}
    return Noised(normals, given)


def _region(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    return drawn_region(lambda: perlin_region(size, generator))[None]


def _noise(features: Tensor, region: Tensor, generator: torch.Generator) -> Tensor:
    """Of the SD that each channel has over all places."""
    spread = features.std(dim=(0, 2, 3), keepdim=True)
    drawn = torch.randn(features.shape, generator=generator).to(features)
    return drawn * spread * functional.adaptive_avg_pool2d(region, features.shape[-2:])


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
