"""Is the DC-GAN still well? Three signs, each of which ends a training.

* A loss that is not finite.
* A discriminator that has won: its loss stays near 0 for 200 steps, and the generator learns
  nothing more. A DC-GAN comes back from a few such steps, so a short spell is no sign.
* Images all alike (mode collapse): the mean distance between generated images, relative to that
  between real ones, is below 0.3 after half of the steps.

The distances are those of 16x16 block means of the pixels (`leanet.ops.neighbors.pixel_features`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from leanet.data.cache import Cache, images_in_unit_range
from leanet.networks.dcgan import NOISE, Generator
from leanet.ops.kid import mean_distance
from leanet.ops.neighbors import pixel_features
from leanet.runtime import Runtime
from leanet.training.journal import Record

IMAGES_PER_LOOK = 64
LEAST_DIVERSITY, STEPS_BEFORE_COLLAPSE = 0.3, 500
LOST_LOSS, STEPS_UNTIL_LOST = 0.02, 200


class DcganFailedError(ValueError):
    """A training that no more steps can mend; the message says what went wrong."""


class Monitor:
    """Looks at the same 64 noises every time, and compares with the same real images."""

    def __init__(self, images: Cache, runtime: Runtime, name: str) -> None:
        draw = runtime.generator(name, "look")
        noise = torch.randn(IMAGES_PER_LOOK, NOISE, 1, 1, generator=draw)
        self._noise = noise.to(runtime.device)
        chosen = torch.randperm(len(images), generator=draw)[:IMAGES_PER_LOOK].tolist()
        real = images_in_unit_range(images.take(chosen))
        self._real = mean_distance(pixel_features(real))

    @torch.no_grad()
    def look(self, generator: Generator) -> tuple[Record, Tensor]:
        """`diversity`: 1 = as far apart as real images, 0 = all alike; and what was drawn,
        [64, 3, 64, 64] in [0, 1]."""
        drawn = (generator.eval()(self._noise) + 1) / 2
        return {"diversity": mean_distance(pixel_features(drawn)) / max(self._real, 1e-6)}, drawn


def require_finite(losses: Mapping[str, float], where: str) -> None:
    """Raise `DcganFailedError` unless all losses are numbers."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise DcganFailedError(
                f"{name} became {value} {where}; try a lower --lr and --lr_discriminator, or "
                "--precision 32-true"
            )


def require_healthy(records: Sequence[Record], steps: int) -> None:
    """Raise `DcganFailedError` for a training that has failed; `steps` is its planned length."""
    last = records[-1]
    where = f"after {last['step']} of {steps} steps (epoch {last['epoch'] + 1})"
    require_finite({"diversity": last["diversity"]}, where)
    lost = _steps_lost(records)
    if lost >= STEPS_UNTIL_LOST:
        raise DcganFailedError(
            f"the discriminator has won: its loss was below {LOST_LOSS} for {lost} steps on end, "
            f"{where}, and the generator learns nothing more; try a lower --lr_discriminator or "
            "more images"
        )
    late = last["step"] >= max(steps / 2, STEPS_BEFORE_COLLAPSE)
    if late and last["diversity"] < LEAST_DIVERSITY:
        raise DcganFailedError(
            f"the generated images are nearly all alike {where}: their distance is "
            f"{last['diversity']:.2f} of that of real ones (at least {LEAST_DIVERSITY}); try "
            "another --seed, a lower --lr, or more images"
        )


def _steps_lost(records: Sequence[Record]) -> int:
    """Steps of the epochs at the end in which the discriminator's loss was near 0."""
    won = len(records)
    while won and records[won - 1]["d_loss"] < LOST_LOSS:
        won -= 1
    steps: int = records[-1]["step"] - (records[won - 1]["step"] if won else 0)
    return steps
