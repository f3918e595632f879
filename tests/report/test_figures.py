from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from leanet.files import read_csv, write_csv
from leanet.report import figures
from leanet.report.run import Run, read_run

WriteRun = Callable[..., Path]
Panel = Callable[[Axes], None]


def drawn(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[Run], list[str]], run: Run
) -> list[Axes]:
    """The matplotlib axes behind the charts."""
    axes: list[Axes] = []

    def keep(_: str, panels: Sequence[Panel]) -> list[str]:
        for panel in panels:
            axes.append(Figure().add_subplot())
            panel(axes[-1])
        return []

    monkeypatch.setattr(figures, "_draw", keep)
    draw(run)
    return axes


def all_charts(run: Run) -> list[str]:
    return [
        *figures.loss_curves(run),
        *figures.ranking_curves(run),
        *figures.score_histograms(run),
    ]


def test_every_chart_is_well_formed_and_scales_with_the_page(write_run: WriteRun) -> None:
    charts = all_charts(read_run(write_run("run")))
    assert len(charts) == 3 + 2 + 4  # two losses and the map models; ROC and PR; four outputs
    for svg in charts:
        root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
        assert "viewBox" in root.attrib
        assert not {"width", "height"} & root.attrib.keys()


def test_charts_take_all_their_colors_from_the_page(write_run: WriteRun) -> None:
    css = (Path(figures.__file__).parent / "page.css").read_text()
    for svg in all_charts(read_run(write_run("run"))):
        assert re.findall(r"(?:fill|stroke): *#\w+", svg) == []
        used = set(re.findall(r"var\((--\w+)\)", svg))
        assert used
        assert all(f"{name}:" in css for name in used)


def test_ids_are_unique_over_all_charts_and_every_reference_finds_its_own(
    write_run: WriteRun,
) -> None:
    charts = all_charts(read_run(write_run("run")))
    ids = [found for svg in charts for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in charts:
        for used in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg):
            assert f'id="{used[0] or used[1]}"' in svg


def test_equal_runs_give_equal_charts_and_drawing_leaves_no_trace(write_run: WriteRun) -> None:
    run, before = read_run(write_run("run")), dict(mpl.rcParams)
    assert all_charts(run) == all_charts(run)
    assert dict(mpl.rcParams) == before


def test_losses_show_every_fold_and_the_final_training(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = drawn(monkeypatch, figures.loss_curves, read_run(write_run("run", folds=3)))
    assert [a.get_title(loc="left") for a in axes] == ["loss", "adn loss", "loss of the map models"]
    lines = [line for line in axes[0].lines if line.get_marker() == "None"]
    assert len(lines) == 2 * 4
    assert np.allclose(np.asarray(lines[0].get_xdata()), [1, 2, 3])
    assert np.allclose(np.asarray(lines[0].get_ydata()), [1, 1 / 2, 1 / 3])
    dots = [line for line in axes[0].lines if line.get_marker() == "o"]
    assert {float(np.asarray(dot.get_xdata())[0]) for dot in dots} == {2.0}  # metrics.json: epochs


def test_learned_strengths_have_a_chart_of_their_own(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run("run")
    for file in folder.glob("*/journal.jsonl"):
        records = [r | {"train_w_A2": -0.1 * r["epoch"], "train_w_A4": 0.5} for r in lines(file)]
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    axes = drawn(monkeypatch, figures.loss_curves, read_run(folder))
    titles = [a.get_title(loc="left") for a in axes]
    assert titles == ["loss", "adn loss", "strength w", "loss of the map models"]
    curves = [line for line in axes[2].lines if line.get_marker() == "None"]
    assert len(curves) == 2 * 3  # two points; two folds and the final training
    assert np.allclose(np.asarray(curves[0].get_ydata()), [0, -0.1, -0.2])
    assert axes[2].get_yscale() == "linear"
    assert [text.get_text() for text in axes[2].texts] == ["A2", "A4"]


def lines(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_area_under_the_pooled_curve_is_the_pooled_auroc(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_run("run", shift=1.0))
    roc = drawn(monkeypatch, figures.ranking_curves, run)[0]
    pooled = next(line for line in roc.lines if line.get_linewidth() > 2)
    x, y = (np.asarray(data, dtype=np.float64) for data in pooled.get_data())
    labels = [image.label for image in run.tested]
    scores = [image.scores["score"] for image in run.tested]
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(labels, scores))


def test_the_dot_is_the_share_found_at_the_share_of_false_alarms(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_run("run", shift=1.0))
    roc = drawn(monkeypatch, figures.ranking_curves, run)[0]
    dot = next(line for line in roc.lines if line.get_marker() == "o")
    found = np.mean([image.alarm for image in run.tested if image.label == 1])
    false_alarms = np.mean([image.alarm for image in run.tested if image.label == 0])
    assert [np.asarray(data).item() for data in dot.get_data()] == pytest.approx(
        [false_alarms, found]
    )


def test_histograms_mark_each_threshold_and_their_median(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_run("run", folds=3))
    first = drawn(monkeypatch, figures.score_histograms, run)[0]
    vertical = [line for line in first.lines if line.get_marker() == "None"]
    marked = [float(cast("list[float]", line.get_xdata())[0]) for line in vertical]
    values = [part.thresholds["fused"]["value"] for part in run.folds]
    assert marked == [*values, np.median(values)]


def test_charts_that_need_test_images_are_left_out_without_them(write_run: WriteRun) -> None:
    run = read_run(write_run("run", folds=0))
    assert figures.ranking_curves(run) == []
    assert figures.score_histograms(run) == []
    assert figures.loss_curves(run)


def test_test_images_of_one_class_have_a_histogram_but_no_ranking(write_run: WriteRun) -> None:
    run = write_run("run", method="classifier")
    for file in run.glob("fold-*/predictions.csv"):
        write_csv(file, [row for row in read_csv(file) if row["label"] == "0"])
    assert figures.ranking_curves(read_run(run)) == []
    assert len(figures.score_histograms(read_run(run))) == 1
