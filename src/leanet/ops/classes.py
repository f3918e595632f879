"""Figures of merit of a classifier of K classes: counts once, named functions of them after.

The confusion matrix holds every count: rows are true classes, columns what was predicted. Accuracy
is the share on its diagonal; where classes are unequal, *balanced accuracy* (the mean recall) and
*macro F1* give each class the same weight. What a classifier of no effort would reach stands
beside them: `majority`, the accuracy of always naming the most frequent class.

Two more judge the probabilities. *NLL* is the mean of -log p of the true class. *ECE* (expected
calibration error; Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017, arXiv:1706.04599) sorts the
images by the probability of the predicted class into bins of equal width and averages how far its
mean and the accuracy lie apart in each.

A figure whose denominator is zero is nan, not an error and not zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanet.ops.stats import Interval, wilson

NUM_BINS = 15
LEAST = float(np.finfo(np.float64).eps)  # a probability of 0 costs -log of this, 36 nats

Counts = NDArray[np.int64]


class ClassFigures(NamedTuple):
    """One class: its true images, precision, recall, F1, and the Wilson interval of the recall."""

    support: int
    precision: float
    recall: float
    f1: float
    interval: Interval


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, num_classes: int) -> Counts:
    """Counts [K, K] of class indices [N]: rows true, columns predicted.

    >>> confusion_matrix([0, 0, 1, 2], [0, 2, 1, 2], 3).tolist()
    [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    """
    true, predicted = _indices(true, num_classes), _indices(predicted, num_classes)
    if true.shape != predicted.shape:
        raise ValueError(
            f"true and predicted classes must have one shape [N], got {true.shape} and "
            f"{predicted.shape}"
        )
    flat = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def class_metrics(true: ArrayLike, probs: ArrayLike) -> dict[str, float]:
    """Every figure of this file by name, for true class indices [N] and probabilities [N, K]; the
    class with the highest probability is the predicted one (the first of equals).

    >>> figures = class_metrics([0, 1, 1], [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    >>> [round(figures[name], 3) for name in ("accuracy", "balanced_accuracy", "majority")]
    [0.667, 0.75, 0.667]
    """
    classes, table = _checked(true, probs)
    counts = confusion_matrix(classes, table.argmax(axis=1), table.shape[1])
    return {
        "accuracy": accuracy(counts),
        "balanced_accuracy": balanced_accuracy(counts),
        "macro_f1": macro_f1(counts),
        "nll": nll(classes, table),
        "ece": ece(classes, table),
        "majority": majority(counts),
    }


def accuracy(counts: ArrayLike) -> float:
    """Share of the images on the diagonal of counts [K, K]."""
    table = _square(counts)
    return _ratio(int(np.trace(table)), int(table.sum()))


def balanced_accuracy(counts: ArrayLike) -> float:
    """Mean recall over the classes of counts [K, K] that have true images."""
    return _mean([row.recall for row in per_class(counts)])


def macro_f1(counts: ArrayLike) -> float:
    """Mean F1 over the classes of counts [K, K] that have true or predicted images."""
    return _mean([row.f1 for row in per_class(counts)])


def majority(counts: ArrayLike) -> float:
    """Accuracy of always naming the most frequent true class of counts [K, K]."""
    support = _square(counts).sum(axis=1)
    return _ratio(int(support.max()), int(support.sum()))


def per_class(counts: ArrayLike, level: float = 0.95) -> list[ClassFigures]:
    """The figures of every class of counts [K, K], in their order. A class without true images
    has no recall, one that was never predicted no precision (nan).

    >>> one, other = per_class([[3, 1], [0, 0]])
    >>> one.support, one.precision, one.recall, other.support, other.precision
    (4, 1.0, 0.75, 0, 0.0)
    """
    table = _square(counts)
    hits = [int(count) for count in np.diag(table)]
    named, support = (
        [int(count) for count in sums] for sums in (table.sum(axis=0), table.sum(axis=1))
    )
    return [
        ClassFigures(
            support=of_class,
            precision=_ratio(hit, alarms),
            recall=_ratio(hit, of_class),
            f1=_ratio(2 * hit, of_class + alarms),
            interval=wilson(hit, of_class, level) if of_class else Interval(math.nan, math.nan),
        )
        for hit, alarms, of_class in zip(hits, named, support, strict=True)
    ]


def nll(true: ArrayLike, probs: ArrayLike) -> float:
    """Mean negative natural log of the true class's probability; indices [N], probs [N, K]. A
    probability below `LEAST` counts as that."""
    classes, table = _checked(true, probs)
    if not classes.size:
        return math.nan
    return float(-np.log(np.clip(table[np.arange(classes.size), classes], LEAST, 1.0)).mean())


def ece(true: ArrayLike, probs: ArrayLike, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error of the predicted class in [0, 1]; indices [N], probs [N, K].

    Bin k of n holds the confidences in (k/n, (k + 1)/n].

    >>> ece([0, 0], [[0.75, 0.25], [0.75, 0.25]])
    0.25
    """
    classes, table = _checked(true, probs)
    if not classes.size:
        return math.nan
    confidence = table.max(axis=1)
    gap = confidence - (table.argmax(axis=1) == classes)
    place = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    return float(np.abs(np.bincount(place, weights=gap, minlength=num_bins)).sum() / classes.size)


def _checked(true: ArrayLike, probs: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    table = np.asarray(probs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"probabilities must have shape [N, K] with K >= 2, got {table.shape}")
    classes = _indices(true, table.shape[1])
    if len(classes) != len(table):
        raise ValueError(f"got {len(classes)} true classes and {len(table)} rows of probabilities")
    bad = ~np.isfinite(table).all(axis=1) | (table < 0).any(axis=1)
    bad |= np.abs(table.sum(axis=1) - 1) > 0.01
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(table)} rows are no probabilities (values >= 0 that add up "
            f"to 1), e.g. {table[np.argmax(bad)].tolist()}; logits need a softmax first"
        )
    return classes, table


def _indices(values: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    found: NDArray[Any] = np.asarray(values)
    whole = found.size == 0 or np.array_equal(found, np.floor(found))
    if found.ndim != 1 or not whole or not np.isin(found, np.arange(num_classes)).all():
        raise ValueError(
            f"classes must be indices [N] in 0 .. {num_classes - 1}, got shape {found.shape} and "
            f"values {np.unique(found)[:8].tolist()}"
        )
    return found.astype(np.int64)


def _square(counts: ArrayLike) -> Counts:
    table: NDArray[Any] = np.asarray(counts)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.size or table.min() < 0:
        raise ValueError(f"a confusion matrix holds counts [K, K] >= 0, got shape {table.shape}")
    return table.astype(np.int64)


def _mean(values: list[float]) -> float:
    """The mean of those that are defined; nan when none is."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
