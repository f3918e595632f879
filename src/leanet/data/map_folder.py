"""Anomaly maps that somebody else has drawn: one file per image, in a folder like the images'.

The map of `Negative/001.jpg` is `Negative/001.jpg.png` or `Negative/001.png` below the folder of
maps, or the same with another image suffix, in upper or lower case; the first one that is there
counts, in the order of `SUFFIXES`. A file of floats holds the map itself. Files of integers (8 or
16 bits, colors count by their luma) hold shares of a full scale, which `maps.json` at the top of
the folder may tell: {"full_scale": 150, "unit": "dE00"}; without it the full scale is 1. A box
"valid": [left, top, right, bottom] there says that maps say nothing beyond it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leanet.data.cache import READER_THREADS
from leanet.data.images import UnreadableImageError, read_float_map, read_grey, read_mode
from leanet.data.scan import relative_name
from leanet.files import read_json, replacing, reserve, write_json
from leanet.progress import Progress

FACTS: Final = "maps.json"
SUFFIXES: Final = (".tiff", ".tif", ".png", ".bmp", ".webp", ".jpg", ".jpeg")  # exact ones first
_LISTED: Final = 5


class MapFolder(NamedTuple):
    """A folder of maps: the value of the brightest integer, its unit, and the share of each side
    at whose ends the maps say nothing."""

    path: Path
    full_scale: float
    unit: str
    border: float = 0.0


def open_map_folder(path: Path, full_scale: float = 1.0, unit: str = "given") -> MapFolder:
    """A folder with what its `maps.json` says; what that does not say is as given here.

    Raises `ValueError` if there is no such folder, or a full scale that is not positive.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is no folder of maps; give a folder or a run of leanet")
    file = path / FACTS
    facts = read_json(file) if file.exists() else {}
    full_scale = float(facts.get("full_scale", facts.get("D", full_scale)))
    if not 0 < full_scale < math.inf:
        raise ValueError(f"{file}: full_scale is {full_scale}; it must be positive and finite")
    return MapFolder(path, full_scale, str(facts.get("unit", unit)), _border(file, facts))


def _border(file: Path, facts: Mapping[str, Any]) -> float:
    """The share of a side before the valid box, which lies in the middle."""
    if "valid" not in facts:
        return 0.0
    box = [float(end) for end in facts["valid"]]
    if len(box) != 4 or not 0 <= box[0] == box[1] < box[2] == box[3]:
        raise ValueError(
            f"{file}: valid is {facts['valid']}; give [left, top, right, bottom] of a square in "
            "the middle of the maps, or leave it out"
        )
    return box[0] / (box[0] + box[2])


def find_maps(folder: MapFolder, images: Sequence[Path], root: Path) -> list[Path]:
    """The map of each image; `root` is the folder that the images' relative paths begin at.

    Images elsewhere have their map below their whole path, without the leading slash.

    Raises `ValueError` if maps are missing (names them), or if one map would serve two images.
    """
    own = {image.absolute() for image in images}  # an image is not its own map
    files = {
        file.relative_to(folder.path).as_posix().casefold(): file
        for file in sorted(folder.path.rglob("*"))
        if file.suffix.lower() in SUFFIXES and file.absolute() not in own
    }
    places = [_place(image, root) for image in images]
    found = [_first(files, place) for place in places]
    missing = [place.as_posix() for place, path in zip(places, found, strict=True) if path is None]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ValueError(
            f"{folder.path} lacks the maps of {len(missing)} of {len(images)} images: "
            f"{', '.join(missing[:_LISTED])}{more}.\nThe map of a/b.jpg is a/b.png below that "
            f"folder, or with another of {', '.join(SUFFIXES)}."
        )
    paths = [path for path in found if path is not None]
    _refuse_shared(folder.path, places, paths)
    return paths


def read_given_map(path: Path, full_scale: float) -> NDArray[np.float32]:
    """A map file as [H, W] >= 0.

    Raises `UnreadableImageError`, also for floats that are negative or not finite.
    """
    if read_mode(path) != "F":
        return read_grey(path) * np.float32(full_scale)
    plane = read_float_map(path)
    if not np.isfinite(plane).all() or (plane < 0).any():
        raise UnreadableImageError(path, "a map must be finite and >= 0 everywhere")
    return plane


def cache_maps(paths: Sequence[Path], full_scale: float, size: int, folder: Path) -> Any:
    """All maps at `size` x `size` (bilinear, with antialiasing), float32 [N, 1, S, S], in a memory
    map; the file of an earlier call with the same maps is used again.

    Raises `UnreadableImageError` for the first map that cannot be read.
    """
    file = folder / f"given-maps-{size}.f32"
    key, shape = _key(paths, full_scale), (len(paths), 1, size, size)
    facts = file.with_suffix(".json")
    if not (file.exists() and facts.exists() and read_json(facts)["key"] == key):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            reserve(temporary, 4 * math.prod(shape))
            _read_into(np.memmap(temporary, np.float32, "r+", shape=shape), paths, full_scale)
        write_json(facts, {"key": key, "shape": shape})
    return np.memmap(file, np.float32, "r", shape=shape)


def resize_map(plane: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A map [H, W] -> [size, size], bilinear, with antialiasing where it shrinks."""
    return np.array(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))


def _read_into(target: np.ndarray[Any, Any], paths: Sequence[Path], full_scale: float) -> None:
    def read(index: int) -> None:
        plane = read_given_map(paths[index], full_scale)
        target[index, 0] = resize_map(plane, target.shape[-1])

    with (
        ThreadPoolExecutor(READER_THREADS) as pool,
        Progress("reading maps", total=len(paths)) as bar,
    ):
        for _ in pool.map(read, range(len(paths))):
            bar.advance()


def _place(image: Path, root: Path) -> PurePath:
    """Where the map of an image lies in the folder of maps, with the suffix of the image."""
    plain = (Path(os.path.normpath(path.absolute())) for path in (image, root))
    name = PurePath(relative_name(*plain))
    return name.relative_to(name.anchor)


def _first(files: Mapping[str, Path], place: PurePath) -> Path | None:
    """The longer name first: a.jpg.png is the map of a.jpg alone, a.png could be that of a.bmp."""
    names = [place.with_name(place.name + suffix) for suffix in SUFFIXES]
    names += [place.with_suffix(suffix) for suffix in SUFFIXES]
    keys = (name.as_posix().casefold() for name in names)
    return next((files[key] for key in keys if key in files), None)


def _refuse_shared(folder: Path, places: Sequence[PurePath], paths: Sequence[Path]) -> None:
    users: dict[Path, list[str]] = defaultdict(list)
    for place, path in zip(places, paths, strict=True):
        users[path].append(place.as_posix())
    shared = [names for names in users.values() if len(names) > 1]
    if shared:
        raise ValueError(
            f"{folder} has one map for {' and '.join(shared[0])}; call the maps "
            f"{', '.join(PurePath(name).name + '.png' for name in shared[0])}"
        )


def _key(paths: Sequence[Path], full_scale: float) -> str:
    digest = hashlib.sha256(f"{full_scale}\n".encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
