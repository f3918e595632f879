"""Scores that a run gave to images that the model which gave them had not seen."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from leanet.files import read_csv, read_json
from leanet.inference.run_images import PREDICTIONS
from leanet.prepare import FINAL
from leanet.serve.run_data import RunData
from leanet.trial import METRICS


class Unseen(NamedTuple):
    """A score (None without a normal class) and the most probable class ("" without classes)."""

    score: float | None
    predicted: str


def unseen_scores(run: Path, data: RunData) -> dict[Path, Unseen]:
    """By image: of its cross-validation, without folds of what was held out of its training, and
    of the test part that a data set had.

    Where a fusion makes the score, each fold has a scale of its own; then those count that the
    final detector's scale was made from, and an older run, which did not keep them, has none.
    """
    final = _read(run / FINAL)
    folds = sorted(file.parent for file in run.glob(f"fold-*/{PREDICTIONS}"))
    own = [row for fold in folds for row in _with_role(_read(fold), "test")]
    if not folds:
        own = [] if _in_sample(run / FINAL) else _with_role(final, "held_out")
    elif any("fused" in row for row in own):
        own = _with_role(final, "cross_validation")
    return {
        data.root / row["path"]: Unseen(
            float(row["score"]) if row["score"] else None, row.get("predicted") or ""
        )
        for row in [*own, *_with_role(final, "test")]
    }


def _read(folder: Path) -> list[dict[str, str]]:
    file = folder / PREDICTIONS
    return read_csv(file) if file.exists() else []


def _in_sample(folder: Path) -> bool:
    """Whether nothing could be held out, so that the rows called so are of training images."""
    file = folder / METRICS
    return file.exists() and bool(read_json(file)["remarks"].get("threshold_in_sample"))


def _with_role(rows: list[dict[str, str]], role: str) -> list[dict[str, str]]:
    return [row for row in rows if row["role"] == role]
