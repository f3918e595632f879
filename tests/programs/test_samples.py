"""What phase 1 finds below Positive/ and Negative/."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanet.config import UsageError
from leanet.files import write_text
from leanet.programs.samples import conversions, count_labels, find_samples, fingerprint
from leanet.records import ANOMALOUS, NORMAL


def picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4)).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("Positive/a10.png", "Positive/a9.png", "Positive/leaf1/b.JPG"):
        picture(root / name)
    for name in ("Negative/leaf1/x.png", "Negative/leaf1/deep/y.png", "Negative/z.bmp"):
        picture(root / name)
    write_text(root / "Negative" / "notes.txt", "")
    write_text(root / "Positive" / "v1.2.readme", "")
    return root


def names(root: Path, groups: str | None = None) -> list[str]:
    found = find_samples(root, groups)
    return [sample.path.relative_to(root).as_posix() for sample in found.samples]


def test_images_come_in_natural_order_anomalous_ones_first(data: Path) -> None:
    assert names(data) == [
        "Positive/a9.png", "Positive/a10.png", "Positive/leaf1/b.JPG",
        "Negative/leaf1/deep/y.png", "Negative/leaf1/x.png", "Negative/z.bmp",
    ]  # fmt: skip
    samples = find_samples(data).samples
    assert [sample.label for sample in samples] == [ANOMALOUS] * 3 + [NORMAL] * 3
    assert count_labels(samples) == (3, 3)


def test_files_with_a_dot_that_are_no_images_are_counted(data: Path) -> None:
    assert find_samples(data).num_skipped == 2


def test_other_folders_do_not_count(data: Path) -> None:
    picture(data / "Mask" / "a9.png")
    picture(data / "top.png")
    assert len(find_samples(data).samples) == 6


def test_upper_and_lower_case_of_the_folders_is_the_same(data: Path) -> None:
    (data / "Positive").rename(data / "positive")
    assert len(find_samples(data).samples) == 6


def test_a_folder_can_be_a_group_of_both_classes(data: Path) -> None:
    groups = [sample.group for sample in find_samples(data, "folder").samples]
    assert groups == [None, None, "leaf1", "leaf1/deep", "leaf1", None]


def test_groups_can_come_from_a_table(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    write_text(table, "file,group\nPositive/a9.png,p1\nNegative/z.bmp,p1\n")
    groups = [sample.group for sample in find_samples(data, str(table)).samples]
    assert groups == ["p1", None, None, None, None, "p1"]
    with pytest.raises(UsageError, match="no such file; give a CSV file or the word folder"):
        find_samples(data, "folders")


def test_a_missing_class_is_named(data: Path) -> None:
    (data / "Negative").rename(data / "Normal")
    with pytest.raises(UsageError, match="needs one folder Negative/; it has Normal, Positive"):
        find_samples(data)


def test_a_class_without_images_is_named(data: Path, tmp_path: Path) -> None:
    for file in (data / "Negative").rglob("*.*"):
        if file.suffix != ".txt":
            file.unlink()
    with pytest.raises(UsageError, match=r"Negative holds no images, only 1 other files"):
        find_samples(data)


def test_a_missing_data_set_names_its_neighbor(data: Path) -> None:
    with pytest.raises(UsageError, match=r"is no folder \(did you mean data\?\)"):
        find_samples(data.parent / "dato")


def test_what_is_converted_is_told(data: Path) -> None:
    assert conversions(find_samples(data).samples) == ""
    picture(data / "Positive" / "grey.png", "L")
    picture(data / "Positive" / "clear.png", "RGBA")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(data / "Negative" / "deep.png")
    write_text(data / "Negative" / "broken.png", "no picture")
    told = conversions(find_samples(data).samples)
    assert told == "converted to 8-bit RGB: 1 I;16, 1 L, 1 RGBA"


def test_the_fingerprint_is_the_sha256_of_the_file(data: Path) -> None:
    file = data / "Positive" / "a9.png"
    assert fingerprint(file) == hashlib.sha256(file.read_bytes()).hexdigest()
