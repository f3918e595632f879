"""What a benchmark with few labelled defects ends with: `few_defects.md` to paste,
`few_defects.csv` to compute with, `report.html` to read. All three say the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from leanet.files import write_csv, write_text
from leanet.report.few_charts import over_labelled
from leanet.report.few_criterion import Claim, claims
from leanet.report.few_defects import MAIN, METRICS
from leanet.report.few_results import FewDefects
from leanet.report.few_text import (
    TextTable,
    averages_table,
    csv_rows,
    differences_table,
    figures_table,
    join,
    notes,
    other_averages_table,
    thresholds_table,
    to_markdown,
    warnings,
)
from leanet.report.standings_text import markdown_table
from leanet.report.template import render_template

UNSEEN = "the tested kinds of defects were in no training part"


class Section(NamedTuple):
    """A data set, or all: its tables; those of `more` are further figures."""

    title: str
    lead: str
    tables: tuple[TextTable, ...]
    more: tuple[TextTable, ...] = ()


def write_few_report(few: FewDefects) -> Path:
    """Write few_defects.md, few_defects.csv and report.html into the folder of the benchmark and
    return the path of the page."""
    out, parts, judged = few.benchmark.folder, sections(few), claims(few)
    write_text(out / "few_defects.md", markdown(few, parts, judged))
    write_csv(out / "few_defects.csv", csv_rows(few))
    write_text(out / "report.html", render(few, parts, judged))
    return out / "report.html"


def markdown(few: FewDefects, made: Sequence[Section], judged: Sequence[Claim]) -> str:
    """All tables in Markdown, with how to read them."""
    parts = [f"## {few.benchmark.name}", few.benchmark.about]
    if judged:
        rows = [[claim.text, f"**{claim.word}**", claim.found] for claim in judged]
        parts.append(markdown_table(["claim", "holds", "found"], rows))
    parts.append("\n".join(f"- {text}" for text in warnings(few)))
    for section in made:
        parts += [f"### {section.title}", section.lead]
        for table in (*section.tables, *section.more):
            parts += [f"{table.title}:", to_markdown(table)]
    parts += ["### How to read this", "\n".join(f"- {text}" for text in notes(few))]
    return join(parts)


def render(few: FewDefects, made: Sequence[Section], judged: Sequence[Claim]) -> str:
    """The page as text."""
    charts = {data: over_labelled(few, data, f"few-{k}") for k, data in enumerate(few.data)}
    return render_template(
        "few_defects.html",
        few=few,
        claims=judged,
        verdict=_verdict(judged),
        sections=made,
        charts={data: Markup(svg) for data, svg in charts.items() if svg is not None},
        main=METRICS[MAIN],
        facts=_facts(few),
        warnings=warnings(few),
        notes=notes(few),
        environment=json.dumps(few.benchmark.environment, indent=2),
    )


def sections(few: FewDefects) -> list[Section]:
    """Over the data sets first, then each of them."""
    unseen = [data for data in few.data if data in few.unseen]
    found = [
        _overall(few, "On average over the data sets", "", few.seen),
        _overall(few, "On average over the data sets with unseen kinds", f"{UNSEEN}.", unseen),
    ]
    if (table := thresholds_table(few)) is not None and few.cells:
        found.append(Section("Thresholds", "", (table,)))
    for data in few.data:
        lead = few.benchmark.sources[data].rstrip(".")
        lead = "; ".join(filter(None, (lead, UNSEEN if data in few.unseen else "")))
        tables = _there(figures_table(few, data), differences_table(few, data))
        more = tuple(figures_table(few, data, metric) for metric in METRICS if metric != MAIN)
        found.append(Section(data, f"{lead}." if lead else "", tables, more))
    return [section for section in found if section.tables]


def _verdict(judged: Sequence[Claim]) -> str:
    """How many claims hold, in one sentence."""
    if not judged:
        return "Nothing is claimed: the suite names no default arm."
    holding, open_ = (sum(claim.holds is value for claim in judged) for value in (True, None))
    told = (
        f"{holding} of {len(judged)} claims hold" if holding != 1 else f"1 of {len(judged)} holds"
    )
    return told + f"; {open_} cannot be judged yet." if open_ else f"{told}."


def _overall(few: FewDefects, title: str, lead: str, data: Sequence[str]) -> Section:
    tables = _there(averages_table(few, data), other_averages_table(few, data)) if data else ()
    return Section(title, lead[:1].upper() + lead[1:], tables)


def _there(*tables: TextTable | None) -> tuple[TextTable, ...]:
    return tuple(table for table in tables if table is not None)


def _facts(few: FewDefects) -> dict[str, str]:
    """Name -> value, for the head of the page."""
    plan, environment = few.plan, few.benchmark.environment
    num_seeds = len({trial.seed for trial in few.trials})
    trials = [
        f"{num} {name}{'s' * (num > 1)}"
        for num, name in (
            (num_seeds, "seed"),
            (plan.draws, "draw"),
            (few.benchmark.num_folds, "fold"),
        )
    ]
    return {
        "Data": "; ".join(few.data),
        "Labelled defects": ", ".join(map(str, plan.labelled)),
        "Arms": str(len(plan.arms)),
        "Trials of an arm": " × ".join(trials),
        "Device": environment["gpu"] or f"CPU, {environment['cpu_cores']} cores",
        "Precision": str(environment["precision"]),
        "Date": str(environment["date"])[:10],
        "Version": f"leanet {environment['packages'].get('leanet')}",
    }
