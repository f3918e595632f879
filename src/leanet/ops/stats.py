"""How sure is a number: spread, intervals, and paired comparisons.

Figures from k folds share most of their training data, so their plain standard error is too small
and a plain paired t test finds differences that are not there. `paired_difference` therefore takes
the ratio n_test / n_train and widens the variance of the mean from s^2 / n to
s^2 (1/n + n_test/n_train), the corrected resampled t test of Nadeau & Bengio (2003),
doi:10.1023/A:1024068626366. Counts get the exact interval of Clopper & Pearson (1934),
doi:10.1093/biomet/26.4.404, verdicts of two systems on the same images the exact test of
McNemar (1947), doi:10.1007/BF02295996, anything else the percentile bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class MeanSD(NamedTuple):
    """Mean and sample standard deviation (ddof = 1)."""

    mean: float
    sd: float


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


class PairedDifference(NamedTuple):
    """Mean difference a - b, SD of the differences, t interval of the mean, two-sided p, pairs."""

    mean: float
    sd: float
    low: float
    high: float
    p: float
    n: int


class McNemar(NamedTuple):
    """Images that only a, or only b, got right, and the exact two-sided p."""

    only_a: int
    only_b: int
    p: float


def mean_sd(values: ArrayLike) -> MeanSD:
    """Mean and SD with ddof = 1 of values [N]. The SD of one value is nan, and so are both when
    a value is nan or when there is none.

    >>> mean_sd([1.0, 2.0, 3.0])
    MeanSD(mean=2.0, sd=1.0)
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    mean = float(array.mean()) if array.size else math.nan
    return MeanSD(mean, float(array.std(ddof=1)) if array.size > 1 else math.nan)


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    rng: np.random.Generator,
    level: float = 0.95,
    num: int = 1000,
    label: ArrayLike | None = None,
) -> Interval:
    """Percentile interval of `statistic(*arrays)` over `num` resamples of the rows [N, ...].

    With `label` [N], rows are drawn within each label, so that every resample keeps the class
    counts. Resamples whose statistic is nan are left out; (nan, nan) when all are.
    Raises ValueError for no rows, unequal lengths, or a level outside (0, 1).

    >>> rng = np.random.default_rng(0)
    >>> bootstrap_interval(np.mean, [0.0, 0.0, 1.0, 1.0], rng=rng, label=[0, 0, 1, 1])
    Interval(low=0.5, high=0.5)
    """
    _check_level(level)
    rows: list[NDArray[Any]] = [np.asarray(array) for array in arrays]
    size = len(rows[0]) if rows else 0
    strata = np.zeros(size) if label is None else np.asarray(label)
    if size == 0 or any(len(array) != size for array in [*rows, strata]) or num < 1:
        raise ValueError(
            f"a bootstrap needs arrays of one length > 0 and num >= 1, got lengths "
            f"{[len(array) for array in rows]}, {len(strata)} labels and num = {num}"
        )
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    draws = np.empty(num)
    for i in range(num):
        index = np.concatenate(
            [group[rng.integers(group.size, size=group.size)] for group in groups]
        )
        draws[i] = statistic(*(array[index] for array in rows))
    draws = draws[~np.isnan(draws)]
    if draws.size == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a share of which k in n were seen; (0, 1) for n = 0.

    Raises ValueError unless 0 <= k <= n.

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    _check_level(level)
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n, got k = {k}, n = {n}")
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(stats.beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return Interval(low, high)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a share of which k in n were seen (Wilson 1927,
    doi:10.1080/01621459.1927.10502953): narrower than the exact one and right on average rather
    than at least; (0, 1) for n = 0.

    Raises ValueError unless 0 <= k <= n.

    >>> [round(100 * end, 1) for end in wilson(77, 114)]
    [58.5, 75.4]
    """
    _check_level(level)
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n, got k = {k}, n = {n}")
    if n == 0:
        return Interval(0.0, 1.0)
    z = float(stats.norm.isf((1 - level) / 2))
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return Interval(
        max(middle - half, 0.0) if k else 0.0, min(middle + half, 1.0) if k < n else 1.0
    )


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, test_share: float | None = None, level: float = 0.95
) -> PairedDifference:
    """Mean of a - b over paired folds [N] with its t interval and p.

    `test_share` = n_test / n_train (0.25 for five folds) corrects for folds that share training
    data; without it the pairs count as independent. Pairs with a nan are left out, and `n` says
    how many remain; fewer than two leave interval and p nan. All differences 0 give p = 1, all
    equal to another value p = 0. Raises ValueError for unequal lengths or test_share <= 0.

    >>> paired_difference([0.9, 0.8], [0.9, 0.8])
    PairedDifference(mean=0.0, sd=0.0, low=0.0, high=0.0, p=1.0, n=2)
    """
    _check_level(level)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"pairs must have one shape [N], got {first.shape} and {second.shape}")
    if test_share is not None and test_share <= 0:
        raise ValueError(f"test_share = n_test / n_train must be > 0, got {test_share}")
    difference = first - second
    difference = difference[~np.isnan(difference)]
    n = difference.size
    mean, sd = mean_sd(difference)
    if n < 2:
        return PairedDifference(mean, sd, math.nan, math.nan, math.nan, n)
    error = sd * math.sqrt(1 / n + (test_share or 0.0))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return PairedDifference(mean, sd, mean - half, mean + half, p, n)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Do two systems differ in their share of right verdicts on the same images [N]? Exact: the
    images that only one got right are tosses of a fair coin if they do not.

    >>> mcnemar([1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0])
    McNemar(only_a=5, only_b=0, p=0.0625)
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"verdicts must have one shape [N], got {first.shape} and {second.shape}")
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(~first & second))
    tosses = only_a + only_b
    p = float(stats.binomtest(only_a, tosses).pvalue) if tosses else 1.0
    return McNemar(only_a, only_b, p)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), e.g. 0.95, got {level}")
