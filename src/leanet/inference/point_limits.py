"""What held-out scores allow: limits on misses and false alarms, and shares for a card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from leanet.inference.held_scores import HeldScores
from leanet.ops.point_rules import Share, allowed, needed, share_of
from leanet.ops.point_words import percent

LIMITS = {"max_miss": "defects", "max_false_alarm": "good images"}  # a limit, and on what


def numbers_in(flag: str, given: Mapping[str, float] | str | None) -> dict[str, float]:
    """What a flag names, from name=number,name=number or a dictionary.

    Raises ValueError for anything else.

    >>> numbers_in("cost", "miss=50,false_alarm=1")
    {'miss': 50.0, 'false_alarm': 1.0}
    """
    if isinstance(given, str):
        pairs = [pair.partition("=")[::2] for pair in given.split(",")]
    else:
        pairs = [(name, str(number)) for name, number in (given or {}).items()]
    try:
        return {name.strip(): float(number) for name, number in pairs}
    except ValueError:
        raise ValueError(f"--{flag} {given}: give name=number,name=number") from None


def num_wrong(name: str, limit: float, held: HeldScores, confident: bool) -> int:
    """How many held-out images a limit allows on the wrong side.

    Raises ValueError where the images are too few to be confident.
    """
    num = held.num_anomalous if name == "max_miss" else held.num_normal
    wrong = allowed(limit, num, confident=confident)
    if wrong is None:
        best = share_of(0, num).high
        more = "" if limit == 0 else f"{needed(limit):g} are needed; "
        raise ValueError(
            f"{num} {LIMITS[name]}, none of them wrong, promise at best {percent(best)} (95 % "
            f"interval), not the {percent(limit)} of {name}; {more}ask for {name} "
            f"{_rounded_up(best)}, or leave out --confident"
        )
    return wrong


def require(held: HeldScores, option: str, of: tuple[str, ...]) -> None:
    """Raise `ValueError` where the held-out scores of these are missing."""
    if held.source == "training":
        raise ValueError(
            f"{option} needs scores of images that the models have not seen, and this run could "
            "hold out none; train with --folds 5, or set the threshold with --value"
        )
    if not len(held.label):
        raise ValueError(
            f"{option} needs held-out scores, and this run has kept none (it may be older than "
            "this option): train again, or set the threshold with --value"
        )
    numbers = {"defects": held.num_anomalous, "good images": held.num_normal}
    missing = [name for name in of if not numbers[name]]
    if missing:
        raise ValueError(
            f"{option} needs held-out scores of {' and '.join(missing)}, and this run has "
            f"{held.num_normal} of good images and {held.num_anomalous} of defects; train with "
            "--folds 5 on data that have both, or choose by the others, or with --value"
        )


def to_entry(share: Share) -> dict[str, Any] | None:
    """A share as a card holds it; None without images."""
    return asdict(share) if share.total else None


def _rounded_up(share: float) -> str:
    """A share in (0, 1], rounded up to two digits."""
    scale = 10 ** (1 - math.floor(math.log10(share)))
    return f"{math.ceil(share * scale) / scale:g}"
