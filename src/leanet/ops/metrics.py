"""Image-level figures of merit: ranking, the working point, and how to choose it.

A detector gives every image an unbounded score; higher means more anomalous. AUROC and average
precision judge the *ranking* and need no threshold. Everything else needs one: `confusion_at`
counts the four outcomes once, and small functions of these counts follow (recall, F1, ...). Two
of them bear the names of the inspection line: *escapes* are defects that pass, *overkill* is good
parts that are rejected. F1 means little without its reference value, the F1 of calling every
image anomalous, 2P / (2P + N).

A threshold comes from held-out scores, never from test data: the best F1 where there are enough
held-out anomalies, else a conservative quantile of the normal scores (the order statistic
ceil((n + 1)(1 - a)) of split conformal prediction; Vovk, Gammerman & Shafer 2005,
doi:10.1007/b106715).

A figure whose denominator is zero is nan, not an error and not zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from leanet.records import ANOMALOUS, NORMAL


class Confusion(NamedTuple):
    """How many images (or pixels) had each of the four outcomes; anomalous = positive."""

    tn: int
    fp: int
    fn: int
    tp: int


class Threshold(NamedTuple):
    """A working point (anomalous when score >= value) and what it was taken from."""

    value: float
    rule: str  # "f1" or "quantile"
    num_normal: int
    num_anomalous: int


def auroc(label: ArrayLike, score: ArrayLike) -> float:
    """Chance that an anomalous image outscores a normal one, ties counting half; labels and
    scores [N]. Nan with one class only. Scores may have any finite value.

    >>> auroc([0, 0, 1, 1], [-7.0, 3.0, 3.0, 40.0])
    0.875
    """
    label, score = _checked(label, score)
    return float(roc_auc_score(label, score)) if _has_both(label) else math.nan


def average_precision(label: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function; labels and scores [N]. Nan with
    one class only.

    >>> average_precision([0, 1, 1], [0.3, 0.2, 0.9])
    0.8333333333333333
    """
    label, score = _checked(label, score)
    return float(average_precision_score(label, score)) if _has_both(label) else math.nan


def confusion_at(label: ArrayLike, score: ArrayLike, threshold: float) -> Confusion:
    """Counts of the four outcomes when score >= threshold is called anomalous.

    >>> confusion_at([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], 0.5)
    Confusion(tn=1, fp=1, fn=0, tp=2)
    """
    label, score = _checked(label, score)
    alarm = score >= threshold
    tp, fp = int(np.sum(alarm & (label == ANOMALOUS))), int(np.sum(alarm & (label == NORMAL)))
    return Confusion(
        tn=int(np.sum(label == NORMAL)) - fp, fp=fp, fn=int(np.sum(label == ANOMALOUS)) - tp, tp=tp
    )


def f1(counts: Confusion) -> float:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def recall(counts: Confusion) -> float:
    """Share of the anomalous that is found."""
    return _ratio(counts.tp, counts.tp + counts.fn)


def precision(counts: Confusion) -> float:
    """Share of the alarms that is right; nan when there was no alarm."""
    return _ratio(counts.tp, counts.tp + counts.fp)


def specificity(counts: Confusion) -> float:
    """Share of the normal that passes."""
    return _ratio(counts.tn, counts.tn + counts.fp)


def balanced_accuracy(counts: Confusion) -> float:
    """Mean of recall and specificity."""
    return (recall(counts) + specificity(counts)) / 2


def mcc(counts: Confusion) -> float:
    """Matthews correlation of verdict and label, in [-1, 1]; 0 when all verdicts are the same,
    nan when all labels are.

    >>> mcc(Confusion(tn=4, fp=0, fn=0, tp=2))
    1.0
    """
    tn, fp, fn, tp = counts
    if tp + fn == 0 or tn + fp == 0:
        return math.nan
    if tp + fp == 0 or tn + fn == 0:
        return 0.0
    spread = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return min(max((tp * tn - fp * fn) / spread, -1.0), 1.0)


def accuracy(counts: Confusion) -> float:
    """Share of right verdicts."""
    return _ratio(counts.tn + counts.tp, sum(counts))


def escapes(counts: Confusion) -> float:
    """Share of the anomalous that passes unnoticed, 1 - recall."""
    return _ratio(counts.fn, counts.tp + counts.fn)


def overkill(counts: Confusion) -> float:
    """Share of the normal that is rejected, the false-alarm rate, 1 - specificity."""
    return _ratio(counts.fp, counts.tn + counts.fp)


