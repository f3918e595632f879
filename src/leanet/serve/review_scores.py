"""What a threshold would do: the scores that it may be judged by, and how sure that is.

These are the run's held-out scores (cross-validation, or the part kept from training) and the
scores of pictures that people have labeled since, unless the live model has learned from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import stats

from leanet.inference.held_scores import HeldScores, read_held_scores
from leanet.ops.point_rules import LEVEL
from leanet.records import ANOMALOUS, NORMAL
from leanet.serve.entries import Label
from leanet.serve.live import Model

MOST_HERE: Final = 1000
_LABEL_OF: Final = {"ok": NORMAL, "ng": ANOMALOUS}


class Scores(NamedTuple):
    """Ascending scores of normal and of anomalous pictures, in words where they come from, and of
    all pictures to review, whatever they are, their number and at most `MOST_HERE` of the scores,
    evenly drawn from the lowest to the highest."""

    normal: list[float]
    anomalous: list[float]
    note: str
    here: list[float]
    num_here: int


def scores_of(
    model: Model,
    stored: Mapping[str, float],
    labels: Mapping[str, Label],
    learned: Mapping[str, Any],
) -> Scores:
    """Of the live model: `stored` are its scores by picture, `learned` the pictures it knows."""
    held = read_held_scores(model.run, model.card.get("folds", 0))
    by_label: dict[int, list[float]] = {NORMAL: [], ANOMALOUS: []}
    if held.source != "training":
        for label, score in zip(held.label.tolist(), held.score.tolist(), strict=True):
            by_label[label].append(score)
    num_labeled = 0
    for image, said in labels.items():
        label = _LABEL_OF.get(said.label)
        if label is None or image in learned or image not in stored:
            continue
        by_label[label].append(stored[image])
        num_labeled += 1
    return Scores(
        sorted(by_label[NORMAL]),
        sorted(by_label[ANOMALOUS]),
        _note(held, num_labeled),
        _thinned(sorted(stored.values())),
        len(stored),
    )


def intervals(n: int) -> list[tuple[float, float]]:
    """The intervals of `leanet.ops.stats.clopper_pearson` of k in n, for k = 0 ... n at once."""
    k, tail = np.arange(n + 1), (1 - LEVEL) / 2
    low, high = np.zeros(n + 1), np.ones(n + 1)
    low[1:] = stats.beta.ppf(tail, k[1:], n - k[1:] + 1)
    high[:-1] = stats.beta.isf(tail, k[:-1] + 1, n - k[:-1])
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _thinned(scores: list[float]) -> list[float]:
    if len(scores) <= MOST_HERE:
        return scores
    step = (len(scores) - 1) / (MOST_HERE - 1)
    return [scores[round(k * step)] for k in range(MOST_HERE)]


def _note(held: HeldScores, num_labeled: int) -> str:
    num = held.num_normal + held.num_anomalous
    words = {
        "cross-validation": f"{num} cross-validated",
        "held-out": f"{num} held out of training",
        "training": "none held out of training",
    }
    return f"{words[held.source]}, {num_labeled} labeled here"
