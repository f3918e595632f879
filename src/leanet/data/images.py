"""Pixels in and out: the only file of the package that reads or writes images.

Whatever a camera, a scanner or a colleague saved becomes one thing, an 8-bit RGB array [H, W, 3]:

* the EXIF orientation is applied, so that the array is what an image viewer shows;
* 16-bit grey is scaled by its full scale (65535 -> 255). Pillow's own `convert("RGB")` clips it
  instead, which turns everything above 255 white;
* float grey is taken as [0, 1]; 32-bit integers as 16-bit values in a wider box;
* alpha is dropped as OpenCV and torchvision do, so transparent pixels keep their stored color;
* palettes, CMYK, YCbCr and 1-bit images are converted; of several frames the first is read.

Files are told by content, not by name, and only the formats of `FORMATS` are decoded. Anything that
cannot be read completely is an `UnreadableImageError`: no half image ever passes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from leanet.files import replacing

FORMAT_OF_SUFFIX: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
IMAGE_SUFFIXES: Final = frozenset(FORMAT_OF_SUFFIX)
FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
MAX_PIXELS: Final = 100_000_000  # width x height; a small file can unpack to gigabytes
_FULL_16_BIT: Final = 65535
_ORIENTATION: Final = 0x0112  # EXIF tag
_TURNED: Final = frozenset({5, 6, 7, 8})  # its values that swap width and height


class UnreadableImageError(ValueError):
    """An image file that cannot be used: `path` says which, `reason` why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read the image {self.path}: {self.reason}"


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB [H, W, 3] in 0..255, upright.

    Raises `UnreadableImageError` if the file is missing, damaged, truncated, of another format,
    larger than `MAX_PIXELS`, or holds float or 32-bit values outside the ranges named above.
    """
    with _decoded(path) as image:
        return _rgb(path, image)


def decode_image(
    data: bytes, name: str = "image", *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """The bytes of an image file as RGB [H, W, 3], exactly as `read_image` gives the file.

    Raises `UnreadableImageError`, whose `path` is `name`, as `read_image` does; for more than
    `max_pixels` before anything is unpacked.
    """
    path = Path(name)
    with _decoded(path, data, max_pixels) as image:
        return _rgb(path, image)


def suffix_of(data: bytes) -> str:
    """The usual file suffix of the bytes of an image file, told by content: ".png", ".jpg", ...

    Reads the header only. Raises `UnreadableImageError`.
    """
    path = Path("image")
    with _decoding(path, data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        named = "JPEG" if image.format == "MPO" else image.format
        return next(suffix for suffix, known in FORMAT_OF_SUFFIX.items() if known == named)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """RGB [H, W, 3] as the bytes of a PNG file, packed fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_thumbnail(image: NDArray[np.uint8], side: int) -> bytes:
    """RGB [H, W, 3] as the bytes of a JPEG file, made smaller if a side is longer than `side`, with
    its aspect ratio."""
    small, buffer = Image.fromarray(image), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    small.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def read_mode(path: Path) -> str:
    """How the file stores a pixel, in Pillow's words: RGB, L (grey), I;16, P (palette), CMYK, ...

    Reads the header only. Raises `UnreadableImageError`.
    """
    with _decoding(path), Image.open(path, formats=FORMATS) as image:
        return image.mode


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) that `read_image` would give, for less work where the header tells it.
    Raises `UnreadableImageError`."""
    with _decoding(path), Image.open(path, formats=FORMATS) as image:
        if image.getexif().get(_ORIENTATION, 1) not in _TURNED:
            return image.height, image.width
    with _decoded(path) as image:  # the decoders do not agree on who turns the size
        return image.height, image.width


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A ground truth mask as [H, W], True = anomalous.

    Lossless files: any value but 0 (and, with an alpha channel, not fully transparent). JPEG blurs
    the borders of a mask, so there a pixel counts from the middle of the range on (> 127).
    Raises `UnreadableImageError`.
    """
    with _decoded(path) as image:
        if image.format in {"JPEG", "MPO"}:
            return np.asarray(image.convert("L"), dtype=np.uint8) > 127
        if image.mode in {"1", "L", "I", "F"} or image.mode.startswith("I;16"):
            return np.asarray(image).astype(bool)
        rgba = np.asarray(_with_alpha(image).convert("RGBA"), dtype=np.uint8)
        marked: NDArray[np.bool_] = rgba[..., :3].any(axis=-1) & (rgba[..., 3] > 0)
        return marked


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """RGB [H, W, 3] -> [size, size, 3], bilinear, with antialiasing where it shrinks.

    The aspect ratio is not kept. An image of that size already comes back as a copy.
    """
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes RGB [H, W, 3] or grey [H, W] in the format that the suffix names, atomically.

    PNG, TIFF and BMP are lossless. Raises `ValueError` for another array or an unknown suffix.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"write_image takes uint8 [H, W, 3] or [H, W], not {image.dtype} {list(image.shape)}"
        )
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{path} does not name an image format; allowed suffixes: {allowed}")
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format=FORMAT_OF_SUFFIX[path.suffix.lower()])


