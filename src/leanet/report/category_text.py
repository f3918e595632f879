"""The tables of `leanet.report.category_tables` as Markdown to paste and CSV to compute with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from leanet.files import write_csv, write_text
from leanet.report.category_tables import (
    AVERAGE,
    MVTEC,
    PROTOCOLS,
    CategoryTable,
    Line,
    Naming,
    category_tables,
)
from leanet.report.standings_text import markdown_table
from leanet.report.tables import spread

MARKS: Final = dict(zip(PROTOCOLS, "abcdefg", strict=False))  # of the notes below the tables
TITLES: Final = {
    AVERAGE: "Avg",
    "brain_mri": "BrainMRI",
    "busi": "BUSI",
    "covid19": "Covid19",
    "sipakmed": "SIPaKMeD",
}
_NOTES: Final = (
    "Ours: mean ± SD (ddof = 1) over the seeds, test images of the data set's own split (with "
    "folds: the mean over them). No epoch, size or threshold was chosen by test images, but for "
    "the best threshold of pixel F1.",
    "Empty: not run. Avg: only where all fifteen categories are there; its SD is that of the "
    "averages of the seeds.",
    "Pixel F1: all test pixels pooled; at the threshold that suits them best, as is usual, and at "
    "the limit of held-out normal images. AUPRO: regions are 8-connected, false positive rates up "
    "to 0.3.",
)


def write_category_tables(folders: Sequence[Path], out: Path, naming: Naming) -> Path:
    """Write `tables.md` and a CSV file for each table into `out`; returns the path of the first.

    Raises:
        ValueError: as `category_tables`.
    """
    unfinished = [one for one in folders if _is_unfinished(one)]
    made = category_tables([one for one in folders if one not in unfinished], naming)
    for table in made:
        name = table.figure if table.of_mvtec else f"other_{table.figure}"
        write_csv(out / f"{name}.csv", [_csv_row(table, line) for line in table.lines])
    left_out = [f"Unfinished, left out: {', '.join(one.name for one in unfinished)}."]
    write_text(out / "tables.md", to_markdown(made, left_out if unfinished else ()))
    return out / "tables.md"


def to_markdown(made: Sequence[CategoryTable], more: Sequence[str] = ()) -> str:
    """All tables, how to read them, and what `more` there is to say."""
    parts = []
    for table in made:
        where = "" if table.of_mvtec else ", other data sets"
        parts += [f"## {table.title}{where}", _markdown(table)]
    used = {line.protocol for table in made for line in table.lines if line.protocol}
    notes = [*_NOTES, *(f"{MARKS[p]}: published, {PROTOCOLS[p]}." for p in PROTOCOLS if p in used)]
    told = "\n".join(f"- {note}" for note in (*notes, *more))
    return "\n\n".join([*parts, told]) + "\n"


def title_of(column: str) -> str:
    """How a column is headed.

    >>> title_of("metal_nut"), title_of("average"), title_of("busi"), title_of("my_parts")
    ('Metal Nut', 'Avg', 'BUSI', 'my_parts')
    """
    named = column.replace("_", " ").title() if column in MVTEC else column
    return TITLES.get(column, named)


def _is_unfinished(folder: Path) -> bool:
    """Whether a run was begun here and not ended; another mistake is named elsewhere."""
    return (folder / "config.yaml").exists() and not (folder / "card.json").exists()


def _markdown(table: CategoryTable) -> str:
    rows = []
    for line in table.lines:
        name = f"{line.name} (published, {MARKS[line.protocol]})" if line.protocol else line.name
        found = [line.cells.get(column) for column in table.columns]
        cells = ["" if cell is None else spread(cell, missing="") for cell in found]
        rows.append([name, line.seeds, *cells])
    return markdown_table(["", "seeds", *map(title_of, table.columns)], rows)


def _csv_row(table: CategoryTable, line: Line) -> dict[str, Any]:
    source = f"published, {line.protocol}" if line.protocol else "ours"
    return {"row": line.name, "source": source, "seeds": line.seeds, **dict(_cells(table, line))}


def _cells(table: CategoryTable, line: Line) -> Iterator[tuple[str, Any]]:
    """All means, then all SDs; empty where there is none."""
    for ending in ("", " SD"):
        for column in table.columns:
            cell = line.cells.get(column)
            value = math.nan if cell is None else cell.sd if ending else cell.mean
            yield title_of(column) + ending, "" if math.isnan(value) else round(value, 6)
