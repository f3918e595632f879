from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from leanet.data.cache import Cache
from leanet.data.images import read_map, write_image
from leanet.data.map_folder import find_maps, open_map_folder, read_given_map
from leanet.files import read_json
from leanet.inference.gallery import FULL_SCALE, GALLERY_SIZE, save_gallery, save_maps
from leanet.records import ANOMALOUS, NORMAL, Prediction, Sample

SIDE = 8


class Reds:
    """Score: the mean red; map: red in dE00-like units; explains itself with the green."""

    def __init__(self, gain: float = 100.0) -> None:
        self.gain = gain

    def __call__(self, image: Tensor) -> Prediction:
        red = image[:, :1]
        return Prediction(red.mean(dim=(1, 2, 3)), self.gain * red)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        return {"green": image[:, 1:2]}


class Attentive(Reds):
    """Its map is a share of attention."""

    map_unit = "attention"


class Scorer(Reds):
    """The same without a map or an explanation."""

    def __call__(self, image: Tensor) -> Prediction:
        return Prediction(super().__call__(image).score)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        return {}


@dataclass
class Data:
    samples: tuple[Sample, ...]
    images: Cache


def data(root: Path, names: list[str]) -> Data:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(names), 3, SIDE, SIDE), dtype=np.uint8)
    samples = tuple(Sample(path=root / name, label=NORMAL) for name in names)
    return Data(samples, Cache(pixels, torch.device("cpu")))


def numbered(root: Path, count: int) -> Data:
    return data(root, [f"{k}.png" for k in range(count)])


def red(of: Data, index: int) -> NDArray[np.float32]:
    plane: NDArray[np.float32] = of.images.array[index, 0].astype(np.float32) / 255
    return plane


