"""The tables of a benchmark with few labelled defects as text: once for Markdown and the page, and
as rows for a CSV file.

A figure that is not there is an en dash, never a zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from leanet.ops.comparing import BETTER, WORSE
from leanet.ops.stats import MeanSD, PairedDifference
from leanet.report.few_defects import (
    AVERAGED,
    BEST,
    ENOUGH,
    FEW,
    MAIN,
    METRICS,
    WANTED,
    Average,
    Standing,
    against,
    averages,
    best_rival,
    honest,
    standings,
    verdict,
)
from leanet.report.few_results import FewDefects
from leanet.report.standings_text import markdown_table
from leanet.report.tables import number, signed, spread

NOTHING = "–"
IN_CSV = (MAIN, "average_precision", "f1")  # whose differences the CSV file has


class Cell(NamedTuple):
    """A cell of a table: a figure, what belongs below it, and whether it stands out."""

    text: str
    below: str = ""
    strong: bool = False
    bad: bool = False


class TextTable(NamedTuple):
    """A table with a title; every row begins with its name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def figures_table(few: FewDefects, data: str, metric: str = MAIN) -> TextTable:
    """Mean and SD of a figure for every arm and k; the best mean stands out."""
    found = standings(few, data, metric)
    expected = {k: len(few.any_trials(data, k)) for k in few.plan.labelled}
    rows = [
        (arm.name, tuple(_figure(found.get((arm.name, k)), expected[k]) for k in few.plan.labelled))
        for arm in few.plan.arms
    ]
    return TextTable(METRICS[metric], _head(few), tuple(rows))


def differences_table(few: FewDefects, data: str) -> TextTable | None:
    """The default minus every other arm; the best rival of each k says so, and what is clear of
    zero stands out. None without a default or another arm."""
    others = (*few.plan.rivals, *few.plan.others)
    if few.plan.default is None or not others:
        return None
    best = {k: best_rival(few, data, k) for k in few.plan.labelled}
    rows = []
    for name in others:
        cells = []
        for k in few.plan.labelled:
            cell = _difference(against(few, data, k, name).difference)
            first = best[k]
            named = first is not None and first.rival == name and len(few.plan.rivals) > 1
            cells.append(cell._replace(text=f"{cell.text} ◂") if named else cell)
        rows.append((name, tuple(cells)))
    return TextTable(f"{few.plan.default} minus the others, {METRICS[MAIN]}", _head(few), (*rows,))


def averages_table(few: FewDefects, data: Sequence[str]) -> TextTable | None:
    """The default minus every other arm and minus the best rival, at small k: over data sets, over
    draws, and of each data set. None where nothing is compared."""
    found = averages(few, data, _compared(few))
    if few.plan.default is None or not found:
        return None
    rows = []
    for one in found:
        over = (_difference(one.over_data), _difference(one.over_draws))
        own = (
            _difference(one.by_data[name]) if name in one.by_data else Cell(NOTHING)
            for name in data
        )
        rows.append((_named(one, data), (*over, *own)))
    ks = ", ".join(str(k) for k in few.plan.labelled if k <= FEW)
    title = f"{few.plan.default} minus the others at k ≤ {FEW} ({ks}), {METRICS[MAIN]}"
    return TextTable(title, ("", "over data sets", "over draws, these sets", *data), (*rows,))


def other_averages_table(few: FewDefects, data: Sequence[str]) -> TextTable | None:
    """The same for further figures, over data sets, of a single one over draws; None where nothing
    is compared."""
    single = len(data) == 1
    by_metric = {
        metric: {one.rival: one for one in averages(few, data, _compared(few), metric)}
        for metric in AVERAGED
    }
    names = [name for name in _compared(few) if any(name in m for m in by_metric.values())]
    if few.plan.default is None or not names:
        return None
    rows = [
        (
            name,
            tuple(
                _difference(one.over_draws if single else one.over_data, metric)
                if (one := found.get(name)) is not None
                else Cell(NOTHING)
                for metric, found in by_metric.items()
            ),
        )
        for name in names
    ]
    over = "draws" if single else "data sets"
    title = f"Further figures, {few.plan.default} minus the others at k ≤ {FEW}, over {over}"
    return TextTable(title, ("", *(METRICS[metric] for metric in AVERAGED)), (*rows,))


def thresholds_table(few: FewDefects) -> TextTable | None:
    """F1 of the default at its own threshold beside the oracle's; None without a default."""
    if few.plan.default is None:
        return None
    rows = []
    for data in few.data:
        cells = []
        for k in few.plan.labelled:
            one = honest(few, data, k)
            if one is None:
                cells.append(Cell(NOTHING))
                continue
            below = f"{number(one.f1)} of {number(one.oracle)}; {one.reached} of {one.n} trials"
            low = k >= ENOUGH and not one.share >= WANTED
            cells.append(Cell(number(one.share), below, strong=one.share >= WANTED, bad=low))
        rows.append((data, tuple(cells)))
    title = f"F1 of {few.plan.default} at its own threshold over the oracle F1"
    return TextTable(title, _head(few), tuple(rows))


def to_markdown(table: TextTable) -> str:
    """A table in Markdown, without its title; what stands out is bold."""
    rows = [[name, *map(_markdown_cell, cells)] for name, cells in table.rows]
    return markdown_table(table.head, rows)


