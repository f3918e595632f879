"""The calibration that a card holds: the curve, what it was fitted to, and whether it can be
believed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from leanet.inference.held_scores import HeldScores
from leanet.ops.calibration_fit import FEWEST, at_prevalence, choose_kind, fit_calibration
from leanet.ops.reliability import cross_fitted, reliability

Choice = Literal["auto", "platt", "isotonic"]
CHOICES = ("auto", "platt", "isotonic", "none")


def enough(held: HeldScores) -> bool:
    """Whether there are scores enough to calibrate by, none of them of the training."""
    return held.source != "training" and min(held.num_normal, held.num_anomalous) >= FEWEST


def calibration_entry(
    held: HeldScores, asked: Choice, prevalence: float | None, when: str | None
) -> dict[str, Any]:
    """What `card.json` holds of a calibration by these scores, at this prevalence of defects (None:
    theirs). `reliability` is that of the prevalence of the scores, each judged by a curve fitted to
    the other folds (or fifths); None where that cannot be done.

    Raises ValueError where there are not enough scores.
    """
    if not enough(held):
        found = f"{held.num_normal} normal and {held.num_anomalous} anomalous"
        of = "training" if held.source == "training" else "held-out"
        raise ValueError(
            f"a calibration needs held-out scores of at least {FEWEST} normal and {FEWEST} "
            f"anomalous images, and there are {of} scores of {found}; train with --folds 5, or on "
            "more images"
        )
    kind = choose_kind(held.label) if asked == "auto" else asked
    own = held.num_anomalous / len(held.label)
    curve = fit_calibration(kind, held.label, held.score)
    if prevalence is not None:
        curve = at_prevalence(curve, own, prevalence)
    return {
        **curve.to_dict(),
        "asked": asked,
        "source": held.source,
        "num_normal": held.num_normal,
        "num_anomalous": held.num_anomalous,
        "prevalence": own if prevalence is None else prevalence,
        "fitted_at": own,
        "set_at": when,
        "reliability": _reliability(held, kind),
    }


def _reliability(held: HeldScores, kind: Literal["platt", "isotonic"]) -> dict[str, Any] | None:
    probability = cross_fitted(kind, held.label, held.score, held.part)
    if probability is None:
        return None
    found = reliability(held.label, probability, np.random.default_rng(0))
    return {
        "ece": found.ece._asdict(),
        "by_chance": found.by_chance,
        "brier": found.brier._asdict(),
        "bins": [one._asdict() for one in found.bins],
    }
