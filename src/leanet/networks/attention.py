"""Self-attention: small modules that reweigh the features of a classifier by the features alone.

Each computes a gate from its input x [B, C, H, W] and gives x * gate(x), of the same shape. S is
the sigmoid; mean, var and max run over the positions, mean_c and max_c over the channels:

    se     [B, C, 1, 1]  S(W2 relu(W1 mean(x)))                      Hu et al., arXiv:1709.01507
    eca    [B, C, 1, 1]  S(conv1d over the channels of mean(x))      Wang et al., arXiv:1910.03151
    srm    [B, C, 1, 1]  S(bn(w1 mean(x) + w2 sqrt(var(x) + 1e-5)))  Lee et al., arXiv:1903.10829
    simam  [B, C, H, W]  S((x - mean)^2 / (4 (var + 1e-4)) + 0.5)    Yang et al., ICML 2021
    cbam   [B, C, 1, 1]  S(mlp(mean(x)) + mlp(max(x))), and then     Woo et al., arXiv:1807.06521
           [B, 1, H, W]  S(bn(conv7x7(mean_c(x), max_c(x))))

Start `paper`: drawn as below, gates are near 0.5, which halves the features at every block. That
spoils a network with trained weights; start `identity` is for those: the gate is 2 S(z) with z = 0,
exactly 1, and learns from there.

Weights are drawn He-normal as Keras does: a normal distribution cut at two standard deviations
whose resulting variance is 2 / fan_in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.config import nearest
from leanet.networks.blocks import Gate, SelfAttention

Start = Literal["paper", "identity"]
CUT_NORMAL_SD = 0.8796256610342398  # of the standard normal distribution cut at +-2


def simam_gate(x: Tensor, place: str = "") -> Tensor:
    """SimAM: x [B, C, H, W] -> gate [B, C, H, W] in [0.62, 1), highest where x is unusual.

    Raises ValueError for a single position, which has no variance; `place` names the layer there.
    """
    positions = x.shape[-2] * x.shape[-1]
    if positions < 2:
        raise ValueError(
            f"SimAM{_at(place)} compares the positions of a feature map, and this one has 1 x 1: "
            f"choose a larger img_size, the small stem, or leave out the last stage"
        )
    squares = (x - x.mean(dim=(2, 3), keepdim=True)).square()
    variance = squares.sum(dim=(2, 3), keepdim=True) / (positions - 1)  # [B, C, 1, 1]
    return torch.sigmoid(squares / (4 * (variance + 1e-4)) + 0.5)


class SimAM(SelfAttention):
    """No weights, `channels` is not needed; start `identity` learns one strength a, from 0: the
    gate is 1 + a (simam_gate - 1)."""

    def __init__(self, channels: int, *, start: Start = "paper") -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(())) if start == "identity" else None

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every value: [B, C, H, W]."""
        gate = simam_gate(x, self.place)
        return gate if self.strength is None else 1 + self.strength * (gate - 1)


class SqueezeExcite(SelfAttention):
    """SE with max(channels // ratio, min_hidden) hidden units.

    The names are timm's, so that its weights fit (with the `bias` and `min_hidden` of the file).
    """

    def __init__(
        self,
        channels: int,
        ratio: int = 8,
        *,
        bias: bool = True,
        min_hidden: int = 1,
        start: Start = "paper",
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = _mlp(channels, ratio, min_hidden, bias=bias, start=start)
        self.scale = _scale(start)

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every channel: [B, C, 1, 1]."""
        hidden = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))  # [B, hidden, 1, 1]
        return self.scale * torch.sigmoid(self.fc2(hidden))


class ECA(SelfAttention):
    """One small convolution over neighboring channels."""

    def __init__(self, channels: int, *, start: Start = "paper") -> None:
        super().__init__()
        kernel = eca_kernel(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        if start == "identity":
            nn.init.zeros_(self.conv.weight)
        else:
            cut_he_normal_(self.conv.weight, fan_in=kernel)
        self.scale = _scale(start)

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every channel: [B, C, 1, 1]."""
        logit = self.conv(x.mean(dim=(2, 3))[:, None])[:, 0]  # [B, C]
        return self.scale * torch.sigmoid(logit)[:, :, None, None]


def eca_kernel(channels: int) -> int:
    """The number of neighboring channels that ECA mixes, odd and at least 3.

    >>> [eca_kernel(channels) for channels in (16, 64, 128, 512, 2048)]
    [3, 3, 5, 5, 7]
    """
    half = int((math.log2(channels) + 1) / 2)
    return max(half if half % 2 else half + 1, 3)


class SRM(SelfAttention):
    """Mean and deviation of a channel, weighed for each channel alone, then BatchNorm.

    Raises ValueError in training with a single image, which BatchNorm cannot compare.
    """

    def __init__(self, channels: int, *, start: Start = "paper") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm1d(channels)
        if start == "identity":
            cut_he_normal_(self.weight, fan_in=2)  # with both at 0 neither would ever learn
            nn.init.zeros_(self.bn.weight)
        self.scale = _scale(start)

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every channel: [B, C, 1, 1]."""
        if self.training and len(x) < 2:
            raise ValueError(
                f"SRM{_at(self.place)} compares the images of a batch while it learns, and this "
                f"one ({x.shape[1]} maps of {x.shape[2]} x {x.shape[3]}) has a single image: "
                f"choose a larger batch_size"
            )
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)  # [B, C]
        style = torch.stack([mean, (variance + 1e-5).sqrt()], dim=2)  # [B, C, 2]
        logit = self.bn((self.weight * style).sum(dim=2))  # [B, C]
        return self.scale * torch.sigmoid(logit)[:, :, None, None]


class ChannelGate(SelfAttention):
    """First half of CBAM: one MLP for the mean and the maximum of every channel."""

    def __init__(
        self,
        channels: int,
        ratio: int = 16,
        *,
        bias: bool = True,
        min_hidden: int = 1,
        start: Start = "paper",
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = _mlp(channels, ratio, min_hidden, bias=bias, start=start)
        self.scale = _scale(start)

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every channel: [B, C, 1, 1]."""
        mean, most = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        logit = self.fc2(F.relu(self.fc1(mean))) + self.fc2(F.relu(self.fc1(most)))
        return self.scale * torch.sigmoid(logit)


class SpatialGate(SelfAttention):
    """Second half of CBAM: a 7x7 convolution of the mean and the maximum over the channels."""

    def __init__(self, *, start: Start = "paper") -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)
        cut_he_normal_(self.conv.weight, fan_in=98)
        if start == "identity":  # zeros before the BatchNorm would be scaled up by it
            nn.init.zeros_(self.bn.weight)
        self.scale = _scale(start)

    def gate(self, x: Tensor) -> Tensor:
        """One factor for every position: [B, 1, H, W]."""
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return self.scale * torch.sigmoid(self.bn(self.conv(pooled)))


