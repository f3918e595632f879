"""What a benchmark with few labelled defects shows: figures by k, differences, the criterion.

Differences are the default arm's minus another's, paired by trial (seed, draw, fold), with the t
interval of their mean. Trials of a data set share most of their images, so these intervals are
optimistic: they tell what other draws from the same photographs would give.

*On average at k <= 5* each data set weighs the same: in each trial the difference is averaged over
k, since the defects of a small k are among those of a larger one, then over the trials, then over
the data sets. Two intervals stand beside it. The one over data sets (t distribution, a value for
each set) decides: it holds for other sets of this sort. A bootstrap that resamples both sets and
trials aims at the same, but is too narrow for a handful of sets. The one over draws takes these
sets as all there are (`leanet.ops.stratified`).

The *best rival* is the one with the best mean on the test images, for each data set and k anew.
That is optimistic for the rivals: the best of five lies above their mean even if all are the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from leanet.ops.comparing import BETTER, OPEN, UNTESTED, WORSE
from leanet.ops.stats import MeanSD, PairedDifference, mean_sd, paired_difference
from leanet.ops.stratified import stratified_mean
from leanet.report.comparison import NO_SPREAD
from leanet.report.few_results import FewDefects, FewTrial

METRICS = {  # column of results.csv -> title
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1 at its own threshold",
    "oracle_f1": "F1, oracle threshold",
    "recall": "Recall at its own threshold",
    "overkill": "Overkill at its own threshold",
    "escapes_at_1": "Escapes at 1 % overkill",
}
MAIN = "auroc"  # what the criterion is about
LOWER = frozenset({"escapes_at_1"})  # the lower the better
UNRANKED = frozenset({"recall", "overkill"})  # one is bought with the other
AVERAGED = ("average_precision", "f1", "oracle_f1", "escapes_at_1")  # beside the main one
BEST = "best rival"
FEW = 5  # up to this k the average is taken
ENOUGH, WANTED = 3, 0.9  # from this k on, the share of the oracle F1 that is asked for


class Standing(NamedTuple):
    """A figure of an arm at some k: mean and SD over `n` trials; whether it is the best mean."""

    figure: MeanSD
    n: int
    best: bool


class Judged(NamedTuple):
    """The default minus a rival at some k; `verdict` is a word of `leanet.ops.comparing`."""

    data: str
    k: int
    rival: str
    difference: PairedDifference
    verdict: str


class Average(NamedTuple):
    """The default minus a rival at small k. `by_data` holds the data sets that have it."""

    rival: str
    by_data: Mapping[str, PairedDifference]
    over_data: PairedDifference
    over_draws: PairedDifference


class Honest(NamedTuple):
    """Mean F1 at the own threshold and at the best one, their ratio, and in how many of `n` trials
    the ratio is high enough."""

    f1: float
    oracle: float
    share: float
    reached: int
    n: int


def series(few: FewDefects, data: str, k: int, arm: str, metric: str) -> dict[FewTrial, float]:
    """A figure of an arm for the trials that have it."""
    found = few.trials_of(data, k, arm)
    values = {trial: figures.get(metric, math.nan) for trial, figures in found.items()}
    return {trial: value for trial, value in values.items() if not math.isnan(value)}


def standings(few: FewDefects, data: str, metric: str) -> dict[tuple[str, int], Standing]:
    """By arm and k, what is there. Best among those with the most trials; several where rounding
    to three decimals makes them equal."""
    found: dict[tuple[str, int], Standing] = {}
    for k in few.plan.labelled:
        column = {
            arm.name: list(values.values())
            for arm in few.plan.arms
            if (values := series(few, data, k, arm.name, metric))
        }
        most = max(map(len, column.values()), default=0)
        means = [round(mean_sd(v).mean, 3) for v in column.values() if len(v) == most]
        top = (min if metric in LOWER else max)(means, default=math.nan)
        for name, numbers in column.items():
            figure = mean_sd(numbers)
            best = len(numbers) == most and round(figure.mean, 3) == top
            found[name, k] = Standing(figure, len(numbers), best and metric not in UNRANKED)
    return found


def against(few: FewDefects, data: str, k: int, rival: str, metric: str = MAIN) -> Judged:
    """The default minus a rival. A pair alone, or pairs that all differ by the same amount, say
    nothing of their spread: no interval, not tested."""
    values = list(_pairs(few, data, k, rival, metric).values())
    found = paired_difference(values, [0.0] * len(values))
    if found.sd < NO_SPREAD and abs(found.mean) > NO_SPREAD:
        found = found._replace(low=math.nan, high=math.nan, p=math.nan)
    return Judged(data, k, rival, found, verdict(found, metric))


def verdict(difference: PairedDifference, metric: str = MAIN) -> str:
    """The word for a difference, by its interval alone.

    >>> verdict(PairedDifference(0.02, 0.01, 0.005, 0.035, 0.02, 5))
    'better'
    """
    if math.isnan(difference.low):
        return UNTESTED
    if difference.low <= NO_SPREAD and difference.high >= -NO_SPREAD:
        return OPEN
    return BETTER if (difference.mean > 0) != (metric in LOWER) else WORSE


def best_rival(few: FewDefects, data: str, k: int, metric: str = MAIN) -> Judged | None:
    """The default minus the rival with the best mean over the trials that both have; None where no
    rival has one of the default's."""
    pairs = {rival: _pairs(few, data, k, rival, metric) for rival in few.plan.rivals}
    means = {rival: _mean(values.values()) for rival, values in pairs.items() if values}
    sign = -1 if metric in LOWER else 1
    best = min(means, key=lambda rival: sign * means[rival], default=None)
    return None if best is None else against(few, data, k, best, metric)