def csv_rows(few: FewDefects) -> list[dict[str, Any]]:
    """A row for every data set, k and arm that has trials, figures in full precision; differences
    are the default's minus the arm's."""
    rows = []
    for data in few.data:
        found = {metric: standings(few, data, metric) for metric in METRICS}
        for k, arm in itertools.product(few.plan.labelled, few.plan.arms):
            if trials := few.trials_of(data, k, arm.name):
                row: dict[str, Any] = {"data": data, "unseen": int(data in few.unseen)}
                row |= {"labelled": k, "arm": arm.name, "trials": len(trials)}
                row |= {"trials_expected": len(few.trials)}
                for metric, by_arm in found.items():
                    one = by_arm.get((arm.name, k))
                    figure = MeanSD(math.nan, math.nan) if one is None else one.figure
                    row |= {f"{metric}_mean": figure.mean, f"{metric}_sd": figure.sd}
                row |= _differences(few, data, k, arm.name)
                rows.append({key: "" if value != value else value for key, value in row.items()})
    return rows


def notes(few: FewDefects) -> list[str]:
    """How to read the tables."""
    plan = few.plan
    found = [
        "k: labelled defects in training, beside all normal images of the training part. Mean ± SD "
        f"(ddof = 1) over {_trials(few)}; all arms of a trial have the same images. Tested: the "
        "normal test images of the fold, and all defects that were not drawn.",
        "Own threshold: from images outside the test part. Oracle threshold: the best on the test "
        "images, which nobody knows beforehand. Escapes at 1 % overkill: defects that pass at the "
        "lowest threshold that rejects at most 1 % of the normal test images (none of fewer than "
        "100).",
        "Bold: the best mean of a column, or a difference clear of zero. – : nothing there. "
        "(3 of 5): trials that are there, where other arms have more.",
    ]
    if plan.default is None:
        return found
    found.append(
        f"Differences: {plan.default} minus the other arm, paired by trial, with the 95 % t "
        "interval of n − 1 degrees of freedom, not corrected for their number. Trials of a data "
        "set share most of their images, so these intervals are optimistic. With one trial there "
        "is none."
    )
    if plan.rivals:
        found.append(
            "Best rival (◂): the one with the best mean on the test images, chosen for each data "
            "set and k anew, which is optimistic for the rivals. Rivals: "
            f"{', '.join(plan.rivals)}. Where nothing differs, 2.5 % of all data sets and k would "
            "still come out as worse than a given rival by chance, and more than the best of them. "
            "Not worse is not proved equal: few trials have wide intervals."
        )
    found.append(
        f"At k ≤ {FEW}: averaged over k in each trial, over trials, then over data sets, each of "
        "which weighs the same. Over data sets: t interval with one value for each set, which "
        "holds for other sets of this sort and decides. Over draws: these sets taken as all "
        "there are, chance only in the trials within them (Satterthwaite's degrees of freedom)."
    )
    found.append(
        f"Thresholds: mean F1 over mean oracle F1, both below it, and how many trials reach "
        f"{WANTED:g}."
    )
    return found


def warnings(few: FewDefects) -> list[str]:
    """What is not there."""
    found = []
    names = [arm.name for arm in few.plan.arms]
    for data in few.data:
        reach = few.labelled_of(data)
        out = [k for k in few.plan.labelled if k not in reach]
        if out:
            told = ", ".join(f"k = {k}" for k in out)
            found.append(f"{data}: nothing at {told}: too few defects, or all trials failed.")
        if missing := few.num_missing(data, names):
            whole = len(few.trials) * len(reach) * len(names)
            found.append(
                f"{data}: {missing} of {whole} trials of arms are missing, unfinished or failed."
            )
    return found


def _compared(few: FewDefects) -> tuple[str, ...]:
    best = (BEST,) if len(few.plan.rivals) > 1 else ()
    return (*best, *few.plan.rivals, *few.plan.others)


def _named(one: Average, data: Sequence[str]) -> str:
    """The rival, and on how many data sets where some lack it."""
    num = len(one.by_data)
    return one.rival + f" ({num} of {len(data)} data sets)" * (num < len(data))


def _head(few: FewDefects) -> tuple[str, ...]:
    return ("", *(f"k = {k}" for k in few.plan.labelled))


def _figure(one: Standing | None, expected: int) -> Cell:
    if one is None:
        return Cell(NOTHING)
    return Cell(
        spread(one.figure), f"({one.n} of {expected})" * (one.n < expected), strong=one.best
    )


def _difference(found: PairedDifference, metric: str = MAIN) -> Cell:
    if math.isnan(found.mean):
        return Cell(NOTHING)
    if math.isnan(found.low):
        return Cell(signed(found.mean))
    word = verdict(found, metric)
    below = f"[{signed(found.low)}, {signed(found.high)}]"
    return Cell(signed(found.mean), below, strong=word in (BETTER, WORSE), bad=word == WORSE)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.strong else cell.text
    return " ".join(filter(None, (text, cell.below)))


def _differences(few: FewDefects, data: str, k: int, arm: str) -> dict[str, float]:
    """The columns of a CSV row that hold the default minus this arm; {} for the default."""
    if few.plan.default in (None, arm):
        return {}
    by_metric = {name: against(few, data, k, arm, name).difference for name in IN_CSV}
    return {
        f"{metric}_difference_{key}": value
        for metric, found in by_metric.items()
        for key, value in found._asdict().items()
    }


def _trials(few: FewDefects) -> str:
    """What the trials of a data set and k differ in."""
    counts = {
        name: len({getattr(trial, name) for trial in few.trials})
        for name in ("seed", "draw", "fold")
    }
    told = [f"{num} {name}{'s' * (num > 1)}" for name, num in counts.items() if num > 1]
    return " × ".join(told) or "one trial"


def join(parts: Iterable[str]) -> str:
    """Paragraphs of Markdown, without the empty ones."""
    return "\n\n".join(part for part in parts if part) + "\n"
