"""The scores that a working point may be taken from: of images that no model giving them had seen.

They stand in `final/predictions.csv`: with cross-validation those of all folds' test images (role
"cross_validation"), else those of the images held out from the final training (role "held_out").
They are on the scale of the final detector, which folds need not share: a fusion weighs the parts
anew. Never those of the final detector's test images: what chooses a threshold cannot test it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.files import read_csv, read_json
from leanet.ops.reliability import parts_of
from leanet.records import ANOMALOUS, NORMAL

Source = Literal["cross-validation", "held-out", "training"]
FINAL = "final"
PARTS = 5  # that held-out scores are split into to judge a calibration


class HeldScores(NamedTuple):
    """Labels, scores and parts [N] (the fold, or a random fifth), and where they come from;
    "training": nothing could be held out, and the models have seen these images."""

    label: NDArray[np.int64]
    score: NDArray[np.float64]
    part: NDArray[np.int64]
    source: Source

    @property
    def num_normal(self) -> int:
        """How many are normal."""
        return int(np.sum(self.label == NORMAL))

    @property
    def num_anomalous(self) -> int:
        """How many are anomalous."""
        return int(np.sum(self.label == ANOMALOUS))


def read_held_scores(run: Path, folds: int) -> HeldScores:
    """Of a run of so many folds (0: none); empty where none were written down."""
    if folds:
        rows = _rows(run, "cross_validation") or _of_folds(run, folds)
        fold_of = _folds(run)
        part = np.array([fold_of[row["path"]] for row in rows], dtype=np.int64)
        return HeldScores(*_columns(rows), part, "cross-validation")
    rows, metrics = _rows(run, "held_out"), run / FINAL / "metrics.json"
    label, score = _columns(rows)
    remarks: Mapping[str, Any] = read_json(metrics)["remarks"] if metrics.exists() else {}
    source: Source = "training" if remarks.get("threshold_in_sample") else "held-out"
    return HeldScores(label, score, parts_of(label, PARTS, np.random.default_rng(0)), source)


def _rows(run: Path, role: str, part: str = FINAL) -> list[dict[str, str]]:
    """Rows of a role that have a score and a label."""
    file = run / part / "predictions.csv"
    rows = read_csv(file) if file.exists() else []
    return [row for row in rows if row["role"] == role and row.get("score") and row["label"]]


def _of_folds(run: Path, folds: int) -> list[dict[str, str]]:
    """What an older run knows: the folds' own files, unless a fusion has made other scores of
    them."""
    if "fused" in read_json(run / FINAL / "metrics.json")["threshold"]:
        return []
    return [row for k in range(folds) for row in _rows(run, "test", f"fold-{k}")]


def _folds(run: Path) -> dict[str, int]:
    """In which fold an image was tested."""
    names: dict[str, int] = {}
    rows = [row for row in read_csv(run / "folds.csv") if row["fold"] != FINAL]
    return {
        row["path"]: names.setdefault(row["fold"], len(names))
        for row in rows
        if row["role"] == "test"
    }


def _columns(rows: list[dict[str, str]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    label = np.array([int(row["label"]) for row in rows], dtype=np.int64)
    return label, np.array([float(row["score"]) for row in rows], dtype=np.float64)
