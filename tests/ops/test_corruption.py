from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leanet.ops.corruption import (
    add_noise,
    coarsen,
    complementary_holes,
    cut_out,
    draw_holes,
    draw_quarters,
    turn,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed))


def test_noise_has_the_mean_and_the_variance_of_the_program() -> None:
    grey = torch.full((4, 3, 128, 128), 0.5)
    noise = 255 * (add_noise(grey, seeded()) - grey).double().numpy()
    inside = np.abs(noise) < 127  # what is not clipped
    assert abs(np.median(noise) - 5) < 1
    assert np.quantile(noise, 0.84134) - np.median(noise) == pytest.approx(100, rel=0.02)
    assert inside.mean() == pytest.approx(0.795, abs=0.01)  # normal law between -1.32 and 1.22 SD


def test_noise_is_clipped_and_differs_between_channels_and_images() -> None:
    noisy = add_noise(torch.rand(2, 3, 16, 16, generator=seeded(1)), seeded())
    assert noisy.min() == 0
    assert noisy.max() == 1
    grey = add_noise(torch.full((2, 3, 16, 16), 0.5), seeded())
    assert len({tuple(plane.flatten().tolist()) for plane in grey.flatten(0, 1)}) == 6


@pytest.mark.parametrize("side", [32, 96, 128, 320])  # where no center lies between two pixels
def test_a_coarse_image_is_what_pillow_makes_of_it(side: int) -> None:
    image = random_image(2, 3, side, side)
    small = round(side / 10)
    expected = [
        np.asarray(
            Image.fromarray(plane)
            .resize((small, small), Image.Resampling.NEAREST)
            .resize((side, side), Image.Resampling.NEAREST)
        )
        for plane in image.flatten(0, 1).numpy()
    ]
    assert np.array_equal(coarsen(image).flatten(0, 1).numpy(), np.stack(expected))


@pytest.mark.parametrize(("side", "blocks"), [(64, 6), (96, 10), (256, 26)])
def test_coarsening_twice_is_coarsening_once(side: int, blocks: int) -> None:
    once = coarsen(torch.arange(side * side).view(1, 1, side, side))
    assert torch.equal(coarsen(once), once)
    assert len(once.unique()) == blocks * blocks


def test_every_image_is_turned_by_its_own_quarters() -> None:
    image = random_image(5, 3, 8, 8)
    quarters = torch.tensor([0, 1, 2, 3, 5])
    turned = turn(image, quarters).numpy()
    for k, quarter in enumerate([0, 1, 2, 3, 1]):
        assert np.array_equal(turned[k], np.rot90(image[k].numpy(), quarter, (1, 2)))
    assert torch.equal(turn(turn(image, quarters), -quarters), image)


def test_all_four_quarters_are_drawn() -> None:
    counts = np.bincount(draw_quarters(4000, seeded()).numpy(), minlength=4)
    assert counts.sum() == 4000
    assert counts.min() > 900


@pytest.mark.parametrize("side", [32, 128])
def test_holes_are_squares_inside_the_image(side: int) -> None:
    """Each pixel of a hole lies in a whole square of holes: opening by the square is no change."""
    hole = side // 8
    for mask in draw_holes(4, side, seeded())[:, 0].numpy():
        windows = np.lib.stride_tricks.sliding_window_view(mask, (hole, hole)).all(axis=(2, 3))
        covered = np.zeros_like(mask)
        for row, column in zip(*np.nonzero(windows), strict=True):
            covered[row : row + hole, column : column + hole] = True
        assert np.array_equal(covered, mask)


def test_holes_cover_the_share_that_the_specification_measured() -> None:
    shares = draw_holes(200, 256, seeded()).float().mean(dim=(1, 2, 3)).numpy()
    assert 0.36 < shares.mean() < 0.40
    low, high = np.quantile(shares, [0.05, 0.95])
    assert 0.32 < low < high < 0.44


def test_every_image_has_its_own_holes() -> None:
    masks = draw_holes(3, 64, seeded())
    assert masks.shape == (3, 1, 64, 64)
    assert masks.dtype == torch.bool
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("side", [32, 96, 128, 37])
def test_complementary_holes_cover_every_pixel_exactly_once(side: int) -> None:
    masks = complementary_holes(side)
    assert masks.shape == (4, 1, side, side)
    assert np.array_equal(masks.sum(dim=0)[0].numpy(), np.ones((side, side)))
    assert masks.flatten(1).any(dim=1).all()


def test_complementary_holes_stand_apart() -> None:
    for mask in complementary_holes(64)[:, 0].numpy():
        blocks = mask.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(8, 8, 64)
        full = blocks.all(axis=2)
        assert np.array_equal(full, blocks.any(axis=2))
        assert full.sum() == 16
        assert not (full[1:] & full[:-1]).any()
        assert not (full[:, 1:] & full[:, :-1]).any()


def test_holes_are_black_and_the_rest_is_untouched() -> None:
    image, holes = random_image(2, 3, 32, 32), draw_holes(2, 32, seeded())
    cut = cut_out(image, holes).numpy()
    expected = np.where(holes.numpy(), 0, image.numpy())
    assert np.array_equal(cut, expected)


DRAWS: dict[str, Callable[[torch.Generator | None], Tensor]] = {
    "noise": lambda generator: add_noise(torch.full((2, 3, 8, 8), 0.5), generator),
    "quarters": lambda generator: draw_quarters(50, generator),
    "holes": lambda generator: draw_holes(2, 32, generator),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_follow_the_generator_or_torch_itself(name: str) -> None:
    draw = DRAWS[name]
    assert torch.equal(draw(seeded(3)), draw(seeded(3)))
    assert not torch.equal(draw(seeded(3)), draw(seeded(4)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        untouched = torch.get_rng_state()
        draw(seeded(3))
        assert torch.equal(torch.get_rng_state(), untouched)
        assert torch.equal(draw(None), draw(seeded(3)))


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda image: add_noise(image, seeded()),
        coarsen,
        lambda image: turn(image, torch.tensor([1, 2])),
        lambda image: cut_out(image, draw_holes(2, 32, seeded())),
    ],
)
def test_the_image_itself_is_not_changed(corrupt: Callable[[Tensor], Tensor]) -> None:
    image = random_image(2, 3, 32, 32)
    before = image.clone()
    corrupted = corrupt(image)
    assert torch.equal(image, before)
    assert corrupted.shape == image.shape
    assert not torch.equal(corrupted, image)
