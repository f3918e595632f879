"""A working point for a terminal: what decides, where it comes from, what is promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leanet.ops.point_words import (
    CURVES,
    caution,
    limits_in_words,
    percent,
    rule_in_words,
    share_in_words,
    source_in_words,
)


def to_text(card: Mapping[str, Any]) -> str:
    """The lines for a card whose threshold is complete (`inference.threshold.completed`)."""
    review, curve = card.get("review"), card.get("calibration")
    lines = [
        *_of_threshold(card["threshold"]),
        *(["no review zone"] if review is None else _of_zone(review)),
        *(["no calibration: no probabilities"] if curve is None else _of_calibration(curve)),
    ]
    return "\n".join(lines)


def _of_threshold(threshold: Mapping[str, Any]) -> Iterator[str]:
    source = source_in_words(threshold)
    told = f"{rule_in_words(threshold)}; {source}" if source else rule_in_words(threshold)
    yield f"threshold {threshold['value']:.6g}: {told}"
    escapes, overkill = threshold.get("escapes"), threshold.get("overkill")
    yield from _shares(("misses", escapes, "defects"), ("rejects", overkill, "good images"))
    for sentence in caution(threshold.get("asked") or {}, escapes, overkill):
        yield f"  caution: {sentence}"
    if threshold.get("source") == "training":
        yield "  caution: training scores are too low; expect false alarms"
    if "expected_cost" in threshold:
        yield f"  expected cost of an image {threshold['expected_cost']:.4g}"
        missed, rejected = threshold["escapes"]["value"], threshold["overkill"]["value"]
        if missed == 1 or rejected == 1:
            verdict = "nothing" if missed == 1 else "everything"
            yield f"  caution: at these costs it is cheapest to reject {verdict}"


def _of_zone(zone: Mapping[str, Any]) -> Iterator[str]:
    told = limits_in_words(zone.get("asked") or {"low": None})
    if zone["low"] == zone["high"]:
        yield f"review zone, {told}: empty, as the threshold alone keeps that"
    else:
        yield f"review zone {zone['low']:.6g} to {zone['high']:.6g}: {told}"
    yield from _shares(
        ("a person looks at", zone.get("normal"), "good images"),
        ("a person looks at", zone.get("anomalous"), "defects"),
        ("below it pass", zone.get("escapes"), "defects"),
        ("from its end on are rejected", zone.get("overkill"), "good images"),
    )
    for sentence in caution(zone.get("asked") or {}, zone.get("escapes"), zone.get("overkill")):
        yield f"  caution: {sentence}"


def _of_calibration(curve: Mapping[str, Any]) -> Iterator[str]:
    where = f"probabilities by {CURVES[curve['kind']]}"
    if "prevalence" not in curve:
        yield where
        return
    own = "the held-out images"
    at = (
        own
        if curve["prevalence"] == curve["fitted_at"]
        else f"not the {percent(curve['fitted_at'])} of {own}"
    )
    yield f"{where}, where {percent(curve['prevalence'])} are defects ({at})"
    found = curve.get("reliability")
    if found is not None:
        ece, brier = found["ece"], found["brier"]
        yield (
            f"  ECE {ece['value']:.3f} (95 % interval {ece['low']:.3f} to {ece['high']:.3f}; "
            f"perfect ones would show {found['by_chance']:.3f}), Brier score {brier['value']:.3f}"
        )


def _shares(*shares: tuple[str, Mapping[str, Any] | None, str]) -> Iterator[str]:
    for verb, share, what in shares:
        if share is not None:
            counted, rest = share_in_words(share).split(" (", 1)
            yield f"  {verb} {counted} {what} ({rest}"
