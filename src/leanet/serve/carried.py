"""The working point that was asked for, carried over to a retrained model.

A threshold is a score, and another model's scores are others; what people ask for (so many defects
may pass, this is what a miss costs) stays the same. It is applied to the new model's own held-out
scores. A threshold or a review zone that was given as numbers is not carried over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanet.inference.threshold import PointOptions, settle
from leanet.serve.entries import now
from leanet.trained import read_card, update_card

RULES = ("max_miss", "max_false_alarm", "cost", "f1")
LIMITS = ("max_miss", "max_false_alarm")


def carry_point(card: Mapping[str, Any], run: Path) -> list[str]:
    """Ask of a run what was asked of the model with this card; returns what could not be kept, in
    words."""
    problems = []
    for what, asked in _asked(card):
        if asked is None:
            problems.append(f"the {what} was given as a number and is not carried over; set it")
            continue
        try:
            update_card(run, **settle(run, read_card(run), asked, now()))
        except ValueError as error:
            problems.append(f"the {what} is the one that training chose: {error}")
    return problems


def _asked(card: Mapping[str, Any]) -> list[tuple[str, PointOptions | None]]:
    """What was asked for, one after the other; None = a number."""
    wanted: list[tuple[str, PointOptions | None]] = []
    threshold = (card.get("threshold") or {}).get("asked") or {}
    prevalence = card.get("prevalence")
    rule = {name: threshold[name] for name in (*RULES, "confident") if name in threshold}
    if set(rule) & set(RULES) or (prevalence and "value" not in threshold):
        wanted.append(("threshold", PointOptions(**rule, prevalence=prevalence)))
    elif "value" in threshold:
        wanted.append(("threshold", None))
    review = card.get("review")
    if review is not None:
        zone = dict(review.get("asked") or {})
        limits = {name: zone[name] for name in LIMITS if name in zone}
        confident = bool(zone.get("confident"))
        asked = PointOptions(review=limits, confident=confident) if limits else None
        wanted.append(("review zone", asked))
    return wanted
