"""Staged networks and the convolution blocks that they are made of.

A *staged network* is run one stage at a time, so that a second network can steer the features
between two stages in plain Python, without forward hooks (which compilers and exporters drop).
The attention points A1..A5 of LEA-Net (Katafuchi & Tokunaga 2021, arXiv:2109.05493) lie after
stages 0..4:

    for index in range(len(network.strides)):
        x = network.stage(index, x)      # [B, channels[index], H / strides[index], W / ...]
    logits = network.head(x)             # [B, num_outputs]

The residual blocks are those of He et al. 2016 (doi:10.1109/CVPR.2016.90), with the names that
torchvision gives their layers, so that its weight files fit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Gate = Callable[[int], nn.Module]
"""Makes a self-attention module for a number of channels: [B, C, H, W] -> [B, C, H, W]."""

Placement = Literal["standard", "pre", "identity", "post"]
"""Where in a residual block; ResidualBlock says what each computes."""


class Staged(nn.Module):
    """A network that can be run stage by stage; without a head of its own, its logits are None."""

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    has_head: bool = False

    @abstractmethod
    def stage(self, index: int, x: Tensor) -> Tensor:
        """Run stage `index` on the output of the one before (stage 0: on the input
        [B, in_chans, H, W]) -> [B, channels[index], H / strides[index], W / strides[index]].

        `x` is never modified in place.
        """

    def head(self, x: Tensor) -> Tensor | None:
        """Turn the features of the last stage into logits [B, num_outputs], None without a head."""
        return None

    def features(self, x: Tensor) -> list[Tensor]:
        """Run all stages on [B, in_chans, H, W] and keep every output, in order."""
        outputs: list[Tensor] = []
        for index in range(len(self.strides)):
            outputs.append(self.stage(index, outputs[-1] if outputs else x))
        return outputs

    def forward(self, x: Tensor) -> Tensor | None:
        """All stages, then the head: [B, in_chans, H, W] -> [B, num_outputs] or None."""
        return self.head(self.features(x)[-1])


class StagedClassifier(Staged):
    """A staged network with a head: its logits are always a tensor [B, num_outputs]."""

    has_head = True

    @abstractmethod
    def head(self, x: Tensor) -> Tensor:
        """Turn the features of the last stage into logits [B, num_outputs]."""

    def forward(self, x: Tensor) -> Tensor:
        """All stages, then the head: [B, in_chans, H, W] -> [B, num_outputs]."""
        return self.head(self.features(x)[-1])


class SelfAttention(nn.Module):
    """Features times a gate that is computed from them: [B, C, H, W] -> [B, C, H, W].

    It draws its own weights when it is built; `he_normal_` leaves them alone. `place` is its name
    inside a network, for messages.
    """

    place: str = ""

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """The factors of x [B, C, H, W]: [B, C, 1, 1], [B, 1, H, W] or [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """x * gate(x)."""
        return x * self.gate(x)


class ResidualBlock(nn.Module):
    """relu(branch(x) + downsample(x)), with a self-attention module g at one of four places:

        standard  relu(g(branch(x)) + downsample(x))
        pre       relu(branch(g(x)) + downsample(x))
        identity  relu(branch(x) + g(downsample(x)))
        post      g(relu(branch(x) + downsample(x)))

    The branch ends in a BatchNorm without ReLU. `channels` are those of x and of the output.
    """

    channels: tuple[int, int]
    gate: nn.Module
    downsample: nn.Module
    placement: Placement = "standard"

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The convolutions: [B, in, H, W] -> [B, out, H / stride, W / stride]."""

    @property
    def projects(self) -> bool:
        """Whether the shortcut changes the shape, so that it has weights of its own."""
        return not isinstance(self.downsample, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Residual branch plus shortcut, then ReLU: [B, in, H, W] -> [B, out, H / stride, ...]."""
        out = self.branch(self.gate(x) if self.placement == "pre" else x)
        shortcut = self.downsample(x)
        if self.placement == "standard":
            out = self.gate(out)
        elif self.placement == "identity":
            shortcut = self.gate(shortcut)
        out = F.relu(out + shortcut)
        return self.gate(out) if self.placement == "post" else out


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut: [B, in, H, W] -> [B, out, H / stride, W / stride].

    `biased=True` is the block of the LEA-Net program: every convolution has a bias, and a
    shortcut that changes the shape is a bare 1x1 convolution without BatchNorm.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        biased: bool = False,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self.channels = (in_channels, width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=biased)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=biased)
        self.bn2 = nn.BatchNorm2d(width)
        self.gate = gate(width) if gate else nn.Identity()
        self.downsample = _shortcut(in_channels, width, stride, biased=biased)

    def branch(self, x: Tensor) -> Tensor:
        """Two convolutions, each with BatchNorm, ReLU between them."""
        out = F.relu(self.bn1(self.conv1(x)))  # [B, width, H / stride, W / stride]
        normed: Tensor = self.bn2(self.conv2(out))
        return normed


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (strided) and 1x1 convolution to four times `width`, and a shortcut."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, gate: Gate | None = None
    ) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.channels = (in_channels, out_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.gate = gate(out_channels) if gate else nn.Identity()
        self.downsample = _shortcut(in_channels, out_channels, stride, biased=False)

    def branch(self, x: Tensor) -> Tensor:
        """Three convolutions, each with BatchNorm, ReLU between them."""
        out = F.relu(self.bn1(self.conv1(x)))  # [B, width, H, W]
        out = F.relu(self.bn2(self.conv2(out)))  # [B, width, H / stride, W / stride]
        normed: Tensor = self.bn3(self.conv3(out))  # [B, 4 * width, H / stride, W / stride]
        return normed


def _shortcut(in_channels: int, out_channels: int, stride: int, *, biased: bool) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=biased)
    return conv if biased else nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Biased convolution with padding `kernel // 2`, BatchNorm and, by default, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def he_normal_(network: nn.Module) -> None:
    """Draw all convolution weights of `network` anew, in place, from torch's global generator.

    N(0, 2 / fan_out) with fan_out = out_channels * kernel area / groups (He et al. 2015,
    doi:10.1109/ICCV.2015.123, the form torchvision uses); biases become 0. Linear and BatchNorm
    layers keep PyTorch's default, self-attention modules their own start.
    """
    gates = [gate for gate in network.modules() if isinstance(gate, SelfAttention)]
    kept = {module for gate in gates for module in gate.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in kept:
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_multiple(x: Tensor, multiple: int, advice: str = "") -> None:
    """Refuse images [B, C, H, W] whose sides are no multiple of `multiple` px (ValueError)."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"an image of {width} x {height} px does not fit a network that halves to "
            f"1/{multiple}: resize to a multiple of {multiple} px{advice}"
        )
