"""Arrays as pictures inside a page: fixed color scales, overlays, data URIs.

Every scale here has two given ends. None is taken from the single picture, for stretching each
map over its own range makes the noise of a normal image look like a defect. The color maps
(inferno, viridis, cividis) are perceptually uniform: equal steps of the value look equal.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from leanet.ops.colormap import colored

Plane = NDArray[np.floating[Any]]
RGB = NDArray[np.uint8]

MAP_COLORS, ATTENTION_COLORS, FEATURE_COLORS = "inferno", "viridis", "cividis"
SIGNED_COLORS = "signed"  # of leanet.ops.colormap
MOST_PIXELS = 192  # side of a picture in the page; larger ones are reduced
OPACITY = 0.75  # of an overlay at the upper end of its scale
JPEG_QUALITY = 85
TINT = 0.55  # opacity of colors that show low values too
OUTLINE_COLOR = (0, 255, 255)  # of masks: not a color of the maps
SIDE_PER_OUTLINE_PIXEL = 96


def colorize(plane: Plane, low: float, high: float, colors: str) -> RGB:
    """Values [H, W] as colors [H, W, 3]; `low` and less get the first color, `high` and more the
    last. Equal ends give the first color everywhere."""
    span = high - low
    share = np.clip((plane - low) / span, 0, 1) if span > 0 else np.zeros_like(plane)
    return np.asarray(colormaps[colors](share, bytes=True)[..., :3])


def overlay(image: RGB, plane: Plane, top: float) -> RGB:
    """A map [H, W] >= 0 over its image [H, W, 3]: the higher, the more opaque; 0 is clear."""
    opacity = OPACITY * np.sqrt(np.clip(plane / top, 0, 1))[..., None]
    mixed = (1 - opacity) * image + opacity * colorize(plane, 0, top, MAP_COLORS)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def tinted(image: RGB, plane: Plane, low: float, high: float, colors: str) -> RGB:
    """A small plane [h, w], enlarged bilinearly, over its image [H, W, 3], equally opaque
    everywhere."""
    size = image.shape[1], image.shape[0]
    large = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    mixed = (1 - TINT) * image + TINT * colorize(np.asarray(large), low, high, colors)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def outlined(picture: RGB, inside: NDArray[Any]) -> RGB:
    """A picture [H, W, 3] with a line around a region [H, W], nonzero inside, just outside it."""
    width = max(1, round(min(inside.shape) / SIDE_PER_OUTLINE_PIXEL))
    inner = inside.astype(bool)
    ring = ndimage.binary_dilation(inner, np.ones((3, 3), dtype=bool), iterations=width) & ~inner
    drawn = picture.copy()
    drawn[ring] = OUTLINE_COLOR
    return drawn


def to_rgb(image: NDArray[Any]) -> RGB:
    """Channels first [3, H, W], uint8 or in [0, 1], to uint8 [H, W, 3]."""
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def photo_uri(picture: RGB) -> str:
    """A data URI (JPEG) of a picture [H, W, 3], at most `MOST_PIXELS` wide and high."""
    image = Image.fromarray(picture)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    return jpeg_uri(np.asarray(image))


def jpeg_uri(picture: RGB) -> str:
    """A data URI (JPEG) of a picture [H, W, 3], as large as it is."""
    image, file = Image.fromarray(picture), io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _uri("jpeg", file)


def exact_uri(picture: RGB) -> str:
    """A data URI (PNG) of a small picture [H, W, 3], every pixel as it is."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return _uri("png", file)


def gradient(colors: str, steps: int = 16) -> str:
    """The color map as a CSS gradient from left to right.

    >>> gradient("gray", steps=2)
    'linear-gradient(to right, rgb(0 0 0), rgb(255 255 255))'
    """
    shares = np.linspace(0, 1, steps)
    if colors == SIGNED_COLORS:
        stops = colored(shares, colors).tolist()
    else:
        stops = colormaps[colors](shares, bytes=True)[:, :3].tolist()
    listed = ", ".join("rgb({} {} {})".format(*stop) for stop in stops)
    return f"linear-gradient(to right, {listed})"


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
