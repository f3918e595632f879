from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.files import read_csv
from leanet.report.few_page import sections, write_few_report
from leanet.report.few_results import FewDefects, read_few

WriteBenchmark = Callable[..., Path]
ReadPage = Callable[[Path], Any]
EVIL = '"><img src=x onerror=alert(1)>&$'


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


@pytest.fixture
def written(write_few: WriteBenchmark) -> Path:
    folder = write_few("b")
    assert write_few_report(read(folder)) == folder / "report.html"
    return folder


def test_page_markdown_and_csv_say_the_same(written: Path, read_page: ReadPage) -> None:
    page = read_page(written / "report.html")
    markdown = (written / "few_defects.md").read_text()
    for row in read_csv(written / "few_defects.csv"):
        figure = f"{float(row['auroc_mean']):.3f} ± {float(row['auroc_sd']):.3f}"
        assert figure in markdown
        assert figure in page.text
    for text in (markdown, page.text):
        assert "Default is better than the best rival on average at k ≤ 5" in text
        assert "Default minus the others, AUROC" in text
        assert "the tested kinds of defects were in no training part" in text
        assert "Escapes at 1 % overkill" in text
    assert markdown.startswith("## few defects\n\nwhat a map is worth\n\n| claim | holds | found |")


def test_the_page_stands_alone(written: Path, read_page: ReadPage) -> None:
    page = read_page(written / "report.html")
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.tags}
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in page.tags].count("svg") == 3
    assert "nan" not in re.sub("leanet|unfinished", "", page.text)
    assert "claims hold" in page.text


def test_averages_come_first_then_each_data_set(write_few: WriteBenchmark) -> None:
    found = sections(read(write_few("b")))
    assert [section.title for section in found] == [
        "On average over the data sets", "On average over the data sets with unseen kinds",
        "Thresholds", "Leaf", "Tile", "Tile, unseen"]  # fmt: skip
    assert [section.lead for section in found[3:5]] == ["a field.", ""]
    assert len(found[3].tables) == 2
    assert len(found[3].more) == 6


def test_names_from_files_are_only_ever_text(
    write_few: WriteBenchmark, read_page: ReadPage
) -> None:
    few = {"labelled": [1, 3], "arms": {EVIL: ["Plain", "score"], "B": ["LEA-Net", "score"]},
           "default": EVIL, "rivals": ["B"]}  # fmt: skip
    folder = write_few("b", few=few, data={EVIL: {"path": "p", "source": EVIL}}, about=EVIL)
    page = read_page(write_few_report(read(folder)))
    assert page.text.count(EVIL) > 5
    assert all(tag != "img" for tag, _ in page.tags)


def test_nothing_finished_is_a_page_too(write_few: WriteBenchmark, read_page: ReadPage) -> None:
    page = read_page(write_few_report(read(write_few("b", missing=lambda *_: True))))
    assert "0 of 4 claims hold; 4 cannot be judged yet." in page.text
    assert "48 of 48 trials of arms are missing" in page.text


def test_without_a_default_there_are_figures_alone(
    write_few: WriteBenchmark, read_page: ReadPage
) -> None:
    folder = write_few("b", few={"labelled": [1]}, data={"Leaf": {"path": "leaf"}})
    page = read_page(write_few_report(read(folder)))
    assert "Nothing is claimed: the suite names no default arm." in page.text
    assert "| claim |" not in (folder / "few_defects.md").read_text()
    assert "minus the others" not in page.text


def test_the_same_files_give_the_same_bytes(write_few: WriteBenchmark) -> None:
    names = ("few_defects.md", "few_defects.csv", "report.html")
    folder = write_few("b", data={"Leaf": {"path": "leaf"}})
    made = []
    for _ in range(2):
        write_few_report(read(folder))
        made.append([(folder / name).read_bytes() for name in names])
    assert made[0] == made[1]
