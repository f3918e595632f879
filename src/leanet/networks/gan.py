"""A small class-conditional GAN: a generator of images and the discriminator that trains it.

The generator turns e = [noise, embedding of the class] into an image, doubling its side block by
block; e also scales and shifts the features after every group norm (FiLM, Perez et al. 2018,
arXiv:1709.07871). The discriminator is a projection discriminator (Miyato and Koyama 2018,
arXiv:1802.05637) with spectral norm on every layer (Miyato et al. 2018, arXiv:1802.05957). Before
its last convolution it also sees how much the images of a group of four differ (minibatch SD,
Karras et al. 2018, arXiv:1710.10196), without which a small generator draws one image per class.

A grid of side r has min(8 w, max(64 w / r, 8)) channels at width w; the discriminator is twice as
wide as the generator.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

NOISE, EMBEDDING = 128, 64  # sizes of the two halves of e
FIRST_SIDE, SIDES = 4, (32, 64, 128, 256)
NORM_GROUPS, SLOPE = 8, 0.2
GROUP = 4  # images whose differences the discriminator sees together


class Modulated(nn.Module):
    """Group norm without weights of its own; scale and shift are linear in e [B, E]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, affine=False)
        self.film = nn.Linear(NOISE + EMBEDDING, 2 * channels)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """[B, C, H, W], [B, E] -> [B, C, H, W]."""
        scale, shift = self.film(e)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class UpBlock(nn.Module):
    """[B, in, r, r] -> [B, out, 2r, 2r], with a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.before = Modulated(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.after = Modulated(out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Features [B, in, r, r] and e [B, E]."""
        out = F.leaky_relu(self.before(x, e), SLOPE)
        out = self.after(self.conv(F.interpolate(out, scale_factor=2.0)), e)
        # a 1x1 convolution and nearest x2 commute: four times cheaper in this order
        total: Tensor = out + F.interpolate(self.skip(x), scale_factor=2.0)
        return total


class Generator(nn.Module):
    """Noise [B, 128] and classes [B] (whole numbers) -> images [B, 3, S, S] in [0, 1].

    Raises ValueError for a side other than 32, 64, 128 or 256.
    """

    def __init__(self, side: int, width: int, num_classes: int) -> None:
        super().__init__()
        channels = [num_channels(r, width) for r in grids(side)]
        self.side, self.num_classes = side, num_classes
        self.embedding = nn.Embedding(num_classes, EMBEDDING)
        self.first = nn.Linear(NOISE + EMBEDDING, channels[0] * FIRST_SIDE**2)
        self.blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(channels))
        self.norm = nn.GroupNorm(NORM_GROUPS, channels[-1])
        self.last = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        """Draw one image per row."""
        e = torch.cat([noise, self.embedding(label)], dim=1)  # [B, E]
        x = self.first(e).unflatten(1, (-1, FIRST_SIDE, FIRST_SIDE))  # [B, c4, 4, 4]
        for block in self.blocks:
            x = block(x, e)  # twice the side
        image: Tensor = self.last(F.leaky_relu(self.norm(x), SLOPE)).tanh()  # [B, 3, S, S]
        return (image + 1) / 2


class DownBlock(nn.Module):
    """[B, in, r, r] -> [B, out, r/2, r/2], with a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, in, r, r]."""
        out = F.avg_pool2d(self.conv(F.leaky_relu(x, SLOPE)), 2)
        total: Tensor = out + self.skip(F.avg_pool2d(x, 2))
        return total


class Discriminator(nn.Module):
    """Images [B, 3, S, S] in [-1, 1] and their classes [B] -> how real they look [B].

    Consecutive groups of four images (or of as many as divide B) are compared with each other:
    give real and generated images in separate groups. `width` is that of the generator.

    Raises ValueError for a side other than 32, 64, 128 or 256.
    """

    def __init__(self, side: int, width: int, num_classes: int) -> None:
        super().__init__()
        channels = [num_channels(r, 2 * width) for r in reversed(grids(side))]
        self.first = spectral_norm(nn.Conv2d(3, channels[0], 3, padding=1))
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(channels))
        self.last = spectral_norm(nn.Conv2d(channels[-1] + 1, channels[-1], 3, padding=1))
        self.linear = spectral_norm(nn.Linear(channels[-1], 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, channels[-1]))

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Judge a batch."""
        x = self.first(image)
        for block in self.blocks:
            x = block(x)  # half the side, down to 4
        x = torch.cat([x, minibatch_sd(x)], dim=1)  # [B, C + 1, 4, 4]
        h = F.leaky_relu(self.last(x), SLOPE).sum(dim=(2, 3))  # [B, C]
        realness: Tensor = self.linear(h)[:, 0] + (self.embedding(label) * h).sum(dim=1)
        return realness


def minibatch_sd(x: Tensor, group: int = GROUP) -> Tensor:
    """How much consecutive groups of features [B, C, H, W] differ: the SD over each group, averaged
    over C, H and W, as a plane [B, 1, H, W]."""
    size = math.gcd(len(x), group)
    grouped = x.float().view(-1, size, *x.shape[1:])  # [B / size, size, C, H, W]
    variance = grouped.var(dim=1, correction=0)
    sd = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [B / size]
    plane = sd.repeat_interleave(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return plane.to(x.dtype)


def num_channels(grid: int, width: int) -> int:
    """Channels at a grid of this side.

    >>> [num_channels(r, 8) for r in (4, 8, 16, 32, 64)]
    [64, 64, 32, 16, 8]
    """
    return min(8 * width, max(64 * width // grid, 8))


def grids(side: int) -> list[int]:
    """The sides of the feature maps of a network for images of this side.

    Raises ValueError for a side other than 32, 64, 128 or 256.

    >>> grids(64)
    [4, 8, 16, 32, 64]
    """
    if side not in SIDES:
        raise ValueError(f"the GAN draws images of {SIDES} px a side, not of {side}")
    return [FIRST_SIDE << k for k in range((side // FIRST_SIDE).bit_length())]
