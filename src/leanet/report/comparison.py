"""Series of trials beside each other: means, choices, paired differences, many of them at once.

A *series* holds the figures of one row of a benchmark for every trial (seed and fold) that is
finished. Trials that a series lacks are left out of what is computed, never filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leanet.ops.stats import MeanSD, PairedDifference, mean_sd, paired_difference
from leanet.report.results import Figures, Trial

Series = Mapping[Trial, Figures]
PIXEL = "pixel_"  # before the name of a pixel figure in results.csv
NO_SPREAD = 1e-12  # below it a difference is rounding
BEST_BY = ("f1_at_half", "f1", "accuracy")  # the first that a row has


class Choice(NamedTuple):
    """What was chosen: the series, the number of the row in each of its trials, and in how many of
    these another row was equally good."""

    series: Series
    picks: tuple[int, ...]
    num_ties: int


def average(rows: Sequence[Series]) -> Series:
    """The mean over rows of every figure, for the trials that all rows have."""
    shared = [trial for trial in rows[0] if all(trial in row for row in rows)]
    return {
        trial: {name: _mean([row[trial][name] for row in rows]) for name in rows[0][trial]}
        for trial in shared
    }


def _mean(values: Sequence[float]) -> float:
    """Rounded, so that the mean of equal figures is that figure and differs from it by nothing."""
    return round(math.fsum(values) / len(values), 12)


def choose(rows: Sequence[Series]) -> Choice:
    """For each trial that all rows have, the row with the highest `held_out_ap`: how well it ranks
    the images that were held out of its training part. The first of equals; trials without that
    figure are left out.
    """
    series, picks, num_ties = {}, [], 0
    for trial in rows[0]:
        ap = [row[trial]["held_out_ap"] if trial in row else math.nan for row in rows]
        if any(map(math.isnan, ap)):
            continue
        picks.append(ap.index(max(ap)))
        num_ties += ap.count(max(ap)) > 1
        series[trial] = rows[picks[-1]][trial]
    return Choice(series, tuple(picks), num_ties)


def best_on_test(rows: Sequence[Series], num_trials: int) -> int | None:
    """The row with the highest mean F1 on the test images (at p = 0.5 where that exists; of several
    classes the accuracy), the first of equals: an optimistic choice. None unless every row has all
    trials.
    """
    if any(len(row) < num_trials for row in rows):
        return None
    means = [
        {n: math.fsum(one.get(n, math.nan) for one in row.values()) / num_trials for n in BEST_BY}
        for row in rows
    ]
    name = next((n for n in BEST_BY if not any(math.isnan(mean[n]) for mean in means)), None)
    if name is None:
        return None
    return max(range(len(rows)), key=lambda k: means[k][name])


def difference(row: Series, baseline: Series, metric: str, num_folds: int) -> PairedDifference:
    """Row minus baseline over the trials that both have, with the interval and p of the corrected
    resampled t test. Its share of test to training images is the row's, or that of `num_folds`
    where the training images were not counted; one fold is the data set's own split, on which
    nothing is resampled, so its t test is the plain one, over seeds. Differences that are all the
    same, as those of two folds with a handful of anomalous images may be, say nothing of their
    spread: no interval, no p.
    """
    pairs = [trial for trial in row if trial in baseline]
    shares = [test_share(row[trial]) for trial in pairs]
    share = None if num_folds == 1 else _mean_share(shares, num_folds)
    ours, theirs = ([series[trial][metric] for trial in pairs] for series in (row, baseline))
    found = paired_difference(ours, theirs, test_share=share)
    if found.sd < NO_SPREAD and abs(found.mean) > NO_SPREAD:
        return found._replace(low=math.nan, high=math.nan, p=math.nan)
    return found


def _mean_share(shares: Sequence[float], num_folds: int) -> float:
    known = [share for share in shares if not math.isnan(share)]
    return math.fsum(known) / len(known) if known else 1 / (num_folds - 1)


def pixel_figures(series: Series) -> dict[str, MeanSD]:
    """Mean and SD over trials of the pixel figures that all of them have, by name in results.csv;
    {} without masks or maps."""
    names = dict.fromkeys(n for one in series.values() for n in one if n.startswith(PIXEL))
    found = {n: mean_sd([one.get(n, math.nan) for one in series.values()]) for n in names}
    return {name: figure for name, figure in found.items() if not math.isnan(figure.mean)}


def test_share(figures: Figures) -> float:
    """Test images over those that were trained on; nan where these were not counted."""
    if not math.isnan(figures.get("num_train", math.nan)):
        return figures["num_test"] / figures["num_train"]
    return sum(_counts(figures, "num")) / sum(_counts(figures, "num_train"))


def anomalous_share(figures: Figures) -> float:
    """The share of anomalous images among those that were trained on; nan where not counted."""
    normal, anomalous = _counts(figures, "num_train")
    return anomalous / (normal + anomalous)


def _counts(figures: Figures, part: str) -> tuple[float, float]:
    normal, anomalous = (figures.get(f"{part}_{k}", math.nan) for k in ("normal", "anomalous"))
    return normal, anomalous
