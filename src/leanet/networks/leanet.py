"""LEA-Net: an anomaly map steers the layers of a classifier.

Layer-wise External Attention, Katafuchi & Tokunaga, arXiv 2109.05493.

Two networks run side by side. The anomaly attention network (AAN) reads the anomaly map x, the
anomaly detection network (ADN) reads the image I. After stage p of the ADN, its features f_p are
multiplied by what the AAN's features g_p of the same stride say about the place:

    M_p = sigmoid(mean over channels of g_p(x))          attention map, [B, 1, H_p, W_p], Eq. 2
    f_p <- (1 + w_p M_p) f_p                             strength w_p, 1 in the paper, Eq. 3

Both end in a head of their own and are trained together, L = BCE(AAN) + BCE(ADN), Eq. 1; the ADN's
loss also reaches the AAN through M_p. The map is a second argument of `forward`: no hooks.

The paper's simpler ways to use the map stand in `adn_input`: as a fourth channel, multiplied into
the image, or alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.networks.blocks import Staged, StagedClassifier
from leanet.networks.prior import MapPrior

AdnInput = Literal["image", "map", "4_channel", "attentioned", "multiplied"]
Pool = Literal["mean", "max", "conv"]
Fuse = Literal["steer", "add", "multiply"]
Learned = Literal["fixed", "free", "positive"]
IN_CHANS: dict[AdnInput, int] = {
    "image": 3,
    "map": 1,
    "4_channel": 4,
    "attentioned": 3,
    "multiplied": 3,
}


class LEAOutput(NamedTuple):
    """adn, aan: logits [B, K] (aan is None without an AAN, or for one without a head). For every
    attention point in use, in network order: attention M_p [B, 1, H_p, W_p], before, after
    f_p [B, K_p, H_p, W_p]. prior: what the map alone says, z [B], where the ADN's logit began.
    tuned: what a fine-tuned copy of the ADN says at each place [B, 1, h, w]; its mean says it all.
    """

    adn: Tensor
    aan: Tensor | None
    attention: tuple[Tensor, ...]
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    prior: Tensor | None = None
    tuned: Tensor | None = None


def adn_input(image: Tensor, anomaly_map: Tensor, how: AdnInput) -> Tensor:
    """What the ADN sees: image I [B, 3, H, W], map x [B, 1, H, W] -> [B, IN_CHANS[how], H, W].

    image: I; map: x; 4_channel: I and x; attentioned: I + I x, up to 2, not clipped;
    multiplied: I x.
    """
    if how == "map":
        return anomaly_map
    if how == "4_channel":
        return torch.cat([image, anomaly_map.to(image)], dim=1)
    if how == "attentioned":
        return image + image * anomaly_map
    if how == "multiplied":
        return image * anomaly_map
    return image


class AttentionMap(nn.Module):
    """Eq. 2: features [B, C, H, W] -> M [B, 1, H, W].

    Args:
        channels: C.
        pool: over the channels; the paper's is the mean, conv learns their weights.
        standardize: subtract the mean over the positions of an image and divide by the SD, so that
            M always has contrast (ours, against flat attention).
        sigmoid: M in (0, 1); without it M is the pooled features.
    """

    def __init__(
        self,
        channels: int,
        pool: Pool = "mean",
        *,
        standardize: bool = False,
        sigmoid: bool = True,
    ) -> None:
        super().__init__()
        self.pool, self.standardize, self.sigmoid = pool, standardize, sigmoid
        self.conv = nn.Conv2d(channels, 1, 1) if pool == "conv" else None

    def forward(self, features: Tensor) -> Tensor:
        """Pool, standardize, squash."""
        if self.conv is not None:
            pooled: Tensor = self.conv(features)  # [B, 1, H, W]
        elif self.pool == "max":
            pooled = features.amax(dim=1, keepdim=True)
        else:
            pooled = features.mean(dim=1, keepdim=True)
        if self.standardize:
            sd, mean = torch.std_mean(pooled.float(), dim=(2, 3), correction=0, keepdim=True)
            pooled = (pooled - mean) / (sd + 1e-4)
        return torch.sigmoid(pooled) if self.sigmoid else pooled


def steer(features: Tensor, attention: Tensor, strength: Tensor, how: Fuse = "steer") -> Tensor:
    """Eq. 3: (1 + w M) f, with M resized to the features where the sizes differ.

    For ablation `how` may be add, f + w M, or multiply, w M f.
    """
    if attention.shape[-2:] != features.shape[-2:]:
        attention = functional.interpolate(attention, features.shape[-2:], mode="bilinear")
    if how == "add":
        return features + strength * attention
    if how == "multiply":
        return features * (strength * attention)
    return features * (1 + strength * attention)


class LEANet(nn.Module):
    """ADN and AAN, joined at some attention points.

    Args:
        adn: classifier of the image.
        aan: reader of the map; the tap of a point is its last stage of the same stride. None only
            without points.
        points: where to steer; point p stands behind the ADN's last stage of stride 2^(p + 1)
            (0 = A1 ... 4 = A5 at stride 32); empty = no attention.
        attention: makes the module of Eq. 2 for a number of channels.
        fuse: Eq. 3, or another one for ablation.
        strength: w, at every point.
        prior: gives z of the map, which is added to the ADN's logit (of a softmax pair to that of
            "anomalous"): the labels then teach the ADN only where the map errs.
        learn_strength: `free` trains one w per point, starting from `strength`; `positive` counts
            a negative w as 0 (a negative one inverts the attention).

    Attributes:
        strength: w_p [len(points)], a parameter if learned, else a buffer.

    Raises:
        ValueError: a point that the ADN does not have, or a stride that the AAN does not have.
    """

    strength: Tensor

    def __init__(  # noqa: PLR0913 - what there is to choose, by name
        self,
        adn: StagedClassifier,
        aan: Staged | None,
        points: Sequence[int],
        *,
        attention: Callable[[int], nn.Module] = AttentionMap,
        fuse: Fuse = "steer",
        strength: float = 1.0,
        learn_strength: Learned = "fixed",
        prior: MapPrior | None = None,
    ) -> None:
        super().__init__()
        self.adn, self.aan, self.fuse, self.prior = adn, aan, fuse, prior
        self.points = tuple(sorted(set(points)))
        if self.points and aan is None:
            raise ValueError("attention points need an attention network; give one, or no points")
        self.stages = [_stage(adn, point, "classifier") for point in self.points]
        self.taps = [_stage(aan, point, "attention network") for point in self.points if aan]
        widths = aan.channels if aan else ()
        self.attention = nn.ModuleList(attention(widths[tap]) for tap in self.taps)
        self.positive = learn_strength == "positive"
        start = torch.full((len(self.points),), float(strength))  # in the order of `points`
        if learn_strength == "fixed":
            self.register_buffer("strength", start)
        else:
            self.strength = nn.Parameter(start)

    def forward(self, image: Tensor, anomaly_map: Tensor) -> LEAOutput:
        """ADN's input [B, C, H, W], network map [B, 1, H, W] in [0, 1] -> logits and what led to
        them."""
        taps, g = [], anomaly_map
        for index in range(len(self.aan.strides) if self.aan else 0):
            assert self.aan is not None
            g = self.aan.stage(index, g)  # [B, C_p, H_p, W_p]
            taps.append(g)
        attention: list[Tensor] = []
        before: list[Tensor] = []
        after: list[Tensor] = []
        f = image
        for index in range(len(self.adn.strides)):
            f = self.adn.stage(index, f)  # [B, K_p, H_p, W_p]
            if index in self.stages:
                k = self.stages.index(index)
                attention.append(self.attention[k](taps[self.taps[k]]))
                before.append(f)
                f = steer(f, attention[-1], self.weights()[k], self.fuse)
                after.append(f)
        aan = self.aan.head(g) if self.aan else None
        adn, z = self.adn.head(f), None
        if self.prior is not None:
            z = self.prior(anomaly_map)
            adn = torch.cat([adn[:, :-1], adn[:, -1:] + z[:, None]], dim=1)
        return LEAOutput(adn, aan, tuple(attention), tuple(before), tuple(after), z)

    def named_strengths(self) -> dict[str, float]:
        """The strengths as numbers, by the name of their point."""
        weights = self.weights().tolist()
        return {f"A{p + 1}": w for p, w in zip(self.points, weights, strict=True)}

    def weights(self) -> Tensor:
        """The strengths w_p [len(points)] that count."""
        if not self.positive:
            return self.strength
        # the gradient passes where w < 0 too, so that w can come back
        return self.strength + (self.strength.clamp(min=0) - self.strength).detach()


def point_stride(point: int) -> int:
    """Attention points are named by the stride of their features: A1 (0) has 2, A5 (4) has 32.

    >>> [point_stride(point) for point in range(5)]
    [2, 4, 8, 16, 32]
    """
    return int(2 ** (point + 1)) if point >= 0 else 0


def _stage(network: Staged, point: int, whose: str) -> int:
    """The last stage of a network that has the stride of a point."""
    stride = point_stride(point)
    if stride not in network.strides:
        points = {s.bit_length() - 2: s for s in sorted(set(network.strides))}
        listed = ", ".join(f"{p} (A{p + 1}, stride {s})" for p, s in points.items() if p >= 0)
        raise ValueError(
            f"attention point {point} (A{point + 1}) has stride {stride}, and the {whose} has no "
            f"such stage; it has the points {listed}"
        )
    return len(network.strides) - 1 - network.strides[::-1].index(stride)
