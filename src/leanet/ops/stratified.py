"""A mean over several data sets that are all there are: each weighs the same, and only what was
drawn within them is left to chance.

The variance of the mean of G group means is the sum of s_g^2 / n_g over G^2; its degrees of freedom
are those of Satterthwaite (1946, doi:10.2307/3002019), as in Welch's t test, which is the case of
two groups. How far the groups lie apart does not widen the interval: it tells what other draws from
these very groups would give, and nothing about other groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from leanet.ops.stats import PairedDifference


def stratified_mean(groups: Sequence[ArrayLike], *, level: float = 0.95) -> PairedDifference:
    """Mean of the means of groups of differences [N_g], with its t interval and two-sided p.

    `sd` is that of the group means, `n` the number of all values. Interval and p are nan where a
    group has fewer than two values; no spread in any group gives an interval without width.

    Raises ValueError for no groups, an empty one, a nan, or a level outside (0, 1).

    >>> found = stratified_mean([[0.0, 0.2], [0.1, 0.5]])
    >>> round(found.mean, 3), found.n, found.low < 0 < found.high
    (0.2, 4, True)
    """
    values = [np.asarray(group, dtype=np.float64).ravel() for group in groups]
    if not values or any(not group.size or np.isnan(group).any() for group in values):
        raise ValueError(
            f"a stratified mean needs groups of one value or more without nan, got "
            f"{[group.tolist() for group in values]}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), e.g. 0.95, got {level}")
    means = np.array([group.mean() for group in values])
    mean, num = float(means.mean()), sum(group.size for group in values)
    sd = float(means.std(ddof=1)) if len(means) > 1 else math.nan
    if any(group.size < 2 for group in values):
        return PairedDifference(mean, sd, math.nan, math.nan, math.nan, num)
    parts = np.array([group.var(ddof=1) / group.size for group in values]) / len(values) ** 2
    error = math.sqrt(parts.sum())
    if error == 0:
        return PairedDifference(mean, sd, mean, mean, 1.0 if mean == 0 else 0.0, num)
    shares = parts / parts.sum()
    freedom = 1 / sum(
        share**2 / (group.size - 1) for share, group in zip(shares, values, strict=True)
    )
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return PairedDifference(mean, sd, mean - half, mean + half, p, num)
