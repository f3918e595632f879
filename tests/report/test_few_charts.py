from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from leanet.report.few_charts import curves_panel, over_labelled
from leanet.report.few_defects import series
from leanet.report.few_results import FewDefects, read_few

WriteBenchmark = Callable[..., Path]


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


def panel(few: FewDefects, metric: str = "auroc") -> Any:
    axes: Any = Figure().add_subplot()
    curves_panel(axes, few, "Leaf", metric)
    return axes


def test_every_arm_has_a_curve_through_its_means(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    axes = panel(few)
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["Default", "Plain", "Map only", "Shuffled"]
    for name, line in lines.items():
        means = [np.mean(list(series(few, "Leaf", k, name, "auroc").values())) for k in (1, 3, 10)]
        assert list(line.get_xdata()) == [1, 3, 10]
        assert line.get_ydata() == pytest.approx(means)
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3", "10"]


def test_the_default_and_its_rivals_have_a_band_of_one_sd(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    bands: list[Any] = [c for c in panel(few).collections if isinstance(c, PolyCollection)]
    assert len(bands) == 3
    values = np.array(list(series(few, "Leaf", 3, "Default", "auroc").values()))
    y = {round(float(v), 9) for x, v in bands[0].get_paths()[0].vertices if x == 3}
    sd = values.std(ddof=1)
    assert y == {round(values.mean() - sd, 9), round(values.mean() + sd, 9)}


def test_other_arms_are_dashed_and_the_default_is_thick(write_few: WriteBenchmark) -> None:
    lines = {line.get_label(): line for line in panel(read(write_few("b"))).lines}
    assert lines["Shuffled"].get_linestyle() == "--"
    widths = [lines[name].get_linewidth() for name in ("Default", "Plain", "Shuffled")]
    assert widths == sorted(widths, reverse=True)
    assert len({line.get_color() for line in lines.values()}) == 4


def test_without_a_default_all_arms_are_alike(write_few: WriteBenchmark) -> None:
    axes = panel(read(write_few("b", few={"labelled": [1, 3]})))
    assert {line.get_linestyle() for line in axes.lines} == {"-"}
    assert len(axes.collections) == 3


def test_missing_k_leave_a_shorter_curve(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda d, k, row, t: (row, k) == ("Plain", 1)))
    lines = {line.get_label(): line for line in panel(few).lines}
    assert list(lines["Plain"].get_xdata()) == [3, 10]


def test_the_axis_stays_within_what_is_possible(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", figure=lambda *at: 1.0))
    low, high = panel(few).get_ylim()
    assert low < 1 < high < 1.02


def test_a_chart_is_svg_and_nothing_is_no_chart(write_few: WriteBenchmark) -> None:
    name = "A $1 <b> & \\frac"
    few = {"labelled": [1, 3], "arms": {name: ["Plain", "score"]}}
    svg = over_labelled(read(write_few("b", few=few)), "Leaf", "few-0")
    assert svg is not None
    texts = [one.text for one in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter()]
    assert name in texts
    assert over_labelled(read(write_few("c", missing=lambda *_: True)), "Leaf", "x") is None
