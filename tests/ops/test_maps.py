from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor, nn

from leanet.ops.maps import (
    MapReduction,
    MapScale,
    PixelHistogram,
    best_grid_map,
    blur,
    fit_scale,
    map_score,
    resize,
    scale_from,
    to_network,
)


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape).log_normal_(0.0, 1.0, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("size", [(20, 33), (8, 8), (1, 5)])
def test_blur_agrees_with_scipy_at_every_size(sigma: float, size: tuple[int, int]) -> None:
    maps = random_maps(2, 3, *size).double()
    expected = gaussian_filter(maps.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(blur(maps, sigma).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(blur(maps.float(), sigma).numpy(), expected, rtol=1e-5)


def test_a_shorter_kernel_agrees_with_scipy() -> None:
    maps = random_maps(1, 1, 16, 16).double()
    expected = gaussian_filter(maps[0, 0].numpy(), 2.0, mode="mirror", truncate=2.0)
    np.testing.assert_allclose(blur(maps, 2.0, truncate=2.0)[0, 0].numpy(), expected, atol=1e-12)


def test_sigma_zero_changes_nothing_and_a_negative_one_is_refused() -> None:
    maps = random_maps(1, 1, 6, 6)
    assert torch.equal(blur(maps, 0.0), maps)
    with pytest.raises(ValueError, match="sigma"):
        blur(maps, -1.0)


def test_blur_and_score_leave_their_input_alone() -> None:
    maps = random_maps(2, 1, 9, 9)
    before = maps.clone()
    blur(maps, 1.5)
    map_score(maps, "p95")
    to_network(maps, MapScale(1.0, 1.0))
    assert torch.equal(maps, before)


def test_resize_reproduces_a_ramp_between_pixel_centers() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    wide = resize(ramp, (8, 16))[0, 0, 0]
    torch.testing.assert_close(wide[1:-1], (torch.arange(1.0, 15.0) + 0.5) / 2 - 0.5)
    assert resize(ramp, (8, 8)) is ramp
    assert resize(ramp, (4, 2)).shape == (1, 1, 4, 2)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.999, 1.0])
def test_the_divisor_is_the_quantile_of_all_pixels(quantile: float) -> None:
    maps = [random_maps(4, 1, 40, 40, seed=i) * 10.0 ** (i - 3) for i in range(6)]
    pixels = np.concatenate([m.numpy().ravel() for m in maps])
    expected = np.quantile(pixels, quantile, method="lower")
    scale = fit_scale(iter(maps), quantile=quantile, headroom=2.0)
    assert scale.divisor == pytest.approx(expected, rel=1 / 4000)
    assert scale.headroom == 2.0


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
def test_pixels_counted_one_map_after_the_other_have_the_quantiles_of_all(quantile: float) -> None:
    maps = torch.rand(7, 1, 30, 40, generator=torch.Generator().manual_seed(0)) * 20
    pixels = PixelHistogram()
    for one in maps:
        pixels.add(one)
    wanted = np.quantile(maps.numpy(), quantile)
    assert pixels.quantile(quantile) == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert scale_from(pixels, 0.9, 2.0) == fit_scale(maps, 0.9, 2.0)


def test_no_pixels_have_no_quantile() -> None:
    assert np.isnan(PixelHistogram().quantile(0.5))


def test_the_divisor_does_not_depend_on_batches_or_their_order() -> None:
    maps = random_maps(12, 1, 16, 16)
    whole = fit_scale([maps])
    assert fit_scale(maps.flip(0).split(5)) == whole


@pytest.mark.parametrize("value", [1e-30, 3e-4, 0.7, 33.3, 1e30])
def test_a_constant_map_is_its_own_quantile(value: float) -> None:
    assert fit_scale([torch.full((1, 1, 4, 4), value)]).divisor == pytest.approx(
        value, rel=1 / 4000
    )


def test_maps_of_zeros_have_a_usable_scale() -> None:
    zeros = torch.zeros(1, 1, 100, 100)
    assert fit_scale([zeros, -zeros]).divisor == 1.0
    zeros[0, 0, 3, 3] = 8.0
    assert fit_scale([zeros]).divisor == pytest.approx(8.0, rel=1e-3)


def test_maps_without_a_scale_are_refused() -> None:
    one = torch.ones(1, 1, 2, 2)
    for maps in ([], [torch.empty(0, 1, 2, 2)], [-one], [one * torch.nan], [one * torch.inf]):
        with pytest.raises(ValueError):
            fit_scale(maps)
    for quantile, headroom in ((0.0, 4.0), (1.1, 4.0), (0.9, 0.0)):
        with pytest.raises(ValueError, match="headroom"):
            fit_scale([one], quantile, headroom)


def test_the_network_map_puts_normal_pixels_below_one_over_headroom() -> None:
    maps = random_maps(4, 1, 64, 64)
    network = to_network(maps, fit_scale([maps]))
    assert (network <= 0.25).float().mean().item() == pytest.approx(0.999, abs=2e-4)
    assert to_network(maps * 1e6, fit_scale([maps])).max() == 1.0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (10, 10), (31, 64)])
def test_scores_agree_with_numpy(size: tuple[int, int]) -> None:
    maps = random_maps(3, 1, *size).double()
    rows = maps.flatten(1).numpy()
    top = np.sort(rows, axis=1)[:, ::-1][:, : -(-rows.shape[1] // 100)]
    for how, expected in {
        "mean": rows.mean(1),
        "max": rows.max(1),
        "p95": np.quantile(rows, 0.95, axis=1),
        "p99": np.quantile(rows, 0.99, axis=1),
        "top1": top.mean(1),
    }.items():
        np.testing.assert_allclose(map_score(maps, how).numpy(), expected, rtol=1e-12)  # type: ignore[arg-type]


def test_an_unknown_score_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="p95"):
        map_score(torch.ones(1, 1, 2, 2), "median")  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(24, 16), (256, 64)])
def test_the_best_map_of_a_grid_is_the_mean_of_each_place_drawn_large(
    height: int, width: int
) -> None:
    mask = (random_maps(1, 1, height, width) > 0.7).float()
    places = mask[0, 0].reshape(8, height // 8, 8, width // 8).mean(dim=(1, 3))
    expected = zoom(
        places.numpy(), (height / 8, width / 8), order=1, mode="nearest", grid_mode=True
    )
    np.testing.assert_allclose(best_grid_map(mask, 8)[0, 0].numpy(), expected, atol=1e-6)


def test_the_best_map_of_a_fine_grid_is_the_mask_and_a_grid_has_places() -> None:
    mask = (random_maps(2, 1, 12, 12) > 0.5).float()
    assert torch.equal(best_grid_map(mask, 12), mask)
    with pytest.raises(ValueError, match="1 place or more"):
        best_grid_map(mask, 0)


class MapHead(nn.Module):
    """What an exported detector does with its map."""

    def __init__(self, how: MapReduction) -> None:
        super().__init__()
        self.how = how

    def forward(self, anomaly_map: Tensor) -> Tensor:
        smooth = resize(blur(anomaly_map, 1.0), (12, 12))
        return map_score(to_network(smooth, MapScale(2.0, 4.0)), self.how)


@pytest.mark.parametrize("how", ["mean", "p99", "top1"])
def test_the_chain_exports_with_a_free_batch_size(how: MapReduction) -> None:
    free = {"anomaly_map": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(MapHead(how), (random_maps(3, 1, 8, 8),), dynamic_shapes=free)
    for batch in (2, 5):
        maps = random_maps(batch, 1, 8, 8, seed=1)
        torch.testing.assert_close(program.module()(maps), MapHead(how)(maps))
