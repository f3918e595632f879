"""What a color detector can see: recall against the severity of the anomaly in CIEDE2000.

The threshold is where 99 % of harmless changes of light pass; at every severity the recall is the
share of anomalies above it, with the Clopper-Pearson interval. The severities of 50 % and 90 %
recall are read from the curve, made to rise (isotonic regression, weighted by the counts) and drawn
straight between the severities; their intervals are those of the bootstrap over anomalies and
nuisances, which moves the threshold too. Where the curve never reaches a recall the severity is
infinite, and where it starts above, it is the lowest severity that was tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import isotonic_regression

from leanet.ops.metrics import quantile_threshold
from leanet.ops.stats import Interval, clopper_pearson

FALSE_ALARMS = 0.01  # of the nuisance negatives
RECALLS = (0.5, 0.9)
RESAMPLES = 500
ALL = "all"


class Point(NamedTuple):
    """Recall at one severity (dE00), of `num` anomalies, with its 95 % interval."""

    severity: float
    recall: float
    interval: Interval
    num: int


class Reached(NamedTuple):
    """The severity (dE00) at which a recall is reached, with its 95 % interval."""

    recall: float
    severity: float
    interval: Interval


class Curve(NamedTuple):
    """Of one direction of change, or of all of them together."""

    direction: str
    points: tuple[Point, ...]
    reached: tuple[Reached, ...]


def detection_curves(
    nuisance_scores: ArrayLike,
    scores: ArrayLike,
    severities: ArrayLike,
    directions: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[float, tuple[Curve, ...]]:
    """The threshold, and a curve for all anomalies and for each direction among them.

    `nuisance_scores` [M] are those of harmless changes; `scores`, `severities` (targets in dE00)
    and `directions` [N] those of the anomalies; higher = more anomalous.

    Raises ValueError for lists of unequal length or without values.
    """
    harmless = np.asarray(nuisance_scores, dtype=np.float64)
    found, levels = (np.asarray(values, dtype=np.float64) for values in (scores, severities))
    names = np.asarray(directions)
    if not found.size or not found.shape == levels.shape == names.shape or not harmless.size:
        raise ValueError(
            f"{harmless.size} nuisance scores, {found.size} scores, {levels.size} severities and "
            f"{names.size} directions: give at least one nuisance and lists of one length > 0"
        )
    threshold = quantile_threshold(harmless, FALSE_ALARMS)
    rng = np.random.default_rng(seed)
    groups = {ALL: np.ones(found.size, dtype=bool)}
    groups |= {name: names == name for name in sorted(set(directions))}
    curves = [
        _curve(name, harmless, found[among], levels[among], threshold, rng)
        for name, among in groups.items()
    ]
    return threshold, tuple(curves)


def severity_at(points: Sequence[tuple[float, float, int]], recall: float) -> float:
    """Severity at which a curve of (severity, recall, count), in rising order of severity, reaches
    a recall: after isotonic regression, straight between the points.

    >>> severity_at([(1, 0.0, 9), (3, 0.5, 9), (5, 1.0, 9)], 0.75), severity_at([(2, 0.3, 9)], 0.5)
    (4.0, inf)
    """
    levels = np.array([point[0] for point in points], dtype=np.float64)
    counts = np.array([point[2] for point in points], dtype=np.float64)
    rising = isotonic_regression([point[1] for point in points], sample_weight=counts)
    above = np.flatnonzero(rising >= recall - 1e-12)
    if not above.size:
        return math.inf
    k = int(above[0])
    if k == 0:
        return float(levels[0])
    share = (recall - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(levels[k - 1] + share * (levels[k] - levels[k - 1]))


def _curve(
    name: str,
    harmless: NDArray[np.float64],
    scores: NDArray[np.float64],
    levels: NDArray[np.float64],
    threshold: float,
    rng: np.random.Generator,
) -> Curve:
    points = [
        Point(level, hits / count, clopper_pearson(hits, count), count)
        for level, hits, count in _counted(scores, levels, threshold)
    ]
    drawn = np.array([_resampled(harmless, scores, levels, rng) for _ in range(RESAMPLES)])
    reached = []
    for k, recall in enumerate(RECALLS):
        low, high = np.quantile(drawn[:, k], [0.025, 0.975], method="nearest")
        at = severity_at([(p.severity, p.recall, p.num) for p in points], recall)
        reached.append(Reached(recall, at, Interval(float(low), float(high))))
    return Curve(name, tuple(points), tuple(reached))


def _resampled(
    harmless: NDArray[np.float64],
    scores: NDArray[np.float64],
    levels: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[float]:
    """The severities of `RECALLS` on a resample, each severity keeping its count."""
    threshold = quantile_threshold(rng.choice(harmless, harmless.size), FALSE_ALARMS)
    drawn = np.empty_like(scores)
    for level in np.unique(levels):
        drawn[levels == level] = rng.choice(scores[levels == level], int(np.sum(levels == level)))
    curve = [(level, hits / n, n) for level, hits, n in _counted(drawn, levels, threshold)]
    return [severity_at(curve, recall) for recall in RECALLS]


def _counted(
    scores: NDArray[np.float64], levels: NDArray[np.float64], threshold: float
) -> list[tuple[float, int, int]]:
    """(severity, found, number) of each severity, rising."""
    return [
        (float(level), int(np.sum(scores[levels == level] >= threshold)), int(count))
        for level, count in zip(*np.unique(levels, return_counts=True), strict=True)
    ]