def write_map(path: Path, anomaly_map: NDArray[np.float32], full_scale: float) -> int:
    """Writes a map [H, W] >= 0 as a 16-bit grey PNG, code = round(65535 min(d / full_scale, 1)).

    Returns the number of pixels above `full_scale`, which were clipped. The step is
    full_scale / 65535; `full_scale` is not stored in the file. The file is replaced atomically.
    Raises `ValueError` for a negative or non-finite map and for a full scale that is not positive.
    """
    if anomaly_map.ndim != 2 or not np.isfinite(anomaly_map).all() or (anomaly_map < 0).any():
        raise ValueError(
            f"{path}: a map to write is [H, W], finite and not negative; this one has shape "
            f"{list(anomaly_map.shape)}, {np.isnan(anomaly_map).sum()} NaN and "
            f"{(anomaly_map < 0).sum()} negative pixels"
        )
    relative = anomaly_map.astype(np.float64) / _positive(full_scale)
    codes = np.rint(_FULL_16_BIT * np.minimum(relative, 1)).astype(np.uint16)
    with replacing(path) as temporary:
        Image.fromarray(codes).save(temporary, format="PNG")
    return int((relative > 1).sum())


def read_map(path: Path, full_scale: float) -> NDArray[np.float32]:
    """A map [H, W] written by `write_map` with the same `full_scale`.

    Raises `UnreadableImageError` if the file is no 16-bit grey image.
    """
    with _decoded(path) as image:
        if image.mode != "I" and not image.mode.startswith("I;16"):
            raise UnreadableImageError(path, f"a map is 16-bit grey, this file is {image.mode}")
        codes = np.asarray(image).astype(np.float64)
    return (codes * (_positive(full_scale) / _FULL_16_BIT)).astype(np.float32)


def write_float_map(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Writes a map [H, W] as a float32 TIFF, bit by bit, atomically."""
    with replacing(path) as temporary:
        Image.fromarray(anomaly_map.astype(np.float32)).save(temporary, format="TIFF")


def read_float_map(path: Path) -> NDArray[np.float32]:
    """A map [H, W] written by `write_float_map`.

    Raises `UnreadableImageError` if the file is no float grey image.
    """
    with _decoded(path) as image:
        if image.mode != "F":
            raise UnreadableImageError(path, f"a map is float grey, this file is {image.mode}")
        return np.array(image, dtype=np.float32)


def read_grey(path: Path) -> NDArray[np.float32]:
    """Any image as grey [H, W] in [0, 1], with the 16 bits of a file that has them; colors count
    by their luma. Raises `UnreadableImageError`.
    """
    with _decoded(path) as image:
        if image.mode == "I" or image.mode.startswith("I;16"):
            return (np.asarray(image) / _FULL_16_BIT).astype(np.float32)
        grey = np.asarray(_with_alpha(image).convert("L"))
        return (grey / 255).astype(np.float32)


@contextmanager
def _decoded(
    path: Path, data: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """The upright image of a file, or of the `data` of one, with all its pixels in memory."""
    source = path if data is None else io.BytesIO(data)
    with _decoding(path, data), Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise UnreadableImageError(
                path, f"{image.width}x{image.height} pixels are more than the limit {max_pixels:,}"
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        yield image


@contextmanager
def _decoding(path: Path, data: bytes | None = None) -> Iterator[None]:
    """Turns whatever a decoder raises on a damaged file (nearly anything) into one error."""
    try:
        yield
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError(path, "there is no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"more pixels than the limit {MAX_PIXELS:,} ({error})"
        raise UnreadableImageError(path, reason) from error
    except UnidentifiedImageError as error:
        empty = not (path.stat().st_size if data is None else data)
        reason = "the file is empty" if empty else f"not one of {', '.join(FORMATS)}, or damaged"
        raise UnreadableImageError(path, reason) from error
    except Exception as error:
        raise UnreadableImageError(path, f"{error} ({type(error).__name__})") from error


def _rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        return _grey_to_rgb(path, np.asarray(image), full_scale=1.0)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey_to_rgb(path, np.asarray(image), full_scale=_FULL_16_BIT)
    return np.array(_with_alpha(image).convert("RGB"))


def _with_alpha(image: Image.Image) -> Image.Image:
    """RGBA where Pillow cannot go to RGB in one step: palettes with alpha, premultiplied colors."""
    return image.convert("RGBA") if image.mode in {"P", "PA", "RGBa"} else image


def _grey_to_rgb(path: Path, grey: NDArray[Any], *, full_scale: float) -> NDArray[np.uint8]:
    """Grey [H, W] in 0..full_scale -> RGB [H, W, 3]; anything outside is refused, not clipped."""
    low, high = float(grey.min()), float(grey.max())
    if not 0 <= low <= high <= full_scale:  # also false for NaN
        raise UnreadableImageError(
            path, f"grey values from {low:g} to {high:g}; allowed are 0 to {full_scale:g}"
        )
    codes = np.rint(grey * (255.0 / full_scale)).astype(np.uint8)
    return np.repeat(codes[..., None], 3, axis=-1)


def _positive(full_scale: float) -> float:
    if not 0 < full_scale < float("inf"):
        raise ValueError(f"full_scale must be positive and finite, not {full_scale}")
    return full_scale
