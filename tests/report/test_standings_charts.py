from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leanet.report import standings_charts
from leanet.report.results import read_benchmark
from leanet.report.standings import Table, tables
from leanet.report.standings_charts import beside_published, over_members, over_shares

WriteBenchmark = Callable[..., Path]
Draw = Callable[[Table, str], str | None]
CAAN = "ResNet18 + ResNet-based CAAN"
EVIL = ("$plain$ <b>&", "--> $\\frac")
SHARES = {"A": {"method": "classifier",
                "each": {"keep_positive": [1.0, 0.5, 0.25], "draw": [0, 1]}}}  # fmt: skip


def table(folder: Path) -> Table:
    return tables(read_benchmark(folder))[0]


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Draw, made: Table) -> Axes:
    """The matplotlib axes behind a chart."""
    axes = Figure().add_subplot()

    def keep(name: str, panel: Callable[[Axes], None], size: tuple[float, float]) -> str:
        panel(axes)
        return name

    monkeypatch.setattr(standings_charts, "draw_chart", keep)
    assert draw(made, "chart") == "chart"
    return axes


def dots(axes: Axes) -> list[tuple[float, float, str]]:
    """(x, y, color) of everything drawn with a marker."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "|", "_", "")]
    return [
        (float(x), float(y), str(line.get_color()))
        for line in lines
        for x, y in zip(*line.get_data(), strict=True)
    ]


def test_ours_and_the_published_figure_stand_in_one_row(
    write_benchmark: WriteBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = table(write_benchmark("b"))
    axes = drawn(monkeypatch, beside_published, made)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["ResNet18", "ResNet18 (4ch input)", CAAN]
    rows = [(round(y), round(x, 3)) for x, y, _ in dots(axes)]
    for y, published in enumerate((0.767, 0.850, 0.948)):
        assert (y, published) in rows
    for line in made.main:
        mark = names.index(line.entry.title), round(line.figures["f1_at_half"].mean, 3)
        if line.kind != "member":
            assert (mark in rows) == (line.kind in ("single", "chosen", "oracle"))


def test_a_group_without_a_choice_is_shown_by_its_mean(
    write_benchmark: WriteBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*cell: str) -> float | None:
        return float("nan") if cell[-1] == "held_out_ap" else None

    made = table(write_benchmark("b", figure=unknown))
    mean = next(line for line in made.main if line.kind == "mean").figures["f1_at_half"].mean
    axes = drawn(monkeypatch, beside_published, made)
    assert mean in [x for x, y, _ in dots(axes) if round(y) == 2]


def test_missing_trials_are_written_behind_the_name(
    write_benchmark: WriteBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(data: str, row: str, seed: int, fold: int) -> bool:
        return row.endswith("A4") and fold > 1

    made = table(write_benchmark("b", missing=missing))
    axes = drawn(monkeypatch, beside_published, made)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["ResNet18", "ResNet18 (4ch input)", f"{CAAN} (2 of 5)"]
    axes = drawn(monkeypatch, over_members, made)
    assert f"{CAAN} (12 of 15)" in axes.get_legend_handles_labels()[1]


def test_every_attention_point_has_its_place(
    write_benchmark: WriteBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = table(write_benchmark("b"))
    axes = drawn(monkeypatch, over_members, made)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A1", "A4", "A5"]
    members = [line.figures["f1_at_half"].mean for line in made.main if line.kind == "member"]
    assert [y for _, y, _ in dots(axes)] == pytest.approx(members)
    heights = {float(y) for line in axes.lines for y in np.asarray(line.get_ydata())}
    assert made.main[0].figures["f1_at_half"].mean in heights  # the baseline
    assert made.all_positive.mean in heights


def test_shares_stand_at_the_real_share_of_anomalous_images(
    write_benchmark: WriteBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_benchmark("b", methods=SHARES, baseline="A", published=None)
    axes = drawn(monkeypatch, over_shares, table(folder))
    expected = [100 * kept / (120 + kept) for kept in (10, 20, 40)]
    assert [x for x, _, _ in dots(axes)] == pytest.approx(expected)


def test_a_chart_with_nothing_to_show_is_left_out(write_benchmark: WriteBenchmark) -> None:
    empty = table(write_benchmark("empty", missing=lambda *_: True))
    assert [draw(empty, "x") for draw in (beside_published, over_members, over_shares)] == [
        None
    ] * 3
    made = table(write_benchmark("b"))
    assert over_shares(made, "x") is None
    shares = table(write_benchmark("s", methods=SHARES, baseline="A", published=None))
    assert beside_published(shares, "x") is None
    assert over_members(shares, "x") is None
    draws = {"A": {"method": "classifier", "each": {"draw": [0, 1]}}}
    assert over_members(table(write_benchmark("d", methods=draws, baseline="A")), "x") is None


@pytest.mark.parametrize("draw", [beside_published, over_members])
def test_charts_are_well_formed_and_in_the_colors_of_the_page(
    draw: Draw, write_benchmark: WriteBenchmark
) -> None:
    before = dict(mpl.rcParams)
    each = {"attention_points": [[0], [1]]}
    methods = {EVIL[0]: {"method": "classifier"}, EVIL[1]: {"method": "leanet", "each": each}}
    made = table(write_benchmark("b", methods=methods, baseline=EVIL[0]))
    svg = draw(made, "one")
    assert svg is not None
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    texts = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
    assert set(EVIL) <= texts
    assert re.findall(r"(?:fill|stroke): *#\w+", svg) == []
    assert svg == draw(made, "one")
    assert dict(mpl.rcParams) == before


def test_many_groups_look_different() -> None:
    looks = {tuple(sorted(look.items())) for look in standings_charts.LOOKS}
    assert len(looks) == len(standings_charts.LOOKS) == 12