def oracle_f1(label: ArrayLike, score: ArrayLike) -> float:
    """The best F1 that any threshold reaches on these very labels and scores [N]; nan with one
    class only. Optimistic on test images: it says what a better threshold could still bring.

    >>> oracle_f1([0, 0, 1, 1], [1.0, 3.0, 2.0, 4.0])
    0.8
    """
    label, score = _checked(label, score)
    if not _has_both(label):
        return math.nan
    return f1(confusion_at(label, score, f1_threshold(label, score)))


def escapes_at(label: ArrayLike, score: ArrayLike, max_overkill: float) -> float:
    """Share of the anomalous that passes at the lowest threshold that rejects at most the share
    `max_overkill` of these very normal images; labels and scores [N]. Nan with one class only.

    Nothing is interpolated: of n normal images the floor(n max_overkill) highest scores may raise
    an alarm, and of fewer than 1 / max_overkill none may. An anomalous image that ties with the
    highest score that may not, passes.

    Raises ValueError when max_overkill lies outside [0, 1).

    >>> escapes_at([0, 0, 0, 1, 1], [1.0, 2.0, 5.0, 2.0, 4.0], 0.34)
    0.5
    """
    if not 0 <= max_overkill < 1:
        raise ValueError(f"max_overkill must lie in [0, 1), got {max_overkill}")
    label, score = _checked(label, score)
    if not _has_both(label):
        return math.nan
    normal = np.sort(score[label == NORMAL])
    highest_passing = normal[-1 - math.floor(max_overkill * normal.size + 1e-9)]
    return float(np.mean(score[label == ANOMALOUS] <= highest_passing))


def all_positive_f1(num_positive: int, num_negative: int) -> float:
    """F1 of calling everything anomalous, 2P / (2P + N): the reference to print beside any F1.

    >>> round(all_positive_f1(50, 152), 3)
    0.397
    """
    if num_positive < 0 or num_negative < 0:
        raise ValueError(f"counts must be >= 0, got {num_positive} and {num_negative}")
    return _ratio(2 * num_positive, 2 * num_positive + num_negative)


def image_metrics(label: ArrayLike, score: ArrayLike, threshold: float) -> dict[str, float]:
    """Every figure of this file for labels and scores [N] at one threshold, by name;
    `escapes_at_1` allows 1 % overkill.

    >>> metrics = image_metrics([0, 0, 1], [0.1, 0.4, 0.9], threshold=0.3)
    >>> metrics["auroc"], metrics["overkill"], metrics["num_normal"]
    (1.0, 0.5, 2.0)
    """
    counts = confusion_at(label, score, threshold)
    num_normal, num_anomalous = counts.tn + counts.fp, counts.fn + counts.tp
    formulas = (f1, recall, precision, specificity, balanced_accuracy, mcc, accuracy)
    return {
        "auroc": auroc(label, score),
        "average_precision": average_precision(label, score),
        **{formula.__name__: formula(counts) for formula in (*formulas, escapes, overkill)},
        "oracle_f1": oracle_f1(label, score),
        "escapes_at_1": escapes_at(label, score, 0.01),
        "all_positive_f1": all_positive_f1(num_anomalous, num_normal),
        "threshold": float(threshold),
        "num_normal": float(num_normal),
        "num_anomalous": float(num_anomalous),
        **{name: float(count) for name, count in counts._asdict().items()},
    }


def transductive(score: ArrayLike) -> NDArray[np.float64]:
    """Scores [N] as (s - min) / (max - min) over these very scores, in [0, 1].

    Transductive: what an image gets depends on the other images of the test, so that one image
    alone has no such score, and a set without anomalous images has one that says 1 all the same.

    Raises ValueError for fewer than two scores or for equal ones.

    >>> transductive([2.0, 3.0, 6.0]).tolist()
    [0.0, 0.25, 1.0]
    """
    scores = np.asarray(score, dtype=np.float64)
    if scores.size < 2 or scores.min() == scores.max():
        what = f"{scores.size} image(s)" if scores.size < 2 else f"{scores.size} equal scores"
        raise ValueError(
            f"transductive scaling needs two different scores or more and got {what}; evaluate "
            "more images, or leave it"
        )
    scaled: NDArray[np.float64] = (scores - scores.min()) / (scores.max() - scores.min())
    return scaled


