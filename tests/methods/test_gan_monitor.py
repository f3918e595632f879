from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.data.cache import Cache
from leanet.methods.gan_monitor import (
    GanFailedError,
    Monitor,
    Pool,
    early_stop,
    require_healthy,
)
from leanet.ops.kid import kid
from leanet.ops.neighbors import pixel_features
from leanet.runtime import Runtime

HEALTHY = {
    "step": 2000,
    "d_loss": 1.2,
    "g_loss": 0.4,
    "kid_pixels": 0.01,
    "diversity": 0.8,
    "r": 0.2,
}
POOL = Pool(
    classes=("dark", "light"),
    train=(tuple(range(8)), tuple(range(8, 16))),
    held=(tuple(range(16, 20)), tuple(range(20, 24))),
)


def cache() -> Cache:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 128, (24, 3, 32, 32))
    array[8:16] += 127
    array[20:] += 127
    return Cache(array.astype(np.uint8), torch.device("cpu"))


class Fixed(nn.Module):
    """Stands in for a generator: draws the training images again, or always the same one."""

    def __init__(self, images: Tensor, *, one: bool) -> None:
        super().__init__()
        self.images, self.one = images, one

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        which = torch.zeros(len(noise), dtype=torch.long)
        if not self.one:
            which = (noise[:, 0] * 1000).long() % 8
        return self.images[label * 8 + which]


class Judge(nn.Module):
    """Stands in for a discriminator: what it gives depends on how close a known image is."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        near = torch.cdist(image.flatten(1), 2 * self.known.flatten(1) - 1).amin(dim=1)
        return (near < 1e-3).float()


def test_a_healthy_training_goes_on() -> None:
    require_healthy(HEALTHY, 3000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_loss": math.nan}, "d_loss became nan after 2000 of 3000 steps"),
        ({"g_loss": math.inf}, "g_loss became inf"),
        ({"d_loss": 0.001}, "discriminator's loss fell to 0.0010"),
        ({"diversity": 0.2}, "nearly all alike after 2000 of 3000 steps"),
    ],
)
def test_a_failed_training_is_stopped_and_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GanFailedError, match=message):
        require_healthy(HEALTHY | changes, 3000)


def test_images_may_be_alike_in_the_first_half() -> None:
    require_healthy(HEALTHY | {"step": 1400, "diversity": 0.1}, 3000)
    require_healthy(HEALTHY | {"step": 30, "diversity": 0.1}, 30)


def test_a_discriminator_that_memorizes_for_a_tenth_of_the_steps_ends_the_training() -> None:
    calm = [{"step": 100 * k, "r": 0.3} for k in range(1, 11)]
    tense = [{"step": 1000 + 100 * k, "r": 0.9} for k in range(1, 4)]
    assert early_stop(calm, 3000) == ""
    assert early_stop(calm + tense[:2], 3000) == ""
    assert "by heart (r > 0.8 for 300 of 3000 steps)" in early_stop(calm + tense, 3000)
    assert early_stop([{"step": 100}, {"step": 200}], 3000) == ""


def test_a_generator_that_replays_has_a_low_kid_and_full_diversity(runtime: Runtime) -> None:
    images = cache()
    known = torch.from_numpy(images.array).float() / 255
    monitor = Monitor(POOL, images, runtime, "gan")
    assert monitor.null is not None
    good = monitor.look(Fixed(known, one=False), Judge(known[:16]))  # type: ignore[arg-type]
    bad = monitor.look(Fixed(known, one=True), Judge(known[:16]))  # type: ignore[arg-type]
    assert good["kid_pixels"] < bad["kid_pixels"]
    assert good["diversity"] == pytest.approx(7 / 8, abs=0.05)  # 8 images, drawn again and again
    assert bad["diversity"] < 1e-5


def test_r_is_one_where_unseen_images_are_taken_for_generated_ones(runtime: Runtime) -> None:
    images = cache()
    known = torch.from_numpy(images.array).float() / 255
    monitor = Monitor(POOL, images, runtime, "gan")
    black = Fixed(torch.zeros_like(known), one=True)
    assert monitor.look(black, Judge(known[:16]))["r"] == 1.0  # type: ignore[arg-type]
    assert monitor.look(black, Judge(known))["r"] == 0.0  # type: ignore[arg-type]


def test_without_held_out_images_there_is_no_r_and_no_null(runtime: Runtime) -> None:
    images = cache()
    known = torch.from_numpy(images.array).float() / 255
    pool = Pool(classes=POOL.classes, train=POOL.train, held=((), ()))
    monitor = Monitor(pool, images, runtime, "gan")
    assert monitor.null is None
    assert "r" not in monitor.look(Fixed(known, one=False), Judge(known))  # type: ignore[arg-type]


def test_a_class_with_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="too few of: light"):
        Pool(classes=("dark", "light"), train=((1, 2), (3,)), held=((), ()))
    with pytest.raises(ValueError, match="there is no class"):
        Pool(classes=(), train=(), held=())


def test_the_null_compares_real_images_with_real_ones(runtime: Runtime) -> None:
    images = cache()
    monitor = Monitor(POOL, images, runtime, "gan")
    features = pixel_features(torch.from_numpy(images.array).float() / 255)
    assert monitor.null is not None
    assert monitor.null.value == pytest.approx(kid(features[:16], features[16:]))
    assert monitor.null.sd > 0
