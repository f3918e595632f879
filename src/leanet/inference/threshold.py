"""Setting the working point of a finished run: threshold, review zone, calibration.

All are chosen from held-out scores (`leanet.inference.held_scores`) and written into the card with
where they come from and what they do there. What a call does not change stays as it was asked: a
zone that keeps two limits moves with the threshold, and the curve and a threshold of the lowest
cost follow the prevalence. What stood before goes into the card's `history`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leanet.config import option
from leanet.inference.calibrate import CHOICES, calibration_entry, enough
from leanet.inference.held_scores import HeldScores, read_held_scores
from leanet.inference.point_limits import LIMITS, num_wrong, numbers_in, require, to_entry
from leanet.inference.review_zone import said_of, zone_entry
from leanet.ops.metrics import f1_threshold
from leanet.ops.point_rules import (
    Costs,
    alarm_threshold,
    cost_threshold,
    escapes_and_overkill,
    expected_cost,
    miss_threshold,
)

Entry = dict[str, Any]
KEPT = ("threshold", "review", "calibration", "prevalence")  # what a working point is, in a card
HISTORY = 20  # working points that a card remembers; the first, that of `fit`, always
RULES = ("max_miss", "max_false_alarm", "cost", "value", "f1")
COSTS = ("miss", "false_alarm")


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """What to change of a working point: at most one rule for the threshold, and what else."""

    max_miss: float | None = option(None, "rule: this share of the defects may pass")
    max_false_alarm: float | None = option(None, "rule: this share of good images is rejected")
    cost: dict[str, float] | str | None = option(
        None, "rule: lowest cost, of miss=50,false_alarm=1"
    )
    value: float | None = option(None, "rule: a threshold of your own")
    f1: bool = option(False, "rule: best F1")
    confident: bool = option(
        False, "keep limits by the upper end of the 95 percent interval, not by the share itself"
    )
    review: dict[str, float] | str | None = option(
        None,
        "where a person looks: max_miss=0.01,max_false_alarm=0.02 or one of these, or "
        "low=...,high=..., or none",
    )
    calibration: str | None = option(None, "probabilities by auto, platt, isotonic or none")
    prevalence: float | None = option(
        None, "share of defects on the line, for --cost and probabilities; default: as in the data"
    )
    reset: bool = option(False, "back to what fit chose")
    back: bool = option(False, "back to what stood before")

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what is asked for."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return tuple(n for n, value in values.items() if value is not None and value is not False)

    @property
    def rule(self) -> str | None:
        """The rule for the threshold, if one is given."""
        return next((name for name in RULES if name in self.given), None)


def first_point(run: Path, card: Mapping[str, Any]) -> Entry:
    """What `fit` adds to the card of a run: where its threshold comes from and what it does, and a
    calibration where there are scores enough."""
    added: Entry = {"review": None, "calibration": None, "prevalence": None, "history": []}
    if card["threshold"] is None:
        return added
    held = read_held_scores(run, card["folds"])
    added["threshold"] = completed(card["threshold"], held)
    if enough(held):
        added["calibration"] = calibration_entry(held, "auto", None, None)
    return added


def completed(threshold: Mapping[str, Any], held: HeldScores) -> Entry:
    """The entry of a threshold with what an older card lacks: its source, what was asked, and what
    it does to the held-out scores (None where there are none)."""
    known: Entry = {"source": held.source if len(held.label) else None, "asked": {}, "set_at": None}
    return {**threshold} | {
        name: value
        for name, value in {**known, **_figures(held, threshold["value"])}.items()
        if name not in threshold
    }


def settle(run: Path, card: Mapping[str, Any], asked: PointOptions, when: str) -> Entry:
    """What of the card changes for what is asked; `when` is the date to write down.

    Raises:
        ValueError: contradictory or impossible options, a run that knows no normal class, or whose
            held-out scores do not suffice.
    """
    _check(asked)
    if card["threshold"] is None:
        raise ValueError(
            f"{run} tells classes apart and knows none of them to be the normal one: there is no "
            "score to set a threshold on; train with --normal NAME"
        )
    if asked.reset or asked.back:
        return _restored(run, card, first=asked.reset)
    held = read_held_scores(run, card.get("folds", 0))
    prevalence = card.get("prevalence") if asked.prevalence is None else asked.prevalence
    threshold = _threshold(card["threshold"], asked, held, prevalence, when)
    return {
        "threshold": threshold,
        "review": _review(card.get("review"), asked, held, threshold["value"], when),
        "calibration": _calibration(card.get("calibration"), asked, held, prevalence, when),
        "prevalence": prevalence,
        "history": _remembered(card),
    }


def _check(asked: PointOptions) -> None:
    rules = [f"--{name}" for name in asked.given if name in RULES]
    if len(rules) > 1:
        raise ValueError(f"{' and '.join(rules)} each choose the threshold; give one of them")
    if (asked.reset or asked.back) and len(asked.given) > 1:
        others = ", ".join(f"--{name}" for name in asked.given)
        raise ValueError(f"--reset and --back go alone; got {others}")
    zone = {} if asked.review in (None, "none") else numbers_in("review", asked.review)
    if asked.confident and asked.rule not in LIMITS and not set(zone) & set(LIMITS):
        raise ValueError(
            "--confident says how a limit is kept; give it with --max_miss, --max_false_alarm or a "
            "--review of them"
        )
    if asked.prevalence is not None and not 0 < asked.prevalence < 1:
        raise ValueError(f"--prevalence is a share between 0 and 1, got {asked.prevalence:g}")
    if asked.value is not None and not math.isfinite(asked.value):
        raise ValueError(f"--value is a finite score, got {asked.value:g}")
    if asked.calibration not in (None, *CHOICES):
        raise ValueError(
            f"unknown --calibration {asked.calibration!r}; allowed: {', '.join(CHOICES)}"
        )


def _restored(run: Path, card: Mapping[str, Any], *, first: bool) -> Entry:
    history = list(card.get("history") or ())
    if not history:
        raise ValueError(f"{run} decides as `leanet fit` left it; there is nothing to go back to")
    if first:
        return {**history[0], "history": _remembered(card)}
    return {**history[-1], "history": history[:-1]}


def _remembered(card: Mapping[str, Any]) -> list[Entry]:
    """The history with what stands in the card now."""
    history = [*(card.get("history") or ()), {name: card.get(name) for name in KEPT}]
    return history if len(history) <= HISTORY else [history[0], *history[1 - HISTORY :]]


def _threshold(
    before: Entry, asked: PointOptions, held: HeldScores, prevalence: float | None, when: str
) -> Entry:
    """The entry of the threshold that is asked for; the present one, completed, if none is."""
    rule = asked.rule
    if rule is None and before["rule"] == "cost" and asked.prevalence is not None:
        rule, asked = "cost", PointOptions(cost=before["asked"]["cost"])  # follows the prevalence
    if rule is None:
        return completed(before, held)
    if rule != "value":
        needs = (LIMITS[rule],) if rule in LIMITS else tuple(LIMITS.values())
        require(held, f"--{rule}", needs)
    value, said = _chosen(rule, asked, held, prevalence)
    entry: Entry = {
        "value": value,
        "rule": rule,
        "num_normal": held.num_normal,
        "num_anomalous": held.num_anomalous,
        "source": "user" if rule == "value" else held.source,
        "asked": said,
        **_figures(held, value),
        "set_at": when,
    }
    if rule == "cost":
        costs = Costs(**said["cost"], prevalence=said["prevalence"])
        shares = entry["escapes"]["value"], entry["overkill"]["value"]
        entry["expected_cost"] = expected_cost(costs, *shares)
    return entry


def _chosen(
    rule: str, asked: PointOptions, held: HeldScores, prevalence: float | None
) -> tuple[float, Entry]:
    """The threshold of a rule, and what was asked for in full."""
    label, score = held.label, held.score
    if rule == "value":
        assert asked.value is not None
        return float(asked.value), {"value": float(asked.value)}
    if rule == "f1":
        return f1_threshold(label, score), {"f1": True}
    if rule == "cost":
        given = numbers_in("cost", asked.cost)
        if set(given) != set(COSTS):
            raise ValueError(_other_costs(given))
        at = held.num_anomalous / len(label) if prevalence is None else prevalence
        costs = Costs(**given, prevalence=at)
        return cost_threshold(label, score, costs), {"cost": given, "prevalence": at}
    limit = float(getattr(asked, rule))
    wrong = num_wrong(rule, limit, held, asked.confident)
    said = {rule: limit} | ({"confident": True} if asked.confident else {})
    chosen = miss_threshold if rule == "max_miss" else alarm_threshold
    return chosen(label, score, wrong), said


def _other_costs(given: dict[str, float]) -> str:
    """Why these are not the two costs: what came, what is missing, what is no cost."""
    said = ",".join(f"{name}={cost:g}" for name, cost in given.items()) or "nothing"
    missing = [name for name in COSTS if name not in given]
    unknown = [name for name in given if name not in COSTS]
    wrong = [f"lacks {' and '.join(missing)}"] if missing else []
    wrong += [f"has {' and '.join(unknown)}, which is no cost"] if unknown else []
    return (
        f"--cost {said} {' and '.join(wrong)}; give what a miss and a false alarm cost, as "
        "miss=50,false_alarm=1"
    )


def _review(
    before: Entry | None, asked: PointOptions, held: HeldScores, threshold: float, when: str
) -> Entry | None:
    """The entry of the zone that is asked for, or of the present one at this threshold."""
    if asked.review == "none":
        return None
    if asked.review is not None:
        said: Entry = {**numbers_in("review", asked.review)}
        said |= {"confident": True} if asked.confident and "low" not in said else {}
        return zone_entry(said, held, threshold, when)
    return (
        None
        if before is None
        else zone_entry(said_of(before), held, threshold, before.get("set_at"))
    )


def _calibration(
    before: Entry | None, asked: PointOptions, held: HeldScores, prevalence: float | None, when: str
) -> Entry | None:
    if asked.calibration == "none":
        return None
    if asked.calibration is None and (before is None or asked.prevalence is None):
        return before
    choice: Any = asked.calibration or (before or {}).get("asked", "auto")
    return calibration_entry(held, choice, prevalence, when)


def _figures(held: HeldScores, threshold: float) -> Entry:
    """Escapes and overkill of a threshold; None where no held-out images tell."""
    if held.source == "training":
        return {"escapes": None, "overkill": None}
    missed, rejected = escapes_and_overkill(held.label, held.score, threshold)
    return {"escapes": to_entry(missed), "overkill": to_entry(rejected)}
