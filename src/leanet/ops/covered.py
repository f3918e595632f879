"""Which part of an image a map covers: a detector that looks at the middle leaves a border out.

The map then has the side of the whole image and says nothing in its outer pixels. They are neither
normal nor anomalous: figures leave them out, and pictures show them in grey.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice]  # rows, columns
GREY: Final = 128
_PHOTO: Final = 0.3  # of a greyed photograph that shows through


def covered_box(size: tuple[int, int], side: int, border: int) -> Box:
    """The rows and columns of an image of `size` (height, width) that a map of `side` px covers
    which lacks `border` px at each side: the pixels whose centers lie inside.

    >>> covered_box((32, 512), side=256, border=16)
    (slice(2, 30, None), slice(32, 480, None))

    Raises:
        ValueError: nothing is left between the borders.
    """
    if not 0 <= 2 * border < side:
        raise ValueError(f"a border must lie in [0, {side}/2) for a map of {side} px, not {border}")
    rows, columns = (-((side - 2 * border * pixels) // (2 * side)) for pixels in size)
    return slice(rows, size[0] - rows), slice(columns, size[1] - columns)


def inside(size: tuple[int, int], box: Box) -> NDArray[np.bool_]:
    """A box as an array [H, W], true inside."""
    mask = np.zeros(size, dtype=np.bool_)
    mask[box] = True
    return mask


def extended(anomaly_map: NDArray[Any], border: int) -> NDArray[Any]:
    """A map [h, w] with its border filled from the nearest covered place, so that resizing does not
    mix what it says with what it does not."""
    if border == 0:
        return anomaly_map
    return np.pad(anomaly_map[border:-border, border:-border], border, mode="edge")


def greyed(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A picture [H, W, 3] whose pixels outside the box have lost their color and most of their
    contrast."""
    luma = picture.mean(axis=2, keepdims=True)
    flat = np.rint(_PHOTO * luma + (1 - _PHOTO) * GREY).astype(np.uint8)
    drawn: NDArray[np.uint8] = np.repeat(flat, 3, axis=2)
    drawn[box] = picture[box]
    return drawn


def in_words(side: int, border: int) -> str:
    """What a person has to know of such a map.

    >>> in_words(256, 16)[:70]
    'the map does not cover the outer 6.25 % of each side (16 of 256 px) an'
    """
    return (
        f"the map does not cover the outer {100 * border / side:.3g} % of each side ({border} of "
        f"{side} px) and says nothing about defects there (a method with the option --crop covers "
        "all with --crop none)"
    )
