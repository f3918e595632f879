"""The file tree that phase 1 writes and phase 2 reads, with the names of the original programs.

    run.json  manifest.csv            flags, versions, seed; fold, split, index, path, label, ...
    01/ 02/ ...
        phase1_model.safetensors      the reconstructor, complete
        phase1_history.csv            index, loss, val_loss
        Label.npz                     train, test: float32 0/1 in the order of the files
        maps.json                     what the maps are and how they are scaled; the last file
        {Input,Reconst,Anomap,GT}/{Train,Test}/000.png ...

Nothing is lost on the way: GT is the resized RGB image, Anomap the raw map as a 16-bit grey PNG
with code = round(65535 min(d / D, 1)), or as a float32 TIFF. Input and Reconst are previews.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from leanet.data.folds import Indices
from leanet.data.images import write_float_map, write_image, write_map
from leanet.data.scan import relative_name
from leanet.files import read_csv, replacing, write_csv
from leanet.ops.maps import PixelHistogram
from leanet.programs.folders import fold_name
from leanet.records import Fold, Sample

LABELS: Final = "Label.npz"
MAPS: Final = "maps.json"
MODEL: Final = "phase1_model.safetensors"
HISTORY: Final = "phase1_history.csv"
INPUT, RECONST, ANOMAP, GT = "Input", "Reconst", "Anomap", "GT"
TRAIN, TEST = "Train", "Test"
FULL_SCALE: Final = {"ciede2000": 150.0, "l1": 1.0, "l2": 1.0}  # D, in the unit of the map
SPLITS: Final = {TRAIN: "train", TEST: "test"}

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class MapFiles:
    """How maps are stored: as integers up to `full_scale`, or as floats."""

    dtype: Literal["uint16", "float32"]
    full_scale: float

    @property
    def bits(self) -> int:
        """Bits per pixel."""
        return 16 if self.dtype == "uint16" else 32

    def write(self, stem: Path, plane: NDArray[np.float32]) -> int:
        """Write a raw map [H, W]; returns the number of pixels that were clipped."""
        if self.dtype == "uint16":
            return write_map(stem.with_suffix(".png"), plane, self.full_scale)
        write_float_map(stem.with_suffix(".tiff"), plane)
        return 0


def stem(index: int) -> str:
    """Name of the file with this index, without its suffix.

    >>> stem(7), stem(1234)
    ('007', '1234')
    """
    return f"{index:03d}"


def write_pictures(
    folder: Path, split: str, first: Sequence[int], pictures: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Write RGB pictures [N, H, W, 3] by the name of their kind; `first` numbers the files."""
    jobs = [
        (folder / kind / split / f"{stem(index)}.png", image)
        for kind, images in pictures.items()
        for index, image in zip(first, images, strict=True)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: write_image(*job), jobs))


def write_labels(path: Path, train: Sequence[int], test: Sequence[int]) -> None:
    """Write `Label.npz`."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, train=np.asarray(train, np.float32), test=np.asarray(test, np.float32))


def manifest(
    samples: Sequence[Sample], folds: Sequence[Fold], root: Path, prints: Sequence[str]
) -> Rows:
    """Every file of every fold: where it stands in the tree and where it comes from.

    `part` is the inner part of an out-of-fold map; the map's model has not seen that part.
    """
    rows = []
    for number, fold in enumerate(folds, start=1):
        part_of = {index: k for k, part in enumerate(fold.parts) for index in part}
        for split, indices in ((TRAIN, fold.train), (TEST, fold.test)):
            for position, index in enumerate(indices):
                sample = samples[index]
                row = {
                    "fold": fold_name(number),
                    "split": SPLITS[split],
                    "index": stem(position),
                    "path": relative_name(sample.path, root),
                    "label": sample.label,
                    "group": sample.group or "",
                    "sha256": prints[index],
                }
                rows.append(row | ({"part": part_of.get(index, "")} if fold.parts else {}))
    return rows


def keep_manifest(path: Path, rows: Rows) -> None:
    """Write `manifest.csv`, or check that the one that is there says the same.

    Raises:
        ValueError: the data set has changed since.
    """
    if not path.exists():
        write_csv(path, rows)
        return
    before = read_csv(path)
    now = [{key: str(value) for key, value in row.items()} for row in rows]
    if before != now:
        known = {tuple(row.values()) for row in before}
        differing = [row for row in now if tuple(row.values()) not in known]
        raise ValueError(
            f"the data set is not the one that {path} tells of ({len(before)} rows before, "
            f"{len(now)} now, {len(differing)} new or changed"
            f"{', e.g. ' + differing[0]['path'] if differing else ''}); "
            "use --overwrite with all folds, or another --save_path"
        )


def positions(indices: Indices) -> dict[int, int]:
    """Sample -> number of its files."""
    return {index: position for position, index in enumerate(indices)}


def ratio(test: PixelHistogram, train: PixelHistogram, q: float = 0.999) -> float | None:
    """Quantile of the test normals' pixels over that of the training normals': 1 = the maps of
    training images flatter nobody. None where it cannot be told."""
    above, below = test.quantile(q), train.quantile(q)
    return finite_or_none(above / below) if below > 0 else None


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
