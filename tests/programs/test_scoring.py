"""Scores of the heads, per fold and over folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from leanet.files import read_csv, write_csv, write_json
from leanet.ops.metrics import Threshold, all_positive_f1
from leanet.programs.scoring import figures, lines, result_rows, write_summary

LABELS = [0, 0, 0, 0, 1, 1]
CHANCES = [0.1, 0.6, 0.3, 0.2, 0.9, 0.4]
INNER = Threshold(0.35, "f1", 10, 5)


def test_figures_are_those_of_scikit_learn() -> None:
    found = figures(LABELS, CHANCES, INNER)
    verdicts, inner = np.array(CHANCES) >= 0.5, np.array(CHANCES) >= 0.35
    assert found["f1"] == pytest.approx(metrics.f1_score(LABELS, verdicts))
    assert found["f1_inner"] == pytest.approx(metrics.f1_score(LABELS, inner))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(LABELS, CHANCES))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(LABELS, CHANCES)
    )
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(LABELS, verdicts))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(LABELS, verdicts)
    )
    counts = metrics.confusion_matrix(LABELS, verdicts).ravel().tolist()
    assert [found[name] for name in ("tn", "fp", "fn", "tp")] == counts


def test_calling_everything_anomalous_reaches_the_reference() -> None:
    found = figures(LABELS, [1.0] * 6, None)
    assert found["f1"] == found["all_positive_f1"] == all_positive_f1(2, 4)


def test_what_has_no_number_is_none() -> None:
    found = figures([0, 0], [0.1, 0.2], None)
    assert found["auroc"] is None
    assert found["f1_inner"] is None
    assert found["precision"] is None


def test_a_probability_of_one_half_is_anomalous() -> None:
    assert result_rows([1], {"ADN": [0.5]}, ["a"])[0]["pred_ADN"] == 1


def test_results_begin_with_the_columns_of_the_original() -> None:
    both = result_rows([1, 0], {"ADN": [0.9, 0.2], "AAN": [0.3, 0.1]}, ["a.png", "b.png"])
    assert list(both[0]) == ["", "pred_ADN", "pred_AAN", "true", "prob_ADN", "prob_AAN", "file"]
    assert list(both[0].values()) == [0, 1, 0, 1, 0.9, 0.3, "a.png"]
    assert list(result_rows([1], {"ADN": [0.9]}, ["a"])[0]) == [
        "", "pred_ADN", "true", "prob_ADN", "file",
    ]  # fmt: skip


# --- over folds ---------------------------------------------------------------------------------


def fold(root: Path, name: str, chances: list[float], **facts: Any) -> None:
    write_csv(root / name / "result.csv", result_rows(LABELS, {"ADN": chances}, ["x"] * 6))
    common = {
        "attention_points": [0],
        "strength": {"A1": 1.0},
        "num_parameters": {"ADN": 5, "AAN": 2, "total": 7},
        "map_mode": "out_of_fold",
        "normal_quantile_ratio": 1.5,
        "num_held_out": 4,
    }
    scores = {"heads": {"ADN": figures(LABELS, chances, INNER)}, **common, **facts}
    write_json(root / name / "scores.json", scores)


def test_the_summary_has_mean_and_sample_sd_and_pools_the_images(tmp_path: Path) -> None:
    other = [0.2, 0.7, 0.8, 0.1, 0.6, 0.65]
    fold(tmp_path, "01", CHANCES)
    fold(tmp_path, "02", other)
    summary = write_summary(tmp_path, 3, {"model_ADN": "CNN"})
    head = summary["heads"]["ADN"]
    f1 = [head["per_fold"][name]["f1"] for name in ("01", "02")]
    assert head["mean"]["f1"] == pytest.approx(np.mean(f1))
    assert head["sd"]["f1"] == pytest.approx(np.std(f1, ddof=1))
    pooled = CHANCES + other
    assert head["pooled"]["auroc"] == pytest.approx(metrics.roc_auc_score(LABELS * 2, pooled))
    verdicts = np.array(pooled) >= 0.35
    assert head["pooled"]["f1_inner"] == pytest.approx(metrics.f1_score(LABELS * 2, verdicts))
    assert (summary["folds"], summary["unfinished"]) == (["01", "02"], ["03"])
    assert summary["warnings"] == []
    table = read_csv(tmp_path / "summary.csv")
    assert [row["fold"] for row in table] == ["01", "02", "mean", "sd", "pooled"]
    assert (table[0]["points"], table[0]["w"], table[0]["num_parameters"]) == ("0", "1", "7")
    assert (table[0]["map_mode"], table[0]["normal_quantile_ratio"]) == ("out_of_fold", "1.5")
    assert "all-positive reference 0.500" in lines(summary)[0]


def test_one_fold_has_no_sd(tmp_path: Path) -> None:
    fold(tmp_path, "01", CHANCES)
    summary = write_summary(tmp_path, 1, {})
    assert summary["heads"]["ADN"]["sd"]["f1"] is None
    assert "+- -" in lines(summary)[0]


def test_attention_that_is_off_is_warned_of(tmp_path: Path) -> None:
    fold(tmp_path, "01", CHANCES, strength={"A1": 0.5, "A3": -0.004})
    (told,) = write_summary(tmp_path, 1, {})["warnings"]
    assert "practically off" in told
    assert "01 A3 (-0.0040)" in told
    assert "A1" not in told


def test_flattering_maps_are_warned_of_where_images_are_held_out(tmp_path: Path) -> None:
    fold(tmp_path, "01", CHANCES, map_mode="in_sample")
    assert "flattering maps" in write_summary(tmp_path, 1, {})["warnings"][0]
    fold(tmp_path, "01", CHANCES, map_mode="in_sample", num_held_out=0)
    assert write_summary(tmp_path, 1, {})["warnings"] == []
