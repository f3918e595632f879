"""The ways in which people lay out labeled images, recognized without a flag.

1. `positive-negative`: `Positive/` (anomalous) and `Negative/`, any nesting below; `Mask/` may hold
   masks under the same relative names.
2. `mvtec`: `train/good`, `test/<type>`, `ground_truth/<type>/<name>_mask.png` (MVTec AD; BTAD's
   `ok` and `ko` alike), and `visa`: `Data/Images/{Normal,Anomaly}`, `Data/Masks/Anomaly`.
3. `class-folders`: a folder per class, also below `train/` and `test/`. One is the normal class.
4. `csv`: a table with `path` and `label`, read by `leanet.data.csv_layout`.

Upper and lower case do not matter, and images anywhere else in the tree belong to no sample. A
missing mask is no mask, never an empty one. Everything here works on relative paths; pixels are not
looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from leanet.config import nearest
from leanet.records import ANOMALOUS, NORMAL, Sample

LAYOUTS: Final = {
    "positive-negative": "Positive/ (anomalous) and Negative/ (normal)",
    "mvtec": "train/good, test/<type>, ground_truth/<type> (MVTec AD, BTAD)",
    "visa": "Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly (VisA)",
    "class-folders": "a folder per class, or train/ and test/ with a folder per class",
    "csv": "a CSV file with the columns path and label",
}
NORMAL_NAMES: Final = ("good", "healthy", "negative", "normal", "ok")
MASK_FOLDERS: Final = frozenset({"mask", "masks", "ground_truth"})
SPLIT_FOLDERS: Final = {  # validation images are there to be learned from, not to be tested on
    "train": "train",
    "training": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}
_LISTED: Final = 20


@dataclass(frozen=True)
class _Tree:
    """The images below `root`: pictures by relative path, and masks by place and name."""

    root: Path
    pictures: tuple[PurePath, ...]
    masks: dict[tuple[str, ...], PurePath]  # (folders below the mask folder ..., stem), casefolded

    def sample(self, picture: PurePath, label: int, level: int) -> Sample:
        """A picture whose folders from `level` on say its kind and the place of its mask."""
        folders = picture.parts[level:-1]
        place = tuple(folder.casefold() for folder in folders)
        stem = picture.stem.casefold()
        mask = self.masks.get((*place, f"{stem}_mask")) or self.masks.get((*place, stem))
        return Sample(
            path=self.root / picture,
            label=label,
            kind=folders[0] if folders else "",
            mask=None if mask is None else self.root / mask,
            split=SPLIT_FOLDERS.get(picture.parts[level - 1].casefold()) if level > 0 else None,
        )


def recognize(
    root: Path,
    images: Iterable[PurePath],
    normal: str | None = None,
    *,
    normal_required: bool = True,
) -> tuple[str, list[Sample]]:
    """The name of the layout (a key of `LAYOUTS`) and the samples, in the order of `images`.

    `images` are paths relative to `root`; `normal` names the normal class where folders are
    classes; unless it is required, all images have the label NORMAL where no class could be it.
    Raises `ValueError` for a tree of another shape, and for classes of which none, or more
    than one, could be the normal one.
    """
    paths = tuple(images)
    visa = [path for path in paths if _is_visa(path)]
    if visa:
        refuse_normal(normal, "visa")
        return "visa", _read_visa(root, paths, visa)
    tree = _tree(root, paths)
    tops = {path.parts[0].casefold() for path in tree.pictures}
    if tops & {"train", "training"} or (tops and tops <= set(SPLIT_FOLDERS)):
        return _read_splits(tree, normal, normal_required)
    if not tops:
        raise ValueError(unknown_layout(root, paths))
    if tops <= {"positive", "negative"} and normal in {None, "negative", "Negative"}:
        return "positive-negative", _read_positive_negative(tree)
    _refuse_several(root, tree.pictures)
    return "class-folders", _read_classes(tree, tree.pictures, 0, normal, normal_required)


def unknown_layout(root: Path, images: Sequence[PurePath]) -> str:
    """The message for a tree of no known shape: what is known and what was found."""
    tops = sorted({path.parts[0] + "/" for path in images if len(path.parts) > 1})
    flat = sum(len(path.parts) == 1 for path in images)
    found = [f"{flat} images that lie in no folder"] * (flat > 0) + tops[:_LISTED]
    return (
        f"{root} has none of the known layouts; found: {', '.join(found)}.\n"
        f"Known: {'; '.join(LAYOUTS.values())}."
    )


def _refuse_several(root: Path, pictures: Iterable[PurePath]) -> None:
    """Raises if the folders are data sets themselves, as at the top of MVTec AD."""
    inner = {"positive", "negative", "train", "test"}
    sets = {path.parts[0] for path in pictures if path.parts[1].casefold() in inner}
    if sets:
        raise ValueError(
            f"{root} holds several data sets: {', '.join(sorted(sets)[:_LISTED])}.\n"
            f"Give the folder of one of them, e.g. {root / min(sets)}."
        )


def _tree(root: Path, paths: Iterable[PurePath]) -> _Tree:
    pictures: list[PurePath] = []
    masks: dict[tuple[str, ...], PurePath] = {}
    for path in paths:
        if path.parts[0].casefold() in MASK_FOLDERS:
            masks.setdefault(_mask_key(path.parts[1:]), path)
        elif len(path.parts) > 1:
            pictures.append(path)
    return _Tree(root, tuple(pictures), masks)


def _mask_key(parts: Sequence[str]) -> tuple[str, ...]:
    *folders, name = parts
    return (*(folder.casefold() for folder in folders), PurePath(name).stem.casefold())


def _read_positive_negative(tree: _Tree) -> list[Sample]:
    labels = {"positive": ANOMALOUS, "negative": NORMAL}
    return [tree.sample(path, labels[path.parts[0].casefold()], 1) for path in tree.pictures]


def _read_splits(tree: _Tree, normal: str | None, required: bool) -> tuple[str, list[Sample]]:
    """`train/` and `test/` with a folder per class; MVTec AD if training shows only normal images
    or masks are there."""
    pictures = [
        path
        for path in tree.pictures
        if len(path.parts) > 2 and path.parts[0].casefold() in SPLIT_FOLDERS
    ]
    if not pictures:
        raise ValueError(unknown_layout(tree.root, tree.pictures))
    samples = _read_classes(tree, pictures, 1, normal, required)
    trained = {sample.kind.casefold() for sample in samples if sample.split == "train"}
    one_class = len(trained) == 1 and samples[0].label == NORMAL
    return ("mvtec" if tree.masks or one_class else "class-folders"), samples


def _read_classes(
    tree: _Tree, pictures: Sequence[PurePath], level: int, normal: str | None, required: bool
) -> list[Sample]:
    """Samples whose kind is the folder at `level`; the normal class has label NORMAL."""
    classes = {path.parts[level] for path in pictures}
    try:
        normal_classes = _normal_classes(tree.root, classes, normal)
    except ValueError:
        if required or normal is not None:
            raise
        normal_classes = classes
    return [
        tree.sample(path, NORMAL if path.parts[level] in normal_classes else ANOMALOUS, level)
        for path in pictures
    ]


def _normal_classes(root: Path, classes: set[str], normal: str | None) -> set[str]:
    """The folder that is the normal class (several if they differ in upper and lower case only)."""
    spelled = defaultdict(set)
    for name in classes:
        spelled[name.casefold()].add(name)
    listed = ", ".join(sorted(classes)[:_LISTED]) + (", ..." if len(classes) > _LISTED else "")
    if normal is not None:
        if normal.casefold() not in spelled:
            raise ValueError(
                f"--normal {normal} names no class of {root}{nearest(normal, classes)}.\n"
                f"Classes found: {listed}."
            )
        return spelled[normal.casefold()]
    found = [name for name in NORMAL_NAMES if name in spelled]
    if len(found) != 1:
        names = f"{', '.join(NORMAL_NAMES[:-1])} or {NORMAL_NAMES[-1]}"
        problem = f"{' and '.join(found)} could each be normal" if found else f"none called {names}"
        raise ValueError(
            f"{root} has a folder per class, but {problem}.\n"
            f"Say which is normal with --normal NAME; classes found: {listed}."
        )
    return spelled[found[0]]


def _is_visa(path: PurePath) -> bool:
    """`[Data/]Images/{Normal,Anomaly}/name`."""
    folders = [part.casefold() for part in path.parts[:-1]]
    if folders[:1] == ["data"]:
        folders = folders[1:]
    return len(folders) == 2 and folders[0] == "images" and folders[1] in {"normal", "anomaly"}


def _read_visa(root: Path, paths: Sequence[PurePath], pictures: Sequence[PurePath]) -> list[Sample]:
    masks: dict[tuple[str, ...], PurePath] = {}
    for path in paths:
        if len(path.parts) > 2 and path.parts[-3].casefold() == "masks":
            masks.setdefault(_mask_key(path.parts[-2:]), path)
    tree = _Tree(root, tuple(pictures), masks)
    labels = {"normal": NORMAL, "anomaly": ANOMALOUS}
    return [tree.sample(path, labels[path.parts[-2].casefold()], -2) for path in pictures]


def refuse_normal(normal: str | None, layout: str) -> None:
    """Raises `ValueError` if `normal` is given for a layout that says itself what is normal."""
    if normal is not None:
        raise ValueError(
            f"--normal {normal} is for layouts with a folder per class; this is {layout}, which "
            "says itself what is normal: leave --normal out"
        )
