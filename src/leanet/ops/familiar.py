"""What is familiar, learned from N values of several statistics: bands, limits, distances.

*One picture* is unlike the others when a statistic lies outside its limits, median - u low and
median + u high, where low and high are the spreads below and above the median (in units of a normal
SD, from the 5th and 95th or, where the tails are heavier, from the 1st and 99th percentile). One u
serves all statistics: the largest excess of a picture over its statistics is one number, and u is
`MARGIN` times that quantile of the N numbers that the next picture exceeds with a probability of at
most `LIMIT_RATE`, whatever the distributions are, as in conformal prediction (Vovk, Gammerman and
Shafer 2005, Algorithmic Learning in a Random World); of fewer than 199 pictures the largest, which
promises 1 / (N + 1). That holds for pictures that could have been drawn together with the N.

*Many pictures* differ when the distance of Kolmogorov and Smirnov, the largest difference between
two shares of values below a limit, is larger than chance makes it:

    D > c sqrt(1/n + 1/N),  c = sqrt(-ln(alpha / 2) / 2)

for n and N values and a chance of alpha (Smirnov 1948, doi:10.1214/aoms/1177730256, whose limit is
on the safe side for few values). D itself is the size of the effect: 0.3 is what a shift of three
quarters of an SD makes of a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LIMIT_RATE: Final = 0.005  # of normal pictures beyond the limits of any statistic
MARGIN: Final = 1.1  # because the spreads are estimates as well
PARTS: Final = 20
LEAST_U: Final = 3.0
SHARES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
GRID: Final = 201  # values that stand for a distribution, evenly spaced in share
_SD_95, _SD_99 = 1.644854, 2.326348  # of a normal distribution, at those shares


class Spread(NamedTuple):
    """Median, and the spreads below and above it in units of a normal SD."""

    median: float
    low: float
    high: float


def summary(values: ArrayLike) -> dict[str, Any]:
    """JSON of N > 0 values: their number, mean, quantiles by share, and a grid of quantiles that
    stands for the distribution in `distance`."""
    array = np.asarray(values, dtype=np.float64)
    grid = np.quantile(array, np.linspace(0, 1, min(GRID, max(2, array.size))))
    return {
        "num": int(array.size),
        "mean": _short(array.mean()),
        "quantiles": {f"{share:g}": _short(np.quantile(array, share)) for share in SHARES},
        "grid": [_short(value) for value in grid],
    }


def spread_of(values: ArrayLike, least: float = 0.0) -> Spread:
    """The spreads of N > 0 values, each at least `least`.

    >>> spread_of([1.0, 1.0, 1.0], least=0.5)
    Spread(median=1.0, low=0.5, high=0.5)
    """
    array = np.asarray(values, dtype=np.float64)
    first, fifth, median, most, last = np.quantile(array, (0.01, 0.05, 0.5, 0.95, 0.99))
    low = max((median - fifth) / _SD_95, (median - first) / _SD_99, least)
    high = max((most - median) / _SD_95, (last - median) / _SD_99, least)
    return Spread(_short(median), _short(low), _short(high))


def excess(value: ArrayLike, spread: Spread) -> NDArray[np.float64]:
    """How far values lie from the median, in spreads of their side, >= 0."""
    away = np.asarray(value, dtype=np.float64) - spread.median
    return np.where(away < 0, -away / spread.low, away / spread.high)


def limit_of(values: Mapping[str, ArrayLike], least: Mapping[str, float]) -> tuple[float, float]:
    """u, and the probability (at most) that the next picture exceeds it in any statistic, from the
    values [N] of every statistic and the least spread of each.

    The excess of a picture is taken over spreads that have not seen it (`PARTS` parts of the
    pictures take turns): spreads fit their own pictures too well.
    """
    table = np.stack([np.asarray(one, dtype=np.float64) for one in values.values()])  # [S, N]
    num = table.shape[1]
    part = np.arange(num) % min(PARTS, num)
    largest = np.empty(num)
    for k in range(part.max() + 1):
        rows = zip(values, table[:, part != k], table[:, part == k], strict=True)
        found = [excess(new, spread_of(known, least[name])) for name, known, new in rows]
        largest[part == k] = np.max(found, axis=0)
    rank = math.ceil((num + 1) * (1 - LIMIT_RATE))
    rate = LIMIT_RATE if rank <= num else 1 / (num + 1)
    u = MARGIN * float(np.sort(largest)[min(rank, num) - 1])
    return max(LEAST_U, _short(u)), rate


class Shares(NamedTuple):
    """A distribution: at each of K rising places the shares of values below it and up to it, ends
    [K, 2]; between two places the share rises linearly. `num` values stand behind it."""

    places: NDArray[np.float64]
    ends: NDArray[np.float64]
    num: int

    def at(self, value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The shares below, and up to, each of some values."""
        between = np.interp(
            value, np.repeat(self.places, 2), self.ends.ravel(), left=0.0, right=1.0
        )
        place = np.minimum(np.searchsorted(self.places, value), self.places.size - 1)
        on = self.places[place] == value
        below, upto = (np.where(on, self.ends[place, k], between) for k in (0, 1))
        return below, upto


def shares_of(known: Mapping[str, Any]) -> Shares:
    """The distribution that the grid of a `summary` stands for."""
    grid = np.asarray(known["grid"], dtype=np.float64)
    places, first, counts = np.unique(grid, return_index=True, return_counts=True)
    shares = np.linspace(0, 1, grid.size)
    ends = np.stack([shares[first], shares[first + counts - 1]], axis=1)
    return Shares(places, ends, int(known["num"]))


def distance(values: ArrayLike, known: Shares) -> float:
    """The distance of Kolmogorov and Smirnov in [0, 1] between n > 0 values and a distribution."""
    array = np.sort(np.asarray(values, dtype=np.float64))
    below, upto = known.at(array)
    mine_upto = np.searchsorted(array, array, side="right") / array.size
    mine_below = np.searchsorted(array, array, side="left") / array.size
    return float(max(np.max(mine_upto - upto), np.max(below - mine_below), 0.0))


def share_from(limit: float, known: Shares) -> float:
    """The share of values that are at least `limit`."""
    below, _ = known.at(np.array([limit]))
    return float(1 - below[0])


def chance_distance(num: int, known: int, alpha: float) -> float:
    """The distance that two samples of `num` and `known` values of one distribution exceed with a
    probability of at most about alpha.

    >>> round(chance_distance(200, 200, 0.05), 3)  # 1.36 sqrt(2 / 200)
    0.136
    """
    return math.sqrt(-math.log(alpha / 2) / 2 * (1 / num + 1 / known))


def _short(value: float) -> float:
    """Six digits: a file that a person can read."""
    return float(f"{float(value):.6g}")