def transductive_metrics(label: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """What calling an image anomalous above 0.5 of the `transductive` scale does, and the raw
    scores (low, high) that the scale ends at; labels and scores [N].

    The mean accuracy is that of both labels, each weighing half.
    """
    above = math.nextafter(0.5, 1)
    counts = confusion_at(label, transductive(score), above)
    scores = np.asarray(score, dtype=np.float64)
    return {
        "accuracy_normal": specificity(counts),
        "accuracy_anomalous": recall(counts),
        "mean_accuracy": balanced_accuracy(counts),
        "low": float(scores.min()),
        "high": float(scores.max()),
    }


def f1_threshold(label: ArrayLike, score: ArrayLike) -> float:
    """Threshold of the highest F1 on held-out labels and scores [N]: the middle of the gap between
    the two neighboring scores. Among equally good gaps the widest wins, the lower one if they are
    equally wide. When calling everything anomalous is best, it is the lowest score.

    Raises ValueError unless both classes are there.

    >>> f1_threshold([0, 0, 1, 1], [1.0, 2.0, 4.0, 9.0])
    3.0
    """
    label, score = _checked(label, score)
    if not _has_both(label):
        raise ValueError(
            f"an F1 threshold needs scores of both classes, got {int(np.sum(label == NORMAL))} "
            f"normal and {int(np.sum(label == ANOMALOUS))} anomalous; see quantile_threshold"
        )
    level, rank = np.unique(score, return_inverse=True)  # candidates: anomalous from level[k] up
    tp = np.bincount(rank, weights=label)[::-1].cumsum()[::-1]
    alarms = np.bincount(rank)[::-1].cumsum()[::-1]
    quality = 2 * tp / (alarms + label.sum())
    gap = np.diff(level, prepend=level[0])
    best = np.flatnonzero(np.isclose(quality, quality.max(), rtol=1e-12, atol=0))
    chosen = best[np.argmax(gap[best])]
    middle = float(level[chosen] - gap[chosen] / 2)
    below = level[chosen - 1] if chosen else -math.inf
    return middle if middle > below else float(level[chosen])  # neighbors one rounding step apart


def quantile_threshold(normal_scores: ArrayLike, max_false_alarm: float) -> float:
    """Threshold that a new normal image reaches with probability <= max_false_alarm, from held-out
    normal scores [N]: just above their order statistic k = ceil((N + 1)(1 - max_false_alarm)).

    The promise holds on average over draws of the held-out images, for any distribution. Fewer
    than 1/max_false_alarm - 1 images cannot promise so much (k > N): then just above the highest
    score, whose false-alarm rate is 1/(N + 1). Raises ValueError when there are no scores or when
    max_false_alarm lies outside [0, 1).

    >>> 19.0 < quantile_threshold(range(1, 20), 0.05) < 19.000001
    True
    """
    scores = np.sort(np.asarray(normal_scores, dtype=np.float64).ravel())
    if not 0 <= max_false_alarm < 1:
        raise ValueError(f"max_false_alarm must lie in [0, 1), got {max_false_alarm}")
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(
            f"a threshold needs at least one normal score and finite ones only, got {scores.size} "
            f"scores, {int(np.sum(~np.isfinite(scores)))} of them not finite"
        )
    order = math.ceil((scores.size + 1) * (1 - max_false_alarm) - 1e-9)
    return float(np.nextafter(scores[min(order, scores.size) - 1], np.inf))


def choose_threshold(
    label: ArrayLike, score: ArrayLike, *, min_positives: int = 5, max_false_alarm: float = 0.05
) -> Threshold:
    """The working point from held-out labels and scores [N]: the best F1 with at least
    `min_positives` anomalous ones, else the quantile of the normal scores for `max_false_alarm`.

    Raises ValueError when no normal score is there.

    >>> choose_threshold([0, 0, 0, 1], [0.5, 0.25, 0.75, 2.0], min_positives=1)
    Threshold(value=1.375, rule='f1', num_normal=3, num_anomalous=1)
    """
    label, score = _checked(label, score)
    num_normal, num_anomalous = int(np.sum(label == NORMAL)), int(np.sum(label == ANOMALOUS))
    if num_anomalous >= max(min_positives, 1):
        return Threshold(f1_threshold(label, score), "f1", num_normal, num_anomalous)
    value = quantile_threshold(score[label == NORMAL], max_false_alarm)
    return Threshold(value, "quantile", num_normal, num_anomalous)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _has_both(label: NDArray[np.int64]) -> bool:
    return bool(np.any(label == NORMAL) and np.any(label == ANOMALOUS))


def _checked(label: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    label, score = np.asarray(label), np.asarray(score, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise ValueError(
            f"labels and scores must both have shape [N], got {label.shape} and {score.shape}"
        )
    if not np.isin(label, (NORMAL, ANOMALOUS)).all():
        raise ValueError(
            f"labels must be {NORMAL} (normal) or {ANOMALOUS} (anomalous), "
            f"got {np.unique(label)[:5].tolist()}"
        )
    if not np.isfinite(score).all():
        raise ValueError(
            f"{int(np.sum(~np.isfinite(score)))} of {score.size} scores are not finite"
        )
    return label.astype(np.int64), score
