"""A working point in words: what a card says of threshold, review zone and calibration.

The entries are those of `card.json`, as `leanet.inference.threshold` writes them; older ones lack
some keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leanet.ops.point_rules import allowed, needed

RULES = {
    "f1": "best F1",
    "quantile": "quantile of the normal scores (at most 5 % false alarms)",
    "honest": "0.99 quantile of the normal scores",
    "p = 0.5": "probability 0.5 of the network",
    "value": "set by hand",
}
CURVES = {"platt": "Platt's curve", "isotonic": "isotonic regression"}
SOURCES = {
    "cross-validation": "the cross-validation scores of {}",
    "held-out": "{} held out from training",
    "training": "the training scores of {}",
    "user": "{} that it has not trained on",
}


def percent(share: float) -> str:
    """A share in percent, with a decimal where that would read as none or all.

    >>> percent(0.0), percent(0.004), percent(0.125), percent(0.997), percent(1.0)
    ('0 %', '0.4 %', '12 %', '99.7 %', '100 %')
    """
    value = 100 * share
    if 0 < value < 1:
        return f"{value:.2g} %"
    return f"{math.floor(10 * value) / 10:.1f} %" if 99.5 <= value < 100 else f"{value:.0f} %"


def rule_in_words(threshold: Mapping[str, Any]) -> str:
    """How a threshold was chosen.

    >>> rule_in_words({"rule": "max_miss", "asked": {"max_miss": 0.01, "confident": True}})
    'at most 1 % of the defects missed, by the upper end of the 95 % interval'
    """
    rule, asked = threshold["rule"], threshold.get("asked") or {}
    if rule == "cost":
        miss, alarm = asked["cost"]["miss"], asked["cost"]["false_alarm"]
        at = percent(asked["prevalence"])
        return f"lowest cost (a miss {miss:g}, a false alarm {alarm:g}, {at} defects)"
    if rule in ("max_miss", "max_false_alarm"):
        return limits_in_words(asked)
    return RULES.get(rule, str(rule))


def limits_in_words(asked: Mapping[str, Any]) -> str:
    """Limits on misses and false alarms, or the ends of a zone that were given.

    >>> limits_in_words({"max_miss": 0.01, "max_false_alarm": 0.02})
    'at most 1 % of the defects missed and 2 % false alarms'
    """
    if "low" in asked:
        return "set by hand"
    limits = {"max_miss": "of the defects missed", "max_false_alarm": "false alarms"}
    told = [f"{percent(asked[name])} {what}" for name, what in limits.items() if name in asked]
    sure = ", by the upper end of the 95 % interval" if asked.get("confident") else ""
    return f"at most {' and '.join(told)}{sure}"


def source_in_words(threshold: Mapping[str, Any]) -> str:
    """Which images a threshold, or its figures, come from; "" where none are known."""
    source = SOURCES.get(threshold.get("source", ""))
    if source is None:
        return ""
    counted = f"{threshold['num_normal']} normal and {threshold['num_anomalous']} anomalous images"
    return source.format(counted)


def share_in_words(share: Mapping[str, Any]) -> str:
    """A share of images with its interval, as `Share` in a card.

    >>> share_in_words({"count": 1, "total": 8, "value": 0.125, "low": 0.0032, "high": 0.5265})
    '1 of 8 (12 %, 95 % interval 0.32 to 53 %)'
    """
    ends = f"{percent(share['low']).removesuffix(' %')} to {percent(share['high'])}"
    return f"{share['count']} of {share['total']} ({percent(share['value'])}, 95 % interval {ends})"


def caution(asked: Mapping[str, Any], escapes: Any, overkill: Any) -> list[str]:
    """What of the limits asked for the images are too few to promise, a sentence each; the shares
    as in a card, None where there are no such images."""
    told = []
    for name, share, what in (
        ("max_miss", escapes, "defects"),
        ("max_false_alarm", overkill, "good images"),
    ):
        limit = asked.get(name)
        if limit is None or share is None or share["high"] <= limit:
            continue
        more = _more(limit, share["total"], what)
        told.append(f"the interval ends above the {percent(limit)} asked for; {more}")
    return told


def _more(limit: float, total: int, what: str) -> str:
    """What it takes to promise a limit."""
    few = allowed(limit, total, confident=True)
    if few is not None:
        return f"--confident allows {few} of {total} {what}"
    return (
        f"no number of {what} can promise that"
        if limit == 0
        else f"to promise it takes {needed(limit):g} {what}, none of them wrong"
    )
