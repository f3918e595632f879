"""What a folder or a table of images holds: samples in natural order, with labels, kinds and masks.

`scan` finds the files and leaves the meaning of their places to `leanet.data.layouts`. It opens no
image; `leanet.data.checks` does. The samples of a run are kept in its `samples.csv`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from leanet.config import nearest
from leanet.data.csv_layout import GROUPS_FILE, read_table, with_groups
from leanet.data.images import IMAGE_SUFFIXES
from leanet.data.layouts import LAYOUTS, recognize, refuse_normal
from leanet.files import read_csv, write_csv
from leanet.records import ANOMALOUS, NORMAL, Sample

SKIPPED_NAMES: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})  # and hidden files
RUN_FILES: Final = ("config.yaml", "environment.json")  # of a run, which is no data set


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A data set: `root` is the folder, or the folder of the CSV file."""

    root: Path
    layout: str  # a key of leanet.data.layouts.LAYOUTS
    samples: tuple[Sample, ...]
    ignored: tuple[Path, ...]  # files below root that are neither an image of a sample nor its mask


def scan(
    data: Path,
    *,
    normal: str | None = None,
    positives: int | None = None,
    seed: int = 0,
    normal_required: bool = True,
) -> Scan:
    """The samples of a folder in one of the known layouts, or of a CSV file.

    `normal` names the normal class of a folder-per-class layout. `positives` keeps that many
    anomalous samples, drawn with `seed` without regard to their kinds, as the LEA-Net paper draws
    its sets. Folder samples come in natural order (image2 before image10), those of a table in its
    order. Unless a normal class is required, all samples of a folder-per-class layout without one
    have the label NORMAL. Raises `ValueError` for a missing path, the folder of a run, an unknown
    layout, and data without images or without normal images.
    """
    if not data.exists():
        siblings = [entry.name for entry in data.parent.iterdir()] if data.parent.is_dir() else []
        raise ValueError(
            f"{data} does not exist{nearest(data.name, siblings)}; "
            "give a folder of images or a CSV file"
        )
    if all((data / name).is_file() for name in RUN_FILES):
        raise ValueError(
            f"{data} is the folder of a run, and images are asked for; to go on with that run, "
            f"give its images, and --out {data} --resume"
        )
    if data.is_dir():
        found = _scan_folder(data, normal, normal_required)
    else:
        found = _scan_table(data, normal)
    if not any(sample.label == NORMAL for sample in found.samples):
        raise ValueError(
            f"{data} ({found.layout}) has no normal images, only {len(found.samples)} anomalous "
            f"ones.\nNormal images belong into: {LAYOUTS[found.layout]}."
        )
    if positives is None:
        return found
    return Scan(
        root=found.root,
        layout=found.layout,
        samples=_draw_anomalous(found.samples, positives, seed),
        ignored=found.ignored,
    )


def natural_key(path: PurePath) -> tuple[object, ...]:
    """A sort key in which numbers count as numbers: image2 comes before image10.

    >>> sorted(map(PurePath, ["b/10.png", "b/9.png", "a/11.png"]), key=natural_key)[-1].name
    '10.png'
    """
    parts = (re.split(r"(\d+)", part.casefold()) for part in path.parts)
    numbered = tuple(
        tuple(int(piece) if odd % 2 else piece for odd, piece in enumerate(pieces))
        for pieces in parts
    )
    return numbered, path.parts


def write_samples_csv(path: Path, root: Path, samples: Sequence[Sample]) -> None:
    """Writes path, label, kind, mask, group, split; paths relative to `root`, with slashes.

    Files outside `root` keep their absolute path. The file is replaced atomically.
    """
    rows = [
        {
            "path": relative_name(sample.path, root),
            "label": sample.label,
            "kind": sample.kind,
            "mask": "" if sample.mask is None else relative_name(sample.mask, root),
            "group": sample.group or "",
            "split": sample.split or "",
        }
        for sample in samples
    ]
    write_csv(path, rows)


def read_samples_csv(path: Path, root: Path) -> tuple[Sample, ...]:
    """The samples that `write_samples_csv` wrote, below `root`."""
    return tuple(
        Sample(
            path=root / row["path"],
            label=int(row["label"]),
            kind=row["kind"],
            mask=root / row["mask"] if row["mask"] else None,
            group=row["group"] or None,
            split=row["split"] or None,
        )
        for row in read_csv(path)
    )


def relative_name(path: Path, root: Path) -> str:
    """`path` below `root` with forward slashes, or the absolute path of a file elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()


def visible_files(root: Path) -> Iterator[PurePath]:
    """All visible files below `root`, as relative paths; links to folders are followed once."""
    visited = set()
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        place = Path(folder).resolve()
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(filter(_visible, folders))
        yield from (PurePath(folder, name).relative_to(root) for name in filter(_visible, names))


def _scan_folder(root: Path, normal: str | None, normal_required: bool) -> Scan:
    files = sorted(visible_files(root), key=natural_key)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(
            f"{root} holds no images, only {len(files)} other files; "
            f"image files end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    layout, samples = recognize(root, images, normal, normal_required=normal_required)
    used = {sample.path for sample in samples} | {sample.mask for sample in samples}
    used.add(root / GROUPS_FILE)
    return Scan(
        root=root,
        layout=layout,
        samples=tuple(with_groups(root, samples)),
        ignored=tuple(root / file for file in files if root / file not in used),
    )


def _scan_table(path: Path, normal: str | None) -> Scan:
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path} is neither a folder nor a CSV file; give one of the two")
    refuse_normal(normal, "csv")
    return Scan(root=path.parent, layout="csv", samples=tuple(read_table(path)), ignored=())


def _raise(error: OSError) -> None:
    raise error


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in SKIPPED_NAMES


def _draw_anomalous(samples: Sequence[Sample], count: int, seed: int) -> tuple[Sample, ...]:
    anomalous = [i for i, sample in enumerate(samples) if sample.label == ANOMALOUS]
    if not 1 <= count <= len(anomalous):
        raise ValueError(
            f"--positives {count} is not possible: the data has {len(anomalous)} anomalous images; "
            f"allowed are 1 to {len(anomalous)}, or leave it out to take all"
        )
    drawn = np.random.default_rng(seed).choice(anomalous, count, replace=False)
    left_out = set(anomalous) - set(drawn.tolist())
    return tuple(sample for i, sample in enumerate(samples) if i not in left_out)
