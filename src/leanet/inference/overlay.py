"""An explanation laid over its picture: the more evidence, the more opaque.

An opaque overlay hides the very color that a color anomaly consists of. So the opacity grows with
the value, from 0 where there is none to `alpha` at the end of the scale, and a pixel without
evidence is the photograph, bit by bit. Signed maps show evidence for the class in red and against
it in blue, both by their size. The photograph is never stretched in contrast.

`blend="flat"` with `cmap="jet"` is the look of older programs: the same opacity everywhere.

The scale comes from the caller. With `run_scale`, taken once from many images, a normal picture
stays dark; a map scaled to itself shows a bright spot in every picture, also where nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from leanet.ops.colormap import colored
from leanet.ops.maps import PixelHistogram, resize

Blend = Literal["value", "flat"]
ScaleMode = Literal["run", "fixed", "image", "pair"]

ALPHA: Final = 0.6
RUN_QUANTILE: Final = 0.995
CONTOUR_COLOR: Final = (0, 255, 255)  # not a color of inferno, and far from the signed table's
_SIDE_PER_CONTOUR_PIXEL: Final = 256


class PictureScale(NamedTuple):
    """The map value of the last color, and in words where it comes from."""

    top: float
    words: str


def overlay(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating[Any]],
    *,
    scale: float,
    signed: bool = False,
    cmap: str | None = None,
    alpha: float = ALPHA,
    blend: Blend = "value",
) -> NDArray[np.uint8]:
    """RGB picture [H, W, 3] under a map [h, w], as [H, W, 3] at the picture's own resolution.

    The map is resized bilinearly; `scale` is the value (if `signed` also its negative) of the last
    color. Unsigned maps show positive values only. Without `cmap` they get inferno, signed ones
    blue - grey - red. Raises ValueError for other shapes or types, a map that is not finite, a
    scale that is not positive, an `alpha` outside [0, 1], or an unknown blend or table.
    """
    _check(image, heat, scale)
    if not 0 <= alpha <= 1 or blend not in get_args(Blend):
        raise ValueError(
            f"alpha must lie in [0, 1] and blend be one of {get_args(Blend)}, not {alpha} and "
            f"{blend!r}"
        )
    share = upsampled(heat, (image.shape[0], image.shape[1])) / scale
    evidence = np.clip(np.abs(share) if signed else share, 0, 1)
    color = colored(0.5 + share / 2 if signed else share, cmap or default_table(signed))
    opacity = np.float32(alpha) * (evidence if blend == "value" else np.ones_like(evidence))
    mixed = image + opacity[..., None] * (color.astype(np.float32) - image)
    drawn: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return drawn


def default_table(signed: bool) -> str:
    """The color table for signed or for non-negative maps."""
    return "signed" if signed else "inferno"


def upsampled(heat: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] at (H, W), bilinear."""
    planes = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))[None, None]
    values: NDArray[np.float32] = resize(planes, size)[0, 0].numpy()
    return values


def outlined(
    image: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    color: tuple[int, int, int] = CONTOUR_COLOR,
) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with a line along the border of a region [H, W], just outside it, so
    that a region of a few pixels stays visible. Raises ValueError for another size."""
    if image.shape[:2] != inside.shape:
        raise ValueError(
            f"picture and region must have one size, not {list(image.shape)} and "
            f"{list(inside.shape)}"
        )
    width = max(1, math.ceil(min(inside.shape) / _SIDE_PER_CONTOUR_PIXEL))
    ring = ndimage.binary_dilation(inside, np.ones((3, 3), dtype=bool), iterations=width) & ~inside
    drawn = image.copy()
    drawn[ring] = color
    return drawn


def contoured(
    image: NDArray[np.uint8], heat: NDArray[np.floating[Any]], level: float
) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with a line around the places where a map [h, w] is at least `level`;
    laid over an overlay, it says where a stated value is reached."""
    return outlined(image, upsampled(heat, (image.shape[0], image.shape[1])) >= level)


def run_scale(maps: Iterable[Tensor], quantile: float = RUN_QUANTILE) -> float:
    """The scale of a run: that quantile of the absolute values of all maps, any shapes; 1 if all of
    them are 0. In constant memory. Raises ValueError without a pixel."""
    pixels = PixelHistogram()
    for heat in maps:
        pixels.add(heat.detach().abs().float())
    if not pixels.counts.any():
        raise ValueError("the scale of a run needs at least one map, got none")
    return pixels.quantile(quantile) or pixels.quantile(1.0) or 1.0


def parse_scale(text: str) -> tuple[ScaleMode, float | None]:
    """`run`, `image`, `pair`, or `fixed:V` with its value.

    >>> parse_scale("fixed:2.5"), parse_scale("run")
    (('fixed', 2.5), ('run', None))

    Raises:
        ValueError: anything else, or a V that is not positive and finite.
    """
    mode, colon, value = text.partition(":")
    if mode == "fixed" and colon:
        try:
            top = float(value)
        except ValueError:
            top = math.nan
        if 0 < top < math.inf:
            return "fixed", top
    elif not colon and mode in ("run", "image", "pair"):
        return ("run" if mode == "run" else "image" if mode == "image" else "pair"), None
    raise ValueError(
        f"scale {text!r} is unknown: allowed are run, image, pair, and fixed:V with a number V > 0"
    )


def picture_scale(
    mode: ScaleMode, value: float | None, heats: Iterable[NDArray[np.floating[Any]]]
) -> PictureScale:
    """The scale of a picture. `value` is that of the run, or the fixed one; `heats` are the maps
    shown: the one of the image, or both of a pair.

    >>> picture_scale("image", None, [np.array([[0.0, -3.0]])])
    PictureScale(top=3.0, words='scaled to itself')

    Raises:
        ValueError: no value where the mode needs one.
    """
    if mode in ("run", "fixed"):
        if value is None:
            raise ValueError(f"scale {mode!r} needs the value of the last color, got none")
        words = f"{100 * RUN_QUANTILE:g} % of |map| on validation images"
        return PictureScale(value, words if mode == "run" else "fixed scale")
    top = max((float(np.abs(heat).max()) for heat in heats), default=0.0) or 1.0
    return PictureScale(top, "scaled to itself" if mode == "image" else "one scale for the pair")


def _check(image: NDArray[np.uint8], heat: NDArray[np.floating[Any]], scale: float) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or heat.ndim != 2:
        raise ValueError(
            f"overlay takes a picture uint8 [H, W, 3] and a map [h, w], not {image.dtype} "
            f"{list(image.shape)} and {list(heat.shape)}"
        )
    if not np.isfinite(heat).all():
        raise ValueError(f"{np.sum(~np.isfinite(heat))} values of the map are not finite")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale, the map value of the last color, must be positive, not {scale}")
