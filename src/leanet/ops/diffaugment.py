"""DiffAugment: the same random, differentiable changes on real and on generated images.

A discriminator that sees a hundred images learns them by heart. If every image it ever judges, real
or generated, when it learns and when the generator learns from it, was changed at random before, it
cannot; and because the change is differentiable the generator still learns to draw *unchanged*
images (Zhao et al. 2020, arXiv:2006.10738). Images here are in [-1, 1], so that 0 is mid-grey.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Policy(NamedTuple):
    """How strongly images are changed; 0 switches a change off.

    translation: largest shift, as a share of the side. cutout: side of the square set to 0, as a
    share of the side. color: 1 = brightness +U(-0.5, 0.5), saturation x U(0, 2) about the mean over
    the channels, contrast x U(0.5, 1.5) about the mean of the image.
    """

    translation: float = 0.125
    cutout: float = 0.5
    color: float = 0.0


def diff_augment(image: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Images [B, 3, S, S] in [-1, 1], each changed by draws of its own from a CPU generator."""
    if policy.color > 0:
        image = jitter_color(image, policy.color, generator)
    if policy.translation > 0:
        image = translate(image, policy.translation, generator)
    if policy.cutout > 0:
        image = cut_out(image, policy.cutout, generator)
    return image


def jitter_color(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, then saturation, then contrast of images [B, C, H, W], drawn per image."""
    draws = torch.rand(3, len(image), 1, 1, 1, generator=generator).to(image.device) - 0.5
    image = image + strength * draws[0]
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * (1 + 2 * strength * draws[1])
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (image - mean) * (1 + strength * draws[2])


def translate(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift every image [B, C, H, W] by whole pixels, up to `share` of each side; 0 moves in."""
    batch, _, height, width = image.shape
    most = (round(height * share), round(width * share))
    rows = _shifted(batch, height, most[0], generator).to(image.device)  # [B, H]
    columns = _shifted(batch, width, most[1], generator).to(image.device)  # [B, W]
    padded = torch.nn.functional.pad(image, (most[1], most[1], most[0], most[0]))
    which = torch.arange(batch, device=image.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def cut_out(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a square of side `share` S to 0 in every image [B, C, S, S]; its center lies anywhere in
    the image."""
    batch, _, height, width = image.shape
    rows = _covered(batch, height, round(height * share), generator)
    columns = _covered(batch, width, round(width * share), generator)
    kept = ~(rows[:, :, None] & columns[:, None, :])  # [B, H, W]
    return image * kept[:, None].to(image.device, image.dtype)


def _shifted(batch: int, size: int, most: int, generator: torch.Generator) -> Tensor:
    """Indices [B, size] into a side that was padded by `most` at both ends."""
    start = torch.randint(2 * most + 1, (batch, 1), generator=generator)
    return start + torch.arange(size)


def _covered(batch: int, size: int, length: int, generator: torch.Generator) -> Tensor:
    """Which of `size` positions a stretch of this length covers, [B, size]."""
    start = torch.randint(size, (batch, 1), generator=generator) - length // 2
    position = torch.arange(size)
    return (position >= start) & (position < start + length)
