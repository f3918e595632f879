"""Do probabilities keep what they say? Of images with p = 0.3, 30 in 100 should be anomalous.

Judged on probabilities that no image had a part in: the curve is fitted to all other parts of the
held-out scores, and each part is given its probabilities by a curve that has not seen it. Two
figures: the Brier score, the mean squared distance of probability and label (Brier 1950), and the
expected calibration error, ECE, the mean distance of probability and share over bins (Naeini,
Cooper & Hauskrecht 2015). Bins hold equally many images, at most ten and at least `BIN_IMAGES`
each; equal probabilities share one.

With few images the ECE of perfect probabilities is not 0 either: the share in a bin of ten images
is off by chance. `by_chance` is what perfect ones would show on average, from labels drawn with
these very probabilities (as the consistency bars of Bröcker & Smith 2007, doi:10.1175/WAF993.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from leanet.ops.calibration import probability_of
from leanet.ops.calibration_fit import Kind, fit_calibration
from leanet.ops.stats import bootstrap_interval, clopper_pearson
from leanet.records import ANOMALOUS, NORMAL

MOST_BINS, BIN_IMAGES = 10, 10
DRAWS = 200  # of labels, for `by_chance`

_Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """Images of like probability: its mean, the share of anomalous ones with its 95 % interval."""

    probability: float
    share: float
    low: float
    high: float
    images: int


class Figure(NamedTuple):
    """A figure with its 95 % interval (bootstrap over the images of each class)."""

    value: float
    low: float
    high: float


class Reliability(NamedTuple):
    """ECE, what perfect probabilities would show on average, Brier score, and the bins."""

    ece: Figure
    by_chance: float
    brier: Figure
    bins: tuple[Bin, ...]


def cross_fitted(kind: Kind, label: ArrayLike, score: ArrayLike, part: ArrayLike) -> _Floats | None:
    """Probabilities [N] of labels and scores [N], each by a curve fitted to all other parts [N].

    None where the others of some part lack a class, so that nothing can be judged.
    """
    labels, scores, parts = np.asarray(label), np.asarray(score, dtype=np.float64), np.asarray(part)
    probability = np.empty_like(scores)
    for one in np.unique(parts):
        own = parts == one
        if set(labels[~own].tolist()) != {NORMAL, ANOMALOUS}:
            return None
        curve = fit_calibration(kind, labels[~own], scores[~own])
        probability[own] = probability_of(curve, torch.from_numpy(scores[own])).numpy()
    return probability


def parts_of(label: ArrayLike, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Parts 0 ... num - 1 for labels [N], at random, each with its share of both classes."""
    labels = np.asarray(label)
    part = np.empty(labels.size, dtype=np.int64)
    for value in np.unique(labels):
        own = np.flatnonzero(labels == value)
        part[rng.permutation(own)] = np.arange(own.size) % num
    return part


def reliability(label: ArrayLike, probability: ArrayLike, rng: np.random.Generator) -> Reliability:
    """Figures of labels and out-of-sample probabilities [N]; `rng` draws the bootstrap.

    Raises ValueError for no images.
    """
    labels = (np.asarray(label) == ANOMALOUS).astype(np.float64)
    p = np.asarray(probability, dtype=np.float64)
    if not p.size or p.shape != labels.shape:
        raise ValueError(f"labels and probabilities [N], N > 0; got {labels.shape} and {p.shape}")
    place = bin_of(p)
    brier = bootstrap_interval(brier_score, labels, p, rng=rng, label=labels)
    spread = bootstrap_interval(_ece, labels, p, place, rng=rng, label=labels)
    drawn = [_ece((rng.random(p.size) < p).astype(np.float64), p, place) for _ in range(DRAWS)]
    return Reliability(
        ece=Figure(_ece(labels, p, place), *spread),
        by_chance=float(np.mean(drawn)),
        brier=Figure(brier_score(labels, p), *brier),
        bins=tuple(_bin(labels[place == k], p[place == k]) for k in np.unique(place)),
    )


def expected_calibration_error(label: ArrayLike, probability: ArrayLike) -> float:
    """ECE of labels and probabilities [N] over equally filled bins.

    >>> expected_calibration_error([0] * 9 + [1], [0.25] * 10)
    0.15
    """
    p = np.asarray(probability, dtype=np.float64)
    return _ece((np.asarray(label) == ANOMALOUS).astype(np.float64), p, bin_of(p))


def brier_score(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared distance of labels and probabilities [N].

    >>> brier_score([0, 1], [0.5, 1.0])
    0.125
    """
    return float(np.mean((np.asarray(probability) - np.asarray(label)) ** 2))


def bin_of(probability: ArrayLike) -> NDArray[np.int64]:
    """The bin of each probability [N]: equally filled, in rising order, ties together."""
    p = np.asarray(probability, dtype=np.float64)
    num = max(1, min(MOST_BINS, p.size // BIN_IMAGES))
    firsts = np.sort(p)[np.arange(1, num) * p.size // num]  # the lowest of each bin but the first
    return np.searchsorted(np.unique(firsts), p, side="right")


def _ece(label: _Floats, probability: _Floats, place: NDArray[np.int64]) -> float:
    return float(np.abs(np.bincount(place, weights=probability - label)).sum() / label.size)


def _bin(label: _Floats, probability: _Floats) -> Bin:
    found, images = int(label.sum()), label.size
    return Bin(float(probability.mean()), found / images, *clopper_pearson(found, images), images)