def averages(
    few: FewDefects, data: Sequence[str], rivals: Sequence[str], metric: str = MAIN
) -> list[Average]:
    """The default minus each rival (`BEST`: the best of each data set and k) over data sets, for
    the k up to 5; of those rivals that some data set has."""
    found = []
    for rival in rivals:
        by_data = {name: _of_trials(few, name, rival, metric) for name in data}
        values = {name: list(v.values()) for name, v in by_data.items() if v}
        if values:
            means = {name: paired_difference(v, [0.0] * len(v)) for name, v in values.items()}
            tops = [one.mean for one in means.values()]
            over_data = paired_difference(tops, [0.0] * len(tops))
            over_draws = stratified_mean(list(values.values()))
            found.append(Average(rival, means, over_data, over_draws))
    return found


def _of_trials(few: FewDefects, data: str, rival: str, metric: str) -> dict[FewTrial, float]:
    """The difference of each trial, averaged over the small k that some trial has; trials that lack
    one of them are left out."""
    by_k: list[dict[FewTrial, float]] = []
    for k in (k for k in few.plan.labelled if k <= FEW):
        best = best_rival(few, data, k, metric) if rival == BEST else None
        pairs = _pairs(few, data, k, best.rival if best else rival, metric)
        by_k += [pairs] if pairs else []
    return {
        trial: _mean([pairs[trial] for pairs in by_k])
        for trial in (by_k[0] if by_k else ())
        if all(trial in pairs for pairs in by_k)
    }


def cells_judged(few: FewDefects) -> list[Judged]:
    """Every data set with known kinds and every k: the default minus the best rival there."""
    found = (best_rival(few, data, k) for data in few.seen for k in few.labelled_of(data))
    return [one for one in found if one is not None]


def unseen_judged(few: FewDefects) -> list[Judged]:
    """Every data set with kinds unseen in training and every k: the default minus the map only."""
    rival = few.plan.map_only
    if rival is None:
        return []
    every = [
        against(few, data, k, rival)
        for data in few.data
        if data in few.unseen
        for k in few.labelled_of(data)
    ]
    return [one for one in every if one.difference.n]


def honest(few: FewDefects, data: str, k: int) -> Honest | None:
    """The default's F1 at its own threshold beside the oracle's; None where nothing is there."""
    default = few.plan.default or ""
    own, oracle = (series(few, data, k, default, name) for name in ("f1", "oracle_f1"))
    shared = [trial for trial in own if trial in oracle]
    if not shared:
        return None
    ours, theirs = _mean([own[t] for t in shared]), _mean([oracle[t] for t in shared])
    reached = sum(own[t] >= WANTED * oracle[t] for t in shared)
    return Honest(ours, theirs, ours / theirs if theirs else math.nan, reached, len(shared))


def _pairs(few: FewDefects, data: str, k: int, rival: str, metric: str) -> dict[FewTrial, float]:
    """The default minus a rival in each trial that both have."""
    ours = series(few, data, k, few.plan.default or "", metric)
    theirs = series(few, data, k, rival, metric)
    return {trial: ours[trial] - theirs[trial] for trial in ours if trial in theirs}


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values)
