from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from leanet.data.checks import check, describe
from leanet.data.scan import Scan, scan
from leanet.records import ANOMALOUS, NORMAL


def picture(seed: int, side: int = 48) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(size=(side, side, 3))
    smooth = gaussian_filter(noise, (3, 3, 0))
    image: NDArray[np.uint8] = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return image


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean MVTec tree: six images to train on, three to test, two of them with masks."""
    for k in range(6):
        save(tmp_path / f"train/good/{k}.png", picture(k))
    save(tmp_path / "test/good/6.png", picture(6))
    for k in (7, 8):
        save(tmp_path / f"test/hole/{k}.png", picture(k))
        save(tmp_path / f"ground_truth/hole/{k}_mask.png", picture(k)[..., 0])
    return tmp_path


def text_of(root: Path) -> str:
    found = scan(root)
    return describe(found, check(found.samples, threads=2))


def test_a_clean_data_set_has_no_findings(root: Path) -> None:
    findings = check(scan(root).samples, threads=2)
    assert findings.sizes == {(48, 48): 9}
    assert findings.modes == {"RGB": 9}
    found = [v for name, v in vars(findings).items() if name not in {"sizes", "modes"}]
    assert found == [()] * 9


def test_the_description_counts_by_label_kind_and_split(root: Path) -> None:
    lines = [line.split() for line in text_of(root).splitlines()]
    assert ["images", "train", "test", "masks"] in lines
    assert ["normal", "good", "7", "6", "1", "0"] in lines
    assert ["anomalous", "hole", "2", "0", "2", "2"] in lines
    assert "Nothing wrong was found." in text_of(root)


def test_columns_are_aligned_and_empty_ones_left_out(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"Negative/{k}.png", picture(k))
    for k in range(3, 15):
        save(tmp_path / f"Positive/{'rust' if k % 2 else 'a long name'}/{k}.png", picture(k))
    table = text_of(tmp_path).split("\n\n")[1].splitlines()
    assert table == [
        "                        images",
        "normal                       3",
        "anomalous                   12",
        "           a long name       6",
        "           rust              6",
    ]


def test_all_unreadable_images_and_masks_are_listed(root: Path) -> None:
    (root / "train/good/1.png").write_bytes(b"")
    (root / "test/hole/7.png").write_bytes((root / "test/hole/7.png").read_bytes()[:500])
    (root / "ground_truth/hole/8_mask.png").write_text("no mask")
    findings = check(scan(root).samples, threads=3)
    assert {error.path.relative_to(root).as_posix() for error in findings.unreadable} == {
        "train/good/1.png",
        "test/hole/7.png",
        "ground_truth/hole/8_mask.png",
    }
    assert "unreadable files: 3\n    " in text_of(root)
    assert "train/good/1.png: the file is empty" in text_of(root)


def test_files_with_the_same_bytes_are_one_set(root: Path) -> None:
    for name in ("train/good/10.png", "train/good/11.png"):
        shutil.copy(root / "train/good/1.png", root / name)
    findings = check(scan(root).samples, threads=2)
    assert findings.duplicates == (
        (root / "train/good/1.png", root / "train/good/10.png", root / "train/good/11.png"),
    )
    assert findings.near_duplicates == ()


def test_a_test_image_with_a_copy_in_train_is_a_leak(root: Path) -> None:
    shutil.copy(root / "train/good/1.png", root / "test/good/20.png")
    Image.fromarray(picture(2)).resize((90, 90)).save(root / "test/good/21.jpg", quality=80)
    found = scan(root)
    findings = check(found.samples, threads=2)
    assert [(leak.first.name, leak.second.name) for leak in findings.leaks] == [
        ("20.png", "1.png"),
        ("21.jpg", "2.png"),
    ]
    assert findings.leaks[0].similarity == 1.0
    assert 0.98 < findings.leaks[1].similarity <= 1.0
    assert "test images of which train has a copy: 2" in describe(found, findings)


def test_copies_with_different_labels_are_a_conflict(root: Path) -> None:
    shutil.copy(root / "test/good/6.png", root / "test/hole/30.png")
    (conflict,) = check(scan(root).samples, threads=2).conflicts
    assert (conflict.first.name, conflict.second.name) == ("6.png", "30.png")


def test_near_copies_in_one_group_need_no_report(root: Path) -> None:
    Image.fromarray(picture(2)).save(root / "train/good/21.jpg", quality=80)
    assert len(check(scan(root).samples, threads=2).near_duplicates) == 1
    (root / "groups.csv").write_text("file,group\ntrain/good/2.png,a\ntrain/good/21.jpg,a\n")
    assert check(scan(root).samples, threads=2).near_duplicates == ()


def test_a_group_in_train_and_test_straddles(root: Path) -> None:
    (root / "groups.csv").write_text(
        "file,group\ntrain/good/1.png,a\ntest/good/6.png,a\ntrain/good/2.png,b\ntrain/good/3.png,b\n"
    )
    assert check(scan(root).samples, threads=2).straddling_groups == ("a",)


def test_a_mask_of_another_size_is_found(root: Path) -> None:
    save(root / "ground_truth/hole/7_mask.png", picture(7, side=47)[..., 0])
    findings = check(scan(root).samples, threads=2)
    assert findings.mask_sizes == (root / "ground_truth/hole/7_mask.png",)


def test_a_missing_mask_is_found_only_where_others_have_one(root: Path) -> None:
    (root / "ground_truth/hole/7_mask.png").unlink()
    assert check(scan(root).samples, threads=2).unmasked == (root / "test/hole/7.png",)
    shutil.rmtree(root / "ground_truth")
    assert check(scan(root).samples, threads=2).unmasked == ()


def test_tiny_images_are_found(root: Path) -> None:
    save(root / "train/good/40.png", picture(40)[:31])
    assert [path.name for path in check(scan(root).samples, threads=2).tiny] == ["40.png"]


def test_many_sizes_become_a_range(root: Path) -> None:
    for side in (50, 60, 70):
        save(root / f"train/good/{side}.png", picture(side, side=side)[: side - 5])
    assert "48-70 x 45-65, 4 different, most often 48x48 (9)" in text_of(root)


def test_long_lists_are_cut_at_ten(root: Path) -> None:
    for k in range(13):
        save(root / f"train/good/t{k}.png", picture(100 + k, side=20))
    lines = text_of(root).splitlines()
    title = lines.index("images with a side below 32 pixels: 13")
    assert lines[title + 10 :] == ["    train/good/t9.png", "    ... and 3 more"]


def test_images_outside_the_layout_are_reported(root: Path) -> None:
    save(root / "ground_truth/hole/9_mask.png", picture(9)[..., 0])
    text = text_of(root)
    assert "no place for them: 1\n    ground_truth/hole/9_mask.png" in text


def test_progress_counts_up_to_the_number_of_images(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    check(scan(root).samples, threads=2, on_progress=lambda *call: calls.append(call))
    assert calls == [(done, 9) for done in range(1, 10)]


def test_the_number_of_threads_changes_nothing(root: Path) -> None:
    shutil.copy(root / "train/good/1.png", root / "test/good/20.png")
    samples = scan(root).samples
    assert check(samples, threads=1) == check(samples, threads=4)


def test_a_set_of_unreadable_files_can_be_described(tmp_path: Path) -> None:
    for name in ("Negative/1.png", "Positive/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    text = text_of(tmp_path)
    assert "unreadable files: 2" in text


DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the folder shared/data is not there")


def scanned(name: str) -> Scan:
    return scan(DATA / name)


@real
def test_all_known_copies_of_brain_mri_are_found_and_nothing_else() -> None:
    found = scanned("brain_mri")
    lines = (found.root / "near_duplicates.csv").read_text().splitlines()[1:]
    known = {frozenset(line.split(",")[:2]) for line in lines}
    pairs = check(found.samples, threads=2).near_duplicates
    assert {
        frozenset(path.relative_to(found.root).as_posix() for path in pair[:2]) for pair in pairs
    } == known


@real
@pytest.mark.parametrize("name", ["plantvillage_potato", "mvtec_leather_subset", "magnetic_tile"])
def test_real_sets_without_copies_give_no_false_alarm(name: str) -> None:
    findings = check(scanned(name).samples, threads=2)
    assert findings.near_duplicates == findings.leaks == findings.conflicts == ()
    assert findings.unreadable == ()


@real
def test_real_counts_are_those_of_the_source() -> None:
    labels = [sample.label for sample in scanned("magnetic_tile").samples]
    assert (labels.count(NORMAL), labels.count(ANOMALOUS)) == (350, 386)
    assert len({sample.group for sample in scanned("magnetic_tile").samples}) == 113
    assert sum(sample.mask is not None for sample in scanned("mvtec_leather_subset").samples) == 11
