"""Maps from files behave as if a model had drawn them, for the images that have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanet.data.images import read_image, resize_image
from leanet.data.map_folder import open_map_folder
from leanet.files import write_json
from leanet.methods.given_maps import GivenMaps, give_maps, maps_of
from leanet.methods.recipe import Material
from leanet.methods.reconstruction import Config, build

SIDE = 32


@pytest.fixture
def data(material: Callable[..., Material], toy: Path) -> Material:
    from dataclasses import replace

    return replace(material(), root=toy)


@pytest.fixture
def folder(data: Material, tmp_path: Path) -> Path:
    """The map of image k is k everywhere."""
    for k, sample in enumerate(data.samples):
        path = (tmp_path / "maps" / sample.path.relative_to(data.root)).with_suffix(".tiff")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 48), k, np.float32)).save(path)
    return tmp_path / "maps"


def cached(data: Material, *indices: int) -> torch.Tensor:
    return torch.from_numpy(data.images.array[list(indices)]).float() / 255


def decoded(path: Path) -> torch.Tensor:
    pixels = resize_image(read_image(path), SIDE).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels))[None].float() / 255


def test_every_image_gets_its_own_map_in_any_order(data: Material, folder: Path) -> None:
    detector = maps_of(open_map_folder(folder), data)
    prediction = detector(cached(data, 5, 0, 23))
    assert prediction.map.shape == (3, 1, SIDE, SIDE)
    assert prediction.map.amin(dim=(1, 2, 3)).tolist() == [5, 0, 23]
    assert prediction.map.amax(dim=(1, 2, 3)).tolist() == [5, 0, 23]
    assert prediction.score.tolist() == [5, 0, 23]
    assert detector.map_unit == "given"
    assert not list(detector.state_dict())


def test_the_same_file_is_recognized_when_it_is_read_again(data: Material, folder: Path) -> None:
    detector = maps_of(open_map_folder(folder), data)
    assert detector(decoded(data.samples[7].path)).score.tolist() == [7]


def test_an_image_without_a_map_says_what_to_do(data: Material, folder: Path) -> None:
    detector = maps_of(open_map_folder(folder), data)
    strange = torch.cat([cached(data, 0), torch.rand(1, 3, SIDE, SIDE)])
    with pytest.raises(ValueError, match=r"no map.*folder.*--maps_from FOLDER"):
        detector(strange)


def test_equal_images_with_different_maps_are_refused() -> None:
    image, detector = torch.rand(1, 3, 4, 4), GivenMaps(4, "given")
    detector.give(image, [np.zeros((4, 4), np.float32)])
    detector.give(image, [np.zeros((4, 4), np.float32)])
    with pytest.raises(ValueError, match="two images that show the same at 4 px"):
        detector.give(image, [np.ones((4, 4), np.float32)])


def test_maps_can_be_given_later(data: Material, folder: Path) -> None:
    detector = GivenMaps(SIDE, "given")
    images = [sample.path for sample in data.samples[3:6]]
    give_maps(detector, images, data.root, folder)
    assert detector(torch.cat([decoded(image) for image in images])).score.tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="no map"):
        detector(decoded(data.samples[6].path))


def test_unreadable_images_are_left_to_whoever_judges_them(tmp_path: Path) -> None:
    image, detector = tmp_path / "data" / "1.png", GivenMaps(SIDE, "given")
    for file in (image, tmp_path / "maps" / "1.png"):
        file.parent.mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    image.write_bytes(b"no image")
    give_maps(detector, [image], tmp_path / "data", tmp_path / "maps")


def test_a_detector_that_draws_needs_no_maps(data: Material, folder: Path) -> None:
    drawing = build(Config(base=2), SIDE, {"map_top": 0.0})
    with pytest.raises(ValueError, match=r"draws its maps itself.*--map_source FOLDER"):
        give_maps(drawing, [data.samples[0].path], data.root, folder)


def test_the_border_in_which_maps_say_nothing_is_known_and_stored(
    data: Material, folder: Path
) -> None:
    assert maps_of(open_map_folder(folder), data).map_border == 0
    write_json(folder / "maps.json", {"valid": [3, 3, 45, 45]})
    detector = maps_of(open_map_folder(folder), data)
    assert detector.map_border == 2  # of 32 px
    again = GivenMaps(SIDE, **detector.extra())
    assert (again.map_border, again.map_unit) == (2, "given")
