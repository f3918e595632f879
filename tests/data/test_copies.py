from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cosine

from leanet.data.copies import Pair, conflicting, leaking, same_bytes, similar_pairs
from leanet.data.images import resize_image
from leanet.records import ANOMALOUS, NORMAL, Sample


def scene(seed: int, sigma: float = 4.0, side: int = 96) -> NDArray[np.uint8]:
    """A random smooth color picture [side, side, 3]."""
    noise = np.random.default_rng(seed).normal(size=(side, side, 3))
    smooth = gaussian_filter(noise, (sigma, sigma, 0))
    image: NDArray[np.uint8] = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return image


def thumbnails(*images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([resize_image(image, 32) for image in images])


def jpeg(image: NDArray[np.uint8], quality: int, side: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).resize((side, side)).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer))


def by_loops(pictures: NDArray[np.uint8], threshold: float) -> dict[tuple[int, int], float]:
    """The definition in the module docstring, pair by pair in float64."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    found = {}
    for i in range(len(flat)):
        for j in range(i + 1, len(flat)):
            others = [k for k in range(len(flat)) if k not in (i, j)]
            shared = flat[others].mean(axis=0) if others else 0.0
            similarity = 1 - cosine(flat[i] - shared, flat[j] - shared)
            if similarity >= threshold:
                found[i, j] = similarity
    return found


@pytest.mark.parametrize("number", [2, 3, 4, 9])
def test_the_gram_matrix_gives_what_the_definition_says(number: int) -> None:
    pictures = thumbnails(*(scene(seed, sigma=12) for seed in range(number)))
    expected = by_loops(pictures, -0.2)
    found = {(i, j): similarity for i, j, similarity in similar_pairs(pictures, -0.2)}
    assert found.keys() == expected.keys()
    for pair, similarity in expected.items():
        assert found[pair] == pytest.approx(similarity, abs=1e-4)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = thumbnails(*(scene(seed, sigma=12) for seed in range(11)))
    whole = similar_pairs(pictures, 0.1)
    monkeypatch.setattr("leanet.data.copies._BLOCK", 3)
    blocks = similar_pairs(pictures, 0.1)
    assert [pair[:2] for pair in blocks] == [pair[:2] for pair in whole]
    assert len(whole) > 5


def test_pairs_come_with_the_most_similar_first() -> None:
    similarities = [s for *_, s in similar_pairs(thumbnails(*map(scene, range(30))), -1)]
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.parametrize(("quality", "side"), [(90, 96), (40, 96), (75, 60), (75, 200)])
def test_reencoded_and_resized_copies_are_found(quality: int, side: int) -> None:
    originals = [scene(seed) for seed in range(20)]
    pictures = thumbnails(*originals, *(jpeg(image, quality, side) for image in originals))
    assert {pair[:2] for pair in similar_pairs(pictures)} == {(k, k + 20) for k in range(20)}


def test_a_brightened_copy_is_found() -> None:
    originals = [scene(seed) for seed in range(20)]
    brighter = (originals[3] * 0.8 + 30).astype(np.uint8)
    assert [pair[:2] for pair in similar_pairs(thumbnails(*originals, brighter))] == [(3, 20)]


def test_equally_placed_parts_are_no_copies_though_they_correlate() -> None:
    part = scene(0).astype(np.float64)
    parts = [
        np.clip(part + 0.1 * (scene(seed) - 128.0), 0, 255).astype(np.uint8)
        for seed in range(1, 25)
    ]
    pictures = thumbnails(*parts, jpeg(parts[7], 95, 96))
    plain = np.corrcoef(pictures.reshape(25, -1))
    assert plain.min() > 0.985
    assert [pair[:2] for pair in similar_pairs(pictures, 0.9)] == [(7, 24)]


def test_constant_images_are_similar_to_nothing() -> None:
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 0, 90, 255)]
    assert similar_pairs(thumbnails(*flat, scene(0, side=40))) == []


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_images_have_no_pairs(number: int) -> None:
    assert similar_pairs(np.zeros((number, 32, 32, 3), np.uint8)) == []


def test_same_bytes_groups_equal_digests() -> None:
    assert same_bytes([b"a", b"b", b"a", b"c", b"b", b"a"]) == [[0, 2, 5], [1, 4]]


def sample(name: str, label: int = NORMAL, split: str | None = None) -> Sample:
    return Sample(path=Path(name), label=label, split=split)


def test_a_conflict_names_the_normal_copy_first() -> None:
    samples = [sample("a", ANOMALOUS), sample("b"), sample("c"), sample("d", ANOMALOUS)]
    found = list(conflicting(samples, [[0, 1, 2]], [(0, 3, 0.99), (2, 3, 0.985)]))
    assert found == [
        Pair(Path("b"), Path("a"), 1.0),
        Pair(Path("c"), Path("d"), 0.985),
    ]


def test_a_leak_names_each_test_image_once_with_its_best_copy() -> None:
    samples = [
        sample("train0", split="train"),
        sample("test1", split="test"),
        sample("test2", split="test"),
        sample("train3", split="train"),
        sample("free4"),
    ]
    near = [(1, 3, 0.999), (2, 3, 0.99), (0, 2, 0.985), (1, 2, 0.984), (3, 4, 0.983)]
    found = leaking(samples, [[0, 1]], near)
    assert found == [
        Pair(Path("test1"), Path("train0"), 1.0),
        Pair(Path("test2"), Path("train3"), 0.99),
    ]
