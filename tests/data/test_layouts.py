from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from leanet.data.layouts import recognize
from leanet.records import ANOMALOUS, NORMAL, Sample

ROOT = Path("data")


def read(*names: str, normal: str | None = None) -> tuple[str, dict[str, Sample]]:
    layout, samples = recognize(ROOT, [PurePath(name) for name in names], normal)
    return layout, {sample.path.relative_to(ROOT).as_posix(): sample for sample in samples}


def test_positive_is_anomalous_and_negative_is_normal_at_any_depth() -> None:
    layout, samples = read(
        "Negative/a.png", "Positive/b.png", "Positive/rust/c.png", "Positive/rust/deep/er/d.png"
    )
    assert layout == "positive-negative"
    assert [sample.label for sample in samples.values()] == [NORMAL] + 3 * [ANOMALOUS]
    assert [sample.kind for sample in samples.values()] == ["", "", "rust", "rust"]
    assert {sample.split for sample in samples.values()} == {None}


def test_upper_and_lower_case_do_not_matter() -> None:
    layout, samples = read("NEGATIVE/a.png", "positive/b.png")
    assert layout == "positive-negative"
    assert samples["positive/b.png"].label == ANOMALOUS


def test_a_mask_folder_mirrors_the_positive_images() -> None:
    _, samples = read(
        "Negative/a.png",
        "Positive/rust/1.jpg",
        "Positive/rust/2.jpg",
        "Positive/hole/1.jpg",
        "Positive/3.jpg",
        "Mask/rust/1.png",
        "Mask/hole/1_mask.png",
        "Mask/3.png",
    )
    masks = {name: sample.mask for name, sample in samples.items()}
    assert masks == {
        "Negative/a.png": None,
        "Positive/rust/1.jpg": ROOT / "Mask/rust/1.png",
        "Positive/rust/2.jpg": None,
        "Positive/hole/1.jpg": ROOT / "Mask/hole/1_mask.png",
        "Positive/3.jpg": ROOT / "Mask/3.png",
    }


def test_negative_images_alone_are_a_data_set() -> None:
    layout, samples = read("Negative/good/a.png")
    assert layout == "positive-negative"
    assert samples["Negative/good/a.png"].kind == "good"


def test_mvtec_has_splits_types_and_masks() -> None:
    layout, samples = read(
        "train/good/000.png",
        "test/good/000.png",
        "test/crack/000.png",
        "test/crack/001.png",
        "test/hole/000.png",
        "ground_truth/crack/000_mask.png",
        "ground_truth/hole/000_mask.png",
    )
    assert layout == "mvtec"
    assert samples["train/good/000.png"] == Sample(
        path=ROOT / "train/good/000.png", label=NORMAL, kind="good", split="train"
    )
    assert samples["test/good/000.png"].label == NORMAL
    assert samples["test/crack/000.png"] == Sample(
        path=ROOT / "test/crack/000.png",
        label=ANOMALOUS,
        kind="crack",
        mask=ROOT / "ground_truth/crack/000_mask.png",
        split="test",
    )
    assert samples["test/crack/001.png"].mask is None
    assert samples["test/hole/000.png"].mask == ROOT / "ground_truth/hole/000_mask.png"


def test_an_mvtec_tree_without_masks_is_still_one() -> None:
    assert read("train/good/0.png", "test/good/1.png", "test/hole/2.png")[0] == "mvtec"


def test_btad_calls_its_classes_ok_and_ko() -> None:
    layout, samples = read(
        "train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "ground_truth/ko/2.png"
    )
    assert layout == "mvtec"
    assert [sample.label for sample in samples.values()] == [NORMAL, NORMAL, ANOMALOUS]
    assert samples["test/ko/2.bmp"].mask == ROOT / "ground_truth/ko/2.png"


