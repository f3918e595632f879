from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.data.images import read_mask, write_image
from leanet.data.medical import training_part, union_of, unpack_medical
from leanet.data.scan import scan
from leanet.files import read_csv


def quiet(text: str) -> None:
    """Print nothing."""


def picture(path: Path, seed: int, side: int = 16) -> None:
    """Random pixels, which resemble nothing else."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    write_image(path, pixels)


def mask(path: Path, column: int, side: int = 16) -> None:
    """Marks one column."""
    plane = np.zeros((side, side), dtype=np.uint8)
    plane[:, column] = 255
    write_image(path, plane)


def files(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


@pytest.fixture
def brains(tmp_path: Path) -> Path:
    """Ten normal and three anomalous images in four formats, all of them twice."""
    root = tmp_path / "brains"
    for number, suffix in enumerate((".jpg", ".jpeg", ".png", ".JPG", ".bmp") * 2):
        picture(root / "no" / f"{number} no{suffix}", number)
    for number in range(3):
        picture(root / "yes" / f"Y{number}.jpg", 100 + number)
    for file in [*root.rglob("*")]:
        if file.is_file():
            copy = root / "brain_tumor_dataset" / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (root / "__MACOSX" / "no").mkdir(parents=True)
    (root / "__MACOSX" / "no" / "junk.jpg").touch()
    return root


def test_four_fifths_of_the_normal_images_train_and_all_others_test(
    brains: Path, tmp_path: Path
) -> None:
    unpack_medical("brain_mri", brains, tmp_path / "out", quiet)
    found = scan(tmp_path / "out")
    assert found.layout == "mvtec"
    sides = [(sample.kind, sample.split) for sample in found.samples]
    assert sides.count(("good", "train")) == 8
    assert sides.count(("good", "test")) == 2
    assert sides.count(("tumor", "test")) == len(sides) - 10 == 3
    assert found.ignored == ()


def test_the_folders_may_have_other_names_and_give_the_same_split(
    brains: Path, tmp_path: Path
) -> None:
    unpack_medical("brain_mri", brains, tmp_path / "a", quiet)
    (brains / "brain_tumor_dataset").rename(tmp_path / "elsewhere")
    (brains / "no").rename(brains / "Negative")
    (brains / "yes").rename(brains / "Positive")
    unpack_medical("brain_mri", brains, tmp_path / "b", quiet)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_formats_and_repetitions_are_counted(brains: Path, tmp_path: Path) -> None:
    said: list[str] = []
    unpack_medical("brain_mri", brains, tmp_path / "out", said.append)
    assert said[0] == ("26 images: 20 good, 6 tumor (14 .jpg, 4 .bmp, 4 .jpeg, 4 .png)")
    assert said[1] == "left out 13 files that repeat another one byte for byte"
    assert "8 normal images train, the other 2" in said[-1]
    assert "not strictly comparable" in said[-1]


def test_near_copies_stay_on_one_side_and_in_one_group(brains: Path, tmp_path: Path) -> None:
    for number in (2, 4, 7, 9):  # PNG and BMP, written again a little brighter
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        brighter = (pixels.astype(np.int64) + 3).clip(0, 255).astype(np.uint8)
        write_image(brains / "no" / f"copy {number}.png", brighter)
    said: list[str] = []
    unpack_medical("brain_mri", brains, tmp_path / "out", said.append)
    assert any(line.startswith("4 pairs of images look alike") for line in said)
    rows = read_csv(tmp_path / "out" / "groups.csv")
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["file"].partition("/")[0])
    assert len(rows) == 8
    assert [len(side) for side in sides.values()] == [1] * 4
    assert len({s.group for s in scan(tmp_path / "out").samples if s.group}) == 4


def test_an_image_that_is_normal_and_anomalous_does_not_train(brains: Path, tmp_path: Path) -> None:
    for number in range(10):
        (source,) = (brains / "no").glob(f"{number} no.*")
        (brains / "yes" / source.name).write_bytes(source.read_bytes())
    with pytest.raises(ValueError, match="no normal image is left to train"):
        unpack_medical("brain_mri", brains, tmp_path / "out", quiet)


def test_masks_beside_the_images_are_no_images_and_are_united(tmp_path: Path) -> None:
    root = tmp_path / "Dataset_BUSI_with_GT"
    for number in range(1, 6):
        picture(root / "normal" / f"normal ({number}).png", number)
        write_image(root / "normal" / f"normal ({number})_mask.png", np.zeros((16, 16), np.uint8))
    for number in (1, 2, 3):
        picture(root / "benign" / f"benign ({number}).png", 20 + number)
        picture(root / "malignant" / f"malignant ({number}).png", 30 + number)
        mask(root / "malignant" / f"malignant ({number})_mask.png", 3)
    mask(root / "benign" / "benign (1)_mask.png", 3)
    mask(root / "benign" / "benign (1)_mask_1.png", 5)
    mask(root / "benign" / "benign (1)_mask_2.png", 7)
    write_image(root / "benign" / "benign (2)_mask.png", np.zeros((16, 16), np.uint8))
    mask(root / "benign" / "benign (9)_mask.png", 3)
    said: list[str] = []
    unpack_medical("busi", tmp_path, tmp_path / "out", said.append)
    found = {sample.path.stem: sample for sample in scan(tmp_path / "out").samples}
    assert len(found) == 11
    assert "left out 1 masks that belong to no image" in said
    assert found["benign (1)"].mask is not None
    assert np.flatnonzero(read_mask(found["benign (1)"].mask)[0]).tolist() == [3, 5, 7]
    assert found["benign (2)"].mask is None, "marks nothing"
    assert found["benign (3)"].mask is None, "has none"
    assert all(found[f"malignant ({number})"].mask for number in (1, 2, 3))
    assert not (tmp_path / "out" / "ground_truth" / "good").exists()


def test_masks_of_one_image_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    mask(tmp_path / "a_mask.png", 0)
    mask(tmp_path / "a_mask_1.png", 0, side=8)
    with pytest.raises(ValueError, match="masks of one image differ in size"):
        union_of([tmp_path / "a_mask.png", tmp_path / "a_mask_1.png"])


def test_equal_names_in_train_and_test_of_the_download_do_not_collide(tmp_path: Path) -> None:
    root = tmp_path / "xray_dataset_covid19"
    for k, split in enumerate(("train", "test")):
        for number in range(3):
            picture(root / split / "NORMAL" / f"{number}.jpeg", 10 * k + number)
            picture(root / split / "PNEUMONIA" / f"{number}.jpg", 50 + 10 * k + number)
    unpack_medical("covid19", root, tmp_path / "out", quiet)
    kinds = [(s.kind, s.split) for s in scan(tmp_path / "out").samples]
    assert kinds.count(("covid19", "test")) == 6
    assert [kinds.count(("good", split)) for split in ("train", "test")] == [4, 2]


def test_cells_of_one_field_stay_together_and_fields_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "sipakmed"
    for k, kind in enumerate(("Superficial-Intermediate", "Parabasal", "Dyskeratotic")):
        folder = root / f"im_{kind}" / f"im_{kind}"
        for field in range(5):
            picture(folder / f"{field:03d}.bmp", 1000 + 10 * k + field)
            for cell in range(2):
                seed = 100 * k + 10 * field + cell
                picture(folder / "CROPPED" / f"{field:03d}_{cell:02d}.bmp", seed)
    said: list[str] = []
    unpack_medical("sipakmed", root, tmp_path / "out", said.append)
    assert said[:2] == ["30 images: 20 good, 10 dyskeratotic (30 .bmp)",
                        "left out 15 images that lie elsewhere"]  # fmt: skip
    samples = scan(tmp_path / "out").samples
    assert len([s for s in samples if s.split == "train"]) == 16
    assert {s.path.stem.rpartition("_")[0] for s in samples if s.kind == "good"} == {
        f"im_{kind}_{field:03d}"
        for kind in ("Superficial-Intermediate", "Parabasal")
        for field in range(5)
    }
    for one in samples:
        assert one.group is not None
        assert {s.split for s in samples if s.group == one.group} == {one.split}


def test_what_trains_is_drawn_and_repeatable() -> None:
    alone = [[k] for k in range(103)]
    trained = training_part([True] * 100 + [False] * 3, alone)
    assert len(trained) == 80
    assert trained == training_part([True] * 100 + [False] * 3, alone)
    assert trained != frozenset(range(80))


def test_another_tree_is_refused(brains: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the folder with normal, benign, malignant"):
        unpack_medical("busi", brains, tmp_path / "out", quiet)
    with pytest.raises(ValueError, match="each with a folder CROPPED"):
        unpack_medical("sipakmed", brains, tmp_path / "out", quiet)
