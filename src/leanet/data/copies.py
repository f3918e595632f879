"""Files that show the same picture: byte for byte, or re-encoded, resized, slightly brightened.

Near duplicates are told by 32 x 32 thumbnails, each at zero mean and unit norm. Plain correlation
fails on what this package is for: in a series of equally placed parts any two images correlate
above 0.99. So what all images share is taken away first: for a pair (a, b) the mean m of all
*other* images; the similarity is the cosine of the angle between a - m and b - m. Equally placed
parts then differ by what is their own, and copies still agree. (A set of nothing but copies of one
picture is the exception: its copies differ by their noise alone, just as equally placed parts do.)

With c = a - mean of all and t = 1 / (n - 2), a - m = (1 + t) c_a + t c_b, so that everything
follows from the Gram matrix of the c: O(n^2) in time, and no image is touched again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.records import ANOMALOUS, NORMAL, Sample

NEAR_DUPLICATE: Final = 0.98  # similarity; measured: known copies >= 0.998, other images <= 0.971
THUMBNAIL_SIDE: Final = 32
_BLOCK: Final = 512  # rows of the Gram matrix at a time
_SMALLEST: Final = 1e-12  # below it nothing is left of an image but rounding


class Pair(NamedTuple):
    """Two files of (nearly) the same picture; similarity 1 = the same."""

    first: Path
    second: Path
    similarity: float


def same_bytes(digests: Sequence[bytes]) -> list[list[int]]:
    """Groups of two or more indices with the same digest, in order of their first member."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def similar_pairs(
    thumbnails: NDArray[np.uint8], threshold: float = NEAR_DUPLICATE
) -> list[tuple[int, int, float]]:
    """Pairs i < j of thumbnails [N, ...] with a similarity (see the module) of `threshold` or more.

    The most similar first. Constant images are similar to nothing. Two images alone have no others
    to share anything with: their similarity is the plain correlation.
    """
    if len(thumbnails) < 2:
        return []
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    (kept,) = np.nonzero(norms)
    own, t = flat[kept] / norms[kept, None], 0.0
    if len(kept) > 2:
        own -= own.mean(axis=0)
        t = 1 / (len(kept) - 2)
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(own), _BLOCK):
        similarity = _similarity(own[start : start + _BLOCK], own[start:], t)
        rows, columns = np.nonzero(np.triu(similarity >= threshold, k=1))
        values = np.minimum(similarity[rows, columns], 1).tolist()
        firsts, seconds = kept[rows + start].tolist(), kept[columns + start].tolist()
        found += zip(firsts, seconds, values, strict=True)
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32], t: float) -> NDArray[np.float32]:
    """Cosine between (1 + t) a_i + t b_j and t a_i + (1 + t) b_j for all i, j: [A, B]."""
    product: NDArray[np.float32] = a @ b.T
    a_squares, b_squares = (a**2).sum(axis=1)[:, None], (b**2).sum(axis=1)[None]
    more, less, cross = (1 + t) ** 2, t**2, t * (1 + t)
    inner = (more + less) * product + cross * (a_squares + b_squares)
    a_norm = more * a_squares + less * b_squares + 2 * cross * product
    b_norm = less * a_squares + more * b_squares + 2 * cross * product
    squares = a_norm * b_norm
    cosine: NDArray[np.float32] = inner / np.sqrt(np.maximum(squares, _SMALLEST))
    return np.where(squares > _SMALLEST, cosine, 0)


def conflicting(
    samples: Sequence[Sample], same: Sequence[Sequence[int]], near: Sequence[tuple[int, int, float]]
) -> Iterator[Pair]:
    """One pair (normal, anomalous) for each group of copies that has both labels."""
    for group in same:
        normal = [i for i in group if samples[i].label == NORMAL]
        anomalous = [i for i in group if samples[i].label == ANOMALOUS]
        if normal and anomalous:
            yield Pair(samples[normal[0]].path, samples[anomalous[0]].path, 1.0)
    for i, j, similarity in near:
        first, second = sorted((samples[i], samples[j]), key=lambda sample: sample.label)
        if first.label != second.label:
            yield Pair(first.path, second.path, similarity)


def leaking(
    samples: Sequence[Sample], same: Sequence[Sequence[int]], near: Sequence[tuple[int, int, float]]
) -> list[Pair]:
    """For each test image of which train has a copy: (test image, the most similar copy)."""
    best: dict[int, tuple[int, float]] = {}
    for group in same:
        train = [i for i in group if samples[i].split == "train"]
        if train:
            best |= {i: (train[0], 1.0) for i in group if samples[i].split == "test"}
    for i, j, similarity in near:  # the most similar first
        if (samples[i].split, samples[j].split) == ("train", "test"):
            best.setdefault(j, (i, similarity))
        elif (samples[i].split, samples[j].split) == ("test", "train"):
            best.setdefault(i, (j, similarity))
    return [
        Pair(samples[i].path, samples[j].path, similarity)
        for i, (j, similarity) in sorted(best.items())
    ]
