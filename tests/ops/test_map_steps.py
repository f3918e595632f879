"""Maps are smoothed, thinned out, scaled and made binary, in this order, each on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from leanet.ops.map_steps import (
    GRID,
    Ablation,
    MapPreparation,
    MapSteps,
    ablate,
    fit_steps,
    keep_top,
    prepare_map,
    refuse_steps,
)
from leanet.ops.maps import MapScale, fit_scale, to_network

SCALE = MapScale(divisor=0.5, headroom=4.0)
EVERYTHING = MapSteps(blur=1.0, threshold=0.5, top_fraction=0.1, binarize=True)


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_without_steps_a_map_is_only_scaled() -> None:
    maps = random_maps(3, 1, 16, 16)
    assert torch.equal(prepare_map(maps, MapPreparation(SCALE)), to_network(maps, SCALE))


def test_all_steps_in_their_order_agree_with_numpy() -> None:
    maps, level, share = random_maps(2, 1, 16, 16).double(), 0.55, 0.2
    expected = gaussian_filter(maps.numpy(), (0, 0, 1.5, 1.5), mode="mirror", truncate=4.0)
    expected[expected < level] = 0
    for plane in expected[:, 0]:
        plane[plane < np.sort(plane.ravel())[-round(share * plane.size)]] = 0
    expected = np.clip(expected / 2.0, 0, 1)
    steps = MapSteps(blur=1.5, threshold=0.5, top_fraction=share)
    drawn = prepare_map(maps, MapPreparation(SCALE, steps, level))
    np.testing.assert_allclose(drawn.numpy(), expected, atol=1e-12)
    assert 0 < (drawn > 0).double().mean() <= share
    binary = prepare_map(maps, MapPreparation(SCALE, steps._replace(binarize=True), level))
    assert torch.equal(binary, (drawn > 0).double())


@pytest.mark.parametrize("fraction", [1e-6, 0.01, 0.3, 0.95])
def test_the_highest_pixels_of_every_map_stay(fraction: float) -> None:
    maps = random_maps(4, 1, 12, 20) + 0.1
    kept = keep_top(maps, fraction)
    count = max(1, round(fraction * 240))
    assert (kept > 0).flatten(1).sum(dim=1).tolist() == [count] * 4
    assert torch.equal(kept[kept > 0], maps[kept > 0])
    for before, after in zip(maps, kept, strict=True):
        assert after[after > 0].min() > before[after == 0].max()


def test_equal_pixels_stay_or_go_together() -> None:
    maps = torch.tensor([3.0, 2.0, 2.0, 2.0, 1.0, 0.0]).view(1, 1, 2, 3)
    assert keep_top(maps, 2 / 6).flatten().tolist() == [3, 2, 2, 2, 0, 0]
    assert not keep_top(torch.zeros(2, 1, 4, 4), 0.5).any()


def test_level_and_scale_are_quantiles_of_the_blurred_maps() -> None:
    maps = random_maps(6, 1, 32, 32)
    steps = MapSteps(blur=2.0, threshold=0.9)
    fitted = fit_steps(steps, maps.split(2), 0.999, 3.0)
    blurred = torch.from_numpy(gaussian_filter(maps.numpy(), (0, 0, 2, 2), mode="mirror"))
    assert fitted.level == pytest.approx(float(blurred.quantile(0.9)), rel=1e-3)
    assert fitted.scale.divisor == pytest.approx(float(blurred.quantile(0.999)), rel=2e-3)
    assert fitted.scale.headroom == 3.0
    prepared = prepare_map(maps, fitted)
    assert float((prepared > 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    plain = fit_steps(MapSteps(), maps.split(2), 0.999, 3.0)
    assert plain == MapPreparation(fit_scale(maps.split(2), 0.999, 3.0))


@pytest.mark.parametrize("ablation", ["none", "shuffled", "constant", "scaled"])
def test_a_map_does_not_depend_on_its_batch_mates(ablation: Ablation) -> None:
    maps = random_maps(5, 1, 16, 16)
    preparation = MapPreparation(SCALE, EVERYTHING._replace(ablation=ablation), 0.4)
    together = prepare_map(maps, preparation)
    for k in range(5):
        assert torch.equal(prepare_map(maps[k : k + 1], preparation), together[k : k + 1])


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 1, 8, 8), (1, 1, 16, 40)])
def test_a_shuffled_map_has_the_same_values_elsewhere(shape: tuple[int, ...]) -> None:
    maps = random_maps(*shape)
    shuffled = ablate(maps, "shuffled")
    assert shuffled.shape == maps.shape
    assert torch.equal(shuffled.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert not (shuffled == maps).any()
    height, width = shape[2] // GRID, shape[3] // GRID
    block = shuffled[0, 0, :height, :width]  # came as a whole from one place of the grid
    places = maps[0, 0].unfold(0, height, height).unfold(1, width, width).flatten(0, 1)
    assert sum(torch.equal(block, place) for place in places) == 1
    assert torch.equal(ablate(maps, "shuffled"), shuffled)


def test_a_map_that_has_no_blocks_is_not_shuffled() -> None:
    with pytest.raises(ValueError, match="30 x 32 pixels cannot be shuffled in 8 x 8 blocks"):
        ablate(torch.rand(1, 1, 30, 32), "shuffled")


def test_a_constant_map_is_its_mean_and_a_scaled_one_half_as_bright() -> None:
    maps = random_maps(3, 1, 8, 8)
    constant = ablate(maps, "constant")
    assert constant.shape == maps.shape
    means = maps.mean(dim=(1, 2, 3)).tolist()
    assert [plane.unique().tolist() for plane in constant] == [[pytest.approx(m)] for m in means]
    assert torch.equal(ablate(maps, "scaled"), maps / 2)


@pytest.mark.parametrize(("changes", "message"), [
    ({"blur": -1.0}, "map_blur -1.0: give an SD >= 0"),
    ({"threshold": 1.0}, r"map_threshold 1.0: give a quantile in \[0, 1\)"),
    ({"top_fraction": 0.0}, "map_top_fraction 0.0: give a share above 0"),
    ({"top_fraction": 5.0}, "map_top_fraction 5.0: give a share above 0, at most 1"),
    ({"binarize": True}, "map_binarize makes 1 of every pixel above 0"),
])  # fmt: skip
def test_steps_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    refuse_steps(EVERYTHING)
    with pytest.raises(ValueError, match=message):
        refuse_steps(MapSteps(**changes))


def test_a_preparation_survives_as_json_and_an_old_one_has_no_steps() -> None:
    preparation = MapPreparation(SCALE, EVERYTHING, 0.25)
    assert MapPreparation.from_dict(preparation.to_dict()) == preparation
    old = {"scale": {"divisor": 0.5, "headroom": 4.0}, "other": 1}
    assert MapPreparation.from_dict(old) == MapPreparation(SCALE)


class Prepare(nn.Module):
    def forward(self, anomaly_map: Tensor) -> Tensor:
        steps = EVERYTHING._replace(ablation="shuffled")
        return prepare_map(anomaly_map, MapPreparation(SCALE, steps, 0.4))


def test_every_step_exports_with_any_number_of_maps() -> None:
    maps = random_maps(3, 1, 16, 16)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Prepare(), (maps,), dynamic_shapes=({0: batch},))
    other = random_maps(5, 1, 16, 16, seed=1)
    assert torch.equal(program.module()(other), Prepare()(other))
