"""Charts of a comparison: the learning curves of all variants in one figure per quantity, and the
differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from leanet.report.class_figures import CURVES
from leanet.report.classes import short
from leanet.report.compare import Comparison, Row
from leanet.report.figures import ACCENT, HOT, INK, LINE, MUTED, draw_chart, series
from leanet.report.run import Part, Run

# The baseline is ink; colors of the others are as readable on white as on the dark page.
COLORS = (INK, ACCENT, HOT, "#8b62b8", "#4c9a4c", "#c7528f", "#a6851f", "#5b7fd6", MUTED)
QUANTITIES = {  # entry of the journal -> (name of the axis, title)
    "val_accuracy": (CURVES["accuracy"], "held-out accuracy"),
    "val_loss": (CURVES["loss"], "held-out loss"),
    "fit_accuracy": (CURVES["accuracy"], "accuracy on training images"),
    "fit_loss": (CURVES["loss"], "loss on training images"),
}
CURVE_SIZE = (4.0, 2.7)
NAME_WIDTH = 26


def color_of(index: int) -> str:
    """The color of a variant by its place, as CSS."""
    color = COLORS[index % len(COLORS)]
    return {INK: "var(--ink)", ACCENT: "var(--accent)", HOT: "var(--hot)"}.get(
        color, "var(--muted)" if color == MUTED else color
    )


def comparison_curves(comparison: Comparison) -> list[str]:
    """One chart per quantity that a journal holds: thin lines are single trainings, thick ones
    their mean at each epoch that all of them reached."""
    keys = {key for row in comparison.rows for p in _parts(row) for r in p.journal for key in r}
    return [
        draw_chart(f"curves-{k}", partial(_curves, comparison=comparison, key=key), CURVE_SIZE)
        for k, key in enumerate(key for key in QUANTITIES if key in keys)
    ]


def difference_chart(comparison: Comparison) -> str:
    """Differences in points with their two-level intervals, a line per variant; dots are repeats'
    own differences, and the band is how far runs of the baseline alone lie apart."""
    others = comparison.rows[1:]
    panel = partial(_differences, comparison=comparison, rows=others)
    return draw_chart("differences", panel, (8.6, 0.9 + 0.36 * len(others)))


def _curves(axes: Axes, comparison: Comparison, key: str) -> None:
    for k, row in enumerate(comparison.rows):
        color = COLORS[k % len(COLORS)]
        lines = [points for part in _parts(row) if (points := series(part.journal, key))]
        for points in lines if len(lines) > 1 else ():
            axes.plot(*zip(*points, strict=True), color=color, linewidth=0.6, alpha=0.25)
        reached = min(map(len, lines), default=0)
        if reached:
            epochs = [epoch for epoch, _ in lines[0][:reached]]
            mean = np.mean([[value for _, value in line[:reached]] for line in lines], axis=0)
            axes.plot(epochs, mean, color=color, linewidth=1.8, zorder=3)
    y_label, title = QUANTITIES[key]
    axes.set(xlabel="epoch", ylabel=y_label)
    axes.set_title(title, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _differences(axes: Axes, comparison: Comparison, rows: Sequence[Row]) -> None:
    noise = 100 * comparison.noise.largest
    if noise == noise:
        axes.axvspan(-noise, noise, color=LINE, alpha=0.6, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for k, row in enumerate(rows):
        assert row.contrast is not None
        low, high = (100 * end for end in row.contrast.interval)
        axes.plot([low, high], [k, k], color=COLORS[(k + 1) % len(COLORS)], linewidth=2)
        each = [100 * value for value in row.of_repeats]
        axes.plot(each, [k] * len(each), "o", color=MUTED, markersize=3, alpha=0.8)
        mean = 100 * row.contrast.over_draws.mean
        axes.plot([mean], [k], "D", color=COLORS[(k + 1) % len(COLORS)], markersize=6, zorder=3)
    names = [short(row.variant.name, NAME_WIDTH) for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy minus that of the baseline, points")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _parts(row: Row) -> list[Part]:
    return [part for run in row.variant.runs.values() for part in _learned(run)]


def _learned(run: Run) -> list[Part]:
    """Its tested parts with a journal."""
    return [part for part in run.tested_parts if part.journal]
