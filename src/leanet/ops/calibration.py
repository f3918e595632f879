"""From scores to probabilities.

A score ranks; how probable a defect is, it does not say. Two maps from held-out scores to
probabilities: Platt's logistic curve with his smoothed targets (Platt 1999, in Advances in Large
Margin Classifiers), which needs few defects, and isotonic regression (Zadrozny & Elkan 2002,
doi:10.1145/775047.775151), which assumes no shape and needs many. Both never turn the ranking
around, so a threshold on the score is one on the probability.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A map from score s to probability: platt, sigmoid(slope s + intercept); isotonic, straight
    lines through (knots, values), constant beyond them; knots strictly ascending."""

    kind: Literal["platt", "isotonic"]
    slope: float = 0.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as card.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Calibration:
        """Back from `to_dict`; other keys beside them (provenance) are left alone."""
        return cls(
            kind=stored["kind"],
            slope=stored.get("slope", 0.0),
            intercept=stored.get("intercept", 0.0),
            knots=tuple(stored.get("knots", ())),
            values=tuple(stored.get("values", ())),
        )


def probability_of(calibration: Calibration, score: Tensor) -> Tensor:
    """Scores [B] -> probabilities of a defect [B]; can be traced into a graph."""
    if calibration.kind == "platt":
        return torch.sigmoid(calibration.slope * score + calibration.intercept)
    knots = torch.tensor(calibration.knots, dtype=score.dtype, device=score.device)
    values = torch.tensor(calibration.values, dtype=score.dtype, device=score.device)
    if len(knots) == 1:
        return values.expand(score.shape)
    share = (score[:, None] - knots[:-1]) / knots.diff()
    return values[0] + (share.clamp(0, 1) * values.diff()).sum(dim=1)
