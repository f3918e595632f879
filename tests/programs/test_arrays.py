"""Trees of arrays become trees of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from leanet.data.images import read_float_map, read_image
from leanet.files import read_json
from leanet.programs.arrays import convert
from leanet.programs.sources import available_folds, is_array_tree, open_folds

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (7, 8, 8, 3)).astype(np.float32)
MAPS = RNG.uniform(0, 40, (7, 8, 8, 1)).astype(np.float32)
LABELS = np.array([0, 0, 1, 0, 0, 1, 0])


def write(folder: Path, **changes: NDArray[Any]) -> Path:
    """Five training images and two test images, as the older program saved them."""
    arrays = {"RGB": IMAGES, "Attention": MAPS, "Colored": IMAGES, "Label": LABELS, **changes}
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", array[:5], array[5:])
    return folder


def test_a_fold_becomes_a_fold_of_ours(tmp_path: Path) -> None:
    source = write(tmp_path / "old" / "0")
    assert is_array_tree(tmp_path / "old")
    assert available_folds(tmp_path / "old") == (1,)
    convert(source, tmp_path / "new" / "01")
    (fold,) = open_folds(tmp_path / "new", [1])
    assert fold.origin == "ours"
    assert fold.train.labels == (0, 0, 1, 0, 0)
    assert fold.test.labels == (1, 0)
    shown = read_image(fold.test.images[1]).astype(float)
    np.testing.assert_allclose(shown, IMAGES[6] * 255, atol=0.5001)
    np.testing.assert_array_equal(read_float_map(fold.train.maps[2]), MAPS[2, ..., 0])
    assert fold.model is None


def test_maps_are_scaled_by_the_training_normals_not_by_their_maxima(tmp_path: Path) -> None:
    convert(write(tmp_path / "0"), tmp_path / "01")
    facts = read_json(tmp_path / "01" / "maps.json")
    normals = np.sort(MAPS[[0, 1, 3, 4]].ravel())
    assert facts["s"] == pytest.approx(normals[int(0.999 * (len(normals) - 1))], rel=1e-3)
    assert facts["normal_quantile_ratio"] is not None


def test_images_of_whole_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    codes = RNG.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    convert(write(tmp_path / "0", RGB=codes), tmp_path / "01")
    np.testing.assert_array_equal(
        read_image(tmp_path / "01" / "GT" / "Train" / "004.png"), codes[4]
    )


def test_a_finished_conversion_is_not_repeated(tmp_path: Path) -> None:
    source = write(tmp_path / "0")
    convert(source, tmp_path / "01")
    (source / "RGB.npz").unlink()
    convert(source, tmp_path / "01")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RGB": np.array([{"a": 1}] * 7, dtype=object)}, "numbers in row order are read"),
        ({"Label": np.array(["x"] * 7, dtype=object)}, "cannot read .*Label.npz"),
        ({"RGB": IMAGES[..., :2]}, r"is not \[N, H, W, 3\]"),
        ({"Attention": MAPS[:6]}, "Attention.npz: it has 1 rows, and there are 2 labels"),
        ({"Attention": -MAPS}, "finite and >= 0"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    tmp_path: Path, changes: dict[str, NDArray[Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert(write(tmp_path / "0", **changes), tmp_path / "01")


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "0")
    (source / "Attention.npz").write_bytes(b"PK no")
    with pytest.raises(ValueError, match=r"cannot read .*Attention.npz"):
        convert(source, tmp_path / "01")
