"""What a benchmark ends with: `table.md` to paste, `table.csv` to compute with, `report.html` to
read. All three say the same and are written from the files of the benchmark alone. A suite with few
labelled defects ends with other tables (`leanet.report.few_page`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from leanet.files import write_csv, write_text
from leanet.report import pixel_standings
from leanet.report.few_criterion import sentences
from leanet.report.few_page import write_few_report
from leanet.report.few_results import read_few
from leanet.report.pixel_standings import (
    ALL,
    PixelTable,
    claims,
    claims_markdown,
    pixel_notes,
    pixel_tables,
)
from leanet.report.results import CLASSES, Benchmark, Trial, read_benchmark
from leanet.report.standings import COLUMNS, Line, Table, tables
from leanet.report.standings_charts import beside_published, over_members, over_shares
from leanet.report.standings_text import (
    about_data,
    csv_rows,
    interval,
    p_text,
    picks,
    published_text,
    real_share,
    state,
    to_markdown,
)
from leanet.report.tables import EXPLAINED
from leanet.report.template import render_template

LEVEL = 0.05
CLAIMED = "Claimed, unverified"


def write_benchmark_report(out: Path, tell: Callable[[str], None] | None = None) -> Path:
    """Write table.md, table.csv and report.html into the folder of a benchmark, finished or not,
    and return the path of the page; of a suite with `few`, few_defects.md, few_defects.csv and
    report.html, and `tell` gets what they say of the suite's claims.

    Raises:
        ValueError: the folder holds no benchmark.
    """
    if (few := read_few(out)) is not None:
        if tell is not None and (told := sentences(few)):
            tell("\n".join(told))
        return write_few_report(few)
    benchmark = read_benchmark(out)
    made = tables(benchmark)
    maps = pixel_tables(benchmark)
    write_text(out / "table.md", markdown(benchmark, made, maps))
    write_csv(out / "table.csv", [row for table in made for row in csv_rows(table)])
    write_text(out / "report.html", render(benchmark, made, maps))
    return out / "report.html"


def markdown(benchmark: Benchmark, made: Sequence[Table], maps: Mapping[str, PixelTable]) -> str:
    """All tables in Markdown, with how to read them."""
    told = (*warnings(made), *notes(benchmark, made), *pixel_notes(benchmark, maps))
    parts = [f"## {benchmark.name}", benchmark.about, verdict(made)]
    if ALL in maps:
        parts += [f"### {ALL}", pixel_standings.to_markdown(maps[ALL])]
    for table in made:
        parts.append(to_markdown(table))
        if table.data in maps:
            parts += ["Maps:", pixel_standings.to_markdown(maps[table.data])]
    if claimed := claims(benchmark, maps):
        parts += [f"### {CLAIMED}", f"{benchmark.claims_source}.", claims_markdown(claimed)]
    parts.append("\n".join(f"- {text}" for text in told))
    return "\n\n".join(part for part in parts if part) + "\n"


def render(benchmark: Benchmark, made: Sequence[Table], maps: Mapping[str, PixelTable]) -> str:
    """The page as text."""
    return render_template(
        "benchmark.html",
        benchmark=benchmark,
        tables=made,
        charts=[_charts(table, k) for k, table in enumerate(made)],
        facts=_facts(benchmark, made),
        verdict=verdict(made),
        warnings=warnings(made),
        notes=[*notes(benchmark, made), *pixel_notes(benchmark, maps)],
        maps=maps,
        all_data=ALL,
        claims=claims(benchmark, maps),
        claimed=CLAIMED,
        others_columns=COLUMNS,
        headline=_headline(made),
        explained=EXPLAINED,
        groups=_groups,
        words={
            "about": about_data,
            "state": state,
            "real_share": real_share,
            "picks": picks,
            "published": published_text,
            "interval": interval,
            "p": p_text,
        },
        overview=_overview(made) if len(made) > 1 else [],
        level=LEVEL,
        environment=json.dumps(benchmark.environment, indent=2),
    )


def verdict(made: Sequence[Table]) -> str:
    """How many differences there are, in one sentence."""
    lines = [line for table in made for line in (*table.main, *table.others)]
    compared = [c for line in lines for c in line.compared.values()]
    num = sum(table.num_comparisons for table in made)
    if not num:
        return "Nothing is compared: there is no baseline, or too little is finished."
    better = sum(c.p_holm < LEVEL and c.difference.mean > 0 for c in compared)
    worse = sum(c.p_holm < LEVEL and c.difference.mean < 0 for c in compared)
    if not better + worse:
        return (
            f"None of the {num} differences to the baseline is significant at 5 % after Holm's "
            "correction."
        )
    return (
        f"{better + worse} of the {num} differences to the baseline are significant at 5 % after "
        f"Holm's correction: {better} up, {worse} down."
    )


def warnings(made: Sequence[Table]) -> list[str]:
    """What is not there, and what is no like with like."""
    unequal = [
        f"{table.data}: not all rows were tested on equally many images, so their differences are "
        "not those of the methods alone. Rows that learn from test images (weak labels) need "
        "baselines that leave out the same ones."
        for table in made
        if _tested_otherwise(table)
    ]
    return unequal + [
        f"{table.data}: {table.num_cells - table.num_finished} of {table.num_cells} cells are "
        "missing, unfinished or failed. Lines that lack some say how many they have, and hold "
        "these only; a choice among members needs all of them."
        for table in made
        if table.num_finished < table.num_cells
    ]


def _tested_otherwise(table: Table) -> bool:
    """Whether the rows differ in how many images of a label a trial tested them on."""
    seen: dict[Trial, set[tuple[float, ...]]] = {}
    for line in table.main:
        for trial, figures in line.series.items():
            counts = tuple(figures.get(name, math.nan) for name in ("num_normal", "num_anomalous"))
            if not any(map(math.isnan, counts)):
                seen.setdefault(trial, set()).add(counts)
    return any(len(counts) > 1 for counts in seen.values())


def notes(benchmark: Benchmark, made: Sequence[Table]) -> list[str]:
    """How to read the tables."""
    lines = [line for table in made for line in table.main]
    found = [
        f"Mean ± SD (ddof = 1) over {_trials(benchmark)}. Held-out threshold: from images held "
        "out of the training part, never from test images. Minutes: of one trial, without the map "
        "models, which rows share."
    ]
    if any(line.kind == "chosen" for line in lines):
        found.append(
            "Chosen: in each trial the member that ranks the held-out images best (average "
            "precision of that output, of classes the accuracy; of equals the first). Mean: over "
            "the members, trial by trial. Oracle: the member with the best mean F1 (of classes the "
            "accuracy) on the test images, which is optimistic; it is compared with nothing. The "
            "minutes of both choices are those of all members."
        )
    if any(line.compared for line in lines):
        counted = ", ".join(f"{table.num_comparisons} on {table.data}" for table in made)
        found.append(
            f"Differences are to the baseline, the last one above a row, {_pairing(benchmark)} "
            f"Comparisons: {counted}. Holm: p after his correction for all of one data set."
        )
    if any(line.entry.share is not None for line in lines):
        found.append(
            "Kept: the share of the anomalous training images; test images and map models are the "
            "same for all. The rows of a share are repetitions: their mean is compared, with the "
            "baseline's at the same share."
        )
    found += _tries(lines)
    if benchmark.published:
        found.append(f"Published, and parameters in brackets: {benchmark.published_source}.")
    return found


def _tries(lines: Sequence[Line]) -> list[str]:
    """What to say where a choice among several members meets a baseline with fewer tries."""
    unequal: dict[tuple[int, int], list[str]] = {}
    for line in lines:
        ours, theirs = len(line.entry.rows), len(line.entry.baseline)
        if line.kind == "chosen" and 0 < theirs < ours:
            titles = unequal.setdefault((ours, theirs), [])
            titles += [line.entry.title] * (line.entry.title not in titles)
    return [
        f"Not like with like: the chosen rows of {', '.join(titles)} had {ours} members to choose "
        f"from, the baseline {'one' if theirs == 1 else theirs}. Several draws of the baseline "
        "(each: draw) make it equal."
        for (ours, theirs), titles in unequal.items()
    ]


def _trials(benchmark: Benchmark) -> str:
    one_split = "seeds, all on the data set's own split"
    return one_split if benchmark.num_folds == 1 else "folds and seeds"


def _pairing(benchmark: Benchmark) -> str:
    if benchmark.num_folds == 1:
        return (
            "paired by seed: mean, 95 % interval and p of the t test. They tell how far the "
            "trainings differ, and nothing about other test images."
        )
    return (
        "paired by fold and seed: mean, 95 % interval and p of the corrected resampled t test "
        "(Nadeau & Bengio 2003)."
    )


def _facts(benchmark: Benchmark, made: Sequence[Table]) -> dict[str, str]:
    """Name -> value, for the head of the page."""
    environment = benchmark.environment
    num_seeds = len(benchmark.trials) // benchmark.num_folds
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    finished, whole = (
        sum(table.num_finished for table in made),
        sum(table.num_cells for table in made),
    )
    return {
        "Data": ", ".join(table.data for table in made),
        "Rows": str(sum(len(entry.rows) for entry in benchmark.entries)),
        "Trials of a row": f"own split × {seeds}"
        if benchmark.num_folds == 1
        else f"{benchmark.num_folds} folds × {seeds}",
        "Cells": str(whole) if finished == whole else f"{finished} of {whole}",
        "Device": environment["gpu"] or f"CPU, {environment['cpu_cores']} cores",
        "Precision": str(environment["precision"]),
        "Date": str(environment["date"])[:10],
        "Version": f"leanet {environment['packages'].get('leanet')}",
    }


def _charts(table: Table, number: int) -> list[tuple[str, Markup]]:
    """(title, SVG) of those charts that have something to show."""
    drawn = (
        ("Every method", beside_published(table, f"published-{number}")),
        ("Over the attention points", over_members(table, f"members-{number}")),
        ("Over the share of anomalous training images", over_shares(table, f"shares-{number}")),
    )
    return [(title, Markup(svg)) for title, svg in drawn if svg is not None]


def _headline(made: Sequence[Table]) -> str:
    """What the overview shows of each data set."""
    return " or ".join(dict.fromkeys(table.columns[table.headline] for table in made))


def _groups(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Lines that stand together: those of one entry, under its title."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.entry.title, []).append(line)
    return list(found.items())


def _overview(made: Sequence[Table]) -> list[tuple[str, list[tuple[Line, Any]]]]:
    """For every entry its honest line on each data set (the chosen member, else the mean) beside
    the line that holds the published figure (None without one)."""
    rows = []
    for title, _ in _groups(made[0].main):
        cells = []
        for table in made:
            lines = [line for line in table.main if line.entry.title == title]
            cells.append((honest(lines), next((line for line in lines if line.published), None)))
        rows.append((title, cells))
    return rows


def honest(lines: Sequence[Line]) -> Line:
    """Of the lines of an entry the one to quote: the only one, the chosen member, or the mean."""
    by_kind = {line.kind: line for line in lines}
    chosen = by_kind.get("chosen")
    key = "accuracy" if chosen is not None and chosen.output == CLASSES else "auroc"
    if chosen is not None and not math.isnan(chosen.figures[key].mean):
        return chosen
    return by_kind.get("single") or by_kind["mean"]
