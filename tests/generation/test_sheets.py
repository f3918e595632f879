from __future__ import annotations

import numpy as np
import torch

from leanet.generation.sheets import contact_sheet, pair_sheet


def tiles(count: int) -> torch.Tensor:
    return (torch.arange(count).view(-1, 1, 1, 1) * 10).expand(-1, 3, 48, 48).byte()


def test_images_stand_row_by_row_on_white_and_magnified() -> None:
    page = contact_sheet(tiles(5), 3)
    assert page.shape == (2 * 100 + 4, 3 * 100 + 4, 3)
    centers = page[54::100, 54::100, 0]
    assert centers.tolist() == [[0, 10, 20], [30, 40, 255]]
    assert (page[:4] == 255).all()


def test_pairs_touch() -> None:
    page = pair_sheet(tiles(2), tiles(2) + 100, 2)
    assert page.shape == (104, 2 * 196 + 4, 3)
    assert page[50, [50, 50 + 96, 246, 246 + 96], 0].tolist() == [0, 100, 10, 110]
    assert np.unique(page[50, 4:196, 0]).tolist() == [0, 100]
