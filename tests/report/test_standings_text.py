from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.report.results import read_benchmark
from leanet.report.standings import Line, Table, tables
from leanet.report.standings_text import about_data, csv_rows, full_name, state, to_markdown

WriteBenchmark = Callable[..., Path]
CAAN = "ResNet18 + ResNet-based CAAN"


def table(folder: Path) -> Table:
    return tables(read_benchmark(folder))[0]


def rows(markdown: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_has_figures_differences_and_the_published_value(
    write_benchmark: WriteBenchmark,
) -> None:
    text = to_markdown(table(write_benchmark("b")))
    named = {row[0]: row for row in rows(text)[:10]}
    assert named["ResNet18"][6] == "0.767 ± 0.164"
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", named["ResNet18"][2])
    oracle = next(row for name, row in named.items() if name.startswith(f"{CAAN}, oracle"))
    assert "optimistic, chosen on test" in oracle[0]
    assert oracle[6] == "0.948 ± 0.039 (A4)"
    differences = [row for row in rows(text) if "Holm" in row[-1]]
    assert all(re.match(r"[+-]?0\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\] p ", row[2])
               for row in differences)  # fmt: skip
    assert not any(row[0] == "ResNet18" for row in differences)
    assert f"- {CAAN}, chosen on held-out images, adn: " in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head(
    write_benchmark: WriteBenchmark,
) -> None:
    methods = {"a | b": {"method": "classifier"}, "c": {"method": "leanet"}}
    text = to_markdown(table(write_benchmark("b", methods=methods, baseline="a | b")))
    width = 0
    for row in rows(text):
        width = len(row) if row[1] == "output" else width
        assert len(row) == width
    assert rows(text)[2][0] == r"a \| b"


def test_missing_trials_are_written_into_the_name(write_benchmark: WriteBenchmark) -> None:
    def missing(data: str, row: str, seed: int, fold: int) -> bool:
        return (row == f"{CAAN}, A4" and fold == 1) or row == "ResNet18 (4ch input)"

    made = table(write_benchmark("b", missing=missing))
    states = {full_name(line): state(line) for line in made.main}
    assert states["ResNet18"] == ""
    assert states["ResNet18 (4ch input) (no trials)"] == "no trials"
    assert f"{CAAN}, A4 (4 of 5 trials)" in states
    assert f"{CAAN}, chosen on held-out images (4 of 5 trials)" in states
    assert any("needs all trials of all members" in name for name in states)
    assert "| ResNet18 (4ch input) (no trials) | score | – | – | – | – |" in to_markdown(made)
    assert "nan" not in to_markdown(made)


def test_the_csv_has_a_row_for_every_line_in_full_precision(
    write_benchmark: WriteBenchmark,
) -> None:
    made = table(write_benchmark("b"))
    found = csv_rows(made)
    assert len(found) == len(made.main) + len(made.others)
    chosen = next(r for r in found if r["kind"] == "chosen" and r["output"] == "adn")
    line = next(one for one in made.main if one.kind == "chosen")
    assert chosen["f1_at_half_mean"] == line.figures["f1_at_half"].mean
    assert chosen["auroc_difference_p_holm"] == line.compared["auroc"].p_holm
    assert (chosen["trials"], chosen["trials_expected"]) == (5, 5)
    assert chosen["anomalous_share"] == pytest.approx(40 / 160)
    published = next(r for r in found if r.get("published_table"))
    assert published["published_mean"] == 0.767
    assert not any(value != value for row in found for value in row.values())  # nan


def test_a_source_ends_with_one_full_stop(write_benchmark: WriteBenchmark) -> None:
    data: Any = {"Potato": {"path": "p", "source": "Licence not known."}, "B": {"path": "b"}}
    first, second = tables(read_benchmark(write_benchmark("b", data=data)))
    assert about_data(first).startswith("Licence not known. 150 normal and 50 anomalous images.")
    assert about_data(second).startswith("150 normal")


def test_shares_are_named_with_what_came_of_them(write_benchmark: WriteBenchmark) -> None:
    each = {"keep_positive": [1.0, 0.5], "draw": [0, 1]}
    methods = {"A": {"method": "classifier", "each": each}}
    made = table(write_benchmark("b", methods=methods, baseline="A", published=None))
    means: list[Line] = [line for line in made.main if line.kind == "mean"]
    assert full_name(means[1]) == (
        "A, 50 % kept, mean of the 2 (14.3 % of the training images anomalous)"
    )


def test_csv_rows_can_be_written_and_read(write_benchmark: WriteBenchmark) -> None:
    found = csv_rows(table(write_benchmark("b")))
    buffer = io.StringIO()
    columns = list(dict.fromkeys(key for row in found for key in row))
    writer = csv.DictWriter(buffer, columns)
    writer.writeheader()
    writer.writerows(found)
    again = list(csv.DictReader(io.StringIO(buffer.getvalue())))
    assert [row["entry"] for row in again] == [row["entry"] for row in found]
