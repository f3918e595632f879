"""Vectors in which alike pictures lie close, where no network has better ones."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.ops.color import rgb_to_lab

GRID: Final = 16


def lab_thumbnail(image: Tensor) -> Tensor:
    """Mean Lab colors of a grid of 16 x 16 cells, [B, 768], of images [B, 3, H, W] in [0, 1]; the
    distance of two is their root mean square color difference.

    >>> import torch
    >>> black, white = (lab_thumbnail(torch.full((1, 3, 20, 20), value)) for value in (0.0, 1.0))
    >>> round((black - white).norm().item())
    100
    """
    cells = F.adaptive_avg_pool2d(rgb_to_lab(image.float()), GRID)
    return cells.flatten(1) / GRID


def pooled(*maps: Tensor) -> Tensor:
    """Feature maps [B, C_i, h_i, w_i] as one vector each, [B, sum C_i]: channel means over the
    places, those of every map scaled to length 1, so that each counts the same."""
    means = [F.normalize(features.float().mean(dim=(2, 3)), dim=1) for features in maps]
    return torch.cat(means, dim=1)
