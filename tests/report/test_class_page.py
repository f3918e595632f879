from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.report.page import result_text, write_report
from leanet.report.run import read_run

WriteRun = Callable[..., Path]
ReadPage = Callable[[Path], Any]
EVIL = '"><img src=x onerror=alert(1)>&'


def test_the_page_stands_in_the_run_folder_and_alone(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_classes("run")))
    assert page.count("section") >= 5
    assert not re.search(r"https?://(?!www\.w3\.org)", page.source)
    assert page.count("script") == page.count("link") == 0


def test_accuracy_stands_beside_that_of_no_effort(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_classes("run")))
    tiles = page.text[page.text.index("Accuracy") :]
    assert "Majority class" in tiles[:200]
    assert "0.333" in tiles[:200]


def test_every_class_stands_in_the_table_in_the_order_of_the_card(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_classes("run", classes=("zebra", "ant", "moth"))))
    table = page.text[page.text.index("Each class") : page.text.index("Mistakes")]
    assert re.findall(r"^(zebra|ant|moth)$", table, re.MULTILINE) == ["zebra", "ant", "moth"]


def test_scores_are_there_only_with_a_normal_class(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    without = read_page(write_report(write_classes("a")))
    with_one = read_page(write_report(write_classes("b", normal="healthy")))
    assert "AUROC" not in without.text
    assert "AUROC" in with_one.text
    assert "1 − p(healthy)" in with_one.text


def test_a_page_of_folds_and_a_page_without_a_test_are_whole(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    folds = read_page(write_report(write_classes("folds", folds=3)))
    assert "over 3 folds" in folds.text
    folder = write_classes("untested")
    file = folder / "final" / "predictions.csv"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert "Nothing was tested" in read_page(write_report(folder)).text


def test_names_of_classes_and_files_cannot_break_out_of_the_page(
    write_classes: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_classes("run", classes=("ok", EVIL), skill=0.0)))
    assert page.count("img") == 0
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert EVIL in page.text


def test_the_same_files_give_the_same_page(write_classes: WriteRun) -> None:
    run = write_classes("run", folds=2)
    os.utime(run / "card.json", (1e9, 1e9))
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_another_run_as_baseline_is_pointed_to_compare(write_classes: WriteRun) -> None:
    with pytest.raises(ValueError, match="leanet compare"):
        write_report(write_classes("run"), baseline=write_classes("other"))


def test_the_terminal_gets_the_classes_or_the_verdicts(
    write_classes: WriteRun, write_run: WriteRun
) -> None:
    assert "3 classes" in result_text(write_classes("classes"))
    assert "Finds " in result_text(write_run("two"))


def test_the_command_of_the_run_is_repeated(write_classes: WriteRun, read_page: ReadPage) -> None:
    run = write_classes("run", options=(("attention", "se"),))
    page = read_page(write_report(run))
    assert "--attention se" in page.text
    assert "resnet18 + se" in page.text
    assert read_run(run).card["method"] in page.text
