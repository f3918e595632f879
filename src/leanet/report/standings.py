"""The tables of a benchmark, as records: a table for every data set, a line for every figure.

What is said of an entry with several members (a network for each attention point):

* **mean**: over the members, trial by trial: what a member picked blindly would give.
* **chosen**: in each trial the member that ranks the held-out part of the *training* images best.
* **oracle**: the member with the best mean F1 on the *test* images. This is how the literature
  picks its figures, and it is optimistic: the best of five lies above their mean even if all five
  are the same. It stands beside the literature and is compared with nothing.

Like is compared with like: a chosen member with the baseline's chosen one if the baseline has
several members too, everything else with the mean over the baseline's members. Where shares of the
anomalous images are varied, the members of a share are repetitions and no alternatives: their mean
is all that is said and compared.
"""

from __future__ import annotations

import itertools
import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from leanet.ops.comparing import holm
from leanet.ops.stats import MeanSD, PairedDifference, mean_sd
from leanet.report.comparison import (
    Series,
    anomalous_share,
    average,
    best_on_test,
    choose,
    difference,
)
from leanet.report.results import CLASSES, Benchmark, Entry, Published, Trial

COLUMNS = {
    "f1_at_half": "F1 at p = 0.5",
    "f1": "F1, held-out threshold",
    "auroc": "AUROC",
    "average_precision": "AP",
}
CLASS_COLUMNS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced acc.",
    "macro_f1": "Macro F1",
    "nll": "NLL",
    "ece": "ECE",
}
HALF = "f1_at_half"
MAIN_COMPARED = (HALF, "auroc", "average_precision")
CLASSES_COMPARED = ("accuracy", "balanced_accuracy", "macro_f1")
OTHERS_COMPARED = ("f1", "auroc", "average_precision")  # not every output is a probability
NOTHING = MeanSD(math.nan, math.nan)
MAP = "map"  # an output that knows no labels, the same for all that read the same maps
Kind = Literal["single", "member", "mean", "chosen", "oracle"]