@pytest.mark.parametrize("top", ["", "Data/"])
def test_visa_keeps_images_and_masks_in_two_trees(top: str) -> None:
    layout, samples = read(
        f"{top}Images/Normal/0000.JPG",
        f"{top}Images/Anomaly/000.JPG",
        f"{top}Images/Anomaly/001.JPG",
        f"{top}Masks/Anomaly/000.png",
    )
    assert layout == "visa"
    assert samples[f"{top}Images/Normal/0000.JPG"].label == NORMAL
    anomaly = samples[f"{top}Images/Anomaly/000.JPG"]
    assert (anomaly.label, anomaly.kind) == (ANOMALOUS, "Anomaly")
    assert anomaly.mask == ROOT / f"{top}Masks/Anomaly/000.png"
    assert samples[f"{top}Images/Anomaly/001.JPG"].mask is None


@pytest.mark.parametrize("normal", ["good", "Normal", "HEALTHY", "Negative", "ok"])
def test_a_class_with_a_telling_name_is_normal_and_all_others_are_not(normal: str) -> None:
    layout, samples = read(f"{normal}/1.png", "rust/2.png", "hole/deep/3.png")
    assert layout == "class-folders"
    assert [(s.label, s.kind) for s in samples.values()] == [
        (NORMAL, normal),
        (ANOMALOUS, "rust"),
        (ANOMALOUS, "hole"),
    ]


def test_the_normal_class_can_be_named() -> None:
    _, samples = read("cat/1.png", "dog/2.png", "good/3.png", normal="DOG")
    assert [sample.label for sample in samples.values()] == [ANOMALOUS, NORMAL, ANOMALOUS]


def test_positive_can_be_named_the_normal_class() -> None:
    layout, samples = read("Positive/1.png", "Negative/2.png", normal="Positive")
    assert layout == "class-folders"
    assert [sample.label for sample in samples.values()] == [NORMAL, ANOMALOUS]


@pytest.mark.parametrize(("folder", "split"), [("Training", "train"), ("val", "train")])
def test_splits_have_a_folder_per_class(folder: str, split: str) -> None:
    layout, samples = read("train/cat/0.png", f"{folder}/dog/1.png", "test/cat/2.png", normal="cat")
    assert layout == "class-folders"
    assert samples[f"{folder}/dog/1.png"].split == split
    assert samples["test/cat/2.png"].split == "test"


def test_classes_without_a_normal_one_are_listed() -> None:
    with pytest.raises(ValueError, match=r"--normal NAME; classes found: cat, dog\.") as caught:
        read("dog/1.png", "cat/2.png")
    assert str(caught.value).count("\n") <= 1


def test_two_classes_that_could_be_normal_are_not_guessed_between() -> None:
    with pytest.raises(ValueError, match="good and ok could each be normal"):
        read("good/1.png", "ok/2.png", "bad/3.png")


def test_a_wrong_name_of_the_normal_class_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"did you mean airplane\?"):
        read("airplane/1.png", "ship/2.png", normal="airplan")


def test_the_parent_of_several_data_sets_is_told() -> None:
    with pytest.raises(ValueError, match="several data sets: bottle, cable") as caught:
        read("bottle/train/good/0.png", "cable/train/good/0.png", "cable/test/cut/0.png")
    assert str(ROOT / "bottle") in str(caught.value)


@pytest.mark.parametrize(
    "names", [["1.png", "2.png"], ["train/1.png", "test/2.png"], ["Mask/1.png"]]
)
def test_an_unknown_tree_shows_the_known_layouts_and_what_was_found(names: list[str]) -> None:
    with pytest.raises(ValueError, match="none of the known layouts") as caught:
        read(*names)
    message = str(caught.value)
    for known in ("Positive/", "MVTec AD", "VisA", "folder per class", "CSV"):
        assert known in message
    assert ("2 images" if len(names) == 2 and "/" not in names[0] else names[0][:4]) in message


def test_visa_says_itself_what_is_normal() -> None:
    with pytest.raises(ValueError, match="leave --normal out"):
        read("Images/Normal/1.png", "Images/Anomaly/1.png", normal="Anomaly")


def test_images_outside_the_layout_are_no_samples() -> None:
    _, samples = read("preview.png", "train/good/1.png", "test/hole/2.png", "extra/3.png")
    assert list(samples) == ["train/good/1.png", "test/hole/2.png"]
