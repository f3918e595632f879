from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.benchmark.cell import (
    Need,
    Opened,
    fold_of,
    map_jobs,
    need_of,
    open_data,
    run_map_job,
)
from leanet.benchmark.run import benchmark
from leanet.benchmark.suite import cells, read_suite
from leanet.data.images import write_image
from leanet.data.weak import WeakSplit
from leanet.files import read_csv, read_json
from leanet.methods.detector_file import read_detector
from leanet.methods.map_catalog import find_map_method
from leanet.records import ANOMALOUS, NORMAL, Fold
from leanet.report.benchmark import write_benchmark_report

WriteSuite = Callable[..., Path]
OWN_SPLIT = {"img_size": 32, "folds": 0, "device": "cpu", "precision": "32-true"}
DRAWS_MAPS = {"map": {"method": "colorizer", "base": 2, "epochs": 1}}
SMALL = {"num_normal": 6, "num_anomalous": 8, "size": 32}
NORMAL_ONLY = Need(anomalous=False)


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 normal images to train on; 3 normal and 6 anomalous ones of two kinds, with masks."""
    root, rng = tmp_path_factory.mktemp("mvtec"), np.random.default_rng(0)
    places = {"train/good": 12, "test/good": 3, "test/dent": 3, "test/spot": 3}
    for place, count in places.items():
        for k in range(count):
            pixels = rng.integers(60, 160, (36, 36, 3), dtype=np.uint8)
            kind, mask = place.partition("/")[2], np.zeros((36, 36), dtype=np.uint8)
            if kind != "good":
                mask[4 + k : 16 + k, 8:20] = 255
                pixels[mask > 0] = (250, 20, 20)
                write_image(root / "ground_truth" / kind / f"{k}_mask.png", mask)
            write_image(root / place / f"{k}.png", pixels)
    return root


@pytest.fixture
def opened(mvtec: Path, write_suite: WriteSuite, tmp_path: Path) -> Callable[[Need], Opened]:
    """opened(need) -> the data set on its own split."""
    data = {"data": {"parts": {"path": str(mvtec)}}, "options": OWN_SPLIT, "common": {}}
    suite = read_suite(write_suite(**data, methods=DRAWS_MAPS, baseline=None))
    return lambda need: open_data(suite, suite.data[0], 0, tmp_path, need)


def test_the_own_split_is_one_trial(opened: Callable[[Need], Opened]) -> None:
    (fold,) = opened(NORMAL_ONLY).folds
    assert (len(fold.train), len(fold.test)) == (12, 9)


def test_rows_with_weak_labels_have_a_split_of_their_own(opened: Callable[[Need], Opened]) -> None:
    learned, left_out = (
        opened(Need(anomalous=False, weak=WeakSplit(0.3, learn))) for learn in (True, False)
    )
    assert [len(side) for side in (learned.folds[0].train, learned.folds[0].test)] == [14, 7]
    assert [len(side) for side in (left_out.folds[0].train, left_out.folds[0].test)] == [12, 7]
    assert sum(learned.material.labels[i] == ANOMALOUS for i in learned.folds[0].train) == 2
    tested = [{o.material.samples[i].path for i in o.folds[0].test} for o in (learned, left_out)]
    assert tested[0] == tested[1]
    assert len(opened(NORMAL_ONLY).folds[0].test) == 9
    for one in (learned, left_out):  # decoded in the order of their own samples
        assert len(one.material.images) == len(one.material.samples)
    assert learned.material.run != left_out.material.run


def test_a_row_says_what_it_needs(write_suite: WriteSuite) -> None:
    methods = {
        "map": {"method": "colorizer"},
        "plain": {"method": "classifier"},
        "several": {"method": "classifier", "classes": "kinds"},
    }
    suite = read_suite(write_suite(methods=methods, common={}, baseline=None))
    assert [need_of(row) for row in suite.rows] == [
        Need(anomalous=False), Need(classes="auto"), Need(classes="kinds")]  # fmt: skip


def test_the_models_of_a_named_map_source_are_trained_once_for_all_rows(
    write_suite: WriteSuite, tmp_path: Path
) -> None:
    backbone = {"backbone": "mobilenetv3_small_050", "pretrained": False}
    row = {"method": "leanet", "aan": "mobilenet", "map_source": "patchcore"}
    methods = {
        "one": {**row, "map_options": backbone},
        "other": {**row, "map_options": backbone, "attention_points": [1]},
        "third": {**row, "map_options": {**backbone, "coreset": 1.0}},
    }
    suite = read_suite(write_suite(methods=methods, baseline=None))
    jobs = map_jobs(suite, cells(suite), tmp_path)
    assert len(jobs) == 12  # two folds and two sets of options, each of all and without either part
    assert {job.cell.row.name for job in jobs} == {"one", "third"}
    run_map_job(suite, jobs[0], tmp_path)
    (model,) = (tmp_path / "data" / "toy" / "seed-0" / "map_models").iterdir()
    assert read_detector(model, find_map_method).map_unit == "distance"


def test_a_benchmark_on_the_own_split_has_pixel_figures(
    mvtec: Path, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite: dict[str, Any] = {
        "data": {"a": {"path": str(mvtec)}, "b": {"path": str(mvtec)}},
        "options": OWN_SPLIT,
        "common": {},
        "methods": {**DRAWS_MAPS, "other": {**DRAWS_MAPS["map"], "base": 4}},
        "baseline": "map",
    }
    file, out = write_suite(**suite), tmp_path / "out"
    benchmark(read_suite(file), file.read_text(), out, tell=lambda _: None)
    folders = [cell.folder for cell in cells(read_suite(file))]
    assert [folder.as_posix() for folder in folders[:2]] == [
        "cells/a/map/seed-0/fold-0", "cells/a/other/seed-0/fold-0"]  # fmt: skip
    pixels = read_json(out / folders[0] / "metrics.json")["pixels"]
    assert (pixels["num_images"], pixels["num_anomalous"]) == (9, 6)
    row = read_csv(out / "results.csv")[0]
    assert float(row["pixel_auroc"]) == pixels["auroc"]
    assert (row["fold"], row["num_anomalous"]) == ("0", "6.0")
    assert "All data sets" in write_benchmark_report(out).read_text()


def test_without_a_test_part_the_own_split_is_refused_before_any_training(
    toy: Path, write_suite: WriteSuite, tmp_path: Path
) -> None:
    methods = {"plain": {"method": "classifier"}}
    options = {"options": OWN_SPLIT, "common": {}, "methods": methods}
    file = write_suite(**options)
    with pytest.raises(ValueError, match=r"Toy \(.*\) has no test part, and folds: 0"):
        benchmark(read_suite(file), file.read_text(), tmp_path / "out", tell=lambda _: None)
    assert not list(tmp_path.rglob("journal.jsonl"))


def test_normal_images_alone_are_refused_to_a_row_that_needs_both(
    opened: Callable[[Need], Opened],
) -> None:
    with pytest.raises(ValueError, match="learns from both"):
        opened(Need())


def test_map_models_are_shared_by_all_numbers_draws_rows_and_kinds(
    write_suite: WriteSuite, toy: Path, tmp_path: Path
) -> None:
    unseen = {"path": str(toy), "unseen": True}
    data = {"Leaf": {"generated": SMALL}, "New": unseen, "Toy": {"path": str(toy)}}
    few = read_suite(write_suite(data=data, few={"labelled": [1, 2], "draws": 2}))
    made = [cell for cell in cells(few) if cell.data.name == "Leaf"]
    assert len(map_jobs(few, made, tmp_path)) == 2 * (1 + 2)  # as of any suite with two folds
    runs = [open_data(few, one, 0, tmp_path, Need()).material.run for one in few.data]
    assert runs[0] != runs[1] == runs[2]


def test_all_rows_learn_from_the_same_defects_and_draws_have_names_of_their_own(
    write_suite: WriteSuite, tmp_path: Path
) -> None:
    data = {"Leaf": {"generated": SMALL}}
    suite = read_suite(write_suite(data=data, few={"labelled": [1, 2], "draws": 2}))
    folds: dict[Any, Fold] = {}
    for cell in cells(suite):
        opened = open_data(suite, cell.data, cell.seed, tmp_path, need_of(cell.row))
        fold, labels = fold_of(cell, opened), opened.material.labels
        assert folds.setdefault((cell.fold, cell.labelled, cell.draw), fold) == fold
        assert sum(labels[i] == ANOMALOUS for i in fold.train) == cell.labelled
        usual = opened.folds[cell.fold]
        assert [i for i in fold.train if labels[i] == NORMAL] == [
            i for i in usual.train if labels[i] == NORMAL]  # fmt: skip
    assert folds[0, 1, 0].name == folds[0, 2, 0].name == "fold-0"
    assert folds[1, 2, 1].name == "fold-1-draw-1"


def test_few_defects_of_several_classes_are_refused(
    write_suite: WriteSuite, tmp_path: Path
) -> None:
    methods = {"several": {"method": "classifier", "classes": "kinds"}}
    data = {"Leaf": {"generated": SMALL}}
    few: dict[str, Any] = {"few": {"labelled": [1]}, "data": data, "methods": methods}
    suite = read_suite(write_suite(**few, common={}, baseline=None))
    cell = cells(suite)[0]
    opened = open_data(suite, cell.data, 0, tmp_path, need_of(cell.row))
    with pytest.raises(ValueError, match=r"several tells .* apart; give it classes: two"):
        fold_of(cell, opened)
