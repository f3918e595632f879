"""How a run decides: held-out scores with threshold and review zone, what the point promises, and
whether its probabilities can be believed. A part of the page, also of several classes.

Everything but the scores comes from the card, which `leanet threshold` may have changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from leanet.files import read_csv
from leanet.ops.point_words import (
    CURVES,
    caution,
    limits_in_words,
    percent,
    rule_in_words,
    source_in_words,
)
from leanet.records import ANOMALOUS, NORMAL
from leanet.report.figures import ACCENT, INK, MUTED, draw_chart, draw_histograms
from leanet.report.run import Run

ROLES = ("cross_validation", "held_out")  # of the rows that a working point is taken from
SIZE = (4.2, 2.6)  # inches

Scores = dict[int, NDArray[np.float64]]  # label -> scores


def working_point(run: Run) -> dict[str, Any] | None:
    """What the page shows; None where the card does not say where its threshold comes from."""
    card = run.card
    threshold, review, curve = (card.get(k) for k in ("threshold", "review", "calibration"))
    if not threshold or "source" not in threshold:
        return None
    scores = _scores(run)
    reliability = (curve or {}).get("reliability")
    charts = [] if scores is None else [partial(_histogram, scores=scores, card=card)]
    if reliability:
        charts.append(partial(_reliability, bins=reliability["bins"]))
    return {
        "threshold": threshold,
        "rule": _unbroken(rule_in_words(threshold)),
        "source": source_in_words(threshold),
        "review": review,
        "zone": _zone_in_words(review),
        "rows": [row for row in _rows(threshold, review) if row is not None],
        "cautions": _cautions(threshold, review),
        "has_scores": scores is not None,
        "charts": [Markup(draw_chart(f"point-{k}", c, SIZE)) for k, c in enumerate(charts)],
        "calibration": curve,
        "curve": _curve_in_words(curve),
        "reliability": reliability,
    }


def _scores(run: Run) -> Scores | None:
    """The held-out scores that the card was made from; of older runs, which do not keep them, those
    of the folds, or None where a fusion has made others of them."""
    rows = read_csv(run.final.folder / "predictions.csv")
    found = [(r["label"], float(r["score"])) for r in rows if r["role"] in ROLES and r.get("score")]
    if not found and run.folds and "fused" not in run.final.thresholds:
        found = [(str(image.label), image.scores["score"]) for image in run.tested]
    if not found:
        return None
    return {
        label: np.array([score for own, score in found if own == str(label)])
        for label in (NORMAL, ANOMALOUS)
    }


def _rows(threshold: Mapping[str, Any], review: Mapping[str, Any] | None) -> list[Any]:
    """(what, of which images, share) for the table, None where there is none."""
    rows = [
        _row("Escapes", "defects that are called normal", threshold.get("escapes")),
        _row("Overkill", "good images that are called anomalous", threshold.get("overkill")),
    ]
    if review is not None:
        rows += [
            _row("To review", "good images that a person looks at", review.get("normal")),
            _row("To review", "defects that a person looks at", review.get("anomalous")),
            _row("Escapes past review", "defects below the zone", review.get("escapes")),
            _row("Overkill past review", "good images above the zone", review.get("overkill")),
        ]
    return rows


def _row(name: str, what: str, share: Mapping[str, Any] | None) -> dict[str, str] | None:
    if share is None:
        return None
    return {
        "name": name,
        "what": what,
        "images": f"{share['count']} of {share['total']}",
        "share": percent(share["value"]),
        "interval": f"{percent(share['low']).removesuffix(' %')} to {percent(share['high'])}",
    }


def _cautions(threshold: Mapping[str, Any], review: Mapping[str, Any] | None) -> list[str]:
    found = [
        f"{where}: {sentence}."
        for where, entry in (("Threshold", threshold), ("Review zone", review or {}))
        for sentence in caution(
            entry.get("asked") or {}, entry.get("escapes"), entry.get("overkill")
        )
    ]
    if threshold["source"] == "training":
        found.append("Training scores are too low; expect false alarms.")
    return found


def _zone_in_words(review: Mapping[str, Any] | None) -> str:
    if review is None:
        return ""
    return _unbroken(limits_in_words(review.get("asked") or {"low": None}))


def _unbroken(text: str) -> str:
    """No line ends between a figure and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _curve_in_words(curve: Mapping[str, Any] | None) -> str:
    if curve is None or "prevalence" not in curve:
        return ""
    own, at = percent(curve["fitted_at"]), percent(curve["prevalence"])
    shifted = "" if own == at else f", shifted from the {own} of the held-out images"
    return f"{CURVES[curve['kind']]}, where {at} of the images are defects{shifted}"


def _histogram(axes: Axes, scores: Scores, card: Mapping[str, Any]) -> None:
    threshold, review = float(card["threshold"]["value"]), card.get("review")
    ends = [] if review is None else [review["low"], review["high"]]
    if ends:
        axes.axvspan(*ends, color=ACCENT, alpha=0.18, linewidth=0)
    draw_histograms(axes, scores, [threshold, *ends])
    axes.axvline(threshold, color=INK, linewidth=1.6)
    axes.set_title("held-out scores", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="x", pad=11)
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    axes.spines["left"].set_visible(False)


def _reliability(axes: Axes, bins: list[Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--", alpha=0.7)
    x = np.array([one["probability"] for one in bins])
    y, low, high = (np.array([one[name] for one in bins]) for name in ("share", "low", "high"))
    axes.vlines(x, low, high, color=ACCENT, linewidth=1.1, alpha=0.7)
    axes.plot(x, y, "o-", color=ACCENT, linewidth=1.1, markersize=4, clip_on=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="probability given", ylabel="share of defects found there")
    axes.set_title("reliability", loc="left")
