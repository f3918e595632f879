"""The work of a benchmark: map models first, each trained once, then cells.

Every function here can run in any process on any machine that sees the folder of the benchmark: it
takes names and numbers and leaves files. What is finished is not done again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from leanet.benchmark.data_sets import DataSet, folder_of
from leanet.benchmark.suite import Cell, Row, Suite, cell_options, effective, slug
from leanet.config import to_dict
from leanet.data.class_list import Classes
from leanet.data.few import few_defects, kind_to_leave_out
from leanet.data.weak import WeakSplit
from leanet.files import read_json, write_json
from leanet.methods import catalog, leanet
from leanet.methods.lea_config import resolve
from leanet.methods.map_catalog import name_of
from leanet.methods.map_models import map_model, trainings
from leanet.methods.map_sources import own_config
from leanet.methods.recipe import Material
from leanet.prepare import Options, decode_samples, find_samples, folds_of
from leanet.records import NORMAL, Fold
from leanet.runtime import Runtime, make_runtime
from leanet.trial import METRICS, Bench, run_trial

CELL = "cell.json"


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """A map model that some cells need: the one of number `training` in the fold of `cell`."""

    cell: Cell
    training: int


class Need(NamedTuple):
    """What a row asks of a data set: its classes, whether there must be anomalous images to learn
    from, and weak labels that change the data set's own split."""

    classes: Classes = "two"
    anomalous: bool = True
    weak: WeakSplit | None = None


class Opened(NamedTuple):
    """A data set with its seed, ready to train on."""

    material: Material
    root: Path
    folds: tuple[Fold, ...]  # the last one is final
    runtime: Runtime


def need_of(row: Row) -> Need:
    """What the method of a row, with its options, asks of a data set."""
    needs_anomalous = catalog.find(row.method).needs_anomalous
    return Need(
        getattr(row.config, "classes", "two"),
        needs_anomalous and not getattr(row.config, "synthetic", ""),
        getattr(row.config, "weak_split", None),
    )


def open_data(suite: Suite, data: DataSet, seed: int, out: Path, need: Need) -> Opened:
    """Scan and decode a data set, or reuse what another process has decoded. Cross-validation folds
    are the same for all rows; of a data set's own split, weak labels leave the test part, so rows
    with other ones have another split, decoded on its own. Data sets of the same images share a
    folder, and with it their map models.

    Raises:
        ValueError: anything wrong with the data, or no test part where the suite asks for it.
    """
    first = next(one for one in suite.data if one.same_images(data))
    folder = out / "data" / slug(first.name) / f"seed-{seed}"
    if need.weak is not None and not suite.options.folds:
        learned = "learned" if need.weak.learn else "left-out"
        folder /= f"weak-{need.weak.fraction:g}-{learned}"
    opened = _opened(folder_of(data, out), cell_options(suite, data, seed), folder, need)
    if not opened.folds[0].test:
        raise ValueError(
            f"{data.name} ({data.path}) has no test part, and folds: 0 asks for the data set's "
            "own; give it one, or the suite folds: 5 or a test_fraction"
        )
    return opened


@lru_cache(maxsize=4)
def _opened(data: Path, options: Options, folder: Path, need: Need) -> Opened:
    runtime = make_runtime(options.device, options.precision, options.seed)
    found = find_samples(
        data,
        options,
        needs_anomalous=need.anomalous,
        classes=need.classes,
        weak=need.weak,
    )
    material = decode_samples(found, options, folder, runtime, _silent)
    folds = folds_of(material.samples, options, by_kind=bool(material.classes))
    return Opened(material, found.root, folds, runtime)


def fold_of(cell: Cell, opened: Opened) -> Fold:
    """The fold of a cell; in suites with few defects a fold with `cell.labelled` of them.

    Its name, after which random numbers are drawn, is the same for every number of defects, and
    differs from draw to draw.

    Raises:
        TooFewDefectsError: there are not enough defects for this cell.
        ValueError: the images are of several classes.
    """
    fold = opened.folds[cell.fold]
    if cell.labelled is None:
        return fold
    if opened.material.classes:
        raise ValueError(
            f"{cell.data.name}: few counts normal and anomalous images, and {cell.row.name} tells "
            f"the classes {', '.join(opened.material.classes)} apart; give it classes: two"
        )
    samples = opened.material.samples
    drawn = few_defects(
        samples,
        fold,
        cell.labelled,
        seeds=(cell.seed, cell.fold, cell.draw),
        unseen=kind_to_leave_out(samples, cell.fold) if cell.data.unseen else None,
    )
    return replace(drawn, name=f"{fold.name}-draw-{cell.draw}") if cell.draw else drawn


def is_finished(suite: Suite, cell: Cell, out: Path) -> bool:
    """Whether an earlier benchmark has this result.

    Raises:
        ValueError: it has, but with other options.
    """
    folder = out / cell.folder
    if not (folder / METRICS).exists():
        return False
    now = json.loads(json.dumps(effective(suite, cell)))
    before = read_json(folder / CELL)
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        listed = "; ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in differing)
        raise ValueError(
            f"{folder} was computed with other options ({listed}); give the row another name, "
            "another --out, or --overwrite to start anew"
        )
    return True


def run_cell(suite: Suite, cell: Cell, out: Path) -> None:
    """Train and test one cell; goes on where an interrupted one stopped."""
    opened = open_data(suite, cell.data, cell.seed, out, need_of(cell.row))
    bench = Bench(
        method=cell.row.method,
        config=cell.row.config,
        material=opened.material,
        root=opened.root,
        runtime=opened.runtime,
        tell=_silent,
    )
    write_json(out / cell.folder / CELL, effective(suite, cell))
    run_trial(bench, fold_of(cell, opened), out / cell.folder, pictures=False)


def map_jobs(suite: Suite, cells: list[Cell], out: Path) -> list[MapJob]:
    """The map models that these cells need, each once."""
    jobs: dict[str, MapJob] = {}
    for cell in cells:
        options = _map_options(cell)
        if options is None:
            continue
        opened = open_data(suite, cell.data, cell.seed, out, need_of(cell.row))
        fold = fold_of(cell, opened)
        told = json.dumps([name_of(options), to_dict(options)], sort_keys=True)
        for number, indices in enumerate(trainings(cell.row.config.map_mode, fold)):
            normals = [i for i in indices if opened.material.labels[i] == NORMAL]
            key = f"{opened.material.run} {told} {normals}"
            jobs.setdefault(key, MapJob(cell=cell, training=number))
    return list(jobs.values())


def run_map_job(suite: Suite, job: MapJob, out: Path) -> None:
    """Train one map model, unless it is there."""
    cell = job.cell
    opened = open_data(suite, cell.data, cell.seed, out, need_of(cell.row))
    indices = trainings(cell.row.config.map_mode, fold_of(cell, opened))[job.training]
    map_model(_map_options(cell), indices, opened.material, opened.runtime)


def _map_options(cell: Cell) -> Any:
    """The options of the method that is trained to draw a cell's maps; None where there is none, or
    a folder draws them, which the cell itself looks after."""
    config = cell.row.config
    if not isinstance(config, leanet.Config):
        return None
    try:
        config = resolve(config)
    except ValueError:
        return None  # the cell itself says what is wrong, and stops no other
    return own_config(config.map_source, config.map_model, config.map_options)


def _silent(text: str) -> None:
    """Cells say nothing; the benchmark tells how far it is."""
