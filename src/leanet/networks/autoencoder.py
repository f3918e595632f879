"""Reconstruction networks of the LEA-Net program: an auto-encoder, and the same with skips.

Four strided convolutions, five residual blocks at a sixteenth of the sides, four strided transposed
convolutions (Katafuchi & Tokunaga 2021, arXiv:2109.05493). The auto-encoder has no skips: all that
it draws has passed 1/16 of the sides, so that it cannot copy what it has not learned. With skips at
every size, full size included, copying is easy; good for tasks in which the input is not the
target. Weights start at PyTorch's default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import require_multiple

NUM_BLOCKS = 5
SLOPE = 0.2  # of the leaky ReLU
MOMENTUM = 0.2  # of the running statistics


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to the input, without an activation after the sum:
    [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels, momentum=MOMENTUM)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus input."""
        branch: Tensor = F.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        branch = self.bn2(self.conv2(branch))
        return x + branch


class AutoEncoder(nn.Module):
    """[B, in_chans, H, W] -> [B, out_chans, H, W] in (0, 1); H and W are multiples of 16.

    `base` 64 is the program's; the encoder has base / 2, base, 2 base, 4 base and 8 base channels.
    `skips` joins the features of equal size: this is `UNetRes`.
    """

    def __init__(
        self, in_chans: int, out_chans: int, *, base: int = 64, skips: bool = False
    ) -> None:
        super().__init__()
        self.skips = skips
        widths = [max(base // 2, 1), base, 2 * base, 4 * base, 8 * base]
        joined = 2 if skips else 1
        self.first = nn.Sequential(nn.Conv2d(in_chans, widths[0], 1), nn.LeakyReLU(SLOPE))
        self.down = nn.ModuleList(
            _down(widths[level], widths[level + 1], norm=level > 0) for level in range(4)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(widths[4]) for _ in range(NUM_BLOCKS)))
        # from the smallest features upwards; all but the first read their joined skip as well
        self.up = nn.ModuleList(
            _up(widths[level + 1] * (1 if level == 3 else joined), widths[level], norm=level > 0)
            for level in (3, 2, 1, 0)
        )
        self.out = nn.Sequential(  # even kernel: one more row and column at the end
            nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(widths[0] * joined, out_chans, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode, residual blocks, decode, sigmoid.

        Raises ValueError for sides that are no multiple of 16.
        """
        require_multiple(x, 16)
        encoded = [self.first(x)]  # [B, base / 2, H, W]
        for layer in self.down:
            encoded.append(layer(encoded[-1]))  # half the sides each, up to [B, 8 base, H / 16, ..]
        x = self.blocks(encoded.pop())
        for layer in self.up:
            x, skip = layer(x), encoded.pop()  # twice the sides
            x = torch.cat([x, skip], dim=1) if self.skips else x
        return torch.sigmoid(self.out(x))  # [B, out_chans, H, W]


class UNetRes(AutoEncoder):
    """The auto-encoder with a skip at every size, the full one included."""

    def __init__(self, in_chans: int, out_chans: int, *, base: int = 64) -> None:
        super().__init__(in_chans, out_chans, base=base, skips=True)


def _down(in_channels: int, out_channels: int, *, norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
    return _activated(conv, out_channels, norm=norm)


def _up(in_channels: int, out_channels: int, *, norm: bool) -> nn.Sequential:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)
    return _activated(conv, out_channels, norm=norm)


def _activated(conv: nn.Module, channels: int, *, norm: bool) -> nn.Sequential:
    norms = [nn.BatchNorm2d(channels, momentum=MOMENTUM)] if norm else []
    return nn.Sequential(conv, *norms, nn.LeakyReLU(SLOPE))
