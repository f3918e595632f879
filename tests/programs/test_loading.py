"""A fold in memory: images, network maps and their scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from leanet.config import UsageError
from leanet.data.images import read_image, read_map, write_image
from leanet.files import read_json
from leanet.methods.given_maps import GivenMaps
from leanet.methods.reconstruction import Reconstructor
from leanet.ops.maps import MapScale
from leanet.programs.flags import Phase2
from leanet.programs.loading import (
    Loaded,
    load_fold,
    read_lab_picture,
    refuse_legacy_flags,
)
from leanet.programs.sources import open_folds
from leanet.runtime import Runtime


def load(tree: Path, place: Path, runtime: Runtime, **flags: Any) -> Loaded:
    (fold,) = open_folds(tree, [1])
    return load_fold(fold, Phase2(**{"img_size": 32, **flags}), place, runtime)


def planes(loaded: Loaded) -> NDArray[np.float32]:
    return loaded.maps.maps.take(range(len(loaded.names))).numpy()


@pytest.fixture
def legacy(copied: Path) -> Path:
    """The tree as the original would have written it: JPEG maps, no maps.json."""
    for name in ("run.json", "manifest.csv", "01/maps.json"):
        (copied / name).unlink()
    for file in (copied / "01" / "Anomap").rglob("*.png"):
        plane = np.clip(read_map(file, 150.0) / 60, 0, 1)
        grey = np.rint(plane * 255).astype(np.uint8)
        Image.fromarray(grey).convert("RGB").save(file.with_suffix(".jpg"), quality=75)
        file.unlink()
    return copied


def test_training_images_come_first_and_test_images_follow(
    tree: Path, tmp_path: Path, runtime: Runtime
) -> None:
    loaded = load(tree, tmp_path, runtime)
    assert loaded.fold.train == tuple(range(12))
    assert loaded.fold.test == tuple(range(12, 24))
    fold = open_folds(tree, [1])[0]
    assert loaded.data.labels == (*fold.train.labels, *fold.test.labels)
    shown = loaded.data.images.take([12])[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown, read_image(tree / "01" / "GT" / "Test" / "000.png"))


def test_network_maps_have_the_scale_of_phase_1(
    tree: Path, tmp_path: Path, runtime: Runtime
) -> None:
    loaded = load(tree, tmp_path, runtime)
    facts = read_json(tree / "01" / "maps.json")
    raw = read_map(tree / "01" / "Anomap" / "Test" / "005.png", facts["D"])
    wanted = np.clip(raw / (facts["h"] * facts["s"]), 0, 1)
    np.testing.assert_allclose(planes(loaded)[17, 0], wanted, atol=1e-6)
    assert loaded.maps.scale == MapScale(facts["s"], facts["h"])
    assert loaded.facts["map_mode"] == "in_sample"
    assert loaded.facts["normal_quantile_ratio"] == facts["normal_quantile_ratio"]
    assert isinstance(loaded.maps.model, Reconstructor)
    assert loaded.drawn_by["method"] == "reconstruction"


def test_images_and_maps_are_resized_together(tree: Path, tmp_path: Path, runtime: Runtime) -> None:
    loaded = load(tree, tmp_path, runtime, img_size=64)
    assert loaded.data.images.take([0]).shape == (1, 3, 64, 64)
    assert planes(loaded).shape == (24, 1, 64, 64)
    small = planes(load(tree, tmp_path / "small", runtime))
    np.testing.assert_allclose(
        planes(loaded).mean((1, 2, 3)), small.mean((1, 2, 3)), rtol=0.02, atol=1e-3
    )


def test_maps_of_8_bits_are_shares_of_255_as_in_the_original(
    legacy: Path, tmp_path: Path, runtime: Runtime
) -> None:
    loaded = load(legacy, tmp_path, runtime)
    file = legacy / "01" / "Anomap" / "Train" / "004.jpg"
    wanted = np.asarray(Image.open(file).convert("L")) / 255
    np.testing.assert_allclose(planes(loaded)[4, 0], wanted, atol=1e-6)
    assert isinstance(loaded.maps.model, GivenMaps)
    assert loaded.facts["map_mode"] == "unknown"
    assert loaded.facts["normal_quantile_ratio"] > 0


def test_maps_of_8_bits_can_be_rescaled_by_the_training_normals(
    legacy: Path, tmp_path: Path, runtime: Runtime
) -> None:
    loaded = load(legacy, tmp_path, runtime, rescale_legacy=True)
    normals = [k for k in loaded.fold.train if loaded.data.labels[k] == 0]
    scaled = planes(loaded)[normals]
    assert np.quantile(scaled, 0.999) == pytest.approx(0.25, rel=2e-3)
    assert "training normals" in loaded.facts["map_scale"]["rule"]


def test_false_colors_of_the_original_are_decoded(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    lab = rgb2lab(rgb)
    codes = np.rint(lab * [255 / 100, 1, 1] + [0, 128, 128]).clip(0, 255).astype(np.uint8)
    write_image(tmp_path / "000.png", codes)
    back = read_lab_picture(tmp_path / "000.png")
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - rgb).max() <= 12  # of 8-bit Lab
    assert np.abs(back.astype(int) - rgb).mean() < 2


def test_legacy_gt_is_decoded_on_the_way_into_memory(
    legacy: Path, tmp_path: Path, runtime: Runtime
) -> None:
    plain = load(legacy, tmp_path / "a", runtime).data.images.take([0])
    decoded = load(legacy, tmp_path / "a", runtime, legacy_gt="lab").data.images.take([0])
    wanted = read_lab_picture(legacy / "01" / "GT" / "Train" / "000.png")
    assert not torch.equal(plain, decoded)
    np.testing.assert_array_equal(decoded[0].permute(1, 2, 0).numpy(), wanted)


def test_flags_for_legacy_trees_are_refused_for_ours() -> None:
    refuse_legacy_flags(Path("x"), Phase2())
    with pytest.raises(UsageError, match="leave out --legacy_gt: its images have their true"):
        refuse_legacy_flags(Path("x"), Phase2(legacy_gt="lab"))
    with pytest.raises(UsageError, match="--rescale_legacy: its maps are scaled by"):
        refuse_legacy_flags(Path("x"), Phase2(rescale_legacy=True))
