from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color

from leanet.ops.embedding import lab_thumbnail, pooled


def test_the_distance_is_the_root_mean_square_color_difference() -> None:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    lab = np.stack([color.rgb2lab(one.permute(1, 2, 0).numpy()) for one in image])
    cells = lab.reshape(2, 16, 2, 16, 3, 3).mean(axis=(2, 4))
    expected = np.sqrt(((cells[0] - cells[1]) ** 2).sum(axis=-1).mean())
    found = torch.cdist(*lab_thumbnail(image).split(1)).item()
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("size", [(8, 8), (17, 33), (64, 64)])
def test_any_size_has_a_thumbnail(size: tuple[int, int]) -> None:
    assert lab_thumbnail(torch.rand(2, 3, *size)).shape == (2, 768)


def test_every_map_counts_the_same_whatever_its_scale() -> None:
    first, second = torch.rand(2, 5, 4, 4), torch.rand(2, 3, 2, 2)
    found = pooled(first, second)
    torch.testing.assert_close(found, pooled(1000 * first, second))
    torch.testing.assert_close(found.norm(dim=1), torch.full((2,), 2.0).sqrt())
