"""The review zone that a card holds: between "surely good" and "surely bad" a person looks.

A zone is asked for by limits, and then moves with the threshold and keeps them
(`leanet.ops.point_rules.review_zone`), or by its two ends, and then holds the threshold or is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leanet.inference.held_scores import HeldScores
from leanet.inference.point_limits import LIMITS, num_wrong, require, to_entry
from leanet.ops.point_rules import review_zone, zone_figures

ENDS = ("low", "high")
_FIGURES = ("normal", "anomalous", "escapes", "overkill")


def zone_entry(
    said: Mapping[str, Any], held: HeldScores, threshold: float, when: str | None
) -> dict[str, Any]:
    """What `card.json` holds of a zone around a threshold. `said`: limits (max_miss,
    max_false_alarm, confident) or the ends (low, high). The figures are shares of the held-out
    images: of the normal and of the anomalous ones how many a person looks at, then the defects
    below the zone and the good images from its end on; None where there are none.

    Raises ValueError for an impossible zone, or where the held-out scores do not suffice.
    """
    low, high = _ends(said, held, threshold)
    figures: dict[str, Any] = dict.fromkeys(_FIGURES)
    if held.source != "training":
        found = zone_figures(held.label, held.score, low, high)._asdict()
        figures = {name: to_entry(share) for name, share in found.items()}
    source = "user" if "low" in said else held.source
    return {"low": low, "high": high, "asked": dict(said), **figures} | {
        "source": source,
        "set_at": when,
    }


def said_of(review: Mapping[str, Any]) -> dict[str, Any]:
    """What a zone in a card was asked for as; its ends where the card does not say."""
    return dict(review.get("asked") or {name: review[name] for name in ENDS})


def _ends(said: Mapping[str, Any], held: HeldScores, threshold: float) -> tuple[float, float]:
    if set(said) == set(ENDS):
        return _holding(float(said["low"]), float(said["high"]), threshold)
    limits = [name for name in LIMITS if name in said]
    if not limits or set(said) - {*LIMITS, "confident"}:
        raise ValueError(
            "a review zone is max_miss=0.01,max_false_alarm=0.02 or one of these, or low=...,"
            f"high=...; got {', '.join(said) or 'nothing'}"
        )
    require(held, "--review", tuple(LIMITS[name] for name in limits))
    confident = bool(said.get("confident"))
    wrong = {name: num_wrong(name, float(said[name]), held, confident) for name in limits}
    return review_zone(
        held.label,
        held.score,
        threshold,
        misses=wrong.get("max_miss"),
        alarms=wrong.get("max_false_alarm"),
    )


def _holding(low: float, high: float, threshold: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a review zone has finite ends, got {low:g} and {high:g}")
    if not low <= threshold <= high:
        raise ValueError(
            f"the review zone {low:g} to {high:g} does not hold the threshold {threshold:g}; give "
            "--review anew, or --review none"
        )
    return low, high
