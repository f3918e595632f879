"""What a benchmark with few labelled defects is to decide, claim by claim: does it hold, does it
not, or is too little finished to say?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from leanet.ops.comparing import UNTESTED, WORSE
from leanet.report.few_defects import (
    BEST,
    ENOUGH,
    FEW,
    MAIN,
    METRICS,
    WANTED,
    Judged,
    averages,
    cells_judged,
    honest,
    unseen_judged,
)
from leanet.report.few_results import FewDefects
from leanet.report.pixel_standings import difference_text

YES, NO, CANNOT_SAY = "yes", "no", "cannot say"
MOST_NAMED = 12  # cells that a sentence names


class Claim(NamedTuple):
    """A claim, whether it holds (None: too little is there), and what was found."""

    text: str
    holds: bool | None
    found: str

    @property
    def word(self) -> str:
        """`holds` as a word."""
        return CANNOT_SAY if self.holds is None else YES if self.holds else NO


def claims(few: FewDefects) -> list[Claim]:
    """Everything that the suite asks of its default; [] where it names none."""
    plan = few.plan
    if plan.default is None:
        return []
    found = []
    if plan.rivals and few.seen:
        found.append(_not_worse(few))
        found.append(_better_on_average(few))
    if plan.map_only and few.unseen:
        found.append(_unseen(few))
    if few.seen and max(plan.labelled) >= ENOUGH:
        found.append(_thresholds(few))
    return found


def sentences(few: FewDefects) -> list[str]:
    """The claims for a terminal, a line each."""
    return [f"{claim.text}: {claim.word}. {claim.found}" for claim in claims(few)]


def _not_worse(few: FewDefects) -> Claim:
    text = (
        f"{few.plan.default} is nowhere worse than the best rival beyond the 95 % interval "
        f"({METRICS[MAIN]}, each data set and k)"
    )
    return _of_cells(text, cells_judged(few), few, few.seen, few.plan.rivals)


def _unseen(few: FewDefects) -> Claim:
    unseen = [data for data in few.data if data in few.unseen]
    text = (
        f"{few.plan.default} is nowhere worse than {few.plan.map_only} on kinds of defects that "
        "no training part had"
    )
    return _of_cells(text, unseen_judged(few), few, unseen, [str(few.plan.map_only)])


def _of_cells(
    text: str, judged: Sequence[Judged], few: FewDefects, data: Sequence[str], rivals: Sequence[str]
) -> Claim:
    """A claim about data sets x k: fails with one that is worse, holds once all are finished and
    tested."""
    expected = sum(len(few.labelled_of(name)) for name in data)
    worse = [one for one in judged if one.verdict == WORSE]
    tested = [one for one in judged if one.verdict != UNTESTED]
    whole = len(tested) == expected and not _num_missing(few, data, rivals)
    holds = False if worse else True if whole else None
    found = f"Not worse in {len(tested) - len(worse)} of {expected}"
    if len(tested) < expected:
        found += f"; {expected - len(tested)} without an interval"
    found += _unfinished(few, data, rivals)
    if worse:
        named = ", ".join(
            f"{one.data} k = {one.k} than {one.rival} ({difference_text(one.difference)})"
            for one in worse[:MOST_NAMED]
        )
        more = f" and {len(worse) - MOST_NAMED} more" * (len(worse) > MOST_NAMED)
        found += f"; worse: {named}{more}"
    return Claim(text, holds, f"{found}.")


def _better_on_average(few: FewDefects) -> Claim:
    text = (
        f"{few.plan.default} is better than the best rival on average at k ≤ {FEW}, the interval "
        "over data sets clear of zero"
    )
    found = averages(few, few.seen, [BEST])
    if not found:
        return Claim(text, None, "Nothing to compare.")
    over, draws = found[0].over_data, found[0].over_draws
    told = f"{difference_text(over)} over {over.n} of {len(few.seen)} data sets"
    if not math.isnan(draws.low):
        told += f"; over draws from these data sets {difference_text(draws)}"
    told += _unfinished(few, few.seen, few.plan.rivals)
    if math.isnan(over.low) or _num_missing(few, few.seen, few.plan.rivals):
        return Claim(text, None, f"{told}.")
    return Claim(text, over.low > 0, f"{told}.")


def _thresholds(few: FewDefects) -> Claim:
    """Of each data set with known kinds: do all large enough k reach the share that is wanted?"""
    reached: list[str] = []
    missed: list[str] = []
    open_: list[str] = []
    for data in few.seen:
        every = {k: honest(few, data, k) for k in few.labelled_of(data) if k >= ENOUGH}
        low = [f"k = {k}: {one.share:.3f}" for k, one in every.items() if one and _low(one.share)]
        if low:
            missed.append(f"{data} ({', '.join(low)})")
        else:
            whole = not few.num_missing(data, [str(few.plan.default)])
            (reached if whole and None not in every.values() else open_).append(data)
    text = (
        f"F1 of {few.plan.default} at its own threshold is {WANTED:g} × the oracle F1 or more at "
        f"k ≥ {ENOUGH}"
    )
    words = {"on": reached, "missed on": missed, "unfinished on": open_}
    told = "; ".join(f"{word} {', '.join(names)}" for word, names in words.items() if names)
    holds = False if missed else None if open_ else True
    return Claim(text, holds, f"{told[:1].upper()}{told[1:]}.")


def _num_missing(few: FewDefects, data: Sequence[str], rivals: Sequence[str]) -> int:
    arms = [str(few.plan.default), *rivals]
    return sum(few.num_missing(name, arms) for name in data)


def _unfinished(few: FewDefects, data: Sequence[str], rivals: Sequence[str]) -> str:
    missing = _num_missing(few, data, rivals)
    return f"; {missing} trials of these arms are missing" if missing else ""


def _low(share: float) -> bool:
    return not share >= WANTED