def gallery(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    with safe_open(folder / "gallery.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["json"])["paths"]


def test_every_map_stands_under_the_place_of_its_image(tmp_path: Path) -> None:
    toy = data(tmp_path / "data", ["a/1.png", "b/1.jpg", "2.tif"])
    save_maps(Reds(), toy, (0, 1, 2), tmp_path / "maps")
    for index, name in enumerate(["a/1.png", "b/1.jpg.png", "2.tif.png"]):
        stored = read_map(tmp_path / "maps" / name, FULL_SCALE)
        assert np.abs(stored - 100 * red(toy, index)).max() <= FULL_SCALE / 65535


def test_only_the_given_images_are_drawn_in_batches_of_any_number(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 40)
    save_maps(Reds(), toy, tuple(range(3, 40)), tmp_path / "maps")
    assert len(list((tmp_path / "maps").glob("*.png"))) == 37
    stored = read_map(tmp_path / "maps" / "39.png", FULL_SCALE)
    assert np.abs(stored - 100 * red(toy, 39)).max() <= FULL_SCALE / 65535


def test_maps_json_says_scale_clipped_pixels_and_whose_each_map_is(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 2)
    save_maps(Reds(gain=300.0), toy, (0, 1), tmp_path / "maps")
    clipped = int(sum((300 * red(toy, k) > FULL_SCALE).sum() for k in (0, 1)))
    assert clipped > 0
    assert read_json(tmp_path / "maps" / "maps.json") == {
        "full_scale": FULL_SCALE,
        "bits": 16,
        "clipped_pixels": clipped,
        "maps": {name: str(tmp_path / name) for name in ("0.png", "1.png")},
    }


def test_maps_of_attention_are_written_up_to_1(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 1)
    save_maps(Attentive(gain=1.0), toy, (0,), tmp_path / "maps")
    stored = read_map(tmp_path / "maps" / "0.png", 1.0)
    assert np.abs(stored - red(toy, 0)).max() <= 1 / 65535
    assert read_json(tmp_path / "maps" / "maps.json")["unit"] == "attention"


def test_distances_are_written_up_to_ten_times_the_end_of_the_colors(tmp_path: Path) -> None:
    class Far(Reds):
        map_unit, map_top, map_border = "distance", 2e-4, 2

    toy = numbered(tmp_path, 1)
    save_maps(Far(gain=1e-3), toy, (0,), tmp_path / "maps")
    facts = read_json(tmp_path / "maps" / "maps.json")
    assert facts["full_scale"] == pytest.approx(2e-3)
    assert (facts["unit"], facts["clipped_pixels"], facts["valid"]) == ("distance", 0, [2, 2, 6, 6])
    stored = read_map(tmp_path / "maps" / "0.png", facts["full_scale"])
    assert np.abs(stored - 1e-3 * red(toy, 0)).max() <= 2e-3 / 65535


def test_a_folder_of_such_maps_can_be_read_again(tmp_path: Path) -> None:
    class Far(Reds):
        map_unit, map_top = "distance", 1234.5

    toy = numbered(tmp_path / "data", 3)
    save_maps(Far(gain=5000.0), toy, (0, 1, 2), tmp_path / "maps")
    opened = open_map_folder(tmp_path / "maps")
    files = find_maps(opened, [one.path for one in toy.samples], tmp_path / "data")
    for index, file in enumerate(files):
        plane = read_given_map(file, opened.full_scale)
        assert np.abs(plane - 5000 * red(toy, index)).max() <= 12345 / 65535
    assert opened.unit == "distance"


def test_images_of_one_name_keep_a_map_each(tmp_path: Path) -> None:
    save_maps(Reds(), data(tmp_path, ["1.png", "1.jpg"]), (0, 1), tmp_path / "maps")
    assert read_json(tmp_path / "maps" / "maps.json")["maps"] == {
        "1.png": str(tmp_path / "1.png"),
        "1.jpg.png": str(tmp_path / "1.jpg"),
    }


@pytest.mark.parametrize("indices", [(), (0, 1)])
def test_without_maps_nothing_is_written(tmp_path: Path, indices: tuple[int, ...]) -> None:
    detector = Scorer() if indices else Reds()
    save_maps(detector, numbered(tmp_path, 2), indices, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_the_gallery_holds_image_map_and_explanation_of_each_path(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 5)
    scores = {"score": [0.3, 0.1, 0.5, 0.2, 0.4]}
    save_gallery(Reds(), toy, range(5), scores, (), tmp_path / "fold", tmp_path)
    tensors, paths = gallery(tmp_path / "fold")
    assert sorted(paths) == [f"{k}.png" for k in range(5)]
    assert set(tensors) == {"image", "map", "green"}
    for place, path in enumerate(paths):
        raw = toy.images.array[int(Path(path).stem)]
        assert np.array_equal(tensors["image"][place].numpy(), raw)
        assert np.allclose(tensors["map"][place, 0].numpy(), raw[0] / 255 * 100, atol=1e-4)
        assert np.allclose(tensors["green"][place, 0].numpy(), raw[1] / 255, atol=1e-6)


def test_scores_belong_to_the_indices_not_to_the_data_set(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 6)
    save_gallery(Reds(), toy, (5, 2), {"score": [0.9, 0.1]}, (), tmp_path / "fold", tmp_path)
    assert set(gallery(tmp_path / "fold")[1]) == {"2.png", "5.png"}


def test_of_many_images_those_drawn_by_lot_and_both_ends_of_the_ranking_are_kept(
    tmp_path: Path,
) -> None:
    toy = numbered(tmp_path, 100)
    scores = {"score": [float(k) for k in range(100)]}
    save_gallery(Reds(), toy, range(100), scores, (), tmp_path / "fold", tmp_path)
    tensors, paths = gallery(tmp_path / "fold")
    ranks = sorted(int(Path(path).stem) for path in paths)
    assert len(ranks) == len(tensors["map"]) == GALLERY_SIZE
    assert (ranks[0], ranks[-1]) == (0, 99)
    assert max(np.diff(ranks)) <= 8


def test_the_images_drawn_by_lot_do_not_depend_on_scores_and_are_named(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 100)
    samples = [
        replace(one, label=k % 3 == 0, kind="ab"[k % 2]) for k, one in enumerate(toy.samples)
    ]
    toy = Data(tuple(samples), toy.images)
    drawn = []
    for name, wrong in (("one", ()), ("other", range(40))):
        scores = {"score": [float((7 * k) % 100 if wrong else k) for k in range(100)]}
        save_gallery(Reds(), toy, range(100), scores, tuple(wrong), tmp_path / name, tmp_path)
        with safe_open(tmp_path / name / "gallery.safetensors", framework="pt") as file:
            drawn.append(json.loads(file.metadata()["json"])["drawn"])
        assert set(drawn[-1]) <= set(gallery(tmp_path / name)[1])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 12
    assert sum(int(Path(path).stem) % 3 == 0 for path in drawn[0]) == 6


def test_wrongly_judged_images_come_first_and_each_image_once(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 100)
    scores = {"score": [float(k) for k in range(100)]}
    save_gallery(Reds(), toy, range(100), scores, (50, 0, 98), tmp_path / "fold", tmp_path)
    ranks = [int(Path(path).stem) for path in gallery(tmp_path / "fold")[1]]
    assert ranks[:3] == [50, 0, 98]
    assert len(set(ranks)) == len(ranks) == GALLERY_SIZE
    many = tuple(range(40))
    save_gallery(Reds(), toy, range(100), scores, many, tmp_path / "many", tmp_path)
    ranks = [int(Path(path).stem) for path in gallery(tmp_path / "many")[1]]
    assert ranks[: GALLERY_SIZE // 2] == list(many[: GALLERY_SIZE // 2])
    assert max(ranks) > 60  # the rest is spread over the ranking


def test_a_detector_without_a_map_shows_its_images_only(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 3)
    save_gallery(Scorer(), toy, range(3), {"score": [1.0, 2.0, 3.0]}, (), tmp_path, tmp_path)
    assert set(gallery(tmp_path)[0]) == {"image"}


def test_no_images_make_no_gallery(tmp_path: Path) -> None:
    save_gallery(Reds(), numbered(tmp_path, 1), (), {"score": []}, (), tmp_path / "f", tmp_path)
    assert not (tmp_path / "f").exists()


def test_the_gallery_holds_the_masks_at_the_size_of_the_images(tmp_path: Path) -> None:
    toy = numbered(tmp_path, 3)
    pixels = np.zeros((4 * SIDE, 4 * SIDE), np.uint8)
    pixels[5, 30] = 255  # a defect of one pixel, in the cell (1, 7)
    write_image(tmp_path / "mask.png", pixels)
    (tmp_path / "bad.png").write_bytes(b"no image")
    masks = [tmp_path / "mask.png", None, tmp_path / "bad.png"]
    samples = [
        Sample(path=one.path, label=ANOMALOUS, mask=mask)
        for one, mask in zip(toy.samples, masks, strict=True)
    ]
    toy = Data(tuple(samples), toy.images)
    save_gallery(Reds(), toy, range(3), {"score": [1.0, 2.0, 3.0]}, (), tmp_path / "f", tmp_path)
    tensors, paths = gallery(tmp_path / "f")
    stored = tensors["mask"].numpy()
    expected = np.zeros((3, 1, SIDE, SIDE), np.uint8)
    expected[paths.index("0.png"), 0, 1, 7] = 1
    assert np.array_equal(stored, expected)
