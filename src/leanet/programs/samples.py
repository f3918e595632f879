"""The images that phase 1 reads: everything below `Positive/` and `Negative/`, in natural order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from leanet.config import UsageError, nearest
from leanet.data.csv_layout import with_groups
from leanet.data.images import IMAGE_SUFFIXES, UnreadableImageError, read_mode
from leanet.data.scan import natural_key, visible_files
from leanet.records import ANOMALOUS, NORMAL, Sample

CLASSES: Final = {"Positive": ANOMALOUS, "Negative": NORMAL}
BY_FOLDER: Final = "folder"  # the word of --groups


class Found(NamedTuple):
    """The samples, anomalous ones first, and how many files below the two folders are no images."""

    samples: tuple[Sample, ...]
    num_skipped: int


def find_samples(dataset: Path, groups: str | None = None) -> Found:
    """The images below `Positive/` and `Negative/` (upper and lower case count as the same).

    `groups` is a CSV file with the columns file and group, the word `folder` (a folder below
    Positive/ or Negative/ is a group), or None: `groups.csv` of the data set, if there is one.

    Raises:
        UsageError: a missing folder, or one without images.
    """
    samples: list[Sample] = []
    num_skipped = 0
    for name, label in CLASSES.items():
        folder = _class_folder(dataset, name)
        files = sorted(visible_files(folder), key=natural_key)
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        num_skipped += len(files) - len(images)
        if not images:
            raise UsageError(
                f"{folder} holds no images, only {len(files)} other files; "
                f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        samples += [_sample(folder, image, label, groups) for image in images]
    if groups == BY_FOLDER:
        return Found(tuple(samples), num_skipped)
    table = None if groups is None else Path(groups)
    if table is not None and not table.is_file():
        raise UsageError(f"--groups {groups}: no such file; give a CSV file or the word folder")
    return Found(tuple(with_groups(dataset, samples, table)), num_skipped)


def conversions(samples: Iterable[Sample]) -> str:
    """How many images are not stored as 8-bit RGB, and how they are stored; "" for none."""
    counts: Counter[str] = Counter()
    for sample in samples:
        try:
            mode = read_mode(sample.path)
        except UnreadableImageError:
            continue  # told when it is decoded
        counts[mode] += mode != "RGB"
    listed = [f"{count} {mode}" for mode, count in sorted(counts.items()) if count]
    return f"converted to 8-bit RGB: {', '.join(listed)}" if listed else ""


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_labels(samples: Sequence[Sample]) -> tuple[int, int]:
    """How many are normal and how many anomalous."""
    anomalous = sum(sample.label == ANOMALOUS for sample in samples)
    return len(samples) - anomalous, anomalous


def _class_folder(dataset: Path, name: str) -> Path:
    if not dataset.is_dir():
        siblings = (
            [entry.name for entry in dataset.parent.iterdir()] if dataset.parent.is_dir() else []
        )
        raise UsageError(f"--dataset {dataset} is no folder{nearest(dataset.name, siblings)}")
    folders = sorted(entry.name for entry in dataset.iterdir() if entry.is_dir())
    matching = [folder for folder in folders if folder.casefold() == name.casefold()]
    if len(matching) != 1:
        raise UsageError(
            f"{dataset} needs one folder {name}/; it has {', '.join(folders) or 'none'}. "
            "Positive/ holds the anomalous images, Negative/ the normal ones"
        )
    return dataset / matching[0]


def _sample(folder: Path, image: PurePath, label: int, groups: str | None) -> Sample:
    kind = image.parts[0] if len(image.parts) > 1 else ""
    sample = Sample(path=folder / image, label=label, kind=kind)
    nested = image.parent.as_posix()
    return replace(sample, group=nested) if groups == BY_FOLDER and nested != "." else sample
