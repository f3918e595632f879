"""Is the GAN still well? Four signs, looked at now and then, of which each stops a training.

* A loss that is not finite.
* A discriminator loss at 0: it has won, and the generator learns nothing more.
* Images of a class all alike (mode collapse): their mean distance, relative to that of real images
  of the class, below 0.3 after half of the steps.
* A discriminator that knows its training images by heart, in the terms of Karras et al. 2020
  (arXiv:2006.06676): r = (D(train) - D(validation)) / (D(train) - D(generated)), 0 = treats unseen
  real images as seen ones, 1 = takes them for generated. Above 0.8 for a tenth of the steps the
  training ends early and keeps what it has.

The distances are those of 16x16 block means of the pixels (`leanet.ops.neighbors.pixel_features`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leanet.data.cache import Cache, images_in_unit_range
from leanet.networks.gan import GROUP, NOISE, Discriminator, Generator
from leanet.ops.kid import in_proportion, kid, kid_with_sd, mean_distance
from leanet.ops.neighbors import pixel_features
from leanet.runtime import Runtime
from leanet.training.journal import Record

IMAGES_PER_LOOK = 64  # per class
LEAST_DIVERSITY, STEPS_BEFORE_COLLAPSE = 0.3, 500
LOST_LOSS = 0.01
MOST_MEMORY, SHARE_OF_STEPS = 0.8, 0.1


class GanFailedError(ValueError):
    """A training that no more steps can mend; the message says what went wrong."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Per class, which of the cached images are learned from and which are held out."""

    classes: tuple[str, ...]
    train: tuple[tuple[int, ...], ...]
    held: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        few = [c for c, own in zip(self.classes, self.train, strict=True) if len(own) < 2]
        if few or not self.classes:
            raise ValueError(
                f"a GAN needs at least two training images of every class; too few of: "
                f"{', '.join(few) or 'all, there is no class'}"
            )


class Monitor:
    """Looks at the same noise and the same real images every time."""

    def __init__(self, pool: Pool, images: Cache, runtime: Runtime, name: str) -> None:
        self._pool, self._images, self._device = pool, images, runtime.device
        draw = runtime.generator(name, "look")
        count = len(pool.classes) * IMAGES_PER_LOOK
        self._noise = torch.randn(count, NOISE, generator=draw).to(self._device)
        every_class = torch.arange(len(pool.classes))
        self._label = every_class.repeat_interleave(IMAGES_PER_LOOK).to(self._device)
        self._train = [self._features(own) for own in pool.train]
        self._real = [mean_distance(features) for features in self._train]
        held, self.null = [index for own in pool.held for index in own], None
        if len(held) > 1:
            self.null = kid_with_sd(torch.cat(self._train), self._features(held), draw)

    @torch.no_grad()
    def look(self, generator: Generator, discriminator: Discriminator) -> Record:
        """KID and diversity of what the generator draws, and the r of the discriminator."""
        generator.eval()
        discriminator.eval()
        noises = torch.split(self._noise, IMAGES_PER_LOOK)
        labels = torch.split(self._label, IMAGES_PER_LOOK)
        image = torch.cat([generator(*given) for given in zip(noises, labels, strict=True)])
        drawn = torch.split(pixel_features(image), IMAGES_PER_LOOK)
        shares = [mean_distance(own) / real for own, real in zip(drawn, self._real, strict=True)]
        mixed = in_proportion(drawn, [len(own) for own in self._train])
        record: Record = {
            "kid_pixels": kid(torch.cat(self._train), mixed),
            "diversity": min(shares),
        }
        if all(len(held) >= GROUP for held in self._pool.held):
            record["r"] = self._memory(discriminator, image)
        return record

    def _memory(self, discriminator: Discriminator, generated: Tensor) -> float:
        """r, from as many images of every class and part as the smallest held-out class has."""
        per_class = min(IMAGES_PER_LOOK, *(len(own) for own in self._pool.held))
        per_class -= per_class % GROUP
        parts = []
        for part in (self._pool.train, self._pool.held):
            chosen = [index for own in part for index in own[:per_class]]
            parts.append(images_in_unit_range(self._images.take(chosen)))
        parts.append(
            torch.cat([own[:per_class] for own in torch.split(generated, IMAGES_PER_LOOK)])
        )
        label = torch.arange(len(self._pool.classes), device=self._device)
        label = label.repeat_interleave(per_class)
        train, held, fake = (float(discriminator(2 * p - 1, label).float().mean()) for p in parts)
        return (train - held) / (train - fake) if train != fake else math.nan

    def _features(self, indices: Sequence[int]) -> Tensor:
        return pixel_features(images_in_unit_range(self._images.take(indices)))


def require_healthy(record: Record, steps: int) -> None:
    """Raise `GanFailedError` for a training that has failed; `steps` is its planned length."""
    where = f"after {record['step']} of {steps} steps"
    lost = [key for key in ("d_loss", "g_loss", "kid_pixels") if not math.isfinite(record[key])]
    if lost:
        raise GanFailedError(
            f"the GAN's {lost[0]} became {record[lost[0]]} {where}; try a lower --lr and "
            "--lr_discriminator, or --precision 32-true"
        )
    if record["d_loss"] < LOST_LOSS:
        raise GanFailedError(
            f"the discriminator's loss fell to {record['d_loss']:.4f} {where}: it has won, and the "
            "generator learns nothing more; try --r1 1, a lower --lr_discriminator, or more images"
        )
    late = record["step"] >= max(steps / 2, STEPS_BEFORE_COLLAPSE)
    if late and record["diversity"] < LEAST_DIVERSITY:
        raise GanFailedError(
            f"images of one class are nearly all alike {where}: their distance is "
            f"{record['diversity']:.2f} of that of real ones (at least {LEAST_DIVERSITY}); try a "
            "larger --mode_seeking, more --steps, or more images"
        )


def early_stop(records: Sequence[Record], steps: int) -> str:
    """Why training should end with what it has; "" if it should not."""
    if len(records) < 2:
        return ""
    spacing = records[1]["step"] - records[0]["step"]
    memorized = sum(spacing for one in records if one.get("r", 0.0) > MOST_MEMORY)
    if memorized < SHARE_OF_STEPS * steps:
        return ""
    return (
        f"the discriminator knows its training images by heart (r > {MOST_MEMORY} for {memorized} "
        f"of {steps} steps)"
    )
