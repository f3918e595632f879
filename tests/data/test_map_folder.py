"""Maps lie in their folder as the images do in theirs, whatever the layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanet.data import map_folder
from leanet.data.images import UnreadableImageError
from leanet.data.map_folder import (
    MapFolder,
    cache_maps,
    find_maps,
    open_map_folder,
    read_given_map,
    resize_map,
)
from leanet.data.scan import scan
from leanet.files import write_json

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def save(path: Path, array: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def picture(path: Path) -> Path:
    return save(path, np.zeros((8, 8, 3), np.uint8))


def grey(path: Path) -> Path:
    return save(path, np.zeros((8, 8), np.uint8))


def found(folder: Path, images: Sequence[Path], root: Path) -> list[str]:
    opened = open_map_folder(folder)
    return [path.relative_to(folder).as_posix() for path in find_maps(opened, images, root)]


@pytest.mark.parametrize(
    ("name", "array", "full_scale", "step"),
    [
        ("a.png", np.rint(RAMP * 255).astype(np.uint8), 1.0, 1 / 255),
        ("a.png", np.rint(RAMP * 65535).astype(np.uint16), 150.0, 150 / 65535),
        ("a.tiff", (RAMP * 7).astype(np.float32), 7.0, 1e-6),
        ("a.jpg", np.rint(RAMP * 255).astype(np.uint8), 2.0, 2 * 6 / 255),
    ],
)
def test_integers_are_shares_of_the_full_scale_and_floats_are_themselves(
    name: str, array: Any, full_scale: float, step: float, tmp_path: Path
) -> None:
    plane = read_given_map(save(tmp_path / name, array), full_scale)
    assert plane.dtype == np.float32
    assert np.abs(plane - RAMP * full_scale).max() <= step


@pytest.mark.parametrize("wrong", [-0.5, np.nan, np.inf])
def test_floats_that_are_no_map_are_refused(wrong: float, tmp_path: Path) -> None:
    plane = RAMP.astype(np.float32)
    plane[3, 3] = wrong
    with pytest.raises(UnreadableImageError, match=r"a\.tif.*finite and >= 0"):
        read_given_map(save(tmp_path / "a.tif", plane), 1.0)


@pytest.mark.parametrize(
    ("facts", "full_scale", "unit"),
    [
        (None, 1.0, "given"),
        ({"full_scale": 150, "unit": "dE00"}, 150.0, "dE00"),
        ({"D": 2.5, "bits": 16}, 2.5, "given"),
    ],
)
def test_a_file_beside_the_maps_tells_their_scale(
    facts: Any, full_scale: float, unit: str, tmp_path: Path
) -> None:
    if facts is not None:
        (tmp_path / "maps.json").write_text(json.dumps(facts))
    assert open_map_folder(tmp_path) == MapFolder(tmp_path, full_scale, unit)


@pytest.mark.parametrize("wrong", [0, -1, "inf"])
def test_an_impossible_scale_is_refused(wrong: Any, tmp_path: Path) -> None:
    (tmp_path / "maps.json").write_text(json.dumps({"full_scale": wrong}))
    with pytest.raises(ValueError, match=r"maps\.json: full_scale is"):
        open_map_folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere is no folder of maps; give a folder or a run"):
        open_map_folder(tmp_path / "nowhere")


LAYOUTS = {
    "positive-negative": ["Positive/1.png", "Negative/deep/er/1.png", "Negative/2.jpg"],
    "mvtec": ["train/good/000.png", "test/good/000.png", "test/broken_large/000.png"],
    "class-folders": ["healthy/1.bmp", "rust/1.bmp"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jpeg", ".PNG"])
def test_every_layout_is_mirrored(layout: str, suffix: str, tmp_path: Path) -> None:
    names = LAYOUTS[layout]
    for name in names:
        picture(tmp_path / "data" / name)
        grey((tmp_path / "maps" / name).with_suffix(suffix))
    scanned = scan(tmp_path / "data")
    images = [sample.path for sample in scanned.samples]
    expected = [image.relative_to(scanned.root).with_suffix(suffix).as_posix() for image in images]
    assert len(expected) == len(names)
    assert found(tmp_path / "maps", images, scanned.root) == expected


def test_images_of_a_table_may_lie_elsewhere(tmp_path: Path) -> None:
    inside, beside = picture(tmp_path / "data/in/1.png"), picture(tmp_path / "beside/1.png")
    table = tmp_path / "data" / "table.csv"
    table.write_text("path,label\nin/1.png,0\n../beside/1.png,1\n")
    scanned = scan(table)
    images = [sample.path for sample in scanned.samples]
    whole = beside.relative_to(beside.anchor)
    for name in ("in/1.png", whole):
        grey(tmp_path / "maps" / name)
    assert found(tmp_path / "maps", images, scanned.root) == ["in/1.png", whole.as_posix()]
    assert inside.exists()


def test_a_map_named_after_the_whole_file_comes_first_and_exact_ones_before_others(
    tmp_path: Path,
) -> None:
    image = picture(tmp_path / "data/1.jpg")
    order = ["1.jpg.tiff", "1.jpg.png", "1.tif", "1.png", "1.jpg"]
    for name in order:
        grey(tmp_path / "maps" / name)
    for name in order:
        assert found(tmp_path / "maps", [image], tmp_path / "data") == [name]
        (tmp_path / "maps" / name).unlink()


def test_an_image_is_not_its_own_map(tmp_path: Path) -> None:
    image = picture(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"lacks the maps of 1 of 1 images: 1\.png"):
        find_maps(open_map_folder(tmp_path), [image], tmp_path)


def test_missing_maps_are_all_counted_and_some_named(tmp_path: Path) -> None:
    images = [picture(tmp_path / f"data/{k}.png") for k in range(9)]
    grey(tmp_path / "maps" / "4.png")
    with pytest.raises(ValueError, match=r"8 of 9 images: 0\.png, .*3\.png, 5.* and 3 more"):
        find_maps(open_map_folder(tmp_path / "maps"), images, tmp_path / "data")


def test_one_map_for_two_images_is_refused_and_longer_names_help(tmp_path: Path) -> None:
    images = [picture(tmp_path / "data/1.png"), picture(tmp_path / "data/1.jpg")]
    grey(tmp_path / "maps/1.png")
    with pytest.raises(ValueError, match=r"map for 1\.png and 1\.jpg; .*1\.png\.png, 1\.jpg\.p"):
        find_maps(open_map_folder(tmp_path / "maps"), images, tmp_path / "data")
    grey(tmp_path / "maps/1.jpg.png")
    assert found(tmp_path / "maps", images, tmp_path / "data") == ["1.png", "1.jpg.png"]


def test_shrinking_takes_means(tmp_path: Path) -> None:
    blocks = np.kron(np.array([[0.0, 4.0], [8.0, 2.0]]), np.ones((32, 32))).astype(np.float32)
    small = resize_map(blocks, 2)
    assert small.dtype == np.float32
    assert small.mean() == pytest.approx(blocks.mean(), rel=1e-3)
    assert small.min() >= 0
    assert np.array_equal(resize_map(blocks, 64), blocks)


def test_all_maps_are_read_once_and_again_when_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [np.full((4, 4), k, np.float32) for k in range(3)]
    paths = [save(tmp_path / f"{k}.tiff", value) for k, value in enumerate(values)]
    first = cache_maps(paths, 1.0, 4, tmp_path / "cache")
    assert first.shape == (3, 1, 4, 4)
    assert np.array_equal(first[:, 0], np.stack(values))
    with monkeypatch.context() as patched:
        patched.setattr(map_folder, "read_given_map", lambda *a: pytest.fail("again"))
        assert np.array_equal(cache_maps(paths, 1.0, 4, tmp_path / "cache"), first)
    save(paths[1], np.full((5, 5), 9, np.float32))
    assert cache_maps(paths, 1.0, 4, tmp_path / "cache")[1].max() == 9


def test_a_box_in_which_maps_say_something_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "maps.json", {"valid": [16, 16, 240, 240]})
    assert open_map_folder(tmp_path).border == 1 / 16
    write_json(tmp_path / "maps.json", {})
    assert open_map_folder(tmp_path).border == 0
    for box in ([16, 0, 240, 240], [16, 16, 240], [20, 20, 10, 10]):
        write_json(tmp_path / "maps.json", {"valid": box})
        with pytest.raises(ValueError, match=r"valid is \[.*a square in the middle"):
            open_map_folder(tmp_path)
