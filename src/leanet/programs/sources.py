"""What phase 2 reads: output trees of phase 1, checked completely before any work.

Three kinds are told apart: *ours* has `maps.json` in every fold folder; the *original*'s has
`phase1_model.h5` instead, 8-bit JPEG maps and, after a colorization, GT images in false colors;
*maps* is any other tree of images, maps and `Label.npz`. The older program's folders 0..4 of
arrays become a tree of ours by `leanet.programs.arrays`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from leanet.config import UsageError, nearest
from leanet.data.images import IMAGE_SUFFIXES
from leanet.data.scan import natural_key
from leanet.files import read_csv, read_json
from leanet.programs.folders import MANIFEST, RUN, fold_name
from leanet.programs.trees import ANOMAP, GT, LABELS, MAPS, MODEL, SPLITS, TEST, TRAIN
from leanet.records import ANOMALOUS, NORMAL

Origin = Literal["ours", "original", "maps"]
OLD_MODEL: Final = "phase1_model.h5"
OLD_ARRAYS: Final = ("RGB.npz", "Attention.npz", "Label.npz")
USUAL_FOLDS: Final = 10  # of the original
_LISTED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images and maps of one side of a fold, in the order of the labels."""

    images: tuple[Path, ...]
    maps: tuple[Path, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]  # of the images, for people: original files where they are known
    groups: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class TreeFold:
    """One fold folder; facts are those of `maps.json`, {} where there is none."""

    name: str
    folder: Path
    origin: Origin
    train: Part
    test: Part
    facts: dict[str, Any]

    @property
    def model(self) -> Path | None:
        """The reconstructor that draws maps of new images."""
        file = self.folder / MODEL
        return file if self.origin == "ours" and file.exists() else None


class Wanted(NamedTuple):
    """Numbers of the folds to run, how many there are to run if none is named, and notices."""

    folds: tuple[int, ...]
    num_folds: int
    notices: tuple[str, ...]


def wanted_folds(dataset: Path, n_splits: int | None, asked: Sequence[int]) -> Wanted:
    """Which folds of a tree to run.

    Raises:
        UsageError: no tree, or one with fewer folds than asked for.
    """
    there = available_folds(dataset)
    highest = max(there)
    num_folds = min(USUAL_FOLDS, highest) if n_splits is None else n_splits
    folds = tuple(sorted(set(asked))) or tuple(range(1, num_folds + 1))
    missing = [fold for fold in folds if fold not in there]
    if missing:
        raise UsageError(
            f"{dataset} lacks the fold folders {_names(missing)}; it has {_names(there)}. "
            "Use --n_splits or --fold for those that are there"
        )
    notices = []
    if not asked and num_folds < highest:
        notices.append(f"notice: {dataset} has {highest} folds; the first {num_folds} are run")
    elif not asked and n_splits is None and highest < USUAL_FOLDS:
        notices.append(f"notice: --n_splits is not given: all {highest} folds of {dataset}")
    return Wanted(folds, num_folds, tuple(notices))


def available_folds(dataset: Path) -> tuple[int, ...]:
    """The numbers of the fold folders, counted from 1.

    Raises:
        UsageError: there are none.
    """
    if not dataset.is_dir():
        siblings = [one.name for one in dataset.parent.iterdir()] if dataset.parent.is_dir() else []
        raise UsageError(f"--dataset {dataset} is no folder{nearest(dataset.name, siblings)}")
    if is_array_tree(dataset):
        names = [one.name for one in dataset.iterdir() if (one / OLD_ARRAYS[0]).exists()]
        return tuple(sorted(int(name) + 1 for name in names if name.isdecimal()))
    found = [one.name for one in dataset.iterdir() if re.fullmatch(r"\d{2,}", one.name)]
    if not found:
        hint = "; run leanet phase1 on it first" if (dataset / "Negative").is_dir() else ""
        raise UsageError(f"{dataset} has no fold folders 01, 02, ... of phase 1{hint}")
    return tuple(sorted(int(name) for name in found))


def is_array_tree(dataset: Path) -> bool:
    """Whether this is the output of the older program: 0/RGB.npz and so on."""
    return (dataset / "0" / OLD_ARRAYS[0]).exists()


