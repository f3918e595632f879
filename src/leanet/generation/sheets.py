"""Contact sheets: many small images on one page, to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

GAP = 4
PAPER = 255
LEAST_SIDE = 96  # px; smaller images are magnified by a whole number


def contact_sheet(image: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images uint8 [N, 3, S, S], row by row, on white, as RGB [H, W, 3]."""
    tiles = _magnified(image)
    side, rows = tiles.shape[1], -(-len(tiles) // columns)
    page: NDArray[Any] = np.full(
        (rows * (side + GAP) + GAP, columns * (side + GAP) + GAP, 3), PAPER, np.uint8
    )
    for index, tile in enumerate(tiles):
        top = GAP + index // columns * (side + GAP)
        left = GAP + index % columns * (side + GAP)
        page[top : top + side, left : left + side] = tile
    return page


def pair_sheet(first: Tensor, second: Tensor, columns: int) -> NDArray[np.uint8]:
    """Pairs of images uint8 [N, 3, S, S], each pair side by side without a gap."""
    pairs = np.concatenate([_magnified(first), _magnified(second)], axis=2)  # [N, s, 2s, 3]
    side, rows = pairs.shape[1], -(-len(pairs) // columns)
    page: NDArray[Any] = np.full(
        (rows * (side + GAP) + GAP, columns * (2 * side + GAP) + GAP, 3), PAPER, np.uint8
    )
    for index, pair in enumerate(pairs):
        top = GAP + index // columns * (side + GAP)
        left = GAP + index % columns * (2 * side + GAP)
        page[top : top + side, left : left + 2 * side] = pair
    return page


def _magnified(image: Tensor) -> NDArray[np.uint8]:
    """uint8 [N, 3, S, S] -> [N, s, s, 3], s a multiple of S of at least `LEAST_SIDE`."""
    times = max(1, -(-LEAST_SIDE // image.shape[-1]))
    large = image.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
    pixels: NDArray[np.uint8] = large.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
    return pixels
