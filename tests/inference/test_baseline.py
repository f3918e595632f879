from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leanet.data.cache import Cache
from leanet.data.images import write_image
from leanet.files import read_json, write_csv
from leanet.inference.baseline import (
    baseline_from_files,
    baseline_of,
    evenly,
    measured,
    read_baseline,
    scores_of,
    write_baseline,
)
from leanet.methods.recipe import Material
from leanet.ops.image_statistics import STATISTICS, image_statistics
from leanet.records import ANOMALOUS, NORMAL, Sample

RNG = np.random.default_rng(0)


def pictures(num: int, low: int = 60, high: int = 200) -> np.ndarray:
    """uint8 [num, 3, 12, 12] of different brightness."""
    level = RNG.integers(low, high, (num, 1, 1, 1))
    drawn: np.ndarray = (level + RNG.integers(-20, 20, (num, 3, 12, 12))).astype(np.uint8)
    return drawn


def test_the_file_holds_what_normal_training_images_show(tmp_path: Path) -> None:
    images = pictures(40)
    labels = [NORMAL] * 30 + [ANOMALOUS] * 10
    write_baseline(tmp_path, Cache(images, torch.device("cpu")), labels, range(35))
    found = read_baseline(tmp_path)
    assert found is not None
    assert found["img_size"] == 12
    assert found["scores"] is None
    assert found["rate"] == pytest.approx(1 / 31)
    values = image_statistics(torch.from_numpy(images).float() / 255)
    for name in STATISTICS:
        one = found["statistics"][name]
        assert (one["normal"]["num"], one["all"]["num"]) == (30, 35)
        assert one["spread"][0] == pytest.approx(float(values[name][:30].median()), abs=2.0)
        low, high = one["limits"]
        assert low <= float(values[name][:35].min()) + 1e-3
        assert high >= float(values[name][:35].quantile(0.98)) - 1e-3


def test_a_run_without_it_is_measured_from_its_files(tmp_path: Path) -> None:
    images, samples = pictures(20), []
    for k, one in enumerate(images):
        path = tmp_path / f"{k}.png"
        write_image(path, one.transpose(1, 2, 0))
        samples.append(Sample(path=path, label=NORMAL if k < 15 else ANOMALOUS))
    write_baseline(
        tmp_path, Cache(images, torch.device("cpu")), [s.label for s in samples], range(20)
    )
    assert baseline_from_files(tmp_path, samples, 12) == read_baseline(tmp_path)
    for one in samples[:11]:
        one.path.unlink()
    assert baseline_from_files(tmp_path, samples, 12) is None


def test_too_few_normal_images_make_no_baseline(tmp_path: Path) -> None:
    cache = Cache(pictures(7), torch.device("cpu"))
    write_baseline(tmp_path, cache, [NORMAL] * 7, range(7))
    assert read_baseline(tmp_path) is None


def test_where_no_class_is_normal_all_images_count() -> None:
    values = measured([torch.from_numpy(pictures(12)).float() / 255])
    found = baseline_of(values, np.zeros(12, dtype=bool), 12, None)
    assert found is not None
    assert found["statistics"]["brightness"]["normal"]["num"] == 12


def rows(role: str, normal: list[float], anomalous: list[float]) -> list[dict[str, object]]:
    return [
        {"path": "a", "role": role, "label": label, "score": score}
        for label, scores in ((0, normal), (1, anomalous))
        for score in scores
    ]


def test_scores_come_from_images_that_no_model_had_seen(tmp_path: Path) -> None:
    assert scores_of(tmp_path) is None
    held = rows("held_out", [5.0] * 8, [9.0]) + rows("test", [7.0] * 8, [])
    write_csv(tmp_path / "final/predictions.csv", held)
    found = scores_of(tmp_path)
    assert found is not None
    assert (found["source"], found["normal"]["num"], found["all"]["num"]) == ("held-out", 8, 9)
    assert found["normal"]["quantiles"]["0.5"] == 5.0
    for fold in ("fold-0", "fold-1"):
        write_csv(tmp_path / fold / "predictions.csv", rows("test", [1.0] * 4, [2.0]))
    found = scores_of(tmp_path)
    assert found is not None
    assert (found["source"], found["normal"]["num"]) == ("cross-validation", 8)


def test_a_run_of_several_classes_without_a_normal_one_has_no_scores(tmp_path: Path) -> None:
    none = [{"path": "a", "role": "test", "label": "", "score": ""}] * 20
    write_csv(tmp_path / "fold-0/predictions.csv", none)
    assert scores_of(tmp_path) is None


def test_images_are_measured_batch_by_batch() -> None:
    images = torch.rand(5, 3, 8, 8)
    together, parts = measured([images]), measured(images.split(2))
    assert all(np.allclose(together[name], parts[name], atol=1e-4) for name in STATISTICS)


def test_many_are_thinned_out_evenly() -> None:
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 5) == [1, 2]


def test_a_fit_writes_it_beside_the_card(
    material: Callable[..., Material], quick_fit: Callable[..., Path], toy: Path, tmp_path: Path
) -> None:
    run = quick_fit("colorizer", toy, tmp_path / "run", epochs=1)
    found = read_json(run / "baseline.json")
    assert found["img_size"] == read_json(run / "card.json")["img_size"]
    data = material()
    values = image_statistics(torch.from_numpy(np.array(data.images.array)).float() / 255)
    normal = torch.tensor([label == NORMAL for label in data.labels])
    for name in STATISTICS:
        mean = found["statistics"][name]["normal"]["mean"]
        assert mean == pytest.approx(float(values[name][normal].mean()), rel=1e-3, abs=1e-3)
    assert found["scores"]["source"] == "held-out" or found["scores"] is None
    assert len(json.dumps(found)) < 100_000
