"""What a benchmark says of maps: pixel figures of every row, and unverified claims beside them.

A line is a row of the suite. Over all data sets, each data set counts the same whatever its size:
the figures are means over data sets of the means over trials, the SD is that over data sets, and a
difference is paired by data set and trial, then averaged within each data set, since the seeds of
one data set are no further data sets. Intervals are those of the t distribution, uncorrected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from leanet.ops.stats import MeanSD, PairedDifference, mean_sd, paired_difference
from leanet.report.comparison import PIXEL, Series, average, difference, pixel_figures
from leanet.report.pixels import NAMED, names_of
from leanet.report.results import Benchmark, Entry
from leanet.report.standings_text import markdown_table
from leanet.report.tables import number, signed, spread

ALL = "All data sets"
IMAGES = {"auroc": "AUROC", "balanced_accuracy": "Mean accuracy"}
CEILING = f"{PIXEL}oracle_iou_grid"
IOU = f"{PIXEL}{NAMED}paper"
AVERAGE = "average"  # what the claims call the mean over all data sets
_NOT_AVERAGED = frozenset({AVERAGE, "lag"})


class PixelLine(NamedTuple):
    """A row of a suite: means over trials or data sets, and minus its baseline."""

    name: str
    figures: Mapping[str, MeanSD]
    differences: Mapping[str, PairedDifference]
    state: str  # what is missing; "" where nothing is


class PixelTable(NamedTuple):
    """The rows that have maps, on one data set or over all."""

    title: str
    columns: Mapping[str, str]
    lines: tuple[PixelLine, ...]


class Claim(NamedTuple):
    """A figure of ours beside the one that is claimed; of an IoU also the ceiling of our grid, nan
    for other figures or where the detector names no grid."""

    data: str
    row: str
    figure: str
    ours: MeanSD
    claimed: float
    ceiling: float


def pixel_tables(benchmark: Benchmark) -> dict[str, PixelTable]:
    """Of every data set where some row has pixel figures; with several such data sets also of all
    of them, under `ALL`, first."""
    found = {}
    for data in benchmark.sources:
        entries = _rows(benchmark, [data])
        columns = _columns(benchmark, data, entries)
        if len(columns) > len(IMAGES):
            lines = tuple(_line(benchmark, data, *one, columns) for one in entries)
            found[data] = PixelTable(data, columns, lines)
    if len(found) < 2:
        return found
    columns = {key: title for one in found.values() for key, title in one.columns.items()}
    columns = dict(sorted(columns.items(), key=lambda item: item[0] == CEILING))
    rows = _rows(benchmark, list(found))
    overall = tuple(_overall(benchmark, list(found), *one, columns) for one in rows)
    return {ALL: PixelTable(ALL, columns, overall), **found}


def claims(benchmark: Benchmark, tables: Mapping[str, PixelTable]) -> list[Claim]:
    """Ours beside what is claimed, in the order of the data sets; the claimed mean only where all
    the data sets that it is of are there."""
    averaged = {data for data, _, _ in benchmark.claims} - _NOT_AVERAGED
    names = {_slug(data): data for data in tables if data != ALL}
    if averaged and averaged <= names.keys():
        names[AVERAGE] = ALL
    found = []
    for (data, row, figure), claimed in benchmark.claims.items():
        table = tables.get(names.get(data, ""))
        for line in table.lines if table else ():
            if line.name.removeprefix("CAVGA").strip(" -") == row and figure in line.figures:
                title = table.columns[figure] if table else figure
                known = line.figures.get(CEILING) if figure == IOU else None
                ceiling = math.nan if known is None else known.mean
                ours = line.figures[figure]
                found.append(Claim(names[data], line.name, title, ours, claimed, ceiling))
    return found


def pixel_notes(benchmark: Benchmark, tables: Mapping[str, PixelTable]) -> list[str]:
    """How to read the tables."""
    if not tables:
        return []
    found = [
        "Maps against masks, at the resolution of the masks. Pixel AUROC and AUPRO: all test "
        "images with a mask or without a defect. IoU: pooled over the anomalous ones, at the "
        "thresholds that the detector names; best (oracle): at the threshold that suits the test "
        "images best; ceiling: what a map of as few places as the detector's reaches that knows "
        "the masks.",
        "Mean accuracy: of normal and of anomalous images, each weighing half, at the held-out "
        "threshold.",
    ]
    if any(line.differences for table in tables.values() for line in table.lines):
        pairs = "seed" if benchmark.num_folds == 1 else "fold and seed"
        found.append(
            f"Differences in these tables are paired by {pairs}; over all data sets they are "
            "paired by data set and trial and averaged within a data set, as its seeds are no "
            "further data sets. 95 % intervals, not corrected for their number."
        )
    return found


def to_markdown(table: PixelTable) -> str:
    """The table in Markdown, the differences below it."""
    rows = []
    for line in table.lines:
        cells = [spread(line.figures[name]) for name in table.columns]
        rows.append([line.name + f" ({line.state})" * bool(line.state), *cells])
    parts = [markdown_table(["", *table.columns.values()], rows)]
    compared = [line for line in table.lines if line.differences]
    if compared:
        titles = [table.columns[name] for name in compared[0].differences]
        rows = [[one.name, *map(difference_text, one.differences.values())] for one in compared]
        parts += ["Minus the baseline:", markdown_table(["", *titles], rows)]
    return "\n\n".join(parts)


def claims_markdown(found: Sequence[Claim]) -> str:
    """The claims in Markdown."""
    head = ["data set", "row", "figure", "ours", "ceiling of ours", "claimed, unverified"]
    rows = [
        [c.data, c.row, c.figure, spread(c.ours), number(c.ceiling), number(c.claimed)]
        for c in found
    ]
    return markdown_table(head, rows)


def difference_text(found: PairedDifference) -> str:
    """A mean difference with its interval, where there is one.

    >>> difference_text(PairedDifference(0.02, 0.01, -0.005, 0.045, 0.1, 3))
    '+0.020 [-0.005, +0.045]'
    """
    known = f" [{signed(found.low)}, {signed(found.high)}]" if not math.isnan(found.low) else ""
    return signed(found.mean) + known


def _rows(benchmark: Benchmark, data: Sequence[str]) -> list[tuple[Entry, str]]:
    """The rows that have pixel figures on some of these data sets, each with its entry."""
    return [
        (entry, row)
        for entry in benchmark.entries
        for row in entry.rows
        if any(pixel_figures(benchmark.trials_of(one, row)) for one in data)
    ]


def _columns(benchmark: Benchmark, data: str, rows: Iterable[tuple[Entry, str]]) -> dict[str, str]:
    """Figure -> title, of what some row has."""
    found = [pixel_figures(benchmark.trials_of(data, row)) for _, row in rows]
    there = dict.fromkeys(name.removeprefix(PIXEL) for one in found for name in one)
    names = names_of([dict.fromkeys(there, 0.0)])
    titles = {"auroc": "Pixel AUROC", "aupro": "AUPRO 0.3"}
    titles |= {f"{NAMED}{name}": f"IoU {name}" for name in names}
    titles |= {"oracle_iou": "Best IoU (oracle)", "oracle_iou_grid": "IoU ceiling"}
    return IMAGES | {f"{PIXEL}{key}": title for key, title in titles.items() if key in there}


def _line(
    benchmark: Benchmark, data: str, entry: Entry, row: str, columns: Mapping[str, str]
) -> PixelLine:
    series = benchmark.trials_of(data, row)
    baseline = _baseline(benchmark, data, entry, row)
    missing = len(benchmark.trials) - len(series)
    return PixelLine(
        row,
        {name: mean_sd(_values(series, name)) for name in columns},
        {
            name: difference(
                _filled(series, name), _filled(baseline, name), name, benchmark.num_folds
            )
            for name in (columns if baseline else ())
            if name != CEILING
        },
        f"{len(series)} of {len(benchmark.trials)} trials" if missing else "",
    )


def _overall(
    benchmark: Benchmark, data: Sequence[str], entry: Entry, row: str, columns: Mapping[str, str]
) -> PixelLine:
    """Means over data sets; an unfinished data set counts with the trials that are there."""
    lines = [_line(benchmark, one, entry, row, columns) for one in data]
    finished = [
        line for line in lines if any(not math.isnan(f.mean) for f in line.figures.values())
    ]
    compared = [name for name in columns if any(name in line.differences for line in lines)]
    unfinished = len(data) - sum(not line.state for line in lines)
    return PixelLine(
        row,
        {name: mean_sd([line.figures[name].mean for line in finished]) for name in columns},
        {name: _over_data([line.differences[name].mean for line in lines]) for name in compared},
        f"{len(data) - unfinished} of {len(data)} data sets" if unfinished else "",
    )


def _over_data(means: Sequence[float]) -> PairedDifference:
    return paired_difference(means, [0.0] * len(means))


def _baseline(benchmark: Benchmark, data: str, entry: Entry, row: str) -> Series:
    """What a row is compared with, the mean over the rows of the baseline; {} for itself."""
    rows = [benchmark.trials_of(data, one) for one in entry.baseline]
    if not rows or row in entry.baseline:
        return {}
    return rows[0] if len(rows) == 1 else average(rows)


def _filled(series: Series, name: str) -> Series:
    """The series with nan for a figure that some trials lack."""
    return {trial: {name: math.nan, **figures} for trial, figures in series.items()}


def _values(series: Series, name: str) -> list[float]:
    return [figures.get(name, math.nan) for figures in series.values()]


def _slug(name: str) -> str:
    """A data set as the claims call it.

    >>> _slug("Metal nut")
    'metal_nut'
    """
    return name.strip().lower().replace(" ", "_").replace("-", "_")
