"""The curves behind the figures of `faithfulness`, in one picture of four plots.

Deletion and insertion, the probability after taking away the most (solid) and the least relevant
pixels (dashed) with ROAD, and how a map changes while more and more of the network is drawn anew.
Methods are in color, baselines in shades of grey; the curve of random weights is the mean over all
methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leanet.files import replacing
from leanet.inference.subject import EDGES, GAUSSIAN, RANDOM, is_baseline

INK, MUTED, LINE = "#1b2733", "#5a6a7f", "#c9d1db"
# Okabe and Ito's palette without its yellow, told apart by color-blind eyes as well.
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7a5195")
BASELINES: Final = {RANDOM: ":", GAUSSIAN: "-.", EDGES: "--"}
UNTRAINED: Final = "random weights, mean"


class Curves(NamedTuple):
    """Mean curves by method and name (deletion, insertion [steps + 1], road_morf, road_lerf [S]),
    rank correlations by method and part drawn anew, and what the picture says."""

    curves: Mapping[str, Mapping[str, Sequence[float]]]
    redrawn: Mapping[str, Mapping[str, float]]
    shares: Sequence[float]
    images: int
    removed: str


def save_curves(found: Curves, path: Path) -> None:
    """Write the picture as PNG."""
    figure = draw_curves(found)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(temporary, format="png", dpi=120)


def draw_curves(found: Curves) -> Figure:
    """The picture as a matplotlib figure."""
    plots = 4 if found.redrawn else 3
    figure = Figure(figsize=(4.1 * plots, 4.6), facecolor="white")
    axes = figure.subplots(1, plots, squeeze=False)[0]
    looks = _looks(found)
    shown = {**found.curves, **_untrained(found)}
    for axis, name in zip(axes, ("deletion", "insertion"), strict=False):
        for method, look in looks.items():
            curve = shown[method][name]
            axis.plot(np.linspace(0, 1, len(curve)), curve, label=method, **look)
    for method, look in looks.items():
        axes[2].plot(found.shares, shown[method]["road_morf"], **look)
        axes[2].plot(found.shares, shown[method]["road_lerf"], **{**look, "alpha": 0.45})
    source = "image and map" if found.removed == "both" else found.removed
    removed = f"share of the pixels taken from the {source}"
    _frame(axes[0], "deletion: lower is better", removed, "probability of the explained class")
    _frame(axes[1], "insertion: higher is better", "share of the pixels put back")
    _frame(axes[2], "ROAD: most relevant first; pale: least", removed)
    for axis in axes[:3]:
        axis.set_ylim(-0.02, 1.02)
    if found.redrawn:
        _redrawn(axes[3], found, looks)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, frameon=False, fontsize=8.5)
    figure.text(0.99, 0.985, f"means of {found.images} images", ha="right", va="top", fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 0.97))
    return figure


def _looks(found: Curves) -> dict[str, dict[str, Any]]:
    """Line styles: methods in color, baselines in grey."""
    methods = [name for name in found.curves if not is_baseline(name)]
    styles = ("-", "--", ":", "-.")
    looks: dict[str, dict[str, Any]] = {
        name: {
            "color": COLORS[k % len(COLORS)],
            "linestyle": styles[k // len(COLORS) % len(styles)],
            "linewidth": 1.6,
        }
        for k, name in enumerate(methods)
    }
    for name, style in BASELINES.items():
        if name in found.curves:
            looks[name] = {"color": MUTED, "linestyle": style, "linewidth": 1.2}
    return looks | {
        name: {"color": "#a7b1be", "linestyle": "-", "linewidth": 1.2} for name in _untrained(found)
    }


def _untrained(found: Curves) -> dict[str, dict[str, Any]]:
    """The mean curves of the maps of random weights, if there are any."""
    names = [n for n in found.curves if is_baseline(n) and n not in BASELINES]
    if not names:
        return {}
    keys = found.curves[names[0]]
    return {UNTRAINED: {k: np.mean([found.curves[n][k] for n in names], axis=0) for k in keys}}


def _redrawn(axis: Axes, found: Curves, looks: Mapping[str, dict[str, Any]]) -> None:
    parts = list(next(iter(found.redrawn.values())))
    places = range(len(parts) + 1)
    for method, values in found.redrawn.items():
        axis.plot(places, [1.0, *(values[part] for part in parts)], marker="o", **looks[method])
    _frame(axis, "weights drawn anew: must fall", "from the head downwards", "rank correlation")
    axis.axhline(0, color=LINE, linewidth=0.8)
    axis.set_xticks(list(places), ["none", *parts], rotation=30, ha="right", fontsize=8)


def _frame(axis: Axes, title: str, below: str, left: str = "") -> None:
    axis.set_title(title, fontsize=10, color=INK)
    axis.set_xlabel(below, fontsize=9, color=MUTED)
    axis.set_ylabel(left, fontsize=9, color=MUTED)
    axis.tick_params(labelsize=8, colors=MUTED)
    axis.grid(color=LINE, linewidth=0.4)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(LINE)
