from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leanet.report import cavga_figures
from leanet.report.run import Run, read_run

WriteRun = Callable[..., Path]
SIDE_ENTRIES = {"epoch", "seconds", "lr"}


def drawn(monkeypatch: pytest.MonkeyPatch, run: Run) -> dict[str, Axes]:
    """The matplotlib axes behind the charts, by title."""
    axes: dict[str, Axes] = {}

    def keep(_: str, panel: Callable[[Axes], None]) -> str:
        one = Figure().add_subplot()
        panel(one)
        axes[one.get_title(loc="left")] = one
        return ""

    monkeypatch.setattr(cavga_figures, "draw_chart", keep)
    cavga_figures.training_charts(run)
    return axes


def values(axes: Axes, line: int) -> list[float]:
    return [float(value) for value in np.asarray(axes.lines[line].get_ydata())]


@pytest.mark.parametrize("variant", ["R_u", "D_w"])
def test_every_entry_of_the_journal_is_in_a_chart_of_which_a_sentence_tells(
    write_cavga: WriteRun, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    run = read_run(write_cavga("run", variant))
    keys = set(run.final.journal[0]) - SIDE_ENTRIES
    plots = [p for p in cavga_figures.PLOTS if any(line.key in keys for line in p.lines)]
    assert keys <= {line.key for plot in plots for line in plot.lines}
    assert list(drawn(monkeypatch, run)) == [plot.title for plot in plots]
    assert all(plot.says.endswith(".") for plot in plots)


def test_charts_are_well_formed_and_their_ids_unique(write_cavga: WriteRun) -> None:
    charts = cavga_figures.training_charts(read_run(write_cavga("run")))
    ids = [found for chart in charts for found in re.findall(r'\bid="([^"]+)"', chart.svg)]
    assert len(ids) == len(set(ids)) > 0
    for chart in charts:
        ElementTree.fromstring(chart.svg.replace("xlink:href", "href"))


def test_a_chart_has_a_line_per_training_and_its_level(
    write_cavga: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_cavga("run"))
    axes = drawn(monkeypatch, run)
    belief = axes["What it takes for real"]
    assert values(belief, 0) == [0.5, 0.5]  # the level
    assert len(belief.lines) == 1 + 2 * 3  # images and reconstructions; two folds and the final
    assert values(belief, 1) == [record["d_real"] for record in run.folds[0].journal]
    legend = belief.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["images", "reconstructions"]
    assert belief.get_ylim()[0] < 0 < 1 < belief.get_ylim()[1]
    assert values(axes["Discriminator's loss"], 0)[0] == pytest.approx(2 * np.log(2))


def test_held_out_images_are_in_the_chart_of_the_training_ones(
    write_cavga: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_cavga("run"))
    axes = drawn(monkeypatch, run)["Reconstruction"]
    by_color: dict[Any, int] = {}
    for line in axes.lines:
        by_color[line.get_color()] = by_color.get(line.get_color(), 0) + 1
    assert by_color == {cavga_figures.MUTED: 3, cavga_figures.ACCENT: 3}


def test_a_term_that_has_no_sentence_yet_is_drawn_all_the_same(
    write_cavga: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cavga("run")
    file = folder / "final" / "journal.jsonl"
    records = [json.loads(line) | {"train_new_term": 2.0} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "new term" in drawn(monkeypatch, read_run(folder))


def test_other_runs_have_no_adversary(write_run: WriteRun, write_cavga: WriteRun) -> None:
    assert not cavga_figures.has_adversary(read_run(write_run("plain")))
    assert cavga_figures.has_adversary(read_run(write_cavga("run")))