def open_folds(dataset: Path, folds: Iterable[int]) -> tuple[TreeFold, ...]:
    """All folds that are to be run, each of them checked.

    Raises:
        UsageError: names what is wrong with every one of them.
    """
    told = _told_files(dataset)
    opened, problems = [], []
    for fold in folds:
        try:
            opened.append(_open_fold(dataset / fold_name(fold), told.get(fold_name(fold), {})))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise UsageError(f"{'; '.join(problems[:_LISTED])}{more}. Nothing was trained")
    return tuple(opened)


def notices_of(folds: Sequence[TreeFold]) -> tuple[str, ...]:
    """What the user should know about where the maps come from."""
    if any(fold.origin == "original" for fold in folds):
        return (
            "warning: this tree was written by the original program: its maps and images are "
            "JPEG, whose loss cannot be undone, and after --task colorization its GT images are "
            "Lab values stored as if RGB (--legacy_gt lab decodes them); a fresh leanet phase1 is "
            "better",
        )
    if any(fold.origin == "maps" for fold in folds):
        return (f"notice: no {MAPS} beside the maps: they are taken as shares of full brightness",)
    return ()


def read_labels(path: Path) -> dict[str, tuple[int, ...]]:
    """`Label.npz` as {"train": ..., "test": ...}.

    Raises:
        ValueError: a missing or damaged file, or labels other than 0 and 1.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels = {name: np.asarray(arrays[name]).reshape(-1) for name in ("train", "test")}
    except Exception as error:
        raise ValueError(f"{path} holds no label arrays train and test ({error})") from error
    for name, values in labels.items():
        if not np.isin(values, (NORMAL, ANOMALOUS)).all():
            raise ValueError(f"{path}: {name} holds labels other than {NORMAL} and {ANOMALOUS}")
    return {name: tuple(int(value) for value in values) for name, values in labels.items()}


def _open_fold(folder: Path, told: dict[str, list[dict[str, str]]]) -> TreeFold:
    labels = read_labels(folder / LABELS)
    facts = read_json(folder / MAPS) if (folder / MAPS).exists() else {}
    if not facts and (folder.parent / RUN).exists():
        raise ValueError(f"{folder} is not finished; complete it with leanet phase1 ... --resume")
    origin: Origin = "ours" if facts else "original" if (folder / OLD_MODEL).exists() else "maps"
    return TreeFold(
        name=folder.name,
        folder=folder,
        origin=origin,
        train=_part(folder, TRAIN, labels["train"], told.get("train", [])),
        test=_part(folder, TEST, labels["test"], told.get("test", [])),
        facts=facts,
    )


def _part(
    folder: Path, split: str, labels: tuple[int, ...], told: Sequence[dict[str, str]]
) -> Part:
    images, maps = (_pictures(folder / kind / split) for kind in (GT, ANOMAP))
    if [one.stem for one in images] != [one.stem for one in maps]:
        different = {one.stem for one in images} ^ {one.stem for one in maps}
        raise ValueError(
            f"{folder / GT / split} and {folder / ANOMAP / split} do not fit: {len(images)} "
            f"images, {len(maps)} maps, e.g. {min(different)} is in one of them only"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{folder / LABELS} has {len(labels)} labels for {len(images)} images in "
            f"{folder / GT / split}"
        )
    names = tuple(f"{GT}/{split}/{one.name}" for one in images)
    groups: tuple[str | None, ...] = (None,) * len(images)
    if told:
        if [int(row["label"]) for row in told] != list(labels):
            raise ValueError(
                f"{folder.parent / MANIFEST} and {folder / LABELS} disagree about {SPLITS[split]}"
            )
        names = tuple(row["path"] for row in told)
        groups = tuple(row["group"] or None for row in told)
    return Part(images=images, maps=maps, labels=labels, names=names, groups=groups)


def _pictures(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing")
    found = [one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES]
    visible = [one for one in found if not one.name.startswith(".")]
    return tuple(sorted(visible, key=natural_key))


def _told_files(dataset: Path) -> dict[str, dict[str, list[dict[str, str]]]]:
    """What the manifest tells, by fold and by split."""
    told: dict[str, dict[str, list[dict[str, str]]]] = {}
    if (dataset / MANIFEST).exists():
        for row in read_csv(dataset / MANIFEST):
            told.setdefault(row["fold"], {}).setdefault(row["split"], []).append(row)
    return told


def _names(folds: Iterable[int], name: Callable[[int], str] = fold_name) -> str:
    return ", ".join(map(name, folds))
