"""Rules that choose a working point from held-out scores, and what a point does to them.

An image is called anomalous from the threshold on. *Escapes* are defects that pass, *overkill* is
good images that are rejected; each is a share of few images and gets the exact interval of Clopper
and Pearson. A limit on either says how many of the held-out images may fall on the wrong side: as
many as keep the share itself within the limit, or, to be `confident`, the upper end of its
interval. The threshold then lies in the middle of the gap beside the last of them, so that a score
that differs by rounding changes nothing.

The upper end holds although the threshold was taken from the same images: where the (m + 1)-th
lowest of n defects decides, the share of all defects below it follows Beta(m + 1, n - m), whose
quantile is that end (the distribution-free tolerance limits of Wilks 1941,
doi:10.1214/aoms/1177731788). With no defect missed in n, it is 1 - 0.025^(1/n): 368 are
needed to promise 1 %.

Between "surely good" and "surely bad" may lie a review zone, low <= score < high, in which a person
looks. It is the smallest one that holds the threshold and keeps both limits: `low` is the threshold
or, if too many defects lie below, the highest score that few enough lie below; `high` likewise.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanet.ops.stats import clopper_pearson
from leanet.records import ANOMALOUS, NORMAL

LEVEL = 0.95  # of all intervals here

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """`count` of `total` images: the share and its 95 % interval; nan, 0 and 1 without images."""

    count: int
    total: int
    value: float
    low: float
    high: float


class Costs(NamedTuple):
    """What a miss and a false alarm cost, in any one unit, and the share of defects on the line."""

    miss: float
    false_alarm: float
    prevalence: float


class Zone(NamedTuple):
    """What a review zone does: the shares of the normal and of the anomalous images that a person
    looks at, of the defects below it (escapes), and of the good images from its end on."""

    normal: Share
    anomalous: Share
    escapes: Share
    overkill: Share


def share_of(count: int, total: int) -> Share:
    """A share with its interval.

    >>> share_of(0, 0)
    Share(count=0, total=0, value=nan, low=0.0, high=1.0)
    """
    value = count / total if total else math.nan
    return Share(count, total, value, *clopper_pearson(count, total, LEVEL))


def allowed(limit: float, num: int, *, confident: bool = False) -> int | None:
    """How many of `num` images may be judged wrongly so that their share, or with `confident` the
    upper end of its interval, is at most `limit`; None where not even 0 is few enough.

    Raises ValueError unless 0 <= limit < 1.

    >>> allowed(0.05, 40), allowed(0.05, 40, confident=True), allowed(0.05, 72, confident=True)
    (2, None, 0)
    """
    if not 0 <= limit < 1:
        raise ValueError(f"a limit is a share in [0, 1), such as 0.01; got {limit}")
    if not confident:
        return math.floor(limit * num + 1e-9)
    few = bisect.bisect_right(range(num), limit, key=lambda m: clopper_pearson(m, num, LEVEL).high)
    return few - 1 if few else None


def needed(limit: float) -> float:
    """How many images, none of them judged wrongly, promise a share of at most `limit`.

    >>> needed(0.01), needed(0.5), needed(0.0)
    (368, 6, inf)
    """
    tail = (1 - LEVEL) / 2
    return math.ceil(math.log(tail) / math.log1p(-limit) - 1e-9) if limit > 0 else math.inf


def miss_threshold(label: ArrayLike, score: ArrayLike, misses: int) -> float:
    """The highest threshold that at most so many anomalous scores lie below; labels and scores [N].

    >>> miss_threshold([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0], 0)
    1.5
    >>> miss_threshold([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0], 1)
    3.5
    """
    scores, own = _of(label, score, ANOMALOUS)
    at = own[min(misses, own.size - 1)]
    below = scores[scores < at]
    return _middle(below.max(), at) if below.size else float(at)


def alarm_threshold(label: ArrayLike, score: ArrayLike, alarms: int) -> float:
    """The lowest threshold that at most so many normal scores reach; labels and scores [N].

    >>> alarm_threshold([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0], 0)
    3.5
    """
    scores, own = _of(label, score, NORMAL)
    at = own[max(own.size - 1 - alarms, 0)]
    above = scores[scores > at]
    return _middle(at, above.min()) if above.size else float(np.nextafter(at, np.inf))


def cost_threshold(label: ArrayLike, score: ArrayLike, costs: Costs) -> float:
    """The threshold of the lowest expected cost; labels and scores [N]. Among equally good gaps
    between scores the widest wins, the lower one if they are equally wide.

    >>> cost_threshold([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0], Costs(9.0, 1.0, 0.5))
    1.5
    """
    _check_costs(costs)
    scores, own = _of(label, score, ANOMALOUS)
    good = _of(label, score, NORMAL)[1]
    level = np.unique(scores)  # a threshold at each, and one above all
    ends = np.append(level, np.inf)
    misses = np.searchsorted(own, ends) / own.size
    alarms = 1 - np.searchsorted(good, ends) / good.size
    cost = _cost(costs, misses, alarms)
    gap = np.concatenate([[0.0], np.diff(level), [0.0]])
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-9) + 1e-300)
    chosen = int(best[np.argmax(gap[best])])
    if chosen == level.size:
        return float(np.nextafter(level[-1], np.inf))
    return _middle(level[chosen - 1], level[chosen]) if chosen else float(level[0])


def expected_cost(costs: Costs, escapes: float, overkill: float) -> float:
    """Expected cost of an image on the line, from the shares of escapes and of overkill.

    >>> expected_cost(Costs(50.0, 1.0, 0.02), escapes=0.1, overkill=0.25)
    0.345
    """
    return float(_cost(costs, np.float64(escapes), np.float64(overkill)))


def escapes_and_overkill(
    label: ArrayLike, score: ArrayLike, threshold: float
) -> tuple[Share, Share]:
    """What a threshold does to labels and scores [N]."""
    anomalous, normal = _counted(label, score)
    missed, rejected = int(np.sum(anomalous < threshold)), int(np.sum(normal >= threshold))
    return share_of(missed, anomalous.size), share_of(rejected, normal.size)


def review_zone(
    label: ArrayLike,
    score: ArrayLike,
    threshold: float,
    *,
    misses: int | None,
    alarms: int | None,
) -> tuple[float, float]:
    """The smallest zone (low, high) around the threshold with at most so many anomalous scores
    below it and normal ones from its end on; labels and scores [N]. None: it ends at the threshold.
    It is empty, low = high, where the threshold alone keeps both limits.

    >>> label, score = [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]
    >>> review_zone(label, score, 2.5, misses=0, alarms=0)
    (1.5, 3.5)
    >>> review_zone(label, score, 1.25, misses=0, alarms=0)
    (1.25, 3.5)
    """
    low = threshold if misses is None else min(threshold, miss_threshold(label, score, misses))
    high = threshold if alarms is None else max(threshold, alarm_threshold(label, score, alarms))
    return low, high


def zone_figures(label: ArrayLike, score: ArrayLike, low: float, high: float) -> Zone:
    """What the zone low <= score < high does to labels and scores [N]."""
    anomalous, normal = _counted(label, score)
    inside = [int(np.sum((own >= low) & (own < high))) for own in (normal, anomalous)]
    return Zone(
        share_of(inside[0], normal.size),
        share_of(inside[1], anomalous.size),
        share_of(int(np.sum(anomalous < low)), anomalous.size),
        share_of(int(np.sum(normal >= high)), normal.size),
    )


def _cost(costs: Costs, misses: _Floats | np.float64, alarms: _Floats | np.float64) -> _Floats:
    missed = costs.prevalence * costs.miss * misses
    rejected = (1 - costs.prevalence) * costs.false_alarm * alarms
    return np.asarray(missed + rejected)


def _check_costs(costs: Costs) -> None:
    priced = all(math.isfinite(cost) and cost > 0 for cost in (costs.miss, costs.false_alarm))
    if not priced or not 0 < costs.prevalence < 1:
        raise ValueError(
            "costs are finite and above 0, the prevalence of defects lies between 0 and 1; got "
            f"miss={costs.miss:g}, false_alarm={costs.false_alarm:g}, prevalence "
            f"{costs.prevalence:g}"
        )


def _of(label: ArrayLike, score: ArrayLike, wanted: int) -> tuple[_Floats, _Floats]:
    """All scores, and those of a label, ascending.

    Raises ValueError if there are none.
    """
    scores = np.asarray(score, dtype=np.float64)
    own = np.sort(scores[np.asarray(label) == wanted])
    if not own.size:
        what = "anomalous" if wanted == ANOMALOUS else "normal"
        raise ValueError(f"this rule needs held-out scores of {what} images, and there are none")
    return scores, own


def _counted(label: ArrayLike, score: ArrayLike) -> tuple[_Floats, _Floats]:
    """The anomalous and the normal scores."""
    labels, scores = np.asarray(label), np.asarray(score, dtype=np.float64)
    return scores[labels == ANOMALOUS], scores[labels == NORMAL]


def _middle(low: np.float64, high: np.float64) -> float:
    """Halfway up the gap; its upper end where both are one rounding step apart."""
    middle = float(low + (high - low) / 2)
    return middle if middle > low else float(high)
