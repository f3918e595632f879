"""An anomaly map laid over its picture, so that a person sees where and still sees what.

Three decisions make heat maps comparable from one picture to the next. The scale is *fixed*: from
`low` to `top` in every picture, for stretching each map over its own
range would make the noise of a normal picture look like a defect. The colors are *perceptually
uniform* (inferno; van der Walt & Smith 2015, https://bids.github.io/colormap), so that equal steps
of the map look equally far apart, also in grey print and to color-blind eyes. And the *opacity*
grows with the value, slowly at first, so that what is normal stays as it was photographed.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from leanet.ops.covered import covered_box, extended, greyed, inside
from leanet.ops.maps import resize

MAP_TOP: Final = 30.0  # dE00, a difference between plainly different colors
OPACITY: Final = 0.8  # at `top`; below 1 the picture shows through everywhere
_LEVELS: Final = 1024  # steps from 0 to top: finer than 8-bit color shows
_ROWS: Final = 256  # blended at a time, so that a large picture needs little more than itself
_FIRST_COLOR: Final = 0.35  # where in inferno the scale begins: the colors before are dark
_CONTOUR_COLOR: Final = (0, 255, 255)  # not a color of inferno
_SIDE_PER_CONTOUR_PIXEL: Final = 256


def overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
    *,
    top: float = MAP_TOP,
    low: float = 0.0,
    contour: float | None = None,
    border: int = 0,
) -> NDArray[np.uint8]:
    """RGB picture [H, W, 3] under a map [h, w], as [H, W, 3] at the picture's own resolution.

    The map is resized bilinearly. Values up to `low` leave the picture as it is, `top` and more get
    the last color at the highest opacity. With `contour`, a line encloses the pixels whose value is
    at least that. Of a square map the outer `border` pixels say nothing: there the picture is grey.
    Raises `ValueError` for other shapes or types, a map that is not finite, and a `top` that is not
    above `low`.
    """
    _check(image, anomaly_map, low, top)
    height, width = image.shape[:2]
    whole = np.ascontiguousarray(extended(anomaly_map, border), dtype=np.float32)
    planes = torch.from_numpy(whole)[None, None]
    values: NDArray[np.float32] = resize(planes, (height, width))[0, 0].numpy()
    blended = image.copy()
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        blended[rows] = _blend(image[rows], (values[rows] - low) / (top - low))
    box = covered_box((height, width), len(anomaly_map), border)
    if border:
        blended = greyed(blended, box)
    if contour is not None:
        found = (values >= contour) & inside((height, width), box)
        blended[_outline(found)] = _CONTOUR_COLOR
    return blended


def _blend(image: NDArray[np.uint8], share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Picture [H, W, 3] under shares of the scale [H, W]; those outside [0, 1] are clipped."""
    level = (np.clip(share, 0, 1) * (_LEVELS - 1) + 0.5).astype(np.uint16)
    tint, keep = _tables()
    mixed: NDArray[np.float32] = image * keep[level]
    mixed += tint[level]
    return (mixed + 0.5).astype(np.uint8)


@functools.cache
def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per level: the color times its opacity [L, 3] in 0..255, and what is left of the picture
    [L, 1] in 0..1."""
    from matplotlib import colormaps  # only when a picture is drawn

    share = np.linspace(0, 1, _LEVELS)
    color = 255 * colormaps["inferno"](_FIRST_COLOR + (1 - _FIRST_COLOR) * share)[:, :3]
    opacity = OPACITY * (share**2 * (3 - 2 * share))[:, None]
    return (opacity * color).astype(np.float32), (1 - opacity).astype(np.float32)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The outer pixels of the regions, some more of them in a larger picture."""
    width = max(1, math.ceil(min(inside.shape) / _SIDE_PER_CONTOUR_PIXEL))
    core = ndimage.binary_erosion(inside, iterations=width, border_value=1)
    outline: NDArray[np.bool_] = inside & ~core
    return outline


def _check(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.floating[Any]], low: float, top: float
) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or anomaly_map.ndim != 2:
        raise ValueError(
            f"overlay takes a picture uint8 [H, W, 3] and a map [h, w], not {image.dtype} "
            f"{list(image.shape)} and {list(anomaly_map.shape)}"
        )
    if not np.isfinite(anomaly_map).all():
        raise ValueError(f"{np.sum(~np.isfinite(anomaly_map))} pixels of the map are not finite")
    if not 0 <= low < top < math.inf:
        raise ValueError(
            f"the map values of the first and the last color must be 0 <= low < top, not {low} and "
            f"{top}"
        )
