"""The pictures of harmless leaves and cloth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from leanet.data.surfaces import SURFACES, fractal_noise, render


@pytest.mark.parametrize("surface", SURFACES)
def test_a_picture_is_a_function_of_the_state_of_its_generator(surface: str) -> None:
    first, first_mask = render(surface, np.random.default_rng(3), 32)
    again, again_mask = render(surface, np.random.default_rng(3), 32)
    other, _ = render(surface, np.random.default_rng(4), 32)

    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_mask, again_mask)
    assert np.abs(first - other).mean() > 0.01


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("size", [16, 33, 96])
def test_pictures_have_the_size_asked_for_and_use_the_range(surface: str, size: int) -> None:
    rgb, mask = render(surface, np.random.default_rng(0), size)

    assert rgb.shape == (size, size, 3)
    assert mask.shape == (size, size)
    assert mask.dtype == np.bool_
    assert 0 <= rgb.min() < rgb.max() <= 1
    assert 0.15 < rgb.mean() < 0.85


def test_a_leaf_is_one_green_piece_that_lies_inside_the_picture() -> None:
    for seed in range(12):
        rgb, mask = render("leaf", np.random.default_rng(seed), 64)
        excess_green = rgb[..., 1] - (rgb[..., 0] + rgb[..., 2]) / 2

        assert ndimage.label(mask)[1] == 1
        assert 0.12 < mask.mean() < 0.5
        assert excess_green[mask].mean() > excess_green[~mask].mean() + 0.05


def test_a_textile_repeats_its_threads() -> None:
    for seed in range(6):
        rgb, mask = render("textile", np.random.default_rng(seed), 96, nuisance=0)
        luminance = rgb.mean(axis=-1) * np.outer(np.hanning(96), np.hanning(96))
        power = np.abs(np.fft.rfft2(luminance - luminance.mean())) ** 2
        cycles = np.hypot(np.fft.fftfreq(96, 1 / 96)[:, None], np.fft.rfftfreq(96, 1 / 96)[None])
        power[cycles < 5] = 0  # light and drift

        assert mask.all()
        # A plain weave of 15 to 19 threads: 7.5 to 9.5 over-and-under pairs each way, whose
        # checkerboard repeats along the diagonal, and the gaps between the threads themselves.
        assert 10 < cycles.ravel()[power.argmax()] < 20


def test_the_strength_of_nuisances_leaves_the_object_alone() -> None:
    same_share = []
    for seed in range(8):
        plain, plain_mask = render("textile", np.random.default_rng(seed), 48, nuisance=0)
        marked, marked_mask = render("textile", np.random.default_rng(seed), 48, nuisance=2)
        np.testing.assert_array_equal(plain_mask, marked_mask)
        same_share.append(np.isclose(plain, marked, atol=1e-6).mean())

    assert max(same_share) > 0.5  # lint only: the cloth around it is the same
    assert min(same_share) < 0.999


@pytest.mark.parametrize("surface", SURFACES)
def test_more_nuisance_changes_more(surface: str) -> None:
    def change(nuisance: float) -> float:
        pairs = (
            (render(surface, np.random.default_rng(s), 32, nuisance=n)[0] for n in (0, nuisance))
            for s in range(10)
        )
        return float(np.mean([np.abs(marked - plain).mean() for plain, marked in pairs]))

    assert 0 < change(0.5) < change(1.5) < change(4.0)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_fractal_noise_falls_with_the_wanted_power_of_the_frequency(slope: float) -> None:
    field = fractal_noise(np.random.default_rng(0), 128, slope)
    amplitude = np.abs(np.fft.fft2(field)).ravel()[1:]
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))).ravel()[1:]
    fitted, _ = np.polyfit(np.log(frequency), np.log(amplitude), 1)

    assert fitted == pytest.approx(-slope, abs=0.05)
    assert field.mean() == pytest.approx(0, abs=1e-12)
    assert field.std() == pytest.approx(1)


def test_errors_name_what_is_allowed() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'wood'; allowed are leaf, textile"):
        render("wood", rng, 32)
    with pytest.raises(ValueError, match=r"size is 8; .* at least 16"):
        render("leaf", rng, 8)
    with pytest.raises(ValueError, match=r"nuisance is -1"):
        render("leaf", rng, 32, nuisance=-1)
