"""What phase 2 reports: every score of every head, per fold and over folds.

A head gives a probability of "anomalous" per test image and decides at 0.5, as in the paper; beside
it stands what it reaches at the threshold that the inner validation part found best, and what
calling every image anomalous would reach. SDs are those of a sample (ddof = 1). Pooled figures see
all test images of all folds at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from leanet.files import read_csv, read_json, write_csv, write_json
from leanet.ops.metrics import (
    Confusion,
    Threshold,
    confusion_at,
    f1,
    image_metrics,
)
from leanet.ops.stats import mean_sd
from leanet.programs.folders import SUMMARY, SUMMARY_TABLE, fold_name
from leanet.programs.trees import finite_or_none

SCORES: Final = "scores.json"  # the last file of a fold
RESULT: Final = "result.csv"
FIGURES: Final = (
    "f1", "f1_inner", "all_positive_f1", "auroc", "average_precision", "precision", "recall",
    "balanced_accuracy", "mcc", "accuracy",
)  # fmt: skip
COUNTS: Final = ("tn", "fp", "fn", "tp", "num_normal", "num_anomalous")
WEAK_STRENGTH: Final = 0.01

Figures = dict[str, float | None]


def figures(
    labels: Sequence[int], probabilities: Sequence[float], inner: Threshold | None
) -> Figures:
    """All figures of one head on the test images of one fold; None where there is no number.

    `inner` is the threshold, a probability, that the inner validation part found best.
    """
    found = image_metrics(labels, probabilities, 0.5)
    figures: Figures = {name: found[name] for name in (*FIGURES, *COUNTS) if name in found}
    figures["threshold_inner"] = inner.value if inner else None
    if inner:
        counts = confusion_at(labels, probabilities, inner.value)
        figures["f1_inner"] = f1(counts)
        figures |= {f"{name}_inner": float(count) for name, count in counts._asdict().items()}
    else:
        figures["f1_inner"] = None
    return {
        name: None if value is None else finite_or_none(value) for name, value in figures.items()
    }


def result_rows(
    labels: Sequence[int], probabilities: Mapping[str, Sequence[float]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """`result.csv`: index, verdicts of the heads and labels first, as the original has them."""
    rows = []
    for index, label in enumerate(labels):
        verdicts = {f"pred_{head}": int(p[index] >= 0.5) for head, p in probabilities.items()}
        values = {f"prob_{head}": p[index] for head, p in probabilities.items()}
        rows.append({"": index, **verdicts, "true": label, **values, "file": names[index]})
    return rows


def write_summary(root: Path, num_folds: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Write `summary.json` and `summary.csv` of the folds that are finished; returns the former."""
    every = [fold_name(fold) for fold in range(1, num_folds + 1)]
    names = [name for name in every if (root / name / SCORES).exists()]
    folds = {name: read_json(root / name / SCORES) for name in names}
    first = next(iter(folds.values()))
    heads = {
        head: _over_folds(root, head, {name: one["heads"][head] for name, one in folds.items()})
        for head in first["heads"]
    }
    summary = {
        "program": "phase2",
        "folds": names,
        "unfinished": [name for name in every if name not in names],
        **more,
        "num_parameters": first["num_parameters"],
        "sd": "of a sample (ddof = 1), over folds",
        "heads": heads,
        "warnings": _warnings(folds),
        "per_fold": {
            name: {key: value for key, value in one.items() if key != "heads"}
            for name, one in folds.items()
        },
    }
    write_json(root / SUMMARY, summary)
    write_csv(root / SUMMARY_TABLE, _table(summary))
    return summary


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary in a few lines."""
    told = []
    for head, one in summary["heads"].items():
        mean, sd, pooled = one["mean"], one["sd"], one["pooled"]
        told.append(
            f"{head}: F1 {_number(mean['f1'])} +- {_number(sd['f1'])} (mean and SD over "
            f"{len(summary['folds'])} folds, ddof 1; all-positive reference "
            f"{_number(mean['all_positive_f1'])}), AUROC {_number(mean['auroc'])}, pooled F1 "
            f"{_number(pooled['f1'])}, pooled AUROC {_number(pooled['auroc'])}"
        )
    return told + [f"warning: {text}" for text in summary["warnings"]]


def _over_folds(root: Path, head: str, per_fold: dict[str, Figures]) -> dict[str, Any]:
    means = {
        name: mean_sd([math.nan if (v := one[name]) is None else v for one in per_fold.values()])
        for name in FIGURES
    }
    return {
        "per_fold": per_fold,
        "mean": {name: finite_or_none(value.mean) for name, value in means.items()},
        "sd": {name: finite_or_none(value.sd) for name, value in means.items()},
        "pooled": _pooled(root, head, per_fold),
    }


def _pooled(root: Path, head: str, per_fold: dict[str, Figures]) -> Figures:
    rows = [row for name in per_fold for row in read_csv(root / name / RESULT)]
    labels = [int(row["true"]) for row in rows]
    pooled = figures(labels, [float(row[f"prob_{head}"]) for row in rows], None)
    counted = [
        [one.get(f"{name}_inner") for name in Confusion._fields] for one in per_fold.values()
    ]
    if all(None not in counts for counts in counted):
        sums = [int(sum(filter(None, column))) for column in zip(*counted, strict=True)]
        pooled["f1_inner"] = finite_or_none(f1(Confusion(*sums)))
    return pooled


def _warnings(folds: Mapping[str, Any]) -> list[str]:
    """What makes the figures of these folds less than they seem."""
    found = []
    weak = [
        f"{name} {point} ({w:.4f})"
        for name, one in folds.items()
        for point, w in one["strength"].items()
        if abs(w) < WEAK_STRENGTH
    ]
    if weak:
        found.append(f"the attention is practically off, |w| < {WEAK_STRENGTH}: {', '.join(weak)}")
    modes = {one["map_mode"] for one in folds.values()}
    held = any(one["num_held_out"] for one in folds.values())
    if held and "in_sample" in modes:
        found.append(
            "in-sample maps: the inner validation normals have flattering maps, so early stopping "
            "and f1_inner may be too good; leanet phase1 --map_mode out_of_fold is honest"
        )
    return found


def _table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for head, one in summary["heads"].items():
        parts = {**one["per_fold"], "mean": one["mean"], "sd": one["sd"], "pooled": one["pooled"]}
        for name, values in parts.items():
            row: dict[str, Any] = {"fold": name, "head": head}
            row |= {figure: values.get(figure) for figure in (*FIGURES, *COUNTS)}
            facts = summary["per_fold"].get(name, {})
            row["points"] = " ".join(map(str, facts.get("attention_points", [])))
            row["w"] = " ".join(f"{w:.6g}" for w in facts.get("strength", {}).values())
            row["num_parameters"] = facts.get("num_parameters", {}).get("total", "")
            row["map_mode"] = facts.get("map_mode", "")
            row["normal_quantile_ratio"] = facts.get("normal_quantile_ratio", "")
            rows.append(row)
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
