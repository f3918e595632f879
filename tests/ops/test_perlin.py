from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from leanet.ops.perlin import (
    AREA,
    EDGE,
    drawn_region,
    perlin_noise,
    perlin_region,
    random_noise,
    soft_region,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (1, 1)])
@pytest.mark.parametrize("cells", [(1, 1), (4, 8)])
def test_noise_has_its_size_and_range(size: tuple[int, int], cells: tuple[int, int]) -> None:
    field = perlin_noise(size, cells, generator(), turn=0.7)
    assert field.shape == size
    assert -1 <= float(field.min()) <= float(field.max()) <= 1


def test_noise_is_smooth_and_finer_with_more_cells() -> None:
    steps = []
    for cells in (2, 8):
        field = perlin_noise((128, 128), (cells, cells), generator(3))
        steps.append(float(field.diff(dim=0).abs().max()))
        assert steps[-1] < 4 * cells / 128  # a cell goes through at most a few units
    assert steps[1] > 2 * steps[0]


def test_cells_of_unequal_sides_make_streaks_along_the_longer_side() -> None:
    field = perlin_noise((64, 64), (2, 16), generator(1))
    assert field.diff(dim=1).abs().mean() > 3 * field.diff(dim=0).abs().mean()
    turned = perlin_noise((64, 64), (2, 16), generator(1), turn=np.pi / 2)
    assert turned.diff(dim=0).abs().mean() > 3 * turned.diff(dim=1).abs().mean()


def test_noise_has_one_octave_and_prefers_no_height() -> None:
    draws = torch.stack([perlin_noise((64, 64), (4, 4), generator(k)) for k in range(60)])
    assert float(draws.mean()) == pytest.approx(0, abs=0.03)
    spectrum = np.abs(np.fft.rfft2(draws.numpy())).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None]) * 64
    inside, outside = spectrum[(frequency > 1) & (frequency < 6)], spectrum[frequency > 20]
    assert inside.mean() > 20 * outside.mean()  # details are as large as cells


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    first, again, other = (random_noise((32, 32), generator(k)) for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    soft_region((16, 16), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_hard_region_is_binary_and_a_soft_one_has_no_invisible_rim() -> None:
    hard = torch.stack([perlin_region((32, 32), generator(k)) for k in range(20)])
    soft = torch.stack([soft_region((32, 32), generator(k)) for k in range(20)])
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert float(soft[soft > 0].min()) >= EDGE
    assert float(soft.max()) == 1.0
    between = (soft > 0.3) & (soft < 0.9)
    assert between.any()


@pytest.mark.parametrize("draw", [perlin_region, soft_region])
@pytest.mark.parametrize("side", [32, 64])
def test_a_drawn_region_is_never_empty_nor_too_large(
    draw: Callable[..., torch.Tensor], side: int
) -> None:
    for seed in range(30):
        stream = generator(seed)
        region = drawn_region(partial(draw, (side, side), stream))
        assert AREA[0] <= float((region > 0.5).float().mean()) <= AREA[1]


def test_regions_vary_in_place_and_size() -> None:
    streams = [generator(k) for k in range(20)]
    regions = [drawn_region(partial(soft_region, (48, 48), stream)) for stream in streams]
    centers = np.array([ndimage.center_of_mass(region.numpy()) for region in regions])
    areas = [float((region > 0.5).float().mean()) for region in regions]
    assert centers.std(axis=0).min() > 4
    assert max(areas) > 3 * min(areas)


def test_a_region_stays_inside_the_foreground_or_says_that_there_is_no_room() -> None:
    inside = torch.zeros(32, 32)
    inside[:16] = 1
    stream = generator()
    region = drawn_region(lambda: perlin_region((32, 32), stream), inside)
    assert region[16:].sum() == 0
    assert region.sum() > 0
    with pytest.raises(ValueError, match=r"0\.1% are foreground"):
        drawn_region(
            lambda: perlin_region((32, 32), stream), torch.eye(32) * (torch.arange(32) < 1)
        )


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        perlin_noise((0, 4), (1, 1), generator())
    with pytest.raises(ValueError, match="at least 1"):
        perlin_noise((4, 4), (1, 0), generator())
