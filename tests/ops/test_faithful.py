from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from leanet.ops.faithful import (
    Road,
    curve_area,
    deletion,
    drop,
    first_pixels,
    increase,
    insertion,
    ranking,
    reference_images,
    road,
    shown_only,
    spearman,
    stability,
    tie_order,
)

SIDE = 16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(num: int = 6, seed: int = 0) -> Tensor:
    """Dark noise with a bright pattern in the upper left quadrant."""
    images = 0.2 * torch.rand(num, 3, SIDE, SIDE, generator=seeded(seed))
    images[..., 2:6, 2:6] += 0.7
    return images


def reads_one_quadrant(images: Tensor) -> Tensor:
    """A network whose truth is known: it looks nowhere else."""
    return torch.sigmoid(20 * (images[..., : SIDE // 2, : SIDE // 2].mean(dim=(1, 2, 3)) - 0.2))


def truth(num: int = 6) -> Tensor:
    """Its true map, as coarse as the quadrants."""
    quadrant = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    return quadrant.repeat_interleave(4, 0).repeat_interleave(4, 1).expand(num, 1, 8, 8)


def noise(num: int = 6, seed: int = 3) -> Tensor:
    return torch.rand(num, 1, 8, 8, generator=seeded(seed))


def order_of(maps: Tensor, seed: int = 1) -> Tensor:
    return ranking(maps, (SIDE, SIDE), tie_order(len(maps), SIDE * SIDE, seeded(seed)))


# --- rankings ------------------------------------------------------------------------------------


def test_a_ranking_holds_every_pixel_once_with_falling_values() -> None:
    maps = torch.rand(3, 1, SIDE, SIDE, generator=seeded())
    order = order_of(maps)
    assert torch.equal(order.sort(dim=1).values, torch.arange(SIDE * SIDE).expand(3, -1))
    assert (maps.flatten(1).gather(1, order).diff(dim=1) <= 0).all()


def test_ties_are_broken_at_random_and_repeatably() -> None:
    flat = torch.zeros(1, 1, 4, 4)
    assert torch.equal(order_of(flat), order_of(flat))
    assert not torch.equal(order_of(flat), order_of(flat, seed=2))
    assert not torch.equal(order_of(flat)[0], torch.arange(SIDE * SIDE))


def test_equal_maps_are_ranked_alike_whatever_their_scale() -> None:
    assert torch.equal(order_of(truth()), order_of(7 * truth() + 1))


def test_maps_of_another_shape_and_values_that_are_not_finite_are_refused() -> None:
    ties = tie_order(2, 16, seeded())
    with pytest.raises(ValueError, match=r"ties \[B, 16\]"):
        ranking(torch.zeros(3, 1, 4, 4), (4, 4), ties)
    with pytest.raises(ValueError, match="not finite"):
        ranking(torch.full((2, 1, 4, 4), torch.nan), (4, 4), ties)


def test_the_first_pixels_are_those_of_the_order() -> None:
    chosen = first_pixels(torch.tensor([[3, 0, 1, 2]]), 2, (2, 2))
    assert chosen.tolist() == [[[[True, False], [False, True]]]]


# --- curves --------------------------------------------------------------------------------------


def test_deletion_starts_at_the_image_and_ends_at_the_reference() -> None:
    images, black = planted(), torch.zeros(6, 3, SIDE, SIDE)
    curve = deletion(reads_one_quadrant, images, order_of(noise()), black, steps=7)
    assert curve.shape == (6, 8)
    assert torch.equal(curve[:, 0], reads_one_quadrant(images))
    assert torch.equal(curve[:, -1], reads_one_quadrant(black))


def test_insertion_is_deletion_of_the_least_relevant_first_run_backwards() -> None:
    images, order = planted(), order_of(noise())
    black = torch.zeros_like(images)
    forward = insertion(reads_one_quadrant, images, order, black, steps=8)
    backward = deletion(reads_one_quadrant, images, order.flip(1), black, steps=8)
    assert torch.allclose(forward, backward.flip(1))


def test_a_score_that_counts_pixels_falls_in_equal_steps() -> None:
    ones = torch.ones(2, 3, SIDE, SIDE)
    order = order_of(noise(2))
    curve = deletion(lambda x: x.mean(dim=(1, 2, 3)), ones, order, torch.zeros_like(ones), steps=50)
    assert torch.allclose(curve, torch.linspace(1, 0, 51).expand(2, -1), atol=1 / SIDE**2)
    assert curve_area(curve).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_curves_hold_several_numbers_per_image() -> None:
    def two(images: Tensor) -> Tensor:
        return torch.stack((reads_one_quadrant(images), images.mean(dim=(1, 2, 3))), dim=1)

    curve = deletion(two, planted(), order_of(noise()), torch.zeros(6, 3, SIDE, SIDE), steps=5)
    assert curve.shape == (6, 6, 2)
    assert curve_area(curve).shape == (6, 2)


def test_the_area_is_that_of_numpy() -> None:
    curve = torch.rand(3, 11, generator=seeded())
    expected = np.trapezoid(curve.numpy(), dx=0.1, axis=1)
    assert np.allclose(curve_area(curve), expected)


def test_the_truth_deletes_faster_and_inserts_sooner_than_noise() -> None:
    images = planted()
    gone = reference_images(images, "mean")
    area = {
        name: (
            curve_area(deletion(reads_one_quadrant, images, order_of(maps), gone)),
            curve_area(insertion(reads_one_quadrant, images, order_of(maps), gone)),
        )
        for name, maps in (("truth", truth()), ("noise", noise()))
    }
    assert area["truth"][0].mean() < area["noise"][0].mean() - 0.1
    assert area["truth"][1].mean() > area["noise"][1].mean() + 0.1


def test_references_are_the_blurred_image_its_mean_color_or_the_mean_normal_image() -> None:
    images, normal = planted(), torch.rand(3, SIDE, SIDE, generator=seeded())
    blurred = reference_images(images, "blur")
    assert blurred.var(dim=(2, 3)).max() < images.var(dim=(2, 3)).min()
    assert torch.allclose(blurred.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.02)
    assert reference_images(images, "mean")[0, :, 3, 9].tolist() == pytest.approx(
        images[0].mean(dim=(1, 2)).tolist()
    )
    assert torch.equal(reference_images(images, "normal", normal)[4], normal)
    with pytest.raises(ValueError, match="needs the mean image"):
        reference_images(images, "normal")


# --- ROAD ----------------------------------------------------------------------------------------


def road_of(maps: Tensor) -> Road:
    return road(reads_one_quadrant, planted(), order_of(maps), generator=seeded())


def test_the_planted_truth_passes_road_and_noise_does_not() -> None:
    assert road_of(truth()).combined().mean() > 0.25
    assert abs(road_of(noise()).combined().mean()) < 0.05


def test_the_opposite_of_the_truth_has_the_opposite_figure() -> None:
    assert road_of(-truth()).combined().mean() < -0.25


def test_road_has_a_score_per_share_and_direction() -> None:
    found = road(
        reads_one_quadrant, planted(), order_of(truth()), generator=seeded(), shares=(0.25, 0.5)
    )
    assert found.morf.shape == found.lerf.shape == (6, 2)


def test_road_is_repeatable() -> None:
    assert torch.equal(road_of(truth()).morf, road_of(truth()).morf)


# --- increase and drop ---------------------------------------------------------------------------


def test_only_what_the_positive_map_shows_stays() -> None:
    images = torch.ones(2, 3, 4, 4)
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 0, 0], maps[0, 0, 1, 1], maps[0, 0, 2, 2], maps[1] = 2.0, 1.0, -5.0, -1.0
    shown = shown_only(images, maps)
    assert shown[0, :, 0, 0].tolist() == [1, 1, 1]
    assert shown[0, :, 1, 1].tolist() == [0.5, 0.5, 0.5]
    assert shown[0].sum() == 4.5
    assert shown[1].sum() == 0


def test_a_score_lost_is_a_drop_and_a_score_won_an_increase() -> None:
    before, after = torch.tensor([0.8, 0.2, 0.5]), torch.tensor([0.2, 0.3, 0.5])
    assert drop(before, after).tolist() == pytest.approx([0.75, 0, 0])
    assert increase(before, after).tolist() == [0, 1, 0]


# --- rank correlation ----------------------------------------------------------------------------


def test_the_rank_correlation_is_that_of_scipy_also_with_ties() -> None:
    a = torch.randint(0, 5, (4, 1, 6, 6), generator=seeded()).float()
    b = torch.rand(4, 1, 6, 6, generator=seeded(1)) + 0.2 * a
    expected = [stats.spearmanr(x.ravel(), y.ravel())[0] for x, y in zip(a, b, strict=True)]
    assert spearman(a, b).tolist() == pytest.approx(expected)


def test_a_map_without_contrast_has_no_rank_correlation() -> None:
    assert spearman(torch.zeros(1, 4), torch.rand(1, 4, generator=seeded())).isnan().all()


def test_maps_of_two_sizes_have_no_rank_correlation() -> None:
    with pytest.raises(ValueError, match="one size"):
        spearman(torch.zeros(1, 4), torch.zeros(1, 9))


def test_stability_is_the_mean_over_pairs_of_variants() -> None:
    a = torch.rand(3, 2, 1, 4, 4, generator=seeded())
    pairs = [spearman(a[i], a[k]) for i, k in ((0, 1), (0, 2), (1, 2))]
    assert torch.allclose(stability(a), sum(pairs, torch.zeros(2)) / 3)
    assert stability(a[:1].expand(3, -1, -1, -1, -1)).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="at least two variants"):
        stability(a[:1])
