"""Charts of a CAVGA training, each with a sentence on what to look for.

A GAN has no single curve that says how well it goes, so every term has a chart of its own, beside
the attention and what can go wrong with it. Muted lines are of training images, accent lines of
held-out ones; where two lines share a color, the second one is dashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from leanet.report.figures import (
    ACCENT,
    INK,
    MUTED,
    Panel,
    draw_chart,
    loss_names,
    loss_panel,
    series,
)
from leanet.report.run import Part, Run

ADVERSARIAL = "train_adversarial"  # in the journal of a CAVGA run only
SOLID, DASHED = "-", (0, (4, 2))
Dash = str | tuple[int, tuple[int, ...]]


class Chart(NamedTuple):
    """A chart as SVG, and a sentence below it."""

    svg: str
    says: str


class Line(NamedTuple):
    """An entry of the journal as a line; `name` stands in the chart where there are several."""

    key: str
    color: str = MUTED
    dash: Dash = SOLID
    name: str = ""


class Plot(NamedTuple):
    """What one chart shows: lines, a level to compare them with, the ends of its axis."""

    title: str
    lines: tuple[Line, ...]
    says: str
    level: float | None = None
    low: float | None = None
    high: float | None = None


GUESSING = math.log(2)
PLOTS = (
    Plot(
        "Reconstruction",
        (Line("train_reconstruction"), Line("val_reconstruction", ACCENT)),
        "How far images and their reconstructions are apart, per pixel. Should fall and level off; "
        "with --recon bce it cannot reach 0.",
    ),
    Plot(
        "Latent (KL)",
        (Line("train_kl"),),
        "How much the latent says about an image. Near 0 it says nothing, and all reconstructions "
        "are alike.",
        low=0,
    ),
    Plot(
        "Discriminator's loss",
        (Line("train_adversarial"),),
        "How badly images and reconstructions are told apart. The upper line, 1.386, is guessing; "
        "near 0 the discriminator has won.",
        level=2 * GUESSING,
        low=0,
    ),
    Plot(
        "What it takes for real",
        (Line("d_real", name="images"), Line("d_fake", dash=DASHED, name="reconstructions")),
        "Mean probability that the discriminator gives for “real”. Both at 0.5 is balance; far "
        "apart for long, it has won.",
        level=0.5,
        low=0,
        high=1,
    ),
    Plot(
        "Generator's adversarial term",
        (Line("train_generator"),),
        "How easily the discriminator sees through reconstructions: lower is more real.",
    ),
    Plot(
        "Attention expansion",
        (Line("train_expansion"),),
        "The share of a normal image that attention leaves out. Training lowers it.",
        low=0,
        high=1,
    ),
    Plot(
        "Guided attention",
        (Line("train_guidance"),),
        "1 where the two classes look at the same places, 0 where the normal one covers normal "
        "images alone; images behind a closed gate count as 0.",
        low=0,
    ),
    Plot(
        "Classifier's loss",
        (Line("train_classification"),),
        "Cross-entropy of normal and anomalous; the line, 0.693, is knowing nothing.",
        level=GUESSING,
        low=0,
    ),
    Plot(
        "Classifier and gate",
        (Line("accuracy", name="accuracy"), Line("gate_open", dash=DASHED, name="gate open")),
        "Share of training images that are classified right, and that open the gate of the guided "
        "loss: normal ones taken for normal.",
        low=0,
        high=1,
    ),
    Plot(
        "Attention",
        (
            Line("attention"),
            Line("attention_normal", name="normal"),
            Line("attention_anomalous", dash=DASHED, name="anomalous"),
            Line("val_attention", ACCENT, name="held out"),
        ),
        "Mean attention in images. 0.5 (line) is a raw map of zeros; above 0.99 there is no "
        "gradient left.",
        level=0.5,
        low=0,
        high=1,
    ),
    Plot(
        "Range of the raw map M",
        (Line("map_high", name="highest"), Line("map_low", dash=DASHED, name="lowest")),
        "What attention is made from. Under the sigmoid 0 (line) becomes 0.5, and 5 becomes 0.99.",
        level=0,
    ),
    Plot(
        "Channels that lower attention",
        (Line("negative_share"),),
        "Share of channels with a negative weight in M. Where features are never negative (R), "
        "only these can mark an anomaly.",
        low=0,
        high=1,
    ),
    Plot(
        "Total",
        (Line("train_loss"),),
        "What encoder and decoder minimize: the weighted sum of their terms.",
    ),
)


def has_adversary(run: Run) -> bool:
    """Whether the journals are those of a CAVGA training."""
    return any(ADVERSARIAL in record for part in _parts(run) for record in part.journal)


def training_charts(run: Run) -> list[Chart]:
    """A chart for every term and sign that the journals hold, a line per part."""
    return charts_of(run, PLOTS, "cavga")


def charts_of(run: Run, known: Sequence[Plot], prefix: str) -> list[Chart]:
    """Those of the known plots that the journals have entries for, and the losses that none of them
    shows; `prefix` keeps their names apart in a page."""
    parts = _parts(run)
    records = [record for part in parts for record in part.journal]
    keys = {key for record in records for key in record}
    plots = [plot for plot in known if any(line.key in keys for line in plot.lines)]
    told = {line.key for plot in plots for line in plot.lines}
    panels: list[tuple[Panel, str]] = [
        (partial(_panel, parts=parts, plot=plot), plot.says) for plot in plots
    ]
    panels += [
        (partial(loss_panel, parts=parts, name=name), "")
        for name in loss_names(records)
        if f"train_{name}" not in told
    ]
    return [
        Chart(draw_chart(f"{prefix}-{k}", panel), says) for k, (panel, says) in enumerate(panels)
    ]


def _parts(run: Run) -> list[Part]:
    return [part for part in (*run.folds, run.final) if part.journal]


def _panel(axes: Axes, parts: Sequence[Part], plot: Plot) -> None:
    if plot.level is not None:
        axes.axhline(plot.level, color=INK, linewidth=0.8, alpha=0.5)
    for line in plot.lines:
        found = [points for part in parts if (points := series(part.journal, line.key))]
        for k, points in enumerate(found):
            axes.plot(
                *zip(*points, strict=True),
                color=line.color,
                linestyle=line.dash,
                linewidth=1.2,
                alpha=0.85,
                label=line.name if k == 0 else None,
            )
    axes.set_title(plot.title, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _limit(axes, plot)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="best", frameon=False, fontsize=7.5, handlelength=1.8)


def _limit(axes: Axes, plot: Plot) -> None:
    """The ends that the plot names, with a little room; the others as the values want."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    ends = [end for end in (plot.low, plot.high) if end is not None]
    low, high = min(*values, *ends, math.inf), max(*values, *ends, -math.inf)
    room = 0.04 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
