"""Names and files of the tree between the two phases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from leanet.data.images import read_float_map, read_image, read_map
from leanet.files import read_csv
from leanet.ops.maps import PixelHistogram
from leanet.programs.trees import (
    MapFiles,
    keep_manifest,
    manifest,
    positions,
    ratio,
    stem,
    write_labels,
    write_pictures,
)
from leanet.records import Fold, Sample

SAMPLES = tuple(
    Sample(path=Path(f"data/{k}.png"), label=k % 2, group=f"g{k}" if k else None) for k in range(4)
)
FOLDS = (
    Fold(name="01", train=(0, 2, 3), test=(1,), parts=((3,), (0, 2))),
    Fold(name="02", train=(1,), test=(0, 2, 3), parts=((1,),)),
)


def test_indices_have_three_digits_or_more() -> None:
    assert [stem(k) for k in (0, 42, 999, 1000)] == ["000", "042", "999", "1000"]


def test_labels_are_floats_in_the_order_of_the_files(tmp_path: Path) -> None:
    write_labels(tmp_path / "Label.npz", [1, 0, 0], [1])
    with np.load(tmp_path / "Label.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["test", "train"]
        assert arrays["train"].dtype == np.float32
        np.testing.assert_array_equal(arrays["train"], [1, 0, 0])
        np.testing.assert_array_equal(arrays["test"], [1])


def test_a_16_bit_map_is_within_half_a_step_and_counts_what_it_clips(tmp_path: Path) -> None:
    plane = np.random.default_rng(0).uniform(0, 160, (8, 8)).astype(np.float32)
    files = MapFiles(dtype="uint16", full_scale=150.0)
    clipped = files.write(tmp_path / "000", plane)
    assert clipped == int((plane > 150).sum()) > 0
    back = read_map(tmp_path / "000.png", 150.0)
    np.testing.assert_allclose(back, np.minimum(plane, 150), atol=150 / 65535 / 2 * 1.01)
    assert files.bits == 16


def test_a_float_map_keeps_every_bit_and_clips_nothing(tmp_path: Path) -> None:
    plane = np.array([[0.1, 500.0]], np.float32)
    files = MapFiles(dtype="float32", full_scale=150.0)
    assert files.write(tmp_path / "000", plane) == 0
    np.testing.assert_array_equal(read_float_map(tmp_path / "000.tiff"), plane)
    assert files.bits == 32


def test_pictures_are_written_pixel_by_pixel(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    write_pictures(tmp_path, "Train", [7, 9], {"GT": images})
    np.testing.assert_array_equal(read_image(tmp_path / "GT" / "Train" / "007.png"), images[0])
    np.testing.assert_array_equal(read_image(tmp_path / "GT" / "Train" / "009.png"), images[1])


def test_the_manifest_tells_where_every_file_comes_from() -> None:
    rows = manifest(SAMPLES, FOLDS, Path("data"), ["aa", "bb", "cc", "dd"])
    assert len(rows) == 8
    assert rows[1] == {
        "fold": "01", "split": "train", "index": "001", "path": "2.png", "label": 0,
        "group": "g2", "sha256": "cc", "part": 1,
    }  # fmt: skip
    assert rows[3] == {
        "fold": "01", "split": "test", "index": "000", "path": "1.png", "label": 1,
        "group": "g1", "sha256": "bb", "part": "",
    }  # fmt: skip


def test_a_manifest_is_kept_and_other_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "manifest.csv"
    rows = manifest(SAMPLES, FOLDS, Path("data"), ["aa", "bb", "cc", "dd"])
    keep_manifest(file, rows)
    keep_manifest(file, rows)
    assert len(read_csv(file)) == 8
    changed = manifest(SAMPLES, FOLDS, Path("data"), ["aa", "bb", "cc", "XX"])
    with pytest.raises(ValueError, match=r"2 new or changed, e.g. 3.png"):
        keep_manifest(file, changed)


def test_positions_number_the_files() -> None:
    assert positions((4, 7, 9)) == {4: 0, 7: 1, 9: 2}


def test_the_ratio_of_quantiles_is_one_without_a_shift() -> None:
    dark, bright, none = PixelHistogram(), PixelHistogram(), PixelHistogram()
    dark.add(torch.linspace(0, 1, 1001))
    bright.add(torch.linspace(0, 3, 1001))
    assert ratio(dark, dark) == 1.0
    assert ratio(bright, dark) == pytest.approx(3.0, rel=1e-3)
    assert ratio(none, dark) is None
    assert ratio(dark, none) is None
