"""Charts of a benchmark as inline SVG: ours beside the published, members of a group, shares of
the anomalous training images. All show F1 of the anomalous class at p = 0.5, as mean and SD."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from leanet.ops.stats import MeanSD
from leanet.report.figures import ACCENT, HOT, INK, MUTED, draw_chart
from leanet.report.standings import Line, Table

F1 = "f1_at_half"
LOOKS = tuple(
    {"color": color, "linestyle": style, "marker": marker}
    for (style, color), marker in zip(
        itertools.product(("-", "--", ":"), (ACCENT, HOT, INK, MUTED)), "osD^vPX<>*ph", strict=True
    )
)
WIDTH = 7.6  # inches


def beside_published(table: Table, name: str) -> str | None:
    """A row of dots for every entry: ours, our oracle, and what was published. None without any
    figure of ours, and where shares are varied (see `over_shares`)."""
    shown = [line for line in table.main if line.entry.share is None]
    entries = list(dict.fromkeys(line.entry.title for line in shown))
    if not any(_known(line) for line in shown):
        return None
    panel = partial(_beside_panel, table=table, entries=entries)
    return draw_chart(name, panel, (WIDTH, 0.9 + 0.38 * len(entries)))


def over_members(table: Table, name: str) -> str | None:
    """F1 of every member (attention point) of the groups that vary nothing else, a line for each.
    None where no group does."""
    groups = [lines for lines in _groups(table) if _varies(lines[0], "attention_points")]
    if not groups:
        return None
    return draw_chart(name, partial(_members_panel, table=table, groups=groups), (WIDTH, 3.0))


def over_shares(table: Table, name: str) -> str | None:
    """F1 over the real share of anomalous images among the training images, a line for each entry.
    None where no share is varied."""
    by_name: dict[str, list[Line]] = {}
    for line in table.main:
        if line.entry.share is not None and line.kind in ("single", "mean") and _known(line):
            by_name.setdefault(line.entry.name, []).append(line)
    if not by_name:
        return None
    return draw_chart(name, partial(_shares_panel, table=table, by_name=by_name), (WIDTH, 3.4))


def _known(line: Line) -> bool:
    return not math.isnan(line.figures[F1].mean)


def _groups(table: Table) -> list[list[Line]]:
    """The member lines of every entry that has some with a figure."""
    by_title: dict[str, list[Line]] = {}
    for line in table.main:
        if line.kind == "member" and _known(line):
            by_title.setdefault(line.entry.title, []).append(line)
    return list(by_title.values())


def _varies(line: Line, option: str) -> bool:
    return all(set(member.options) == {option} for member in line.entry.members)


def _beside_panel(axes: Axes, table: Table, entries: Sequence[str]) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "ours": {"color": ACCENT, "marker": "o", "markersize": 5},
        "ours, oracle": {
            "color": ACCENT,
            "marker": "o",
            "markersize": 5,
            "markerfacecolor": "none",
        },
        "published": {"color": HOT, "marker": "D", "markersize": 4.5},
    }
    places = {"ours": -0.2, "ours, oracle": 0.0, "published": 0.2}
    labels, drawn = [_plain(entry) for entry in entries], set[str]()
    for line in table.main:
        if line.entry.title not in entries:
            continue
        y = entries.index(line.entry.title)
        if _stands_for_entry(line, table):
            labels[y] += _unfinished([line])
        for kind, figure in _dots(line, table).items():
            drawn.add(kind)
            axes.errorbar(
                figure.mean,
                y + places[kind],
                xerr=0 if math.isnan(figure.sd) else figure.sd,
                elinewidth=1,
                **kinds[kind],
            )
    _reference(axes.axvline, table)
    axes.set(ylim=(len(entries) - 0.4, -0.6), xlabel="F1 at p = 0.5")
    axes.set_xlim(right=1.02)
    axes.set_yticks(range(len(entries)), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", visible=False)
    handles = [Line2D([], [], label=kind, **kinds[kind]) for kind in kinds if kind in drawn]
    _legend(axes, [*handles, Line2D([], [], color=MUTED, linestyle="--", label="all-positive")])


def _dots(line: Line, table: Table) -> dict[str, MeanSD]:
    """What of a line is shown in the row of its entry."""
    dots = {}
    if _known(line) and _stands_for_entry(line, table):
        dots["ours"] = line.figures[F1]
    if _known(line) and line.kind == "oracle":
        dots["ours, oracle"] = line.figures[F1]
    if line.published:
        dots["published"] = MeanSD(line.published.mean, line.published.sd)
    return dots


def _unfinished(lines: Sequence[Line]) -> str:
    """Said behind a name where trials are missing."""
    missing = sum(line.num_missing for line in lines)
    expected = sum(line.num_expected for line in lines)
    return f" ({expected - missing} of {expected})" if missing else ""


def _stands_for_entry(line: Line, table: Table) -> bool:
    """The chosen member where there is a choice, else the mean."""
    if line.kind in ("single", "chosen"):
        return True
    chosen = [o for o in table.main if o.entry is line.entry and o.kind == "chosen" and o.series]
    return line.kind == "mean" and not chosen


def _members_panel(axes: Axes, table: Table, groups: Sequence[Sequence[Line]]) -> None:
    names = list(dict.fromkeys(line.members[0] for lines in groups for line in lines))
    for k, (lines, look) in enumerate(zip(groups, itertools.cycle(LOOKS), strict=False)):
        figures = [line.figures[F1] for line in lines]
        x = [names.index(line.members[0]) + 0.06 * (k - (len(groups) - 1) / 2) for line in lines]
        _series(axes, x, figures, lines[0].entry.title + _unfinished(lines), look)
    styles = itertools.cycle(("-", ":", "-."))
    for line in table.main:
        is_baseline = set(line.entry.rows) <= set(line.entry.baseline)
        if line.kind in ("single", "mean") and is_baseline and _known(line):
            drawn: Any = {"color": INK, "linewidth": 1, "linestyle": next(styles)}
            axes.axhline(line.figures[F1].mean, zorder=1, **drawn)
            axes.plot([], [], label=_plain(line.entry.title) + _unfinished([line]), **drawn)
    _reference(axes.axhline, table)
    axes.set_xticks(range(len(names)), [_plain(name) for name in names])
    axes.set(ylabel="F1 at p = 0.5", xlabel="attention point", xlim=(-0.4, len(names) - 0.6))
    _legend(axes)


def _shares_panel(axes: Axes, table: Table, by_name: dict[str, list[Line]]) -> None:
    for (name, lines), look in zip(by_name.items(), itertools.cycle(LOOKS), strict=False):
        ordered = sorted(lines, key=lambda line: line.anomalous_share)
        x = [100 * line.anomalous_share for line in ordered]
        figures = [line.figures[F1] for line in ordered]
        _series(axes, x, figures, name + _unfinished(ordered), look)
    _reference(axes.axhline, table)
    axes.set(ylabel="F1 at p = 0.5", xlabel="anomalous among the training images, %")
    _legend(axes)


def _series(
    axes: Axes, x: Sequence[float], figures: Sequence[MeanSD], name: str, look: dict[str, Any]
) -> None:
    sd = [0 if math.isnan(figure.sd) else figure.sd for figure in figures]
    y = [figure.mean for figure in figures]
    label = _plain(name)
    axes.errorbar(x, y, yerr=sd, label=label, linewidth=1.4, elinewidth=0.7, markersize=4.5, **look)


def _reference(draw: Any, table: Table) -> None:
    if not math.isnan(table.all_positive.mean):
        draw(table.all_positive.mean, color=MUTED, linestyle="--", linewidth=1, zorder=1)


def _legend(axes: Axes, handles: Sequence[Line2D] | None = None) -> None:
    given = {} if handles is None else {"handles": handles}
    axes.legend(**given, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.02))


def _plain(name: str) -> str:
    """A name as matplotlib draws it literally: dollars would open a formula."""
    return name.replace("$", r"\$")
