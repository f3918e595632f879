from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from leanet.data import cache as caching
from leanet.data.cache import Cache, UnreadableImagesError, cache_images, images_in_unit_range

CPU = torch.device("cpu")
SIDE = 8


def save(path: Path, seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{k}.png" for k in range(5)]
    for seed, file in enumerate(files):
        save(file, seed)
    return files


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by the path of every image that is decoded."""
    seen: list[Path] = []

    def spy(path: Path) -> Any:
        seen.append(path)
        return read(path)

    read = caching.read_image
    monkeypatch.setattr(caching, "read_image", spy)
    return seen


def test_the_cache_holds_the_pixels_in_the_order_of_the_paths(
    paths: list[Path], tmp_path: Path
) -> None:
    cache = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    assert len(cache) == 5
    for k in (3, 0):
        pixels = torch.from_numpy(save(tmp_path / "again.png", k))
        assert torch.equal(cache.take([k])[0], pixels.permute(2, 0, 1))
    taken = cache.take([4, 1, 4])
    assert taken.shape == (3, 3, SIDE, SIDE)
    assert taken.dtype == torch.uint8
    assert torch.equal(taken[0], taken[2])


def test_images_are_resized_to_the_side(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "a.png")
    cache = cache_images([tmp_path / "a.png"], 16, tmp_path / "cache", CPU)
    assert cache.take([0])[0, :, 5, 5].tolist() == [10, 20, 30]
    assert cache.take([0]).shape == (1, 3, 16, 16)


def test_every_image_is_decoded_once(
    paths: list[Path], tmp_path: Path, decoded: list[Path]
) -> None:
    first = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    assert sorted(decoded) == paths
    second = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    assert len(decoded) == 5
    assert np.array_equal(first.array, second.array)


def test_taking_decodes_nothing(paths: list[Path], tmp_path: Path, decoded: list[Path]) -> None:
    cache = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    decoded.clear()
    for _ in range(3):
        cache.take([0, 1, 2, 3, 4])
    assert decoded == []


@pytest.mark.parametrize("what", ["content", "time", "order", "fewer", "side"])
def test_whatever_changes_is_decoded_again(
    paths: list[Path], tmp_path: Path, decoded: list[Path], what: str
) -> None:
    cache_images(paths, SIDE, tmp_path / "cache", CPU)
    decoded.clear()
    side = 16 if what == "side" else SIDE
    changed = {"order": paths[::-1], "fewer": paths[:3]}.get(what, paths)
    if what == "content":
        save(paths[2], seed=77, side=9)
    elif what == "time":
        os.utime(paths[2], ns=(1, 1))
    cache = cache_images(changed, side, tmp_path / "cache", CPU)
    assert sorted(decoded) == sorted(changed)
    fresh = cache_images(changed, side, tmp_path / "fresh", CPU)
    assert np.array_equal(cache.array, fresh.array)


def test_all_unreadable_images_are_named(paths: list[Path], tmp_path: Path) -> None:
    paths[1].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    with pytest.raises(UnreadableImagesError) as raised:
        cache_images(paths, SIDE, tmp_path / "cache", CPU)
    assert [error.path for error in raised.value.errors] == [paths[1], paths[3]]
    message = str(raised.value)
    assert message.startswith("2 unreadable image(s): ")
    assert str(paths[1]) in message
    assert str(paths[3]) in message
    assert "--skip_bad" in message
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made is left


def test_an_interrupted_decoding_is_begun_anew(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(caching, "read_image", stop)
        with pytest.raises(KeyboardInterrupt):
            cache_images(paths, SIDE, tmp_path / "cache", CPU)
    cache = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    expected = save(tmp_path / "again.png", 4).transpose(2, 0, 1)
    assert np.array_equal(cache.array[4], expected)


def test_the_images_stay_on_disk_and_cannot_be_changed(paths: list[Path], tmp_path: Path) -> None:
    cache = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    assert isinstance(cache.array, np.memmap)
    assert Path(str(cache.array.filename)).stat().st_size == 5 * 3 * SIDE * SIDE
    with pytest.raises(ValueError, match="read-only"):
        cache.array[0] = 0
    cache.take([0]).zero_()  # a copy
    assert cache.array[0].max() > 0


def test_the_unit_range_ends_at_zero_and_one() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    unit = images_in_unit_range(raw)
    assert unit.dtype == torch.float32
    assert (float(unit[0]), float(unit[255])) == (0.0, 1.0)
    assert torch.equal((unit * 255).round().to(torch.uint8), raw)
    assert raw[255] == 255


def test_a_cache_of_maps_keeps_their_type() -> None:
    maps = np.random.default_rng(0).random((4, 1, 6, 6), dtype=np.float32)
    assert torch.equal(Cache(maps, CPU).take([2, 0]), torch.from_numpy(maps[[2, 0]]))


def test_another_reader_has_a_cache_of_its_own(
    paths: list[Path], tmp_path: Path, decoded: list[Path]
) -> None:
    def black(path: Path) -> NDArray[np.uint8]:
        return np.zeros((SIDE, SIDE, 3), np.uint8)

    plain = cache_images(paths, SIDE, tmp_path / "cache", CPU)
    dark = cache_images(paths, SIDE, tmp_path / "cache", CPU, read=black, threads=1)
    assert plain.take([0]).any()
    assert not dark.take([0, 4]).any()
    assert len(decoded) == len(paths)
