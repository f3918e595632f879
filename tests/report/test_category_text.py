from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from leanet.files import read_csv
from leanet.ops.stats import MeanSD
from leanet.report.category_tables import AVERAGE, MVTEC, CategoryTable, Line
from leanet.report.category_text import to_markdown, write_category_tables

NONE = math.nan
CELLS = {"leather": MeanSD(0.9, 0.01), "metal_nut": MeanSD(0.5, NONE), AVERAGE: MeanSD(NONE, NONE)}
OURS = Line("adfa, default", "", "2", CELLS)
THEIRS = Line("CFA", "oracle", "", {"leather": MeanSD(1.0, NONE)})
TABLE = CategoryTable(figure="image_auroc", columns=(AVERAGE, *MVTEC), lines=(OURS, THEIRS))
HEAD = (
    "|  | seeds | Avg | Carpet | Grid | Leather | Tile | Wood | Bottle | Cable | Capsule | "
    "Hazelnut | Metal Nut | Pill | Screw | Toothbrush | Transistor | Zipper |"
)


def test_the_columns_are_in_the_usual_order_and_empty_cells_are_empty() -> None:
    head, _, ours, theirs = to_markdown([TABLE]).splitlines()[2:6]
    assert head == HEAD
    cells = dict(zip(head.split("|"), ours.split("|"), strict=True))
    assert (cells[" Leather "], cells[" Metal Nut "]) == (" 0.900 ± 0.010 ", " 0.500 ")
    assert (cells[" Avg "].strip(), cells[" Carpet "].strip()) == ("", "")
    assert theirs.startswith("| CFA (published, a) |")
    assert "0.000" not in to_markdown([TABLE])


def test_the_notes_say_what_the_published_rows_are() -> None:
    text = to_markdown([TABLE], ["More."])
    assert "- a: published, official CFA: the best epoch on the test images" in text
    assert "anomalib" not in text
    assert text.endswith("- More.\n")


def test_files_to_compute_with_are_written_and_unfinished_runs_left_out(
    write_small_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = write_small_run("busi", auroc=0.75)
    begun = tmp_path / "busi-1"
    begun.mkdir()
    (begun / "config.yaml").write_text("method: adfa\n")
    page = write_category_tables([run, begun], tmp_path / "out", lambda config: "default")
    assert "Unfinished, left out: busi-1." in page.read_text()
    assert "## Image AUROC, other data sets" in page.read_text()
    ours, *others = read_csv(tmp_path / "out" / "other_image_auroc.csv")
    assert ours == {"row": "adfa, default, resnet18", "source": "ours", "seeds": "1",
                    "BUSI": "0.75", "BUSI SD": ""}  # fmt: skip
    assert others[0]["source"] == "published, medical"
    assert sorted(file.name for file in page.parent.iterdir()) == [
        "other_image_auroc.csv", "tables.md",
    ]  # fmt: skip
