"""What follows from a score: verdict, whether a person should look, probability.

One function for every place that decides (predict, the server, an exported graph), so that they
cannot disagree: an image is anomalous when its score is at least the threshold, and a person looks
when the score lies in the review zone, low <= score < high, around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from leanet.ops.calibration import Calibration, probability_of


class WorkingPoint(NamedTuple):
    """How a run decides. threshold: None where it knows no normal class; review: the zone
    (low, high) in which a person looks; calibration: how scores become probabilities."""

    threshold: float | None
    review: tuple[float, float] | None = None
    calibration: Calibration | None = None


class Decision(NamedTuple):
    """Of scores [B]: anomalous and review bool [B], probability of a defect [B] or None."""

    anomalous: Tensor
    review: Tensor
    probability: Tensor | None


def point_of(card: Mapping[str, Any]) -> WorkingPoint:
    """The working point that a card (the contents of card.json) holds."""
    threshold, review, calibration = (card.get(k) for k in ("threshold", "review", "calibration"))
    return WorkingPoint(
        threshold=None if threshold is None else float(threshold["value"]),
        review=None if review is None else (float(review["low"]), float(review["high"])),
        calibration=None if calibration is None else Calibration.from_dict(calibration),
    )


def decide(point: WorkingPoint, score: Tensor) -> Decision:
    """What follows from scores [B].

    Raises ValueError for a working point without a threshold.

    >>> import torch
    >>> point = WorkingPoint(0.5, review=(0.25, 0.75))
    >>> decide(point, torch.tensor([0.0, 0.5, 0.75])).anomalous.tolist()
    [False, True, True]
    >>> decide(point, torch.tensor([0.0, 0.5, 0.75])).review.tolist()
    [False, True, False]
    """
    if point.threshold is None:
        raise ValueError("a detector that knows no normal class has no threshold to decide by")
    low, high = point.review or (point.threshold, point.threshold)
    return Decision(
        anomalous=score >= point.threshold,
        review=(score >= low) & (score < high),
        probability=None if point.calibration is None else probability_of(point.calibration, score),
    )
