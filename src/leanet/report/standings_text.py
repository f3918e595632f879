"""The tables of a benchmark as text: Markdown to paste, rows for a CSV file, words for a cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leanet.ops.stats import MeanSD
from leanet.report.comparison import pixel_figures
from leanet.report.standings import COLUMNS, Compared, Line, Table
from leanet.report.tables import number, signed, spread


def to_markdown(table: Table) -> str:
    """Everything about one data set."""
    parts = [f"### {table.data}", about_data(table)]
    for title, lines in (("", table.main), ("Other outputs:", table.others)):
        if lines:
            main = lines is table.main
            columns = table.columns if main else COLUMNS
            parts += [title, _figures(lines, columns, main=main)]
        if any(line.compared for line in lines):
            parts += ["Minus the baseline:", _differences(lines, columns)]
    chosen = [line for line in (*table.main, *table.others) if line.kind == "chosen"]
    told = [f"- {full_name(x)}, {x.output}: {picks(x)}" for x in chosen if x.series]
    parts.append("\n".join(told))
    return "\n\n".join(part for part in parts if part)


def csv_rows(table: Table) -> list[dict[str, Any]]:
    """A row for every line of a data set, figures in full precision."""
    rows = []
    for line in (*table.main, *table.others):
        row: dict[str, Any] = {
            "data": table.data,
            "entry": line.entry.title,
            "kind": line.kind,
            "member": " ".join(dict.fromkeys(line.members)),
            "output": line.output,
            "trials": len(line.series),
            "trials_expected": line.num_expected,
            "anomalous_share": line.anomalous_share,
        }
        figures = {**line.figures, "all_positive_f1": table.all_positive}
        for name, figure in (figures | pixel_figures(line.series)).items():
            row |= {f"{name}_mean": figure.mean, f"{name}_sd": figure.sd}
        for name, compared in line.compared.items():
            difference = compared.difference._asdict() | {"p_holm": compared.p_holm}
            row |= {f"{name}_difference_{key}": value for key, value in difference.items()}
        row |= {"parameters": line.parameters, "minutes": line.minutes}
        if line.published:
            row |= {f"published_{k}": v for k, v in line.published._asdict().items()}
        rows.append({key: "" if _is_nan(value) else value for key, value in row.items()})
    return rows


def about_data(table: Table) -> str:
    """Where it comes from, how many images, the F1 of no effort."""
    source = f"{table.source.rstrip('.')}. " if table.source else ""
    counted = not math.isnan(table.num_normal)
    counts = f"{table.num_normal:.0f} normal and {table.num_anomalous:.0f} anomalous images. "
    if table.by_class:
        return f"{source}Accuracy of naming the most frequent class: {spread(table.majority)}."
    reference = f"F1 of calling everything anomalous: {spread(table.all_positive)}."
    return source + counts * counted + reference


def full_name(line: Line) -> str:
    """The name of a line that stands alone, with its output where that is not the first."""
    own = line.name if line.kind == "single" else f"{line.entry.title}, {line.name}"
    return own + "".join(f" ({text})" for text in (real_share(line), state(line)) if text)


def real_share(line: Line) -> str:
    """Where shares of the anomalous images are varied, what came of it; "" elsewhere."""
    if line.entry.share is None or not line.series:
        return ""
    return f"{100 * line.anomalous_share:.1f} % of the training images anomalous"


def state(line: Line) -> str:
    """How much of a line is there; "" for all of it."""
    if not line.num_missing:
        return ""
    if line.series:
        return f"{len(line.series)} of {line.num_expected} trials"
    return "needs all trials of all members" if line.kind == "oracle" else "no trials"


def picks(line: Line) -> str:
    """Which members were chosen, and how often several were equally good.

    >>> from types import SimpleNamespace
    >>> picks(SimpleNamespace(members=("A1", "A4", "A1"), num_ties=1))
    '2 × A1, A4; 1 of 3 times several were equally good'
    """
    counts = Counter(line.members).most_common()
    told = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in counts)
    if line.num_ties:
        told += f"; {line.num_ties} of {len(line.members)} times several were equally good"
    return told


def published_text(line: Line) -> str:
    """The published F1 and the member that it belongs to."""
    if line.published is None:
        return ""
    mean, sd, member, *_ = line.published
    return spread(MeanSD(mean, sd)) + f" ({member})" * bool(member)


def interval(compared: Compared) -> str:
    """The interval of a difference; "" where there are too few pairs for one."""
    low, high = compared.difference.low, compared.difference.high
    return "" if math.isnan(low) else f"[{signed(low)}, {signed(high)}]"


def p_text(compared: Compared) -> str:
    """p, and p after Holm's correction; "" where there are too few pairs for one."""
    p, p_holm = compared.difference.p, compared.p_holm
    return "" if math.isnan(p) else f"p {_p(p)}, Holm {_p(p_holm)}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _figures(lines: Sequence[Line], columns: Mapping[str, str], *, main: bool) -> str:
    head = ["", "output", *columns.values(), "published F1", "parameters", "minutes"]
    rows = []
    for line in lines:
        cells = [spread(line.figures[name]) for name in columns]
        size = "–" if math.isnan(line.parameters) else f"{line.parameters / 1e6:.1f} M"
        cost = [published_text(line), size, number(line.minutes, digits=1)]
        rows.append([full_name(line), line.output, *cells, *cost])
    if not main:
        head, rows = head[:-3], [row[:-3] for row in rows]
    return markdown_table(head, rows)


def _differences(lines: Sequence[Line], columns: Mapping[str, str]) -> str:
    compared = [line for line in lines if line.compared]
    metrics = list(compared[0].compared)
    rows = []
    for line in compared:
        cells = [
            " ".join(filter(None, (signed(c.difference.mean), interval(c), p_text(c))))
            for c in line.compared.values()
        ]
        rows.append([full_name(line), line.output, *cells])
    return markdown_table(["", "output", *(columns[metric] for metric in metrics)], rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
