"""Curves of a benchmark with few labelled defects as inline SVG: a figure over k for every arm."""

from __future__ import annotations

import math
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from leanet.report.compare_figures import COLORS
from leanet.report.few_defects import MAIN, METRICS, standings
from leanet.report.few_results import FewDefects
from leanet.report.figures import draw_chart

SIZE = (7.6, 3.4)  # inches
OTHER_STYLES = ("--", ":", "-.")
LEAST_SPAN = 0.02  # of the axis of a figure


def over_labelled(few: FewDefects, data: str, name: str, metric: str = MAIN) -> str | None:
    """A figure over k on a logarithmic axis, for every arm: mean and a band of one SD. The default
    is the thick line; arms that are neither the default nor a rival are dashed, without a band.
    None where nothing is finished."""
    if not standings(few, data, metric):
        return None
    return draw_chart(name, partial(curves_panel, few=few, data=data, metric=metric), SIZE)


def curves_panel(axes: Axes, few: FewDefects, data: str, metric: str) -> None:
    """The chart of `over_labelled`."""
    found, plan = standings(few, data, metric), few.plan
    main = [name for name in (plan.default, *plan.rivals) if name is not None]
    main = main or [arm.name for arm in plan.arms]
    rest = [arm.name for arm in plan.arms if arm.name not in main]
    shown = [name for name in (*main, *rest) if any((name, k) in found for k in plan.labelled)]
    for name in shown:
        place = (*main, *rest).index(name)
        points = [(k, found[name, k].figure) for k in plan.labelled if (name, k) in found]
        ks, means = [k for k, _ in points], [figure.mean for _, figure in points]
        color = COLORS[place % len(COLORS)]
        style = "-" if name in main else OTHER_STYLES[place // len(COLORS) % len(OTHER_STYLES)]
        first = name == plan.default
        axes.plot(
            ks,
            means,
            style,
            color=color,
            label=name.replace("$", r"\$"),
            linewidth=2.4 if first else 1.4 if name in main else 1.0,
            marker="o" if name in main else ".",
            markersize=5 if first else 3.5,
            zorder=4 if first else 3,
        )
        sd = [0.0 if math.isnan(figure.sd) else figure.sd for _, figure in points]
        if name in main and any(sd):
            low = [mean - s for mean, s in zip(means, sd, strict=True)]
            high = [mean + s for mean, s in zip(means, sd, strict=True)]
            axes.fill_between(ks, low, high, color=color, alpha=0.10, linewidth=0, zorder=2)
    _scales(axes, few, metric)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.02))


def _scales(axes: Axes, few: FewDefects, metric: str) -> None:
    """k on a logarithmic axis, labelled with the k of the suite; no figure beyond 0 and 1."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(few.plan.labelled))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="labelled defects, k", ylabel=METRICS[metric])
    low, high = axes.get_ylim()
    low, high = max(low, -LEAST_SPAN / 4), min(high, 1 + LEAST_SPAN / 4)
    axes.set_ylim(min(low, high - LEAST_SPAN), high)
