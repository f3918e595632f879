"""Spoiled copies of images, which a network that knows normal images is asked to repair.

What it cannot repair, it has not learned: the difference to the original is an anomaly map. The
five ways are those of the program to LEA-Net (Katafuchi & Tokunaga, arXiv 2109.05493), with its
constants: noise of mean 5 and variance 10000 on the scale of 8 bits, a tenth of the resolution,
quarter turns, and 32 square holes of an eighth of the side.

Where something is drawn, it comes from a `torch.Generator` on the CPU, or, without one, from
torch's global stream; the result lies on the device of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOISE_MEAN, NOISE_SD = 5 / 255, 100 / 255  # of images in [0, 1]
COARSE_SHARE = 0.1  # of the side
NUM_HOLES = 32
HOLES_PER_SIDE = 8  # a hole's side is the image's, divided by this
NUM_COMPLEMENTARY = 4


def add_noise(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images [..., C, H, W] in [0, 1] plus Gaussian noise for every number, clipped to [0, 1]."""
    noise = torch.randn(image.shape, generator=generator).to(image)
    return (image + (NOISE_MEAN + NOISE_SD * noise)).clamp(0, 1)


def coarsen(image: Tensor) -> Tensor:
    """Images [B, C, H, W] at a tenth of their sides and back again, both by nearest neighbor.

    >>> coarsen(torch.arange(20.0).expand(1, 1, 1, 20))[0, 0, 0].unique().tolist()
    [5.0, 15.0]
    """
    rows, columns = (_coarse_index(size).to(image.device) for size in image.shape[-2:])
    return image[..., rows, :][..., columns]


def turn(image: Tensor, quarters: Tensor) -> Tensor:
    """Square images [B, C, S, S], each turned counterclockwise by its number of quarters [B].

    >>> turn(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.tensor([1])).flatten().tolist()
    [1.0, 3.0, 0.0, 2.0]
    """
    turned = torch.stack([torch.rot90(image, k, (-2, -1)) for k in range(4)])  # [4, B, C, S, S]
    return turned[quarters.to(image.device) % 4, torch.arange(image.shape[0], device=image.device)]


def draw_quarters(count: int, generator: torch.Generator | None = None) -> Tensor:
    """A number of quarters for each of `count` images, 0 to 3, [B]."""
    return torch.randint(4, (count,), generator=generator)


def draw_holes(count: int, side: int, generator: torch.Generator | None = None) -> Tensor:
    """Where 32 square holes of an eighth of the side lie in each of `count` images: bool
    [B, 1, S, S]. Holes overlap; none leaves the image; together they cover about two fifths."""
    hole = _hole_side(side)
    corners = torch.randint(side - hole + 1, (2, count, NUM_HOLES, 1), generator=generator)
    offset = torch.arange(side) - corners  # [2, B, 32, S]
    rows, columns = ((offset >= 0) & (offset < hole)).float()
    holes: Tensor = (rows.transpose(1, 2) @ columns).unsqueeze(1) > 0
    return holes


def complementary_holes(side: int) -> Tensor:
    """Four patterns of square holes of an eighth of the side, bool [4, 1, S, S], that together
    cover every pixel exactly once. No two holes of a pattern touch.

    >>> complementary_holes(8).sum(dim=0).unique().tolist()
    [1]
    """
    odd = torch.arange(side) // _hole_side(side) % 2
    pattern = 2 * odd[:, None] + odd  # [S, S], 0 to 3
    return torch.stack([pattern == k for k in range(NUM_COMPLEMENTARY)]).unsqueeze(1)


def cut_out(image: Tensor, holes: Tensor) -> Tensor:
    """Images [B, C, S, S], black where `holes` [B or 1, 1, S, S] is true."""
    return image.masked_fill(holes.to(image.device), 0.0)


def _coarse_index(size: int) -> Tensor:
    """For each of `size` pixels the one that it shows."""
    coarse = max(1, round(size * COARSE_SHARE))
    kept = torch.div((2 * torch.arange(coarse) + 1) * size, 2 * coarse, rounding_mode="floor")
    shown = torch.div((2 * torch.arange(size) + 1) * coarse, 2 * size, rounding_mode="floor")
    return kept[shown]


def _hole_side(side: int) -> int:
    return max(1, side // HOLES_PER_SIDE)
