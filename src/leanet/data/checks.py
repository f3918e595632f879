"""What is wrong with a data set before anything is trained on it.

Every file is decoded once. Damaged files, masks of another size, copies, and images or groups that
stand in train and test are found here, because each of them silently bends every later figure.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from leanet.data.copies import (
    THUMBNAIL_SIDE,
    Pair,
    conflicting,
    leaking,
    same_bytes,
    similar_pairs,
)
from leanet.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    read_image,
    read_mask,
    read_mode,
    resize_image,
)
from leanet.data.layouts import LAYOUTS
from leanet.data.scan import Scan, relative_name
from leanet.records import ANOMALOUS, Sample

MIN_SIDE: Final = 32  # pixels; an image with a shorter side is reported as tiny
_LISTED: Final = 10
_LABEL_NAMES: Final = ("normal", "anomalous")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What `check` found; apart from sizes and modes everything is empty for a clean data set."""

    unreadable: tuple[UnreadableImageError, ...]  # images and masks
    sizes: dict[
        tuple[int, int], int
    ]  # (width, height) -> number of images, the most frequent first
    modes: dict[str, int]  # how pixels are stored -> number of images
    duplicates: tuple[tuple[Path, ...], ...]  # files with the same bytes
    near_duplicates: tuple[Pair, ...]  # that no group holds together; the most similar first
    conflicts: tuple[Pair, ...]  # copies of which one is normal and one anomalous
    leaks: tuple[Pair, ...]  # (test image, its most similar copy in train)
    straddling_groups: tuple[str, ...]  # groups in train and test
    mask_sizes: tuple[Path, ...]  # masks of another size than their image
    unmasked: tuple[Path, ...]  # anomalous images without a mask where others have one
    tiny: tuple[Path, ...]  # images with a side below MIN_SIDE


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What is kept of an image after it was decoded."""

    sample: Sample
    digest: bytes
    size: tuple[int, int]  # width, height
    mode: str
    thumbnail: NDArray[np.uint8]
    mask_size: tuple[int, int] | None
    mask_error: UnreadableImageError | None


def check(
    samples: Sequence[Sample],
    *,
    threads: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Decodes every image and mask with `threads` threads and compares them.

    `on_progress(done, total)` is called after each image. Unreadable files are findings, no errors.
    """
    facts: list[_Facts] = []
    unreadable: list[UnreadableImageError] = []
    with ThreadPoolExecutor(threads) as pool:
        for done, result in enumerate(pool.map(_examine, samples), start=1):
            if isinstance(result, UnreadableImageError):
                unreadable.append(result)
            else:
                facts.append(result)
            if on_progress is not None:
                on_progress(done, len(samples))
    unreadable += [fact.mask_error for fact in facts if fact.mask_error is not None]
    return _conclude(samples, facts, unreadable)


def describe(scan: Scan, findings: Findings) -> str:
    """The text that `leanet scan` prints: what the data set is, then each finding with examples."""
    num_groups = len({sample.group for sample in scan.samples if sample.group})
    lines = [
        f"{scan.root}",
        f"layout   {scan.layout}: {LAYOUTS[scan.layout]}",
        f"images   {len(scan.samples)}",
        f"sizes    {_sizes(findings.sizes)}",
        f"pixels   {', '.join(f'{mode} ({count})' for mode, count in findings.modes.items())}",
        f"groups   {num_groups or 'none given'}",
        f"ignored  {len(scan.ignored)} other files",
        "",
        *_table(scan.samples),
        "",
    ]
    sections = _sections(scan, findings)
    for title, items in sections:
        lines.append(f"{title}: {len(items)}")
        lines += [f"    {item}" for item in items[:_LISTED]]
        lines += [f"    ... and {len(items) - _LISTED} more"] * (len(items) > _LISTED)
    return "\n".join(lines if sections else [*lines, "Nothing wrong was found."]) + "\n"


def _examine(sample: Sample) -> _Facts | UnreadableImageError:
    """Reads an image and its mask; the error of a bad image is given back, not raised."""
    try:
        image, mode = read_image(sample.path), read_mode(sample.path)
    except UnreadableImageError as error:
        return error
    mask_size, mask_error = None, None
    if sample.mask is not None:
        try:
            height, width = read_mask(sample.mask).shape
            mask_size = (width, height)
        except UnreadableImageError as error:
            mask_error = error
    return _Facts(
        sample=sample,
        digest=hashlib.sha256(sample.path.read_bytes()).digest(),
        size=(image.shape[1], image.shape[0]),
        mode=mode,
        thumbnail=resize_image(image, THUMBNAIL_SIDE),
        mask_size=mask_size,
        mask_error=mask_error,
    )


