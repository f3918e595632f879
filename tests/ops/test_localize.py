from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from leanet.ops.localize import (
    area_share,
    centered_gaussian,
    edge_strength,
    energy_in_mask,
    informative,
    pointing,
    random_map,
    size_bin,
)
from leanet.ops.stats import Interval


def spot(row: int = 2, column: int = 3, side: int = 10) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), dtype=bool)
    mask[row, column] = True
    return mask


def noise(seed: int = 0, side: int = 10) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((side, side))


def test_all_energy_in_the_mask_is_one_and_none_is_zero() -> None:
    heat = np.where(spot(), 5.0, -2.0)
    assert energy_in_mask(heat, spot()) == 1
    assert energy_in_mask(heat, ~spot()) == 0


def test_a_flat_map_has_the_share_of_the_area() -> None:
    mask = noise() < 0.3
    assert energy_in_mask(np.full((10, 10), 0.7), mask) == pytest.approx(area_share(mask))
    assert pointing(np.full((10, 10), 0.7), mask) == pytest.approx(area_share(mask))


def test_a_map_without_positive_values_is_no_evidence_and_not_zero() -> None:
    assert np.isnan(energy_in_mask(-noise() - 0.1, spot()))


def test_negative_values_do_not_count_as_energy() -> None:
    heat = noise()
    assert energy_in_mask(heat - 0.5, spot()) == energy_in_mask(np.maximum(heat - 0.5, 0), spot())


def test_scaling_a_map_changes_neither_figure() -> None:
    heat, mask = noise(), noise(1) < 0.2
    assert energy_in_mask(1e-6 * heat, mask) == pytest.approx(energy_in_mask(heat, mask))
    assert pointing(1e-6 * heat, mask) == pointing(heat, mask)


def test_the_maximum_counts_as_inside_within_the_tolerance() -> None:
    heat = np.where(spot(2, 6), 1.0, 0.0)
    assert pointing(heat, spot(2, 3)) == 0
    assert pointing(heat, spot(2, 3), tolerance=2) == 0
    assert pointing(heat, spot(2, 3), tolerance=3) == 1
    assert energy_in_mask(heat, spot(2, 3), tolerance=3) == 1


def test_the_tolerance_is_a_disk() -> None:
    assert pointing(np.where(spot(4, 5), 1.0, 0.0), spot(2, 3), tolerance=2) == 0
    assert pointing(np.where(spot(4, 5), 1.0, 0.0), spot(2, 3), tolerance=3) == 1


def test_an_empty_mask_holds_nothing_with_any_tolerance() -> None:
    empty = np.zeros((10, 10), dtype=bool)
    assert pointing(noise(), empty, tolerance=20) == 0
    assert energy_in_mask(noise(), empty, tolerance=20) == 0


def test_other_shapes_and_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        pointing(noise(), spot(side=9))
    with pytest.raises(ValueError, match="1 values of the map are not finite"):
        energy_in_mask(np.where(spot(), np.nan, 1.0), spot())


def test_noise_points_into_a_mask_as_often_as_its_area_says() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4, :4] = True
    like = torch.zeros(2000, 1, 8, 8)
    maps = random_map(like, torch.Generator().manual_seed(0))[:, 0].numpy()
    assert np.mean([pointing(heat, mask) for heat in maps]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([energy_in_mask(heat, mask) for heat in maps]) == pytest.approx(0.25, abs=0.01)


def test_the_gaussian_is_highest_in_the_middle_and_equal_on_both_sides() -> None:
    heat = centered_gaussian((9, 13))
    assert heat.shape == (1, 1, 9, 13)
    assert heat.flatten().argmax() == 4 * 13 + 6
    assert torch.allclose(heat, heat.flip(2))
    assert torch.allclose(heat, heat.flip(3))


def test_edges_are_those_of_the_sobel_filter() -> None:
    image = torch.rand(2, 3, 12, 9, generator=torch.Generator().manual_seed(0))
    grey = image.double().mean(dim=1).numpy()
    expected = [
        np.hypot(ndimage.sobel(g, 0, mode="nearest"), ndimage.sobel(g, 1, mode="nearest"))
        for g in grey
    ]
    assert np.allclose(edge_strength(image)[:, 0], expected, atol=1e-5)


def test_bins_go_by_the_share_of_the_image() -> None:
    assert [size_bin(share) for share in (0.0, 0.01, 0.049, 0.05, 1.0)] == [
        "below 1 %",
        "1 to 5 %",
        "1 to 5 %",
        "5 % and more",
        "5 % and more",
    ]


def test_informative_is_only_what_beats_every_baseline_beyond_doubt() -> None:
    low, high = Interval(0.1, 0.2), Interval(0.3, 0.4)
    assert informative(Interval(0.41, 0.5), [low, high])
    assert not informative(Interval(0.39, 0.5), [low, high])
    assert informative(Interval(0.0, 0.05), [low, high], higher_is_better=False)
    assert not informative(Interval(0.25, 0.28), [low, high], higher_is_better=False)
    assert not informative(Interval(0.5, 0.6), [Interval(np.nan, np.nan)])
