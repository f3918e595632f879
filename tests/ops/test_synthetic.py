"""Synthetic anomalies, measured with scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import color
from torch import Tensor

from leanet.data.surfaces import render
from leanet.ops.perlin import AREA
from leanet.ops.synthetic import (
    VISIBLE,
    Synthetic,
    cutpaste,
    feature_noise,
    nearest_strength,
    noise_texture,
    patch_shuffle,
    perlin_blend,
    to_8_bit,
)

Make = Callable[..., Synthetic]
KINDS: dict[str, Make] = {"cutpaste": cutpaste, "perlin": perlin_blend}


def leaves(count: int = 6, side: int = 48) -> Tensor:
    pictures = [render("leaf", np.random.default_rng(k), side)[0] for k in range(count)]
    return to_8_bit(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def median_difference(before: Tensor, after: Tensor, mask: Tensor) -> float:
    labs = [color.rgb2lab(one.permute(1, 2, 0).double().numpy()) for one in (before, after)]
    return float(np.median(color.deltaE_ciede2000(*labs)[mask.numpy() > 0.5]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_outside_the_mask_the_image_is_the_same_to_the_bit(kind: str, seed: int) -> None:
    image = leaves()
    before = image.clone()
    made = KINDS[kind](image, generator(seed))
    assert made.kind == kind
    assert made.image.shape == image.shape
    assert made.mask.shape == (6, 1, 48, 48)
    outside = (made.mask == 0).expand_as(image)
    assert torch.equal(made.image[outside], image[outside])
    assert torch.equal(image, before)  # the input is left alone
    assert torch.equal(made.image, to_8_bit(made.image))
    assert 0 <= float(made.image.min()) <= float(made.image.max()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_neither_empty_nor_too_large_and_the_change_shows(kind: str) -> None:
    image = leaves(12)
    made = KINDS[kind](image, generator(5))
    for k in range(12):
        area = float((made.mask[k] > 0.5).float().mean())
        assert AREA[0] <= area <= AREA[1]
        measured = median_difference(image[k], made.image[k], made.mask[k, 0])
        assert float(made.severity[k]) == pytest.approx(measured, abs=0.05)
        assert measured >= VISIBLE - 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(kind: str) -> None:
    image = leaves(3)
    first, again, other = (KINDS[kind](image, generator(k)) for k in (7, 7, 8))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_stays_inside_the_foreground(kind: str) -> None:
    image, inside = leaves(4), torch.zeros(4, 1, 48, 48)
    inside[..., :30, :] = 1
    made = KINDS[kind](image, generator(), inside=inside)
    assert made.mask[..., 30:, :].sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_other_tensors_are_refused(kind: str) -> None:
    for wrong in (torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(0, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
            KINDS[kind](wrong, generator())
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        KINDS[kind](torch.full((1, 3, 16, 16), 200.0), generator())


def test_a_pasted_rectangle_is_a_copy_but_for_one_change_of_colors() -> None:
    """Inside the mask an affine function of some other place of the image, whole pixels moved."""
    image = torch.rand(1, 3, 64, 64, generator=generator(9)) * 0.6 + 0.2
    made = cutpaste(image, generator(1), shape="rectangle")
    mask = made.mask[0, 0]
    rows, columns = mask.nonzero().T
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    assert height * width == int(mask.sum())  # a rectangle
    patch = made.image[0, 0, top : top + height, left : left + width].flatten()
    windows = image[0, 0].unfold(0, height, 1).unfold(1, width, 1).flatten(0, 1).flatten(1)
    stacked = torch.cat([patch[None], windows])
    likeness = torch.corrcoef(stacked)[0, 1:]
    assert float(likeness.max()) > 0.9999
    assert float(likeness.sort().values[-2]) < 0.9


def test_scars_are_small_and_thin_and_turn() -> None:
    image = leaves(8, 64)
    scars = cutpaste(image, generator(2), shape="scar").mask[:, 0] > 0
    rectangles = cutpaste(image, generator(2), shape="rectangle").mask[:, 0] > 0
    assert float(scars.float().mean()) < 0.2 * float(rectangles.float().mean())
    angles = []
    for scar in scars:
        rows, columns = (part.double() for part in scar.nonzero().T)
        covariance = torch.cov(torch.stack([rows, columns]))
        angles.append(float(torch.linalg.eigh(covariance).eigenvectors[:, -1][1].abs()))
    assert np.std(angles) > 0.05


def test_a_feathered_patch_has_a_soft_edge() -> None:
    made = cutpaste(leaves(2), generator(), shape="rectangle", feather=0.05)
    soft = (made.mask > 0) & (made.mask < 1)
    assert soft.any()
    assert ((made.mask == 1).flatten(1).any(1)).all()


def test_a_given_texture_shows_through_the_mask() -> None:
    image = leaves(4)
    red = torch.zeros(1, 3, 48, 48)
    red[:, 0] = 1
    made = perlin_blend(image, generator(), textures=red)
    inside = (made.mask > 0).expand_as(image)
    change = (made.image - image)[inside].view(-1)
    redder = (made.image - image)[:, 0][made.mask[:, 0] > 0]
    assert (redder > 0).all()
    assert change.abs().max() <= 1
    for k in range(4):  # (1 - b) texture + b image with one b in [0, 0.8]
        where = made.mask[k, 0] > 0
        share = 1 - made.image[k, 1][where] / image[k, 1][where].clamp_min(1e-3)
        assert 0.15 <= float(share.median()) <= 1.0
        assert float(share.std()) < 0.1


def test_textures_of_another_size_are_refused() -> None:
    for wrong in (torch.zeros(2, 3, 20, 20), torch.zeros(0, 3, 48, 48)):
        with pytest.raises(ValueError, match="at least one texture"):
            perlin_blend(leaves(1), generator(), textures=wrong)


def test_black_images_can_be_spoiled_too() -> None:
    for make in KINDS.values():
        made = make(torch.zeros(2, 3, 32, 32), generator(3))
        assert (made.severity > 0).all()


def test_noise_in_features_stays_in_its_mask_and_lets_gradients_pass() -> None:
    features = torch.zeros(3, 5, 16, 16, requires_grad=True)
    noisy, mask = feature_noise(features, generator(), std=0.5)
    changed = (noisy != 0).any(dim=1, keepdim=True)
    assert torch.equal(changed, mask > 0)
    assert float(noisy.detach()[(mask > 0).expand_as(noisy)].std()) == pytest.approx(0.5, rel=0.1)
    noisy.sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert (features.grad == 1).all()


def test_shuffled_patches_keep_every_pixel_and_lose_the_shape() -> None:
    image = leaves(2, 48)
    shuffled = patch_shuffle(image, generator())
    assert not torch.equal(shuffled, image)
    for k in range(2):
        for channel in range(3):
            before, after = image[k, channel].flatten(), shuffled[k, channel].flatten()
            assert torch.equal(before.sort().values, after.sort().values)
    first = shuffled[0, :, :6, :6]
    places = image[0].unfold(1, 6, 6).unfold(2, 6, 6).flatten(1, 2).transpose(0, 1)
    assert any(torch.equal(first, place) for place in places)


def test_a_rest_that_does_not_divide_stays_and_tiny_images_do_too() -> None:
    image = torch.rand(1, 3, 19, 17, generator=generator())
    shuffled = patch_shuffle(image, generator())
    assert torch.equal(shuffled[..., 16:, :], image[..., 16:, :])
    small = image[..., :5, :5]
    assert torch.equal(patch_shuffle(small, generator()), small)


def test_noise_textures_are_colored() -> None:
    texture = noise_texture((32, 32), generator(1))
    assert texture.shape == (3, 32, 32)
    assert 0 <= float(texture.min()) < float(texture.max()) <= 1
    assert not torch.equal(texture[0], texture[1])


def test_the_search_finds_where_a_rising_function_meets_a_value() -> None:
    for power in (0.3, 1.0, 4.0):
        strength, reached = nearest_strength(lambda x, p=power: 10 * x**p, 3.0, close=1e-4)
        assert reached == pytest.approx(3.0, abs=1e-4)
        assert strength == pytest.approx(0.3 ** (1 / power), abs=1e-3)
    assert nearest_strength(lambda x: 2 * x, 5.0, close=0.1) == (1.0, 2.0)  # out of reach
    steps = nearest_strength(lambda x: float(np.floor(5 * x)), 3.4, close=0.1)
    assert steps[1] == 3.0


def test_masks_are_the_pasted_place_alone() -> None:
    made = cutpaste(leaves(6), generator(4))
    for mask in made.mask[:, 0]:
        assert ndimage.label(mask.numpy() > 0)[1] == 1
