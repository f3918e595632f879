from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import confusion_matrix

from leanet.files import read_csv, write_csv
from leanet.report.classes import (
    ClassSummary,
    accuracy_interval,
    class_text,
    notices,
    short,
    summarize_classes,
)
from leanet.report.run import read_run

WriteRun = Callable[..., Path]
CLASSES = ("early_blight", "healthy", "late_blight")


def summary_of(folder: Path) -> ClassSummary:
    return summarize_classes(read_run(folder))


def test_the_counts_are_those_of_the_predictions_under_their_own_names(
    write_classes: WriteRun,
) -> None:
    folder = write_classes("run", folds=3)
    images, summary = read_run(folder).named, summary_of(folder)
    expected = confusion_matrix(
        [i.true for i in images], [i.predicted for i in images], labels=CLASSES
    )
    assert summary.counts.tolist() == expected.tolist()
    assert [row.name for row in summary.rows] == list(CLASSES)
    assert summary.num_right == sum(not image.wrong for image in images)


def test_the_order_of_the_classes_is_that_of_the_card_whatever_it_is(
    write_classes: WriteRun,
) -> None:
    summary = summary_of(write_classes("run", classes=("zebra", "ant", "moth"), skill=9.0))
    assert [row.name for row in summary.rows] == ["zebra", "ant", "moth"]
    assert summary.counts.diagonal().tolist() == [20, 20, 20]


def test_figures_are_means_over_the_folds(write_classes: WriteRun) -> None:
    folder = write_classes("run", folds=3)
    by_fold = [part.metrics["classes"]["accuracy"] for part in read_run(folder).folds]
    figure = summary_of(folder).figures["accuracy"]
    assert figure.mean == pytest.approx(sum(by_fold) / 3)
    assert figure.sd > 0


def test_confusions_come_with_the_most_frequent_first(write_classes: WriteRun) -> None:
    summary = summary_of(write_classes("run", skill=0.5))
    counts = [one.images for one in summary.confused]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == summary.num_images - summary.num_right
    first = summary.confused[0]
    assert first.share == first.images / 20
    assert first.true != first.predicted


def test_a_class_without_test_images_is_told_and_has_no_figures(write_classes: WriteRun) -> None:
    summary = summary_of(write_classes("run", untested="healthy"))
    assert math.isnan(summary.rows[1].figures.recall)
    assert any("No test image of healthy" in text for text in notices(summary))
    assert "healthy" in class_text(summary)


def test_an_accuracy_of_no_effort_is_told(write_classes: WriteRun) -> None:
    bad = summary_of(write_classes("bad", skill=-4.0))
    assert "is not above 0.333" in notices(bad)[0]
    assert notices(summary_of(write_classes("good", skill=4.0))) == []


def test_a_class_that_is_never_named_and_a_small_class_are_told(write_classes: WriteRun) -> None:
    few = summary_of(write_classes("few", images=8, skill=4.0))
    assert any("Only 4 test images of" in text and "2 more" in text for text in notices(few))
    folder = write_classes("never", skill=3.0)
    file = folder / "final" / "predictions.csv"
    rows = read_csv(file)
    write_csv(
        file, [row | {"predicted": row["predicted"].replace("late", "early")} for row in rows]
    )
    assert any("ever given the class late_blight" in text for text in notices(summary_of(folder)))


def test_a_run_that_was_not_tested_says_so(write_classes: WriteRun) -> None:
    folder = write_classes("run")
    file = folder / "final" / "predictions.csv"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    summary = summary_of(folder)
    assert summary.verdict.startswith("Nothing was tested")
    assert notices(summary) == []
    assert "Nothing was tested" in class_text(summary)


def test_the_verdict_holds_the_accuracy_beside_that_of_no_effort(write_classes: WriteRun) -> None:
    summary = summary_of(write_classes("run", skill=99.0))
    assert summary.verdict.startswith("Names the class of 100 % of the images")
    assert "would reach 33 %" in summary.verdict
    low, high = accuracy_interval(summary)
    assert (low < 0.95, high) == (True, 1.0)


def test_the_terminal_text_is_narrow_and_names_every_class(write_classes: WriteRun) -> None:
    names = tuple(f"a very long name of the class number {k}" for k in range(4))
    text = class_text(summary_of(write_classes("run", classes=names, folds=2)))
    table = text.splitlines()[2:-1]
    assert len(table) == 5
    assert max(map(len, table)) <= 100


def test_long_names_keep_both_ends() -> None:
    assert short("Tomato___late_blight_of_the_leaf", 15) == "Tomato_…he_leaf"
    assert len(short("x" * 99, 20)) == 20
