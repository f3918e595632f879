"""Charts of a run as inline SVG, one per panel: losses, ranking curves, score histograms.

Colors of the charts are those of the page (`page.css`): every color below is written into the SVG
as a CSS variable, so that the charts follow the page into its dark theme. Text stays text, in the
font of the page, and the legends stand there too. Only matplotlib's object interface is used.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from leanet.records import ANOMALOUS, NORMAL
from leanet.report.run import Part, Record, Run, Trial

Panel = Callable[[Axes], None]

# Color in matplotlib -> CSS variable in the page.
INK, MUTED, LINE, ACCENT, HOT = "#1b2733", "#64748a", "#e2e7ee", "#0d6f80", "#cc5a16"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", HOT: "hot"}
SIZE = (3.0, 2.3)  # inches; the page scales the charts
NUM_BINS = 32
FEW_DECADES = 50.0  # ratio of losses from which only powers of ten are labelled
STRENGTH = "w_"  # journal entries "train_w_A4": the strength of an attention point
POINT_STYLES = ("-", "--", ":", "-.")
MOST_RUGS = 300  # images per label up to which each gets its own tick under a histogram

Scores = NDArray[np.float64]


def loss_curves(run: Run) -> list[str]:
    """Training (muted) and held-out (accent) losses per epoch, a line per part and a chart per
    loss; learned strengths w and the map models' losses in charts of their own. A dot marks the
    epoch that was kept."""
    parts = [part for part in (*run.folds, run.final) if part.journal]
    names = loss_names([record for part in parts for record in part.journal])
    strengths = [name for name in names if name.startswith(STRENGTH)]
    panels: list[Panel] = [
        partial(loss_panel, parts=parts, name=name) for name in names if name not in strengths
    ]
    if strengths:
        panels.append(partial(_strength_panel, parts=parts, names=strengths))
    models = [journal for journal in run.map_model_journals if journal]
    if models:
        panels.append(partial(_map_model_panel, models=models))
    return _draw("loss", panels)


def ranking_curves(run: Run) -> list[str]:
    """ROC and precision-recall curve of the score: all test images pooled, thin lines per fold.

    The dot is the working point: each image at the threshold of its fold. [] with one class only.
    """
    panels = [partial(_roc, run=run), partial(_precision_recall, run=run)]
    return _draw("ranking", panels if _both_labels(run.tested) else [])


def score_histograms(run: Run) -> list[str]:
    """Scores of the test images by label, a chart per output, with the thresholds of the folds
    (thin) and their median (bold). [] when nothing was tested."""
    outputs = run.outputs if run.tested else ()
    return _draw("scores", [partial(_histogram, run=run, output=output) for output in outputs])


def loss_panel(axes: Axes, parts: Sequence[Part], name: str) -> None:
    """One loss of `loss_names`, in training and held out, a line per part."""
    for part in parts:
        for prefix, color in (("train", MUTED), ("val", ACCENT)):
            points = series(part.journal, f"{prefix}_{name}")
            if not points:
                continue
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.1, alpha=0.75)
            kept = [point for point in points if point[0] == part.epochs]
            if kept:
                axes.plot(*kept[0], "o", color=color, markersize=3.5)
    _loss_axes(axes, name.replace("_", " "))


def _strength_panel(axes: Axes, parts: Sequence[Part], names: Sequence[str]) -> None:
    beside: Any = {"xytext": (4, 0), "textcoords": "offset points", "annotation_clip": False}
    for name, style in zip(names, itertools.cycle(POINT_STYLES), strict=False):
        found = [(series(part.journal, f"train_{name}"), part.epochs) for part in parts]
        drawn = [(points, epochs) for points, epochs in found if points]
        for points, epochs in drawn:
            axes.plot(*zip(*points, strict=True), style, color=INK, linewidth=1.1, alpha=0.75)
            kept = [point for point in points if point[0] == epochs]
            if kept:
                axes.plot(*kept[0], "o", color=INK, markersize=3.5)
        last = drawn[-1][0][-1]
        text = name.removeprefix(STRENGTH)
        axes.annotate(text, last, va="center", fontsize=8, color=INK, **beside)
    axes.set_title("strength w", loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _map_model_panel(axes: Axes, models: Sequence[Sequence[Record]]) -> None:
    for journal in models:
        for prefix, color in (("train", MUTED), ("val", ACCENT)):
            points = series(journal, f"{prefix}_loss")
            if points:
                axes.plot(*zip(*points, strict=True), color=color, linewidth=0.8, alpha=0.35)
    _loss_axes(axes, "loss of the map models")


def _loss_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if values.min() > 0:
        axes.set_yscale("log")
        steps = (1.0,) if values.max() / values.min() > FEW_DECADES else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=steps))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _roc(axes: Axes, run: Run) -> None:
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2)
    for images, style in _pools(run):
        false_alarms, found, _ = roc_curve(*_labels_scores(images))
        axes.plot(false_alarms, found, drawstyle="steps-post", **style)
    counts = _working_point(run.tested)
    axes.plot([counts["overkill"]], [counts["recall"]], "o", color=HOT, markersize=6, clip_on=False)
    _unit_axes(axes, "ROC", "false alarms (share of the normal)", "found (share of the anomalous)")


def _precision_recall(axes: Axes, run: Run) -> None:
    labels = [image.label for image in run.tested]
    share = labels.count(ANOMALOUS) / len(labels)
    axes.plot([0, 1], [share, share], color=LINE, linewidth=1.2)
    for images, style in _pools(run):
        precision, recall, _ = precision_recall_curve(*_labels_scores(images))
        axes.plot(recall, precision, drawstyle="steps-post", **style)
    counts = _working_point(run.tested)
    if counts["alarms"]:
        x, y = [counts["recall"]], [counts["precision"]]
        axes.plot(x, y, "o", color=HOT, markersize=6, clip_on=False)
    _unit_axes(axes, "Precision and recall", "found (recall)", "right alarms (precision)")


def _unit_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label)
    axes.set_title(title, loc="left")


def histogram_edges(values: Scores) -> Scores:
    """Edges [NUM_BINS + 1] of equal bins over values [N], strictly ascending: values that differ by
    rounding only lie in the middle of a narrow range.

    >>> edges = histogram_edges(np.array([1.0, np.nextafter(1.0, 2.0)]))
    >>> bool((np.diff(edges) > 0).all())
    True
    """
    low, high = float(values.min()), float(values.max())
    least = 1e-6 * max(1.0, abs(low), abs(high))
    if high - low < least:
        low, high = low - least / 2, high + least / 2
    return np.linspace(low, high, NUM_BINS + 1)


def draw_histograms(axes: Axes, scores: Mapping[int, Scores], also: Sequence[float]) -> None:
    """Scores [N] of each label as shares of it, over bins that reach to the values `also`; few of
    them with a tick each below the axis."""
    edges = histogram_edges(np.concatenate([*scores.values(), also]))
    for label, color in ((NORMAL, MUTED), (ANOMALOUS, HOT)):
        values = scores[label]
        if not values.size:
            continue
        heights = np.histogram(values, edges)[0] / values.size
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.45)
        axes.stairs(heights, edges, color=color, linewidth=1.1)
        if values.size <= MOST_RUGS:
            place: Any = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            y = np.full(values.size, -0.035 - 0.05 * label)
            axes.plot(values, y, "|", color=color, markersize=5, alpha=0.7, **place)


def _histogram(axes: Axes, run: Run, output: str) -> None:
    scores = {
        label: np.array([i.scores[output] for i in run.tested if i.label == label])
        for label in (NORMAL, ANOMALOUS)
    }
    thresholds = [float(part.thresholds[output]["value"]) for part in run.tested_parts]
    draw_histograms(axes, scores, thresholds)
    for value in thresholds if len(thresholds) > 1 else ():
        axes.axvline(value, color=INK, linewidth=0.7, alpha=0.35)
    axes.axvline(float(np.median(thresholds)), color=INK, linewidth=1.6)
    decides = " (decides)" if output == run.decides and len(run.outputs) > 1 else ""
    axes.set_title(output + decides, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", pad=11)
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    axes.spines["left"].set_visible(False)


def _pools(run: Run) -> list[tuple[Sequence[Trial], dict[str, Any]]]:
    thin = {"color": ACCENT, "linewidth": 0.8, "alpha": 0.4}
    pools: list[tuple[Sequence[Trial], dict[str, Any]]] = [
        (part.tested, thin) for part in run.folds if _both_labels(part.tested)
    ]
    return [*pools, (run.tested, {"color": ACCENT, "linewidth": 2.2})]


def _working_point(images: Sequence[Trial]) -> dict[str, float]:
    outcomes = [image.outcome for image in images]
    found, escapes = outcomes.count("found"), outcomes.count("escape")
    false_alarms, passed = outcomes.count("false alarm"), outcomes.count("passed")
    alarms = found + false_alarms
    return {
        "recall": found / (found + escapes),
        "overkill": false_alarms / (false_alarms + passed),
        "alarms": alarms,
        "precision": found / alarms if alarms else float("nan"),
    }


def _labels_scores(images: Sequence[Trial]) -> tuple[Scores, Scores]:
    label = np.array([image.label for image in images], dtype=np.float64)
    return label, np.array([image.scores["score"] for image in images])


def _both_labels(images: Sequence[Trial]) -> bool:
    return {image.label for image in images} == {NORMAL, ANOMALOUS}


def loss_names(records: Sequence[Record]) -> list[str]:
    """Names of the losses, without train_ and val_, in the order of the journal."""
    keys = [key for record in records for key in record]
    losses = [key.removeprefix("train_") for key in keys if key.startswith("train_")]
    return list(dict.fromkeys(losses))


def series(records: Sequence[Record], key: str) -> list[tuple[int, float]]:
    """(epoch from 1, value) of one entry of a journal, where it is there."""
    return [(record["epoch"] + 1, record[key]) for record in records if key in record]


def draw_chart(name: str, panel: Panel, size: tuple[float, float] = SIZE) -> str:
    """One panel of so many inches as SVG for the page; `name` is unique in the page."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        panel(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name)


def _draw(name: str, panels: Sequence[Panel]) -> list[str]:
    return [draw_chart(f"{name}-{k}", panel) for k, panel in enumerate(panels)]


def _for_page(svg: str, name: str) -> str:
    """Without XML header and group names, ids unique in the page, in the colors of the page, as
    wide as there is room."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[\w.]+">', "<g>", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg class="chart" role="img" \1>', svg, count=1
    )
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leanet",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
