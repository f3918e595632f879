"""Defects of known severity, measured with scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from skimage import color
from skimage.color import rgb2lab

from leanet.data.defects import KINDS, Defect, add_defect, mean_delta_e
from leanet.data.surfaces import SURFACES, Array, Mask, render

ciede2000: Callable[[Array, Array], Array] = color.deltaE_ciede2000
PICTURES = {
    (surface, size): render(surface, np.random.default_rng(1), size)
    for surface in SURFACES
    for size in (32, 96)
}


def draw(
    kind: str, severity: float = 12.0, *, surface: str = "leaf", size: int = 96, seed: int = 0
) -> tuple[Array, Mask, Defect]:
    rgb, inside = PICTURES[surface, size]
    return rgb, inside, add_defect(rgb, inside, kind, severity, np.random.default_rng(seed))


@pytest.mark.parametrize("severity", [3.0, 10.0, 20.0])
@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_wanted_severity_is_met(kind: str, surface: str, size: int, severity: float) -> None:
    rgb, _, defect = draw(kind, severity, surface=surface, size=size)
    difference = ciede2000(rgb2lab(rgb), rgb2lab(defect.rgb))
    rounded = ciede2000(*(rgb2lab(np.rint(x * 255) / 255) for x in (rgb, defect.rgb)))

    assert defect.severity == pytest.approx(severity, rel=0.01)
    assert difference[defect.mask].mean() == pytest.approx(defect.severity, rel=1e-3)
    assert rounded[defect.mask].mean() == pytest.approx(severity, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_pixels_changed(kind: str, surface: str, seed: int) -> None:
    rgb, inside, defect = draw(kind, surface=surface, seed=seed)

    np.testing.assert_array_equal((defect.rgb != rgb).any(axis=-1), defect.mask)
    assert defect.mask.sum() >= 4
    assert inside[defect.mask].all()
    assert 0 <= defect.rgb.min() <= defect.rgb.max() <= 1


def test_defects_vary_in_place_and_area() -> None:
    for kind in KINDS:
        masks = [draw(kind, seed=seed)[2].mask for seed in range(8)]
        centers = np.array([ndimage.center_of_mass(mask) for mask in masks])

        assert len({mask.sum() for mask in masks}) > 4
        assert centers.std(axis=0).min() > 3


def test_the_same_generator_draws_the_same_defect_and_spares_its_input() -> None:
    rgb, inside = PICTURES["textile", 32]
    before = rgb.copy()
    first, again = (
        add_defect(rgb, inside, "stain", 9.0, np.random.default_rng(5)) for _ in range(2)
    )

    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(rgb, before)


def test_a_scratch_is_thin_and_a_stain_is_not() -> None:
    def thickness(kind: str) -> list[float]:
        masks = [draw(kind, surface="textile", seed=seed)[2].mask for seed in range(8)]
        return [float(ndimage.distance_transform_edt(mask).max()) for mask in masks]

    assert max(thickness("scratch")) <= 3
    assert min(thickness("stain")) > 4


def test_spots_are_brown_or_yellow_on_a_green_leaf() -> None:
    for seed in range(6):
        rgb, _, defect = draw("spot", 15.0, seed=seed)
        redder = rgb2lab(defect.rgb)[..., 1] - rgb2lab(rgb)[..., 1]

        assert redder[defect.mask].mean() > 5


@pytest.mark.parametrize("surface", SURFACES)
def test_fading_takes_chroma_and_keeps_texture(surface: str) -> None:
    rgb, _, defect = draw("fade", 12.0, surface=surface)
    before, after = rgb2lab(rgb), rgb2lab(defect.rgb)
    chroma = [np.hypot(lab[..., 1], lab[..., 2])[defect.mask].mean() for lab in (before, after)]
    texture = [
        (lab[..., 0] - ndimage.gaussian_filter(lab[..., 0], 2))[defect.mask]
        for lab in (before, after)
    ]

    assert chroma[1] < 0.8 * chroma[0]
    assert np.corrcoef(*texture)[0, 1] > 0.95


def test_mean_delta_e_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.uniform(size=(2, 7, 5, 3))
    mask = rng.uniform(size=(7, 5)) < 0.5
    expected = ciede2000(rgb2lab(before), rgb2lab(after))[mask].mean()

    assert mean_delta_e(before, after, mask) == pytest.approx(expected, rel=1e-4)
    assert mean_delta_e(before, before, mask) == pytest.approx(0, abs=1e-9)


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"'hole'; allowed are spot, stain, scratch, fade"):
        draw("hole")
    with pytest.raises(ValueError, match=r"severity is 0"):
        draw("spot", 0)
    with pytest.raises(ValueError, match=r"no fade of severity 80 .* largest found is \d"):
        draw("fade", 80.0, size=32)
    rgb, inside = PICTURES["leaf", 32]
    with pytest.raises(ValueError, match=r"0 inner pixels, at least 4"):
        add_defect(rgb, np.zeros_like(inside), "spot", 5.0, np.random.default_rng(0))
