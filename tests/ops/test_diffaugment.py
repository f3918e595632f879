from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leanet.ops.diffaugment import Policy, cut_out, diff_augment, jitter_color, translate

OFF = Policy(translation=0.0, cutout=0.0, color=0.0)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=stream(9)) * 2 - 1


def test_zero_strength_is_the_identity() -> None:
    image = images()
    assert torch.equal(diff_augment(image, OFF, stream()), image)
    assert torch.equal(translate(image, 0.0, stream()), image)
    assert torch.equal(cut_out(image, 0.0, stream()), image)
    torch.testing.assert_close(jitter_color(image, 0.0, stream()), image)


def test_the_input_is_left_alone_and_equal_streams_change_alike() -> None:
    image = images()
    before = image.clone()
    policy = Policy(color=1.0)
    one, other = (diff_augment(image, policy, stream()) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, diff_augment(image, policy, stream(1)))
    assert torch.equal(image, before)


@pytest.mark.parametrize("policy", [Policy(), Policy(color=1.0), OFF._replace(color=1.0)])
def test_the_gradient_reaches_the_pixels(policy: Policy) -> None:
    image = images().requires_grad_()
    diff_augment(image, policy, stream()).sum().backward()
    assert image.grad is not None
    assert (image.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    image = images(2, 8).double().requires_grad_()
    policy = Policy(color=1.0)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, policy, stream()), image)


def test_translation_moves_whole_pixels_and_zeros_come_in() -> None:
    image = images(32, 16)
    moved = translate(image, 0.125, stream())
    for one, other in zip(image, moved, strict=True):
        found = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if torch.equal(other, shifted(one, y, x))
        ]
        assert len(found) == 1
    assert not torch.equal(moved, image)


def shifted(image: Tensor, y: int, x: int) -> Tensor:
    """Pixel by pixel: [C, H, W] moved down by y and right by x."""
    out = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - y < height and 0 <= column - x < width:
                out[:, row, column] = image[:, row - y, column - x]
    return out


def test_cutout_sets_one_square_of_half_the_side_to_zero() -> None:
    image = images(64, 16)
    cut = cut_out(image, 0.5, stream())
    gone = (cut == 0).all(dim=1)  # [B, H, W]
    assert torch.equal(cut[~gone[:, None].expand_as(cut)], image[~gone[:, None].expand_as(cut)])
    for one in gone:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert torch.equal(one, rows[:, None] & columns[None])
        assert 4 <= rows.sum() <= 8
        assert 4 <= columns.sum() <= 8
    assert max(int(one.sum()) for one in gone) == 64


def test_color_changes_stay_within_their_ranges() -> None:
    grey = torch.full((256, 3, 4, 4), 0.25)
    shift = (jitter_color(grey, 1.0, stream()) - grey)[:, 0, 0, 0]
    assert shift.abs().max() <= 0.5
    assert shift.min() < -0.4
    assert shift.max() > 0.4
    torch.testing.assert_close(
        jitter_color(grey, 1.0, stream()).std(dim=(1, 2, 3)), torch.zeros(256)
    )
