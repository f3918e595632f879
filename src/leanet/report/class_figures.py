"""Charts of a run of several classes: confusion matrix and learning curves, as SVG for the page.

Curves show three things that are easily mistaken for each other: the running mean over the training
images while the weights change and the images are augmented (dashed), the same images judged
afterwards as they are (`fit_`, solid), and the held-out images. Steps of the learning rate are
marked by upright lines, for a curve often bends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from leanet.ops.classes import Counts
from leanet.report.classes import short
from leanet.report.figures import ACCENT, HOT, INK, LINE, MUTED, Panel, draw_chart, series
from leanet.report.run import Part, Record, Run

CURVES = {"accuracy": "accuracy", "loss": "cross-entropy"}  # in the journal -> name of the axis
LOOKS = {  # prefix in the journal -> color and dash
    "train": (MUTED, (0, (4, 2))),
    "fit": (INK, "-"),
    "val": (ACCENT, "-"),
}
CURVE_SIZE = (4.0, 2.7)
MOST_NUMBERS, MOST_SHARES = 24, 10  # classes up to which the cells of a matrix hold text
DEEPEST = 0.6  # opacity of a cell with all images of its row: the text stays readable
NAME_WIDTH = 22  # of a class beside the matrix, in characters


def learning_curves(run: Run) -> list[str]:
    """Accuracy, loss and learning rate by epoch, a line per part; [] without a journal."""
    parts = [part for part in (*run.folds, run.final) if part.journal]
    keys = {key for part in parts for record in part.journal for key in record}
    panels: list[Panel] = [
        partial(_curve, parts=parts, name=name)
        for name in CURVES
        if any(f"{prefix}_{name}" in keys for prefix in LOOKS)
    ]
    if "lr" in keys:
        panels.append(partial(_rate, parts=parts))
    return [draw_chart(f"curve-{k}", panel, CURVE_SIZE) for k, panel in enumerate(panels)]


def confusion_chart(counts: Counts, classes: Sequence[str], name: str = "confusion") -> str:
    """Counts [K, K] as colored cells: rows true, columns predicted. The deeper a cell, the larger
    its share of the row; `name` is unique in the page."""
    side = 1.6 + max(0.3 if len(classes) > MOST_SHARES else 0.62, 2.2 / len(classes)) * len(classes)
    panel = partial(_matrix, counts=counts, classes=classes)
    return draw_chart(name, panel, (side + 0.4, side))


def rate_steps(journal: Sequence[Record]) -> list[int]:
    """Epochs (from 1) at which the learning rate took a step; [] where it changes all the time, as
    a cosine does."""
    rates = series(journal, "lr")
    steps = [
        epoch
        for (_, before), (epoch, now) in pairwise(rates)
        if not np.isclose(before, now, rtol=1e-6, atol=0)
    ]
    return steps if len(steps) <= max(1, len(rates) // 5) else []


def _curve(axes: Axes, parts: Sequence[Part], name: str) -> None:
    for part in parts:
        for prefix, (color, dash) in LOOKS.items():
            points = series(part.journal, f"{prefix}_{name}")
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=color, linestyle=dash, linewidth=1.2, alpha=0.8)
    for epoch in sorted({step for part in parts for step in rate_steps(part.journal)}):
        axes.axvline(epoch, color=HOT, linewidth=0.8, alpha=0.7)
    axes.set_title(name, loc="left")
    _epochs(axes, CURVES[name])
    if name == "accuracy":
        axes.set_ylim(top=1.01)
    else:
        axes.set_ylim(bottom=0)


def _rate(axes: Axes, parts: Sequence[Part]) -> None:
    for part in parts:
        points = series(part.journal, "lr")
        if points:
            axes.plot(*zip(*points, strict=True), color=HOT, linewidth=1.2, alpha=0.8)
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if values.min() > 0:
        axes.set_yscale("log")
    axes.set_title("learning rate", loc="left")
    _epochs(axes, "")


def _epochs(axes: Axes, y_label: str) -> None:
    axes.set(xlabel="epoch", ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _matrix(axes: Axes, counts: Counts, classes: Sequence[str]) -> None:
    size, support = len(classes), counts.sum(axis=1)
    for i, j in np.ndindex(size, size):
        share = counts[i, j] / support[i] if support[i] else 0.0
        color = ACCENT if i == j else HOT
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=color, alpha=DEEPEST * share, linewidth=0))
        axes.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor=LINE, linewidth=0.6))
        _cell_text(axes, (i, j), int(counts[i, j]), share if support[i] else None, size)
    names = [short(name, NAME_WIDTH) for name in classes]
    places = np.arange(size) + 0.5
    axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal", xlabel="predicted", ylabel="true")
    tilted = size > 3 or max(map(len, names)) > 10
    axes.set_xticks(places, names, parse_math=False)
    axes.tick_params(axis="x", rotation=45 if tilted else 0)
    for label in axes.get_xticklabels() if tilted else ():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names, parse_math=False)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _cell_text(
    axes: Axes, place: tuple[int, int], count: int, share: float | None, size: int
) -> None:
    if size > MOST_NUMBERS or not (count or place[0] == place[1]):
        return
    y, x = place[0] + 0.5, place[1] + 0.5
    with_share = size <= MOST_SHARES and share is not None
    axes.text(
        x,
        y - (0.12 if with_share else 0),
        str(count),
        ha="center",
        va="center",
        color=INK,
        fontsize=9 if size <= MOST_SHARES else 6.5,
        fontweight="bold" if place[0] == place[1] else "normal",
    )
    if with_share:
        axes.text(x, y + 0.2, f"{100 * (share or 0):.0f} %", ha="center", va="center", fontsize=7)
