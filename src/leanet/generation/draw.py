"""Draw images from a trained generator: image i of a class depends on (seed, class, i) alone, so
that a larger set contains the smaller one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanet.networks.gan import NOISE, Generator
from leanet.runtime import derived_seed

BATCH = 64


def image_seed(seed: int, name: str, index: int) -> int:
    """The seed of the noise of image `index` of class `name`."""
    return derived_seed(seed, "generate", name, index)


@torch.inference_mode()
def draw_images(
    generator: Generator, classes: Sequence[str], per_class: int, seed: int
) -> dict[str, Tensor]:
    """Per class, uint8 images [per_class, 3, S, S] on the CPU, as they go into files."""
    generator.eval()
    device = next(generator.parameters()).device
    drawn = {}
    for label, name in enumerate(classes):
        noise = torch.stack([_noise(image_seed(seed, name, i)) for i in range(per_class)])
        batches = []
        for part in torch.split(noise, BATCH):
            which = torch.full((len(part),), label, device=device)
            batches.append(to_bytes(generator(part.to(device), which)).cpu())
        drawn[name] = torch.cat(batches)
    return drawn


def to_bytes(image: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded."""
    return (image * 255).round().clamp(0, 255).byte()


def _noise(seed: int) -> Tensor:
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(seed))
