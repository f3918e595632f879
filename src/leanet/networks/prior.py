"""What a map says of the whole image, as the number where a classifier's log-odds begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.ops.fusion import spread_of

PLACE = 8  # side of a place in pixels: single pixels of a map are noisy
DARKEST = 1e-4  # added to network maps before the logarithm


class MapPrior(nn.Module):
    """Network maps [B, 1, H, W] in [0, 1] -> z [B].

    z is the log of the mean of the map's highest places, standardized by normal images (0 = their
    median, 1 = one spread above) and squashed far from them, so that a runaway map counts like a
    logarithm.

    Args:
        top: share of the places, the highest ones; 1 = the mean of the map, which serves where
            sharp edges are hard to predict, as for colors; a few percent find small defects in a
            map of distances.

    Raises ValueError for a share outside (0, 1].
    """

    level: Tensor
    spread: Tensor

    def __init__(self, top: float = 1.0) -> None:
        super().__init__()
        if not 0 < top <= 1:
            raise ValueError(f"top {top}: give a share of the places in (0, 1]")
        self.top = top
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, anomaly_map: Tensor) -> Tensor:
        """The score, standardized and squashed."""
        z = (self.score(anomaly_map) - self.level) / self.spread
        return z.sign() * z.abs().asinh()  # exporters expand asinh in a form unstable below zero

    def score(self, anomaly_map: Tensor) -> Tensor:
        """The log of the mean of the highest places [B]."""
        height, width = anomaly_map.shape[-2:]
        size = (max(1, height // PLACE), max(1, width // PLACE))
        places = functional.adaptive_avg_pool2d(anomaly_map, size).flatten(1)
        if self.top < 1:
            num = max(1, math.ceil(self.top * places.shape[1]))
            places = places.topk(num, dim=1).values
        return (places.mean(dim=1) + DARKEST).log()

    @torch.no_grad()
    def fit(self, scores: Tensor) -> None:
        """Take level and spread from the scores [N] of normal images' maps."""
        self.level.copy_(scores.double().median())
        self.spread.fill_(spread_of(scores.double().cpu().numpy()))