class Compared(NamedTuple):
    """A paired difference to the baseline, and its p after Holm's correction for all comparisons
    on the data set."""

    difference: PairedDifference
    p_holm: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table. `members` are those that `series` was made of, trial by trial."""

    entry: Entry
    output: str
    kind: Kind
    series: Series
    members: tuple[str, ...] = ()
    num_ties: int = 0  # trials in which several members were equally good
    minutes: float  # of a trial; of all members where a choice needs them all
    parameters: float
    num_expected: int  # trials that there should be
    figures: Mapping[str, MeanSD]
    published: Published | None = None
    compared: Mapping[str, Compared]

    @property
    def num_missing(self) -> int:
        """Trials that are not there."""
        return self.num_expected - len(self.series)

    @property
    def anomalous_share(self) -> float:
        """Anomalous images among those that its trials were trained on, on average."""
        return mean_sd(list(map(anomalous_share, self.series.values()))).mean

    @property
    def name(self) -> str:
        """What the tables call it."""
        if self.kind == "single":
            own = len(self.entry.rows) == 1 and self.entry.share is None
            return self.entry.rows[0] if own else self.entry.title
        if self.kind == "member":
            return self.members[0]
        if self.kind == "mean":
            return f"mean of the {len(self.entry.rows)}"
        if self.kind == "chosen":
            return "chosen on held-out images"
        return " ".join(("oracle", *self.members, "(optimistic, chosen on test)"))


@dataclass(frozen=True, kw_only=True)
class Table:
    """All lines of a data set: those of the output that the literature reports, and the others."""

    data: str
    source: str
    num_normal: float  # test images of one seed, over all folds; nan where a fold is missing
    num_anomalous: float
    all_positive: MeanSD  # F1 of calling every image anomalous
    main: tuple[Line, ...]
    others: tuple[Line, ...]
    num_comparisons: int
    num_finished: int  # cells
    num_cells: int
    majority: MeanSD  # accuracy of always naming the most frequent class; nan without classes
    has_probabilities: bool = True  # some method of the suite gives logits

    @property
    def by_class(self) -> bool:
        """Whether its main lines are about several classes."""
        return any(line.output == CLASSES for line in self.main)

    @property
    def columns(self) -> Mapping[str, str]:
        """Figure -> title of the main lines, without probabilities where no method gives them."""
        columns = CLASS_COLUMNS if self.by_class else COLUMNS
        return {n: title for n, title in columns.items() if n != HALF or self.has_probabilities}

    @property
    def headline(self) -> str:
        """The first of these figures."""
        return next(iter(self.columns))


def tables(benchmark: Benchmark) -> tuple[Table, ...]:
    """A table for every data set of a benchmark."""
    return tuple(_table(benchmark, data) for data in benchmark.sources)


def _table(benchmark: Benchmark, data: str) -> Table:
    main: list[Line] = []
    others: list[Line] = []
    for entry in benchmark.entries:
        first, *more = benchmark.outputs(data, entry.rows)
        main += _lines(benchmark, data, entry, first)
        for output in more:
            lines = _lines(benchmark, data, entry, output)
            others += [line for line in lines if line.kind != "member" and not _known(line, others)]
    corrected, num_comparisons = _corrected([*main, *others])
    rows = [row for entry in benchmark.entries for row in entry.rows]
    finished = [benchmark.trials_of(data, row) for row in rows]
    fullest = max(finished, key=len)
    num_normal, num_anomalous = _num_images(fullest, benchmark.trials)
    return Table(
        data=data,
        source=benchmark.sources[data],
        num_normal=num_normal,
        num_anomalous=num_anomalous,
        all_positive=_figure(fullest, "all_positive_f1"),
        majority=_figure(fullest, "majority"),
        main=tuple(corrected[: len(main)]),
        others=tuple(corrected[len(main) :]),
        num_comparisons=num_comparisons,
        num_finished=sum(map(len, finished)),
        num_cells=len(rows) * len(benchmark.trials),
        has_probabilities=_gives_probabilities(benchmark),
    )


def _num_images(series: Series, trials: Sequence[Trial]) -> tuple[float, float]:
    """Normal and anomalous test images over the folds of the first seed; nan if one is missing."""
    first = [series.get(trial, {}) for trial in trials if trial[0] == trials[0][0]]
    normal, anomalous = (
        sum(figures.get(f"num_{kind}", math.nan) for figures in first)
        for kind in ("normal", "anomalous")
    )
    return normal, anomalous


class _Draft(NamedTuple):
    """A line before its figures; `rows` are all that it needs, by name, `members` what it shows."""

    kind: Kind
    rows: tuple[str, ...]
    series: Series
    members: tuple[str, ...] = ()
    num_ties: int = 0


def _lines(benchmark: Benchmark, data: str, entry: Entry, output: str) -> list[Line]:
    """All lines of one output of an entry, members first, not yet corrected by Holm."""
    first = output == benchmark.outputs(data, entry.rows)[0]
    whole = entry.share in (None, 1)
    published = benchmark.published.get((data, entry.name)) if first and whole else None
    main = MAIN_COMPARED if _gives_probabilities(benchmark) else OTHERS_COMPARED
    metrics = main if first else OTHERS_COMPARED
    metrics = CLASSES_COMPARED if output == CLASSES else metrics
    baseline = _baseline(benchmark, data, entry)
    lines = []
    for draft in _drafts(benchmark, data, entry, output):
        itself = first and set(draft.rows) <= set(entry.baseline)
        other = None if itself else baseline.get(draft.kind)
        lines.append(
            Line(
                entry=entry,
                output=output,
                kind=draft.kind,
                series=draft.series,
                members=draft.members,
                num_ties=draft.num_ties,
                minutes=_minutes(benchmark, data, draft),
                parameters=_figure(draft.series, "parameters").mean,
                num_expected=len(benchmark.trials),
                figures={name: _figure(draft.series, name) for name in (COLUMNS | CLASS_COLUMNS)},
                published=published if published and _belongs(published, draft.kind) else None,
                compared={}
                if other is None
                else {
                    m: Compared(difference(draft.series, other, m, benchmark.num_folds))
                    for m in metrics
                },
            )
        )
    return lines


def _gives_probabilities(benchmark: Benchmark) -> bool:
    """Whether some method of the suite has outputs that are logits, as far as it is known."""
    outputs = [figures for outputs in benchmark.cells.values() for figures in outputs.values()]
    trials = [trial for series in outputs for trial in series.values()]
    return not trials or any(HALF in trial for trial in trials)


def _drafts(benchmark: Benchmark, data: str, entry: Entry, output: str) -> list[_Draft]:
    rows = [benchmark.trials_of(data, row, output) for row in entry.rows]
    names = [member.name for member in entry.members]
    if len(rows) == 1:
        return [_Draft("single", entry.rows, rows[0])]
    if output == MAP and all(_agree(*pair) for pair in itertools.combinations(rows, 2)):
        return [_Draft("single", entry.rows[:1], dict(ChainMap(*map(dict, rows))))]
    drafts = [
        _Draft("member", (row,), series, (name,))
        for row, series, name in zip(entry.rows, rows, names, strict=True)
    ]
    mean = _Draft("mean", entry.rows, average(rows))
    if entry.share is not None:
        return [*drafts, mean]
    choice = choose(rows)
    chosen = tuple(names[k] for k in choice.picks)
    best = best_on_test(rows, len(benchmark.trials))
    return [
        *drafts,
        mean,
        _Draft("chosen", entry.rows, choice.series, chosen, choice.num_ties),
        _Draft("oracle", entry.rows, {})
        if best is None
        else _Draft("oracle", entry.rows, rows[best], (names[best],)),
    ]


def _agree(first: Series, second: Series) -> bool:
    """Whether two series say the same of the trials that both have."""
    names = (*COLUMNS, "held_out_ap")
    return all(
        repr([first[trial][name] for name in names])  # nan is nan here
        == repr([second[trial][name] for name in names])
        for trial in first
        if trial in second
    )


def _known(line: Line, lines: Sequence[Line]) -> bool:
    """Whether this is the map of an earlier entry again."""
    earlier = [other.series for other in lines if other.output == line.output == MAP]
    return line.kind == "single" and any(_agree(line.series, series) for series in earlier)


def _baseline(benchmark: Benchmark, data: str, entry: Entry) -> dict[str, Series]:
    """What a line of each kind is compared with; {} where there is no baseline."""
    if not entry.baseline:
        return {}
    output = benchmark.outputs(data, entry.baseline)[0]
    rows = [benchmark.trials_of(data, row, output) for row in entry.baseline]
    blind = rows[0] if len(rows) == 1 else average(rows)
    chosen = rows[0] if len(rows) == 1 else choose(rows).series
    compared: dict[str, Series] = {"single": blind, "mean": blind}
    return compared if entry.share is not None else compared | {"member": blind, "chosen": chosen}


def _belongs(published: Published, kind: Kind) -> bool:
    """The literature's choice of a member stands beside ours of the same kind."""
    return kind == "single" or kind == ("oracle" if published.member else "mean")


def _minutes(benchmark: Benchmark, data: str, draft: _Draft) -> float:
    """Of a trial: of all rows together where they had to be there to choose from."""
    spent = [_figure(benchmark.trials_of(data, row), "seconds").mean for row in draft.rows]
    return math.fsum(spent) / 60 / (len(spent) if draft.kind == "mean" else 1)


def _figure(series: Series, name: str) -> MeanSD:
    if not any(name in figures for figures in series.values()):
        return NOTHING
    return mean_sd([figures.get(name, math.nan) for figures in series.values()])


def _corrected(lines: Sequence[Line]) -> tuple[list[Line], int]:
    """The lines with the p of Holm's correction over all of them, and how many comparisons that
    are."""
    keys = [(k, metric) for k, line in enumerate(lines) for metric in line.compared]
    p = [lines[k].compared[metric].difference.p for k, metric in keys]
    by_line: list[dict[str, Compared]] = [{} for _ in lines]
    for (k, metric), p_holm in zip(keys, holm(p), strict=True):
        by_line[k][metric] = lines[k].compared[metric]._replace(p_holm=p_holm)
    corrected = [replace(line, compared=c) for line, c in zip(lines, by_line, strict=True)]
    return corrected, sum(not math.isnan(value) for value in p)
