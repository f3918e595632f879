"""Trees of the older program: folders 0..4 with RGB.npz, Attention.npz and Label.npz.

`arr_0` trains, `arr_1` tests: images [N, H, W, 3] in [0, 1] (or 0..255 as integers), maps
[N, H, W, 1] >= 0, labels [N]. Its arrays hold a whole data set as floats; they are read row by row
here and written as a tree of images and maps that phase 2 reads like any other.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from leanet.data.images import write_float_map, write_image
from leanet.files import write_json
from leanet.ops.maps import PixelHistogram, scale_from
from leanet.programs.trees import ANOMAP, GT, LABELS, MAPS, TEST, TRAIN, ratio, stem, write_labels
from leanet.progress import Progress
from leanet.records import NORMAL

MEMBERS: Final = {TRAIN: "arr_0.npy", TEST: "arr_1.npy"}
READABLE: Final = "fiub"  # kinds of numbers; anything else could be objects
HEADROOM: Final = 4.0
QUANTILE: Final = 0.999


def convert(folder: Path, out: Path) -> None:
    """Write one fold folder of the older program as a fold folder of ours, unless `out` is one.

    Maps are scaled by the training normals, as ours are, not each by its own maximum.

    Raises:
        ValueError: a missing or damaged file, arrays of other shapes, or of anything but numbers.
    """
    if (out / MAPS).exists():
        return
    labels = {split: _labels(folder / LABELS, member) for split, member in MEMBERS.items()}
    normals = {split: PixelHistogram() for split in MEMBERS}
    for split in MEMBERS:
        member, number = MEMBERS[split], len(labels[split])
        rows = zip(
            _rows(folder / "RGB.npz", member, number, 3),
            _rows(folder / "Attention.npz", member, number, 1),
            labels[split],
            strict=True,
        )
        with Progress(f"converting {folder} {split}", total=number) as bar:
            for index, (image, plane, label) in enumerate(rows):
                write_image(out / GT / split / f"{stem(index)}.png", _to_8_bit(image))
                raw = np.array(plane[..., 0], dtype=np.float32)
                write_float_map(out / ANOMAP / split / f"{stem(index)}.tiff", raw)
                if label == NORMAL:
                    normals[split].add(torch.from_numpy(raw))
                bar.advance()
    write_labels(out / LABELS, labels[TRAIN], labels[TEST])
    write_json(out / MAPS, _facts(folder, normals))


def _facts(folder: Path, normals: dict[str, PixelHistogram]) -> dict[str, Any]:
    scale = scale_from(normals[TRAIN], QUANTILE, HEADROOM)
    return {
        "metric": "as the older program computed it",
        "unit": "of the older program",
        "D": 1.0,
        "bits": 32,
        "s": scale.divisor,
        "q": QUANTILE,
        "h": HEADROOM,
        "map_mode": "in_sample",
        "normal_quantile_ratio": ratio(normals[TEST], normals[TRAIN]),
        "from": str(folder),
    }


def _rows(path: Path, member: str, number: int, channels: int) -> Iterator[NDArray[Any]]:
    """The `number` rows [H, W, channels] of an array in an npz file, one at a time."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    with archive:
        try:
            with archive.open(member) as file:
                shape, dtype = _header(file)
                if shape[0] != number:
                    raise ValueError(f"it has {shape[0]} rows, and there are {number} labels")
                if len(shape) == 3 and channels == 1:
                    shape = (*shape, 1)
                if len(shape) != 4 or shape[3] != channels:
                    raise ValueError(f"shape {list(shape)} is not [N, H, W, {channels}]")
                yield from _read_rows(file, shape, dtype)
        except (KeyError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot read {member} of {path}: {error}") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, column_major, dtype = read(file)
    if dtype.kind not in READABLE or column_major:
        raise ValueError(f"arrays of numbers in row order are read, not {dtype}")
    return shape, dtype


def _read_rows(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    num_bytes = dtype.itemsize * int(np.prod(shape[1:]))
    for _ in range(shape[0]):
        data = file.read(num_bytes)
        if len(data) < num_bytes:
            raise ValueError("the array ends early")
        yield np.frombuffer(data, dtype).reshape(shape[1:])


def _labels(path: Path, member: str) -> list[int]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = np.asarray(arrays[Path(member).stem]).reshape(-1)
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    return [int(value) for value in values]


def _to_8_bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in [0, 1] or integers in 0..255 -> uint8."""
    full = 1.0 if image.dtype.kind in "iub" else 255.0
    return np.rint(np.clip(image * full, 0, 255)).astype(np.uint8)
