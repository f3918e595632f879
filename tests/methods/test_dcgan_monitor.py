from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.cache import Cache
from leanet.methods.dcgan_monitor import (
    DcganFailedError,
    Monitor,
    require_finite,
    require_healthy,
)
from leanet.runtime import Runtime
from leanet.training.journal import Record


class Drawing(torch.nn.Module):
    """A generator that draws plain images whose levels come from the noise."""

    def __init__(self, contrast: float) -> None:
        super().__init__()
        self.contrast = contrast

    def forward(self, noise: Tensor) -> Tensor:
        return (self.contrast * noise[:, :1]).expand(-1, 3, 64, 64).clamp(-1, 1)


def plain_images(levels: list[int]) -> Cache:
    array = np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 3, 64, 64), np.uint8)
    return Cache(array, torch.device("cpu"))


def journal(losses: list[float], **last: Any) -> list[Record]:
    """An epoch of 50 steps for every loss of the discriminator."""
    records: list[Record] = [
        {"epoch": k, "step": 50 * (k + 1), "d_loss": loss, "diversity": 1.0}
        for k, loss in enumerate(losses)
    ]
    return [*records[:-1], records[-1] | last]


def test_diversity_is_one_for_images_as_unlike_as_the_real_ones(runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    levels = (127.5 + 127.5 * 0.2 * rng.standard_normal(64)).clip(0, 255).astype(int).tolist()
    monitor = Monitor(plain_images(levels), runtime, "a")
    equal, drawn = monitor.look(Drawing(0.2))  # type: ignore[arg-type]
    assert equal["diversity"] == pytest.approx(1, abs=0.25)
    assert drawn.shape == (64, 3, 64, 64)
    assert 0 <= float(drawn.min()) < float(drawn.max()) <= 1
    half, _ = monitor.look(Drawing(0.1))  # type: ignore[arg-type]
    assert half["diversity"] == pytest.approx(equal["diversity"] / 2, rel=1e-3)
    alike, _ = monitor.look(Drawing(0.0))  # type: ignore[arg-type]
    assert alike["diversity"] == 0


def test_a_healthy_training_passes() -> None:
    require_healthy(journal([1.0] * 30), 1500)


def test_a_loss_that_is_no_number_is_told_with_its_place() -> None:
    with pytest.raises(DcganFailedError, match=r"g_loss became nan in epoch 3, batch 2.*--lr"):
        require_finite({"d_loss": 1.0, "g_loss": math.nan}, "in epoch 3, batch 2")


def test_a_discriminator_that_has_won_for_long_ends_the_training() -> None:
    require_healthy(journal([1.0] + [0.01] * 3), 5000)
    require_healthy(journal([0.01] * 3 + [1.0] + [0.01] * 3), 5000)
    with pytest.raises(DcganFailedError, match=r"has won: .* for 200 steps .*after 250 of 5000"):
        require_healthy(journal([1.0] + [0.01] * 4), 5000)
    with pytest.raises(DcganFailedError, match="for 200 steps"):
        require_healthy(journal([0.01] * 4), 5000)


def test_images_all_alike_end_the_training_once_it_is_late() -> None:
    require_healthy(journal([1.0] * 9, diversity=0.1), 600)  # 450 steps: too early to tell
    require_healthy(journal([1.0] * 12, diversity=0.1), 5000)
    with pytest.raises(DcganFailedError, match=r"all alike .*600 of 1000.* 0\.10 of"):
        require_healthy(journal([1.0] * 12, diversity=0.1), 1000)
