from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from leanet.data.images import resize_image, write_image
from leanet.data.pretraining import find_images, leak_remark, leaked, read_square, write_seen
from leanet.files import write_csv
from leanet.records import NORMAL, Sample


def write(root: Path, *names: str) -> Path:
    """An image of its own for every name."""
    for name in names:
        level = sum(name.encode()) % 256
        write_image(root / name, np.full((4, 4, 3), level, np.uint8))
    return root


def samples(root: Path, *names: str) -> list[Sample]:
    return [Sample(path=root / name, label=NORMAL) for name in names]


def test_a_folder_may_be_flat_and_nested_and_comes_in_natural_order(tmp_path: Path) -> None:
    root = write(tmp_path, "10.png", "9.png", "more/deep/1.PNG", ".hidden.png")
    (root / "notes.txt").write_text("no image")
    pool = find_images(root)
    assert [p.relative_to(root).as_posix() for p in pool.paths] == [
        "9.png",
        "10.png",
        "more/deep/1.PNG",
    ]
    assert (pool.root, pool.num_test, pool.num_masks) == (root, 0, 0)


def test_test_images_and_masks_are_left_out_at_any_depth(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        "bottle/train/good/0.png",
        "bottle/test/crack/1.png",
        "bottle/ground_truth/crack/1_mask.png",
        "Testing/2.png",
        "Mask/3.png",
    )
    pool = find_images(root)
    assert pool.paths == (root / "bottle/train/good/0.png",)
    assert (pool.num_test, pool.num_masks) == (2, 2)


def test_a_test_folder_that_is_given_itself_is_learned_from(tmp_path: Path) -> None:
    root = write(tmp_path, "test/a/0.png", "test/1.png")
    with pytest.raises(ValueError, match=r"no images to learn from: 2 in folders named test"):
        find_images(root)
    assert len(find_images(root / "test").paths) == 2


def test_a_table_gives_its_training_part(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    rows = [
        {"path": "a.png", "label": "normal", "split": "train"},
        {"path": "b.png", "label": "anomalous", "split": "test"},
    ]
    write_csv(tmp_path / "t.csv", rows)
    pool = find_images(tmp_path / "t.csv")
    assert (pool.paths, pool.num_test) == ((tmp_path / "a.png",), 1)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize("shape", [(6, 12), (12, 6), (7, 10)])
def test_the_square_is_the_center_and_shrinks_without_distortion(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    square = read_square(tmp_path / "a.png")
    side = min(shape)
    assert square.shape == (side, side, 3)
    where = np.lib.stride_tricks.sliding_window_view(image, (side, side, 3))[:, :, 0]
    top, left = ((length - side) // 2 for length in shape)
    np.testing.assert_array_equal(square, where[top, left])
    assert resize_image(square, 3).shape == (3, 3, 3)


def test_leaks_are_counted_by_the_bytes_of_the_images(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "a.png", "b.png", "c.png")
    run = tmp_path / "run"
    write_seen(run, data, [data / "a.png", data / "b.png"])
    shutil.copy(data / "a.png", data / "renamed.png")
    assert leaked(run, samples(data, "c.png")) == 0
    assert leaked(run / "weights.safetensors", samples(data, "renamed.png", "b.png", "c.png")) == 2
    assert "LEAK" in leak_remark(run, samples(data, "a.png", "c.png"))
    assert "1 of the 2 test images" in leak_remark(run, samples(data, "a.png", "c.png"))
    assert "none of the 1 test images" in leak_remark(run, samples(data, "c.png"))


def test_weights_from_elsewhere_have_seen_nobody_knows_what(tmp_path: Path) -> None:
    data = write(tmp_path, "a.png")
    assert leaked(tmp_path / "celeba.pth", samples(data, "a.png")) is None
    assert "not known" in leak_remark(tmp_path / "celeba.pth", samples(data, "a.png"))
