from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from leanet.ops.neighbors import (
    Memorization,
    closer,
    memorization,
    mirrored,
    nearest,
    pixel_features,
)


def pictures(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator)


TRAINING, UNSEEN = pictures(60, 0), pictures(40, 1)


def check(generated: Tensor, flip: str = "none") -> Memorization:
    bank = pixel_features(TRAINING)

    def distances(image: Tensor) -> Tensor:
        return nearest([pixel_features(one) for one in mirrored(image, flip)], bank).distance

    others = nearest([bank], bank, itself=True).distance
    return memorization(distances(generated), distances(UNSEEN), others, np.random.default_rng(0))


def test_a_generator_that_replays_its_training_images_is_caught() -> None:
    noise = 0.02 * torch.randn(TRAINING.shape, generator=torch.Generator().manual_seed(2))
    found = check((TRAINING + noise).clamp(0, 1))
    assert found.suspicious
    assert found.closer == 1.0
    assert found.copies == 1.0
    assert found.ratio < 0.2


@pytest.mark.parametrize(("axis", "flip"), [(3, "horizontal"), (3, "both"), (2, "both")])
def test_mirrored_replays_are_caught_as_well(axis: int, flip: str) -> None:
    assert check(TRAINING.flip(axis), flip).copies == 1.0
    assert check(TRAINING.flip(axis), "none").copies < 0.2


def test_a_generator_of_unseen_images_passes() -> None:
    found = check(pictures(60, 3))
    assert not found.suspicious
    assert found.low < 0.5 < found.high
    assert found.ratio == pytest.approx(1, abs=0.03)


def test_a_few_copies_among_many_new_images_are_counted() -> None:
    found = check(torch.cat([pictures(90, 4), TRAINING[:10]]))
    assert found.closer < 0.7
    assert 0.1 <= found.copies < 0.2
    assert found.suspicious


def test_the_probability_is_mann_whitneys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 30).astype(float), rng.integers(2, 12, 20).astype(float)
    expected = 1 - mannwhitneyu(a, b).statistic / (30 * 20)
    assert closer(a, b) == pytest.approx(expected)


def test_an_image_is_not_its_own_neighbor() -> None:
    bank = torch.tensor([[0.0], [1.0], [5.0]])
    found = nearest([bank], bank, itself=True)
    assert found.distance.tolist() == [1, 1, 4]
    assert found.row.tolist() == [1, 0, 1]


def test_pixel_features_are_means_of_blocks() -> None:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = pixel_features(image).view(2, 3, 16, 16)
    assert found[1, 2, 5, 7] == pytest.approx(float(image[1, 2, 20:24, 28:32].mean()))