def _conclude(
    samples: Sequence[Sample], facts: Sequence[_Facts], unreadable: Sequence[UnreadableImageError]
) -> Findings:
    readable = [fact.sample for fact in facts]
    digests = [fact.digest for fact in facts]
    same = same_bytes(digests)
    thumbnails = np.array([fact.thumbnail for fact in facts], dtype=np.uint8)
    near = [pair for pair in similar_pairs(thumbnails) if digests[pair[0]] != digests[pair[1]]]
    return Findings(
        unreadable=tuple(unreadable),
        sizes=dict(Counter(fact.size for fact in facts).most_common()),
        modes=dict(Counter(fact.mode for fact in facts).most_common()),
        duplicates=tuple(tuple(readable[i].path for i in group) for group in same),
        near_duplicates=tuple(
            Pair(readable[i].path, readable[j].path, similarity)
            for i, j, similarity in near
            if readable[i].group is None or readable[i].group != readable[j].group
        ),
        conflicts=tuple(conflicting(readable, same, near)),
        leaks=tuple(leaking(readable, same, near)),
        straddling_groups=_straddling_groups(samples),
        mask_sizes=tuple(_misfit_masks(facts)),
        unmasked=_unmasked(samples),
        tiny=tuple(fact.sample.path for fact in facts if min(fact.size) < MIN_SIDE),
    )


def _straddling_groups(samples: Iterable[Sample]) -> tuple[str, ...]:
    splits = defaultdict(set)
    for sample in samples:
        if sample.group and sample.split:
            splits[sample.group].add(sample.split)
    return tuple(group for group, sides in splits.items() if len(sides) > 1)


def _misfit_masks(facts: Iterable[_Facts]) -> Iterator[Path]:
    for fact in facts:
        if fact.sample.mask is not None and fact.mask_size not in (None, fact.size):
            yield fact.sample.mask


def _unmasked(samples: Sequence[Sample]) -> tuple[Path, ...]:
    if not any(sample.mask for sample in samples):
        return ()
    return tuple(s.path for s in samples if s.label == ANOMALOUS and s.mask is None)


def _sections(scan: Scan, findings: Findings) -> list[tuple[str, list[str]]]:
    """Titles and lines of what was found, the gravest first."""

    def names(paths: Iterable[Path]) -> list[str]:
        return [relative_name(path, scan.root) for path in paths]

    def pairs(found: Iterable[Pair]) -> list[str]:
        return ["  =  ".join(names(pair[:2])) + f"  ({pair.similarity:.4f})" for pair in found]

    unreadable = [f"{names([error.path])[0]}: {error.reason}" for error in findings.unreadable]
    outside = [path for path in scan.ignored if path.suffix.lower() in IMAGE_SUFFIXES]
    sections = [
        ("unreadable files", unreadable),
        ("masks of another size than their image", names(findings.mask_sizes)),
        ("test images of which train has a copy", pairs(findings.leaks)),
        ("groups in train and in test", list(findings.straddling_groups)),
        ("copies with different labels (normal = anomalous)", pairs(findings.conflicts)),
        ("files with the same bytes", ["  =  ".join(names(g)) for g in findings.duplicates]),
        ("nearly the same picture, in no common group", pairs(findings.near_duplicates)),
        ("anomalous images without a mask", names(findings.unmasked)),
        (f"images with a side below {MIN_SIDE} pixels", names(findings.tiny)),
        ("images or masks where the layout has no place for them", names(outside)),
    ]
    return [(title, items) for title, items in sections if items]


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    if len(sizes) <= 3:
        return ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes.items())
    widths, heights = zip(*sizes, strict=True)
    (width, height), count = next(iter(sizes.items()))
    return (
        f"{min(widths)}-{max(widths)} x {min(heights)}-{max(heights)}, {len(sizes)} different, "
        f"most often {width}x{height} ({count})"
    )


def _table(samples: Sequence[Sample]) -> list[str]:
    """Counts by label and kind in aligned columns; a column that is 0 throughout is left out."""
    rows = [("", "", "images", "train", "test", "masks")]
    for label, name in enumerate(_LABEL_NAMES):
        of_label = [sample for sample in samples if sample.label == label]
        kinds = sorted({sample.kind for sample in of_label})
        rows.append(_counts(name, kinds[0] if len(kinds) == 1 else "", of_label))
        if len(kinds) > 1:
            rows += [_counts("", kind, [s for s in of_label if s.kind == kind]) for kind in kinds]
    columns = [column for column in zip(*rows, strict=True) if set(column[1:]) != {"0"}]
    padded = []
    for number, column in enumerate(columns):
        width = max(map(len, column))
        padded.append([c.ljust(width) if number < 2 else c.rjust(width) for c in column])
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]


def _counts(
    label: str, kind: str, samples: Sequence[Sample]
) -> tuple[str, str, str, str, str, str]:
    train, test = (sum(sample.split == split for sample in samples) for split in ("train", "test"))
    masks = sum(sample.mask is not None for sample in samples)
    return label, kind, str(len(samples)), str(train), str(test), str(masks)
