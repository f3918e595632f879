"""What ADFA trains: a small descriptor of places behind frozen features, and the bank of what is
normal that it is compared with.

A 1x1 convolution that also sees where it is (coordinate planes), and an attention over channels
with one small kernel. The former is that of CFA (arXiv:2206.04325), the latter that of ECA
(arXiv:1910.03151) with a second look at each channel.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Second = Literal["max", "avg"]


class Attention(NamedTuple):
    """How channel attention is made: side of its kernel (odd), what it adds at most, and what its
    second look at a channel is: its largest place, or its mean once more."""

    kernel: int = 9
    factor: float = 0.1
    second: Second = "max"


class ChannelAttention(nn.Module):
    """Maps f [B, C, h, w] -> f + factor * f * y, [B, C, h, w], with y in (0, 1) for each channel.

    y = sigmoid(conv(mean of the channel) + conv(its maximum)): one kernel without a bias slides
    over the channels for both.
    """

    def __init__(self, options: Attention) -> None:
        super().__init__()
        if options.kernel < 1 or options.kernel % 2 == 0:
            raise ValueError(f"eca_kernel {options.kernel}: give an odd number of channels")
        self.options = options
        padding = options.kernel // 2
        self.conv = nn.Conv1d(1, 1, options.kernel, padding=padding, bias=False)

    def weights(self, features: Tensor) -> Tensor:
        """y [B, C] of maps [B, C, h, w]."""
        mean = features.mean(dim=(2, 3))[:, None]
        second = features.amax(dim=(2, 3))[:, None] if self.options.second == "max" else mean
        logits: Tensor = self.conv(mean) + self.conv(second)
        return logits[:, 0].sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Maps [B, C, h, w], the same size."""
        return features + self.options.factor * features * self.weights(features)[..., None, None]


class Descriptor(nn.Module):
    """Features of places [B, C, h, w] -> descriptions [B, D, h, w]: a 1x1 convolution over the
    features and two coordinate planes, then channel attention unless it is None."""

    def __init__(self, channels: int, width: int, attention: Attention | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 2, width, 1)
        self.attention = nn.Identity() if attention is None else ChannelAttention(attention)

    def forward(self, features: Tensor) -> Tensor:
        """Descriptions [B, D, h, w]."""
        where = coordinates(features.shape[-2], features.shape[-1]).to(features)
        where = where.expand(features.shape[0], -1, -1, -1)
        described: Tensor = self.attention(self.conv(torch.cat([features, where], dim=1)))
        return described


class Adapter(nn.Module):
    """The descriptor, the bank [entries, D] that its descriptions are compared with, and the radius
    (a number) of CFA's loss, which is a parameter if it is to be learned.

    The bank is no parameter: it is filled once, before the training, and stays.
    """

    bank: Tensor
    radius: Tensor

    def __init__(
        self, descriptor: Descriptor, entries: int, radius: float = 0.0, *, learn_radius: bool
    ) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.register_buffer("bank", torch.zeros(entries, descriptor.conv.out_channels))
        if learn_radius:
            self.register_parameter("radius", nn.Parameter(torch.tensor(radius)))
        else:
            self.register_buffer("radius", torch.tensor(radius))

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> phi [B, h * w, D], row by row, in float32 whatever surrounds
        it: squared distances of half precision are noise."""
        with torch.autocast(features.device.type, enabled=False):
            described: Tensor = self.descriptor(features.float())
            return described.flatten(2).transpose(1, 2)


def coordinates(height: int, width: int) -> Tensor:
    """Two planes [1, 2, h, w] from -1 to 1: first the row of a place, then its column; 0 where
    there is only one."""
    rows, columns = _axis(height), _axis(width)
    planes = [rows[:, None].expand(height, width), columns[None].expand(height, width)]
    return torch.stack(planes)[None]


def _axis(places: int) -> Tensor:
    return torch.linspace(-1, 1, places) if places > 1 else torch.zeros(1)
