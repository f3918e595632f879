"""Are two methods different, judged by a few runs of each on the same test images?

Two things vary: which images happened to be in the test set, and which weights, order and
augmentation a run happened to draw. A figure per image for every draw, [S, N], holds both, and a
difference between methods has to hold against both:

* the *two-level bootstrap* draws images (or groups of images that belong together) and draws with
  replacement, so that several runs on one image are never counted as several images;
* the *paired t test over draws* asks whether another draw would show the difference again, and
  Holm's correction pays for asking it of several methods.

A difference is called better or worse only if the interval excludes 0 *and* the corrected p is
below 0.05. Each alone is too generous: a bootstrap over a handful of draws is too narrow.

McNemar's test (`leanet.ops.stats`) judges two given sets of weights and not the methods behind
them. How large a difference it can see is known beforehand (Miettinen 1968, doi:10.2307/2528457;
Connor 1987, doi:10.2307/2531961): with a share psi of images that only one of the two gets right,
n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2 images show a difference d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from leanet.ops.stats import Interval, PairedDifference, paired_difference

LEVEL = 0.05
NUM_DRAWS = 10_000
MOST_CELLS = 2**22  # of a block of resamples: 32 MB
DISCORDANT = (0.1, 0.2, 0.3)  # shares of images that only one of two runs gets right
BETTER, WORSE, OPEN, UNTESTED = "better", "worse", "not distinguishable", "not tested"

Values = NDArray[np.float64]


class Contrast(NamedTuple):
    """A method minus the baseline: t test over draws, two-level interval, p after Holm's
    correction, and what that comes to (`BETTER`, `WORSE`, `OPEN`, or `UNTESTED`)."""

    over_draws: PairedDifference
    interval: Interval
    p_holm: float
    verdict: str


def contrasts(
    differences: Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    groups: ArrayLike | None = None,
    num: int = NUM_DRAWS,
) -> list[Contrast]:
    """Judge several methods against one baseline: differences [S, N] by draw and image, of each."""
    paired = [over_draws(difference) for difference in differences]
    corrected = holm([one.p for one in paired])
    found = []
    for difference, one, p in zip(differences, paired, corrected, strict=True):
        interval = two_level_interval(difference, rng=rng, groups=groups, num=num)
        found.append(Contrast(one, interval, p, verdict(interval, p)))
    return found


def verdict(interval: Interval, p_holm: float) -> str:
    """The word for a difference.

    >>> verdict(Interval(0.01, 0.05), 0.2), verdict(Interval(0.01, 0.05), 0.01)
    ('not distinguishable', 'better')
    """
    if math.isnan(p_holm) or math.isnan(interval.low):
        return UNTESTED
    if p_holm >= LEVEL or interval.low <= 0 <= interval.high:
        return OPEN
    return BETTER if interval.low > 0 else WORSE


def over_draws(difference: ArrayLike) -> PairedDifference:
    """The t test of a difference [S, N] over its S draws; interval and p are nan for one draw.

    Means over N images are multiples of 1/N where the values are counts, so equal means of all
    draws do not show that there is no spread: the variance is at least 1 / (12 N^2).

    >>> round(over_draws([[0, 1, 0, 0], [0, 0, 1, 0]]).p, 3)
    0.128
    """
    table = _table(difference)
    means = table.mean(axis=1)
    found = paired_difference(means, np.zeros(len(means)))
    least = 1 / (table.shape[1] * math.sqrt(12))
    if found.n < 2 or found.sd >= least:
        return found
    error = least / math.sqrt(found.n)
    half = float(stats.t.ppf(1 - LEVEL / 2, found.n - 1)) * error
    p = float(2 * stats.t.sf(abs(found.mean) / error, found.n - 1))
    return found._replace(low=found.mean - half, high=found.mean + half, p=p)


def two_level_interval(
    difference: ArrayLike,
    *,
    rng: np.random.Generator,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    num: int = NUM_DRAWS,
) -> Interval:
    """Percentile interval of the mean of a difference [S, N] over resampled draws and images.

    With `groups` [N], whole groups of images are drawn, and a resample's mean is over its images.
    Memory is bounded whatever the size. Raises ValueError for an empty table, unequal lengths, or
    a level outside (0, 1).

    >>> two_level_interval(np.full((3, 8), 0.25), rng=np.random.default_rng(0), num=50)
    Interval(low=0.25, high=0.25)
    """
    table = _table(difference)
    if not 0 < level < 1 or num < 1:
        raise ValueError(f"level must lie in (0, 1) and num be >= 1, got {level} and {num}")
    member = np.arange(table.shape[1]) if groups is None else np.asarray(groups)
    if member.shape != table.shape[1:]:
        raise ValueError(f"got groups of shape {member.shape} for {table.shape[1]} images")
    _, place = np.unique(member, return_inverse=True)
    size = np.bincount(place).astype(np.float64)
    sums: Values = np.stack([np.bincount(place, weights=row) for row in table]).astype(np.float64)
    block = max(1, MOST_CELLS // size.size)
    draws = [_resampled(sums, size, rng, min(block, num - start)) for start in range(0, num, block)]
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def holm(p: Sequence[float]) -> list[float]:
    """p values after the step-down correction of Holm (1979, Scand. J. Statist. 6, 65-70): those
    below a level hold at that level all together. A nan stays and counts as no comparison.

    >>> [round(value, 2) for value in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])
    corrected, largest = list(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def images_needed(difference: float, discordant: float, power: float = 0.8) -> float:
    """Test images for McNemar's test to show a difference of two accuracies at 5 %, when only one
    of the two is right on a share `discordant` of them.

    Raises ValueError unless 0 < |difference| <= discordant <= 1.

    >>> [round(images_needed(0.044, share)) for share in (0.1, 0.2, 0.3)]
    [403, 808, 1214]
    """
    size = abs(difference)
    if not 0 < size <= discordant <= 1:
        raise ValueError(
            f"a difference lies between 0 and the discordant share, got {difference} and "
            f"{discordant}"
        )
    spread = float(stats.norm.isf(LEVEL / 2)) * math.sqrt(discordant)
    spread += float(stats.norm.ppf(power)) * math.sqrt(discordant - size * size)
    return (spread / size) ** 2


def detectable_difference(num_images: int, discordant: float, power: float = 0.8) -> float:
    """The difference of two accuracies that McNemar's test shows at 5 % with so many images; nan
    where these are too few for any difference, as it cannot exceed the discordant share.

    >>> [round(100 * detectable_difference(114, share)) for share in (0.1, 0.2, 0.3)]
    [8, 12, 14]
    """
    if num_images < 1 or images_needed(discordant, discordant, power) > num_images:
        return math.nan
    root = optimize.brentq(
        lambda size: images_needed(size, discordant, power) - num_images, 1e-9, discordant
    )
    return float(root)


def could_have_seen(num_images: int) -> float:
    """The detectable difference at 20 % discordant images, or at the smallest larger share at which
    so few images show anything; nan for a handful.

    >>> round(100 * could_have_seen(114)), round(100 * could_have_seen(24))
    (12, 30)
    """
    shares = (DISCORDANT[1], DISCORDANT[2], 0.5, 1.0)
    sizes = [detectable_difference(num_images, share) for share in shares]
    return next((size for size in sizes if not math.isnan(size)), math.nan)


def _resampled(sums: Values, size: Values, rng: np.random.Generator, num: int) -> Values:
    """Means [num] of resamples of sums [S, G] over groups of so many images [G]."""
    of_draws = _multiplicities(len(sums), rng, num)
    of_groups = _multiplicities(size.size, rng, num)
    total = np.einsum("bs,bs->b", of_draws, of_groups @ sums.T)
    return np.asarray(total / (len(sums) * (of_groups @ size)))


def _multiplicities(size: int, rng: np.random.Generator, num: int) -> Values:
    """How often each of `size` things is drawn in a resample of that size, [num, size]."""
    drawn = rng.integers(size, size=(num, size)) + size * np.arange(num)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num * size)
    return counts.reshape(num, size).astype(np.float64)


def _table(difference: ArrayLike) -> Values:
    table = np.asarray(difference, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(
            f"a difference is a table [draws, images] of finite values, got shape {table.shape}"
        )
    return table
