from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.report.few_defects import series
from leanet.report.few_results import FewDefects, read_few
from leanet.report.few_text import (
    TextTable,
    averages_table,
    csv_rows,
    differences_table,
    figures_table,
    notes,
    other_averages_table,
    thresholds_table,
    to_markdown,
    warnings,
)

WriteBenchmark = Callable[..., Path]


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


def rows(table: TextTable | None) -> dict[str, list[str]]:
    """Cells by the name of the row, as Markdown has them."""
    assert table is not None
    lines = to_markdown(table).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(line) for line in cells}) == 1
    return {line[0]: line[1:] for line in cells}


def test_a_figure_has_its_spread_and_the_best_is_bold(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    found = rows(figures_table(few, "Leaf"))
    values = np.array(list(series(few, "Leaf", 3, "Default", "auroc").values()))
    assert found["Default"][1] == f"**{values.mean():.3f} ± {values.std(ddof=1):.3f}**"
    assert found[""] == ["k = 1", "k = 3", "k = 10"]
    assert list(found)[2:] == ["Plain", "Map only", "Default", "Shuffled"]
    assert not any("**" in cell for cell in found["Plain"])


def test_what_is_not_there_is_a_dash_and_no_zero(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return (row == "Plain" and (k == 3 or trial[2] == 1)) or k == 10

    few = read(write_few("b", missing=missing))
    found = rows(figures_table(few, "Leaf"))
    assert found["Plain"][0].endswith(" (3 of 4)")
    assert found["Plain"][1:] == ["–", "–"]
    assert found["Default"][2] == "–"
    differences = rows(differences_table(few, "Leaf"))
    assert differences["Plain"][1:] == ["–", "–"]
    everything = [*found.values(), *differences.values(), *rows(thresholds_table(few)).values()]
    assert not any("nan" in cell or cell == "0.000" for line in everything for cell in line)
    assert warnings(few)[0] == "Leaf: nothing at k = 10: too few defects, or all trials failed."
    assert warnings(few)[1].startswith("Leaf: 5 of 32 trials of arms are missing")
    assert warnings(read(write_few("whole"))) == []


def test_differences_name_the_best_rival_and_what_is_clear_of_zero(
    write_few: WriteBenchmark,
) -> None:
    found = rows(differences_table(read(write_few("b")), "Leaf"))
    assert list(found)[2:] == ["Plain", "Map only", "Shuffled"]
    for cell in found["Map only"]:
        assert re.fullmatch(r"(\*\*)?\+0\.0\d\d ◂(\*\*)? \[[+-]0\.\d{3}, \+0\.\d{3}\]", cell)
    for cell in found["Plain"]:
        assert re.fullmatch(r"\*\*\+0\.\d{3}\*\* \[\+0\.\d{3}, \+0\.\d{3}\]", cell)


def test_one_trial_has_a_difference_without_an_interval(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda data, k, row, trial: trial[2] > 0))
    found = rows(differences_table(few, "Leaf"))
    assert all(re.fullmatch(r"\+0\.\d{3}", cell) for cell in found["Plain"])
    assert all(" ± " not in cell for cell in rows(figures_table(few, "Leaf"))["Plain"])


def test_averages_have_two_intervals_and_every_data_set(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda d, k, row, t: (d, row) == ("Leaf", "Shuffled")))
    found = rows(averages_table(few, few.seen))
    assert found[""] == ["over data sets", "over draws, these sets", "Leaf", "Tile"]
    assert list(found)[2:] == ["best rival", "Plain", "Map only", "Shuffled (1 of 2 data sets)"]
    assert found["Shuffled (1 of 2 data sets)"][2] == "–"
    assert "k ≤ 5 (1, 3), AUROC" in getattr(averages_table(few, few.seen), "title", "")
    further = rows(other_averages_table(few, few.seen))
    assert len(further["Plain"]) == 4
    assert further["Plain"][3].removeprefix("**").startswith("-0.1")


def test_a_single_data_set_has_no_interval_over_data_sets(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    found = rows(averages_table(few, ["Tile, unseen"]))
    assert re.fullmatch(r"\+0\.\d{3}", found["Plain"][0])
    assert found["Plain"][1] == found["Plain"][2]
    further = other_averages_table(few, ["Tile, unseen"])
    assert further is not None
    assert further.title.endswith("over draws")
    assert "[" in rows(further)["Plain"][0]


def test_thresholds_show_the_ratio_and_what_it_is_of(write_few: WriteBenchmark) -> None:
    def figure(data: str, k: int, row: str, output: str, trial: Any, column: str) -> float | None:
        own = 0.6 if k == 3 else 0.76
        return {"f1": own, "oracle_f1": 0.8}.get(column)

    found = rows(thresholds_table(read(write_few("b", figure=figure))))
    assert found["Leaf"][0] == "**0.950** 0.760 of 0.800; 4 of 4 trials"
    assert found["Leaf"][1] == "0.750 0.600 of 0.800; 0 of 4 trials"
    assert list(found)[2:] == ["Leaf", "Tile", "Tile, unseen"]


def test_without_a_default_nothing_is_compared(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", few={"labelled": [1, 3]}))
    assert differences_table(few, "Leaf") is None
    assert averages_table(few, few.seen) is None
    assert other_averages_table(few, few.seen) is None
    assert thresholds_table(few) is None
    assert not any("rival" in text for text in notes(few))
    assert not any("difference_mean" in key for row in csv_rows(few) for key in row)


def test_the_csv_has_full_precision_and_a_row_for_each_arm(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda d, k, row, t: (row, k) == ("Plain", 10)))
    found = csv_rows(few)
    assert len(found) == 3 * (3 * 4 - 1)
    row = next(r for r in found if (r["data"], r["labelled"], r["arm"]) == ("Tile", 3, "Plain"))
    values = np.array(list(series(few, "Tile", 3, "Plain", "auroc").values()))
    ours = np.array(list(series(few, "Tile", 3, "Default", "auroc").values()))
    assert row["auroc_mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert row["auroc_difference_mean"] == pytest.approx((ours - values).mean(), rel=1e-12)
    assert (row["trials"], row["trials_expected"], row["unseen"]) == (4, 4, 0)
    assert not any(value != value for one in found for value in one.values())  # nan


def test_the_notes_say_what_the_intervals_are_worth(write_few: WriteBenchmark) -> None:
    text = " ".join(notes(read(write_few("b"))))
    assert "over 4 folds" in text
    assert "share most of their images, so these intervals are optimistic" in text
    assert "optimistic for the rivals. Rivals: Plain, Map only." in text
    assert "not corrected for their number" in text
