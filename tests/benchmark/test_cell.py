from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.benchmark.cell import Need, Opened, map_jobs, need_of, open_data, run_map_job
from leanet.benchmark.run import benchmark
from leanet.benchmark.suite import cells, read_suite
from leanet.data.images import write_image
from leanet.data.weak import WeakSplit
from leanet.files import read_csv, read_json
from leanet.methods.detector_file import read_detector
from leanet.methods.map_catalog import find_map_method
from leanet.records import ANOMALOUS
from leanet.report.benchmark import write_benchmark_report

WriteSuite = Callable[..., Path]
OWN_SPLIT = {"img_size": 32, "folds": 0, "device": "cpu", "precision": "32-true"}
DRAWS_MAPS = {"map": {"method": "colorizer", "base": 2, "epochs": 1}}
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
