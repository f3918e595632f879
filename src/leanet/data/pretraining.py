"""Any images to pretrain on, and what pretrained weights have learned from.

Labels do not matter here, so any folder will do, flat or nested. Two kinds of images in it are left
out by the names of their folders, at any depth: masks, and the test part of a data set, for what a
network has learned from cannot test it.

A run of `leanet fit dcgan` keeps `images.csv` beside its weights: every image that it has learned
from, with the SHA-256 of its bytes. Weights from elsewhere have no such file; what they have seen
is then unknown, which is another thing than nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.generated import sha256_of
from leanet.data.images import IMAGE_SUFFIXES, read_image
from leanet.data.layouts import MASK_FOLDERS, SPLIT_FOLDERS
from leanet.data.scan import natural_key, relative_name, scan, visible_files
from leanet.files import read_csv, write_csv
from leanet.records import Sample

IMAGES_CSV = "images.csv"


class Pool(NamedTuple):
    """Images to learn from below `root`, and how many others are there."""

    root: Path
    paths: tuple[Path, ...]
    num_test: int
    num_masks: int


def find_images(data: Path) -> Pool:
    """All images of a folder, or of a CSV file, in natural order, but masks and the test part.

    Raises:
        ValueError: nothing there, or nothing but test images and masks.
    """
    if data.is_dir():
        pool = _of_folder(data)
    else:
        found = scan(data, normal_required=False)
        train = tuple(sample.path for sample in found.samples if sample.split != "test")
        pool = Pool(found.root, train, len(found.samples) - len(train), 0)
    if not pool.paths:
        raise ValueError(
            f"{data} holds no images to learn from: {pool.num_test} in folders named test, "
            f"{pool.num_masks} in folders of masks, and no other with one of the endings "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}.\nTo learn from test images, give their folder "
            "itself; nothing that learns from these weights can then be tested on them."
        )
    return pool


def read_square(path: Path) -> NDArray[np.uint8]:
    """The central square of an image, as large as fits: RGB [S, S, 3]. Shrunk to 64 px it is the
    image whose short side was shrunk to 64 px, cropped at the center.

    Raises `UnreadableImageError`.
    """
    image = read_image(path)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def write_seen(folder: Path, root: Path, paths: Iterable[Path]) -> None:
    """Write `images.csv` (path below `root`, sha256) of images to be learned from."""
    rows = [{"path": relative_name(path, root), "sha256": sha256_of(path)} for path in paths]
    write_csv(folder / IMAGES_CSV, rows)


def leaked(pretrained: Path, samples: Iterable[Sample]) -> int | None:
    """How many of the samples the pretrained weights have learned from; None = not known.

    `pretrained`: a run folder or a weights file in it. Images are told by their bytes, so a copied
    or renamed file is found as well, one that was stored anew is not.
    """
    seen = _seen(pretrained)
    return None if seen is None else sum(sha256_of(one.path) in seen for one in samples)


def leak_remark(pretrained: Path, test: Sequence[Sample]) -> str:
    """A sentence on the test images that the pretrained weights have learned from."""
    count = leaked(pretrained, test)
    if count is None:
        return (
            f"which images the weights {pretrained} have learned from is not known (no "
            f"{IMAGES_CSV} beside them): make sure that no test image is among them"
        )
    if count:
        return (
            f"LEAK: the weights {pretrained} have learned from {count} of the {len(test)} test "
            "images, without their labels; figures on these are no test"
        )
    return f"the weights {pretrained} have learned from none of the {len(test)} test images"


def _of_folder(root: Path) -> Pool:
    train: list[PurePath] = []
    num_test = num_masks = 0
    for file in visible_files(root):
        folders = {part.casefold() for part in file.parts[:-1]}
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if folders & MASK_FOLDERS:
            num_masks += 1
        elif any(SPLIT_FOLDERS.get(folder) == "test" for folder in folders):
            num_test += 1
        else:
            train.append(file)
    paths = tuple(root / file for file in sorted(train, key=natural_key))
    return Pool(root, paths, num_test, num_masks)


def _seen(pretrained: Path) -> frozenset[str] | None:
    table = (pretrained if pretrained.is_dir() else pretrained.parent) / IMAGES_CSV
    if not table.is_file():
        return None
    return frozenset(row["sha256"] for row in read_csv(table))
