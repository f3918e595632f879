"""LEA-Net: an anomaly map steers the layers of a classifier.

Layer-wise External Attention, Katafuchi & Tokunaga, arXiv 2109.05493.

Two networks run side by side. The anomaly attention network (AAN) reads the anomaly map x, the
anomaly detection network (ADN) reads the image I. After stage p of the ADN, its features f_p are
multiplied by what the AAN's features g_p of the same stride say about the place:

    M_p = sigmoid(mean over channels of g_p(x))          attention map, [B, 1, H_p, W_p], Eq. 2
    f_p <- (1 + w_p M_p) f_p                             strength w_p, 1 in the paper, Eq. 3

Both end in a head of their own and are trained together, L = BCE(AAN) + BCE(ADN), Eq. 1; the ADN's
loss also reaches the AAN through M_p. The map is a second argument of `forward`: no hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.networks.blocks import Staged, StagedClassifier


class LEAOutput(NamedTuple):
    """adn, aan: logits [B, 1] (aan is None for an AAN without a head). For every attention point
    in use, in network order: attention M_p [B, 1, H_p, W_p], before, after f_p [B, K_p, H_p, W_p].
    """

    adn: Tensor
    aan: Tensor | None
    attention: tuple[Tensor, ...]
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]


def attention_map(features: Tensor) -> Tensor:
    """Eq. 2: features [B, C, H, W] -> M [B, 1, H, W] in (0, 1)."""
    return torch.sigmoid(features.mean(dim=1, keepdim=True))


def steer(features: Tensor, attention: Tensor, strength: Tensor) -> Tensor:
    """Eq. 3: (1 + w M) f, with M resized to the features where the sizes differ."""
    if attention.shape[-2:] != features.shape[-2:]:
        attention = functional.interpolate(attention, features.shape[-2:], mode="bilinear")
    return features * (1 + strength * attention)


class LEANet(nn.Module):
    """ADN and AAN, joined at some attention points.

    Args:
        adn: classifier of the image; its stages are the points A1, A2, ...
        aan: reader of the map; the tap of a point is its stage of the same stride.
        points: indices of the ADN's stages to steer (0 = A1); empty = no attention.
        strength: w, at every point.
        learn_strength: train one w per point, starting from `strength`.

    Attributes:
        strength: w_p [len(points)], a parameter if learned, else a buffer.

    Raises:
        ValueError: a point that the ADN does not have, or a stride that the AAN does not have.
    """

    strength: Tensor

    def __init__(
        self,
        adn: StagedClassifier,
        aan: Staged,
        points: Sequence[int],
        *,
        strength: float = 1.0,
        learn_strength: bool = False,
    ) -> None:
        super().__init__()
        self.adn, self.aan = adn, aan
        self.points = tuple(sorted(set(points)))
        self.taps = {point: _tap(adn, aan, point) for point in self.points}
        start = torch.full((len(self.points),), float(strength))  # in the order of `points`
        if learn_strength:
            self.strength = nn.Parameter(start)
        else:
            self.register_buffer("strength", start)

    def forward(self, image: Tensor, anomaly_map: Tensor) -> LEAOutput:
        """Image [B, 3, H, W], network map [B, 1, H, W] in [0, 1] -> logits and what led to them."""
        taps, g = [], anomaly_map
        for index in range(len(self.aan.strides)):
            g = self.aan.stage(index, g)  # [B, C_p, H_p, W_p]
            taps.append(g)
        attention, before, after, f = [], [], [], image
        for index in range(len(self.adn.strides)):
            f = self.adn.stage(index, f)  # [B, K_p, H_p, W_p]
            if index in self.points:
                attention.append(attention_map(taps[self.taps[index]]))
                before.append(f)
                f = steer(f, attention[-1], self.strength[len(before) - 1])
                after.append(f)
        return LEAOutput(
            self.adn.head(f), self.aan.head(g), tuple(attention), tuple(before), tuple(after)
        )


def _tap(adn: Staged, aan: Staged, point: int) -> int:
    if not 0 <= point < len(adn.strides):
        names = ", ".join(f"{p} (A{p + 1})" for p in range(len(adn.strides)))
        raise ValueError(f"attention point {point}: this network has the points {names}")
    stride = adn.strides[point]
    if stride not in aan.strides:
        raise ValueError(
            f"attention point {point} has stride {stride}, and the attention network has none; "
            f"it has the strides {', '.join(map(str, aan.strides))}"
        )
    return aan.strides.index(stride)
