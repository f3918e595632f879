from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from leanet.report.class_figures import confusion_chart, learning_curves, rate_steps
from leanet.report.run import read_run

WriteRun = Callable[..., Path]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg.replace("xlink:", ""))
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]


def journal(rates: list[float]) -> list[dict[str, Any]]:
    return [{"epoch": k, "lr": rate} for k, rate in enumerate(rates)]


def test_each_quantity_has_its_own_chart_with_its_own_axis(write_classes: WriteRun) -> None:
    accuracy, loss, rate = learning_curves(read_run(write_classes("run")))
    assert {"accuracy", "epoch"} <= set(texts(accuracy))
    assert {"loss", "cross-entropy", "epoch"} <= set(texts(loss))
    assert "accuracy" not in texts(loss)
    assert "learning rate" in texts(rate)


def test_only_the_running_mean_is_dashed(write_classes: WriteRun) -> None:
    accuracy = learning_curves(read_run(write_classes("run")))[0]
    lines = re.findall(r'<path [^>]*style="fill: none; stroke[^"]*"', accuracy)
    dashed = [line for line in lines if "stroke-dasharray" in line]
    assert len(dashed) == 1
    assert "var(--muted)" in dashed[0]


def test_every_fold_has_its_lines(write_classes: WriteRun) -> None:
    one = learning_curves(read_run(write_classes("one")))[0]
    folds = learning_curves(read_run(write_classes("folds", folds=3)))[0]
    assert folds.count("stroke-dasharray") == 4 * one.count("stroke-dasharray")


def test_a_step_of_the_rate_is_marked_and_a_smooth_course_is_not() -> None:
    assert rate_steps(journal([1e-3] * 5 + [1e-4] * 5)) == [6]
    assert rate_steps(journal([1e-3] * 15 + [1e-6] * 15 + [1e-7] * 20)) == [16, 31]
    assert rate_steps(journal([1e-3 * 0.9**k for k in range(20)])) == []
    assert rate_steps(journal([1e-3] * 5)) == []
    assert rate_steps([]) == []


def test_a_run_without_a_journal_has_no_curves(write_classes: WriteRun) -> None:
    folder = write_classes("run")
    (folder / "final" / "journal.jsonl").unlink()
    assert learning_curves(read_run(folder)) == []


def test_the_matrix_shows_counts_and_row_shares_under_the_true_names() -> None:
    svg = confusion_chart(np.array([[3, 1], [0, 6]]), ("zebra", "ant"))
    found = texts(svg)
    assert {"3", "75 %", "1", "25 %", "6", "100 %", "true", "predicted"} <= set(found)
    assert [text for text in found if text in ("zebra", "ant")] == ["zebra", "ant"] * 2


def test_a_class_without_images_has_no_share() -> None:
    found = texts(confusion_chart(np.array([[4, 0], [0, 0]]), ("a", "b")))
    assert found.count("0") == 1
    assert "100 %" in found
    assert "0 %" not in found


@pytest.mark.parametrize("size", [2, 12, 40])
def test_any_number_of_classes_can_be_drawn(size: int) -> None:
    svg = confusion_chart(np.eye(size, dtype=np.int64), [f"class {k}" for k in range(size)])
    assert texts(svg).count(f"class {size - 1}") == 2
    assert ("1" in texts(svg)) == (size < 25)


def test_names_are_text_and_never_formulas_or_markup() -> None:
    found = texts(confusion_chart(np.eye(2, dtype=np.int64), ("$a^2$", "<b>&")))
    assert found.count("$a^2$") == 2
    assert found.count("<b>&") == 2
