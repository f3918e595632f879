"""Medical image sets as they are downloaded, into the layout of MVTec AD.

    brain_mri   no/ and yes/ (also Negative/ and Positive/)
    busi        normal/, benign/ and malignant/, with NAME_mask.png, NAME_mask_1.png, ... beside
                NAME.png
    covid19     NORMAL/ and PNEUMONIA/ (the COVID-19 cases), below train/ and test/
    sipakmed    im_KIND/.../CROPPED/FIELD_CELL.bmp: cells, cut out of the FIELD.bmp beside CROPPED

The folders may lie at any depth, upper and lower case do not matter, and any image format will do.
No split is published that could be repeated. Here the normal images, sorted by name and shuffled
with a fixed seed, train up to four fifths; the rest and all anomalous ones test. Files of the same
bytes count once. Pictures that show the same thing stay on one side: near copies
(`leanet.data.copies`), and cells of one field.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.copies import THUMBNAIL_SIDE, same_bytes, similar_pairs
from leanet.data.csv_layout import GROUPS_FILE
from leanet.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    read_image,
    read_mask,
    resize_image,
    write_image,
)
from leanet.data.scan import visible_files
from leanet.files import link_or_copy, write_csv
from leanet.progress import Progress

GOOD: Final = "good"
KINDS: Final[dict[str, dict[str, str]]] = {  # set -> folder, in lower case -> kind
    "brain_mri": {"no": GOOD, "negative": GOOD, "yes": "tumor", "positive": "tumor"},
    "busi": {"normal": GOOD, "benign": "benign", "malignant": "malignant"},
    "covid19": {"normal": GOOD, "pneumonia": "covid19"},
    "sipakmed": {
        "im_superficial-intermediate": GOOD,
        "im_parabasal": GOOD,
        "im_koilocytotic": "koilocytotic",
        "im_dyskeratotic": "dyskeratotic",
        "im_metaplastic": "metaplastic",
    },
}
CELLS: Final = "cropped"  # of sipakmed: the folder of the cells
MASKED: Final = frozenset({"busi"})  # sets with masks beside the images
_MASK: Final = re.compile(r"(.+)_mask(?:_\d+)?", re.IGNORECASE).fullmatch
Tell = Callable[[str], None]


class Picture(NamedTuple):
    """An image of a download: its kind, the folder that says so, what it shares with others of its
    group ("" for nothing), and its masks."""

    path: Path
    kind: str
    folder: str
    group: str = ""
    masks: tuple[Path, ...] = ()


def unpack_medical(name: str, source: Path, out: Path, tell: Tell) -> None:
    """One of `KINDS` to `out/{train/good, test/good, test/KIND}`, with `out/ground_truth/KIND`
    where there are masks, and `out/groups.csv` where pictures belong together.

    Raises:
        ValueError: no normal or no anomalous images, or masks that do not fit each other.
    """
    found = _pictures(name, source, tell)
    kept, twins = _once(found, tell)
    groups = _groups(kept, twins, tell)
    training = training_part([picture.kind == GOOD for picture in kept], groups)
    if not training:
        raise ValueError(f"{source}: no normal image is left to train, they all belong to others")
    tell(
        f"{len(training)} normal images train, the other {_count(kept) - len(training)} and all "
        "anomalous ones test; the published split is not known, so figures are not strictly "
        "comparable with the published ones"
    )
    names = _new_names(kept)
    places = [
        PurePath("train" if k in training else "test", picture.kind, names[k] + picture.path.suffix)
        for k, picture in enumerate(kept)
    ]
    with Progress("unpacking", total=len(kept)) as bar:
        for picture, place in zip(kept, places, strict=True):
            link_or_copy(picture.path, out / place)
            mask = union_of(picture.masks) if picture.kind != GOOD and picture.masks else None
            if mask is not None:
                target = out / "ground_truth" / picture.kind / f"{place.stem}_mask.png"
                write_image(target, np.where(mask, 255, 0).astype(np.uint8))
            bar.advance()
    rows = [
        {"file": places[k].as_posix(), "group": f"group-{number:04d}"}
        for number, group in enumerate(one for one in groups if len(one) > 1)
        for k in group
    ]
    if rows:
        write_csv(out / GROUPS_FILE, rows)


def training_part(normal: Sequence[bool], groups: Sequence[Sequence[int]]) -> frozenset[int]:
    """Which images train: of the n normal ones, in an order drawn with a fixed seed, those that fit
    into floor(0.8 n), whole groups each, and no group that holds an anomalous image.

    >>> sorted(training_part([True] * 5 + [False], [[0, 1], [2], [3], [4], [5]]))
    [2, 3, 4]
    """
    indices = [k for k, good in enumerate(normal) if good]
    limit, training = len(indices) * 4 // 5, set[int]()
    group_of = {k: group for group in groups for k in group}
    for place in np.random.default_rng(0).permutation(len(indices)).tolist():
        group = group_of[indices[place]]
        fits = len(training.union(group)) <= limit
        if fits and all(normal[k] for k in group):
            training.update(group)
    return frozenset(training)


def union_of(masks: Sequence[Path]) -> NDArray[np.bool_] | None:
    """[H, W], what any of the masks marks; None if none marks anything.

    Raises:
        ValueError: masks of different sizes.
    """
    planes = [read_mask(path) for path in masks]
    if len({plane.shape for plane in planes}) > 1:
        listed = ", ".join(f"{p.name} {m.shape}" for p, m in zip(masks, planes, strict=True))
        raise ValueError(f"masks of one image differ in size: {listed}; extract the archive again")
    union = np.any(planes, axis=0)
    return union if union.any() else None


def _pictures(name: str, source: Path, tell: Tell) -> list[Picture]:
    """The images below the known folders, sorted by their names, without the masks among them."""
    kinds, found, left_out = KINDS[name], list[Picture](), 0
    masks: dict[Path, list[Path]] = defaultdict(list)  # path of the image without its suffix
    for file in visible_files(source):
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        folders = [folder for folder in file.parts[:-1] if folder.casefold() in kinds]
        is_cell = file.parent.name.casefold() == CELLS
        if not folders or (name == "sipakmed" and not is_cell):
            left_out += 1
            continue
        if name in MASKED and (masked := _MASK(file.stem)):
            masks[source / file.with_name(masked[1])].append(source / file)
            continue
        kind = kinds[folders[-1].casefold()]
        group = f"{folders[-1]}/{file.stem.rpartition('_')[0]}" if name == "sipakmed" else ""
        found.append(Picture(source / file, kind, folders[-1], group))
    found = [
        one._replace(masks=tuple(sorted(masks.pop(one.path.with_suffix(""), ())))) for one in found
    ]
    _require_both(found, name, source)
    _tell_found(found, left_out, sum(map(len, masks.values())), tell)
    return sorted(found, key=lambda one: (one.path.name, one.path.as_posix()))


def _tell_found(found: Sequence[Picture], left_out: int, lonely: int, tell: Tell) -> None:
    kinds = Counter(one.kind for one in found)
    suffixes = Counter(one.path.suffix.lower() for one in found)
    counted = [
        ", ".join(f"{number} {what}" for what, number in sorted(c.items(), key=_largest_first))
        for c in (kinds, suffixes)
    ]
    tell(f"{len(found)} images: {counted[0]} ({counted[1]})")
    if left_out:
        tell(f"left out {left_out} images that lie elsewhere")
    if lonely:
        tell(f"left out {lonely} masks that belong to no image")


def _largest_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _require_both(found: Sequence[Picture], name: str, source: Path) -> None:
    there = {one.kind for one in found}
    if GOOD not in there or len(there) < 2:
        cells = f", each with a folder {CELLS.upper()}" if name == "sipakmed" else ""
        raise ValueError(
            f"{source} holds {_count(found)} normal and {len(found) - _count(found)} anomalous "
            f"images of {name}; give the folder with {', '.join(KINDS[name])}{cells}"
        )


def _count(pictures: Sequence[Picture]) -> int:
    """How many are normal."""
    return sum(picture.kind == GOOD for picture in pictures)


def _once(found: Sequence[Picture], tell: Tell) -> tuple[list[Picture], list[list[int]]]:
    """The pictures without repetitions within a label, the first by name stays; and, as numbers
    among those, normal and anomalous ones of the same bytes."""
    digests = [hashlib.sha256(one.path.read_bytes()).digest() for one in found]
    labeled = [
        digest + bytes([one.kind == GOOD]) for one, digest in zip(found, digests, strict=True)
    ]
    repeated = {k for group in same_bytes(labeled) for k in group[1:]}
    kept = [k for k in range(len(found)) if k not in repeated]
    if repeated:
        tell(f"left out {len(repeated)} files that repeat another one byte for byte")
    twins = same_bytes([digests[k] for k in kept])
    if twins:
        tell(f"{len(twins)} images stand among the normal and among the anomalous ones: both test")
    return [found[k] for k in kept], twins


def _groups(
    pictures: Sequence[Picture], twins: Sequence[Sequence[int]], tell: Tell
) -> list[list[int]]:
    """All pictures in groups of those that belong together, most of them alone."""
    links = [(group[0], k) for group in twins for k in group[1:]]
    thumbnails = np.zeros((len(pictures), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), dtype=np.uint8)
    first: dict[str, int] = {}
    with Progress("looking for copies", total=len(pictures)) as bar:
        for k, picture in enumerate(pictures):
            thumbnails[k] = _thumbnail(picture.path)
            if picture.group:
                links.append((first.setdefault(picture.group, k), k))
            bar.advance()
    near = [(i, j) for i, j, _ in similar_pairs(thumbnails)]
    if near:
        tell(f"{len(near)} pairs of images look alike; each stays on one side of the split")
    return _joined(len(pictures), [*links, *near])


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    """Small and grey where the file cannot be read: `scan` says so, and it resembles nothing."""
    try:
        return resize_image(read_image(path), THUMBNAIL_SIDE)
    except UnreadableImageError:
        return np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), dtype=np.uint8)


def _joined(number: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """0 ... number - 1 in groups of those that links connect, each in order.

    >>> _joined(5, [(0, 3), (3, 4), (1, 1)])
    [[0, 3, 4], [1], [2]]
    """
    group_of = {k: [k] for k in range(number)}
    for a, b in links:
        if group_of[a] is not group_of[b]:
            group_of[a].extend(group_of[b])
            for k in group_of[b]:
                group_of[k] = group_of[a]
    return [sorted(group) for k, group in group_of.items() if min(group) == k]


def _new_names(pictures: Sequence[Picture]) -> list[str]:
    """A stem for each, its own where no other of its kind has it; behind the folder where several
    make one kind."""
    folders: dict[str, set[str]] = defaultdict(set)
    for one in pictures:
        folders[one.kind].add(one.folder.casefold())
    taken: set[tuple[str, str]] = set()
    names = []
    for one in pictures:
        several = len(folders[one.kind]) > 1
        name = own = f"{one.folder}_{one.path.stem}" if several else one.path.stem
        repeat = 1
        while (one.kind, name.casefold()) in taken:
            repeat += 1
            name = f"{own}-{repeat}"
        taken.add((one.kind, name.casefold()))
        names.append(name)
    return names