class CBAM(SelfAttention):
    """The channels first, then the positions of what is left."""

    def __init__(
        self,
        channels: int,
        ratio: int = 16,
        *,
        bias: bool = True,
        min_hidden: int = 1,
        start: Start = "paper",
    ) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, ratio, bias=bias, min_hidden=min_hidden, start=start)
        self.spatial = SpatialGate(start=start)

    def channel_gate(self, x: Tensor) -> Tensor:
        """One factor for every channel of the input: [B, C, 1, 1]."""
        return self.channel.gate(x)

    def spatial_gate(self, x: Tensor) -> Tensor:
        """One factor for every position of features that passed the channels: [B, 1, H, W]."""
        return self.spatial.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """The product of both gates: [B, C, H, W]."""
        channel = self.channel_gate(x)
        return channel * self.spatial_gate(x * channel)

    def forward(self, x: Tensor) -> Tensor:
        """Both gates in turn."""
        out: Tensor = self.spatial(self.channel(x))
        return out


SELF_ATTENTION: dict[str, Callable[..., SelfAttention]] = {
    "se": SqueezeExcite,
    "cbam": CBAM,
    "eca": ECA,
    "simam": SimAM,
    "srm": SRM,
}
"""Name -> module; called with the number of channels and `start`, se and cbam with `ratio` too."""

WITH_RATIO = ("se", "cbam")


def self_attention(
    name: str, *, identity_start: bool = False, reduction: int | None = None
) -> Gate | None:
    """Look a module up: a maker of modules for a number of channels, None for the name `none`.

    `identity_start` is for networks with trained weights. `reduction` is the ratio of se (default
    8, as in the LEA-Net program; 16 in its own paper) and cbam (16). The maker leaves torch's
    global generator as it was: a seed gives the same other weights with and without the modules.

    Raises ValueError for an unknown name, or a reduction for a module without one or below 1.
    """
    if name == "none":
        return None
    if name not in SELF_ATTENTION:
        raise ValueError(
            f"self-attention {name!r} is not known: "
            f"allowed are none, {', '.join(SELF_ATTENTION)}{nearest(name, SELF_ATTENTION)}"
        )
    options: dict[str, Any] = {"start": "identity" if identity_start else "paper"}
    if reduction is not None:
        if name not in WITH_RATIO or reduction < 1:
            raise ValueError(
                f"reduction {reduction} for {name}: only {' and '.join(WITH_RATIO)} have one, "
                f"a whole number from 1 up; leave it out"
            )
        options["ratio"] = reduction
    return partial(_make, SELF_ATTENTION[name], options)


def _make(
    kind: Callable[..., SelfAttention], options: dict[str, Any], channels: int
) -> SelfAttention:
    with torch.random.fork_rng(devices=[]):
        return kind(channels, **options)


def cut_he_normal_(weight: Tensor, fan_in: int) -> None:
    """Draw `weight` in place: variance 2 / fan_in, normal cut at two standard deviations."""
    sd = math.sqrt(2 / fan_in) / CUT_NORMAL_SD
    nn.init.trunc_normal_(weight, std=sd, a=-2 * sd, b=2 * sd)


def _mlp(
    channels: int, ratio: int, min_hidden: int, *, bias: bool, start: Start
) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two 1x1 convolutions with `channels` at the outer ends, biases 0."""
    hidden = max(channels // ratio, min_hidden)
    first = nn.Conv2d(channels, hidden, 1, bias=bias)
    second = nn.Conv2d(hidden, channels, 1, bias=bias)
    cut_he_normal_(first.weight, fan_in=channels)
    if start == "identity":
        nn.init.zeros_(second.weight)
    else:
        cut_he_normal_(second.weight, fan_in=hidden)
    for layer in (first, second):
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return first, second


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _scale(start: Start) -> float:
    return 2.0 if start == "identity" else 1.0
