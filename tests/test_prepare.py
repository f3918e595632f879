"""Which samples train and which test, and what is told apart, before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.data.scan import write_samples_csv
from leanet.data.weak import WeakSplit
from leanet.files import read_csv
from leanet.prepare import Found, Options, find_samples, folds_of
from leanet.records import ANOMALOUS

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def unnamed(write_classes: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, none of which can be the normal one."""
    return write_classes(tmp_path_factory.mktemp("unnamed") / "pets", ("cat", "dog"), 10)


def test_three_folders_are_three_classes(class_toy: Path) -> None:
    found = find_samples(class_toy, Options(), needs_anomalous=True, classes="auto")
    assert found.classes == ("healthy", "rust2", "rust10")
    assert found.normal == "healthy"


def test_two_folders_are_classes_only_if_none_is_normal(
    unnamed: Path, write_classes: Write, tmp_path: Path
) -> None:
    found = find_samples(unnamed, Options(), needs_anomalous=True, classes="auto")
    assert (found.classes, found.normal) == (("cat", "dog"), None)
    two = write_classes(tmp_path / "two", ("good", "bad"), 10)
    assert find_samples(two, Options(), needs_anomalous=True, classes="auto").classes == ()


def test_other_layouts_have_kinds_on_request(toy: Path) -> None:
    assert find_samples(toy, Options(), needs_anomalous=True, classes="auto").classes == ()
    found = find_samples(toy, Options(), needs_anomalous=True, classes="kinds")
    assert found.normal == "good"
    assert len(found.classes) > 2


def test_two_classes_without_a_normal_one_are_refused(unnamed: Path) -> None:
    with pytest.raises(ValueError, match="Say which is normal with --normal NAME"):
        find_samples(unnamed, Options(), needs_anomalous=True, classes="two")


def test_a_wrong_name_of_the_normal_class_is_never_passed_over(unnamed: Path) -> None:
    with pytest.raises(ValueError, match="--normal bird names no class"):
        find_samples(unnamed, Options(normal="bird"), needs_anomalous=True, classes="auto")


def test_a_fifth_of_every_class_is_kept_for_the_test(unnamed: Path) -> None:
    found = find_samples(unnamed, Options(), needs_anomalous=True, classes="auto")
    tested = [sample.kind for sample in found.samples if sample.split == "test"]
    assert sorted(tested) == ["cat", "cat", "dog", "dog"]
    (fold,) = folds_of(found.samples, Options(), by_kind=True)
    assert fold.test == (16, 17, 18, 19)


@pytest.mark.parametrize("options", [Options(test_fraction=0.0), Options(folds=2)])
def test_no_part_is_kept_for_the_test_on_request_or_with_folds(
    options: Options, unnamed: Path
) -> None:
    found = find_samples(unnamed, options, needs_anomalous=True, classes="auto")
    assert {sample.split for sample in found.samples} == {None}


def test_two_class_methods_keep_a_test_part_on_request(toy: Path) -> None:
    found = find_samples(toy, Options(test_fraction=0.5), needs_anomalous=True)
    tested = [sample.label for sample in found.samples if sample.split == "test"]
    assert (tested.count(0), tested.count(1)) == (9, 3)
    with pytest.raises(ValueError, match="--test_fraction keeps images for one test"):
        find_samples(toy, Options(test_fraction=0.5, folds=2), needs_anomalous=True)


def mvtec(root: Path, defects: dict[str, int], *, trained_on: int = 10) -> Path:
    """The tree of a category of MVTec AD with empty files: nothing here reads pixels."""
    for folder, count in {"train/good": trained_on, "test/good": 4}.items():
        touch(root / folder, count)
    for kind, count in defects.items():
        touch(root / "test" / kind, count)
    return root


def touch(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03d}.png").touch()


def split(found: Found, name: str) -> set[Path]:
    return {sample.path for sample in found.samples if sample.split == name}


@pytest.fixture
def screws(tmp_path: Path) -> Path:
    return mvtec(tmp_path / "screws", {"bent": 40, "cut": 40, "worn": 39})


def test_weak_labels_leave_the_test_part(screws: Path) -> None:
    weak = WeakSplit(0.02, learn=True)
    found = find_samples(screws, Options(), needs_anomalous=True, weak=weak)
    moved = [s for s in found.samples if s.split == "train" and s.label == ANOMALOUS]
    assert sorted(sample.kind for sample in moved) == ["bent", "cut", "worn"]
    assert found.left_test == 3
    assert len(split(found, "test")) == 4 + 119 - 3
    (fold,) = folds_of(found.samples, Options())
    assert {found.samples[i].path for i in fold.test} == split(found, "test")
    assert {s.path for s in moved} <= {found.samples[i].path for i in fold.train}


def test_a_comparison_leaves_out_the_images_that_the_weak_method_learns_from(screws: Path) -> None:
    learned, compared = (
        find_samples(screws, Options(seed=7), needs_anomalous=False, weak=WeakSplit(0.02, learn))
        for learn in (True, False)
    )
    assert split(learned, "test") == split(compared, "test")
    assert len(compared.samples) == len(learned.samples) - 3
    plain = find_samples(screws, Options(seed=7), needs_anomalous=False)
    assert split(compared, "train") == split(plain, "train")


def test_what_moved_stands_in_the_table_of_samples(screws: Path, tmp_path: Path) -> None:
    weak = WeakSplit(0.02, learn=True)
    found = find_samples(screws, Options(), needs_anomalous=True, weak=weak)
    write_samples_csv(tmp_path / "samples.csv", found.root, found.samples)
    rows = read_csv(tmp_path / "samples.csv")
    assert [r["split"] for r in rows if r["label"] == "1"].count("train") == 3


def test_folds_test_the_weak_labels_as_all_images(screws: Path) -> None:
    weak = WeakSplit(0.02, learn=True)
    found = find_samples(screws, Options(folds=3), needs_anomalous=True, weak=weak)
    assert (found.pooled, found.left_test) == (True, 0)
    assert found.samples == find_samples(screws, Options(folds=3), needs_anomalous=True).samples


def test_nothing_moves_where_the_training_part_has_anomalous_images(toy: Path) -> None:
    weak = WeakSplit(0.5, learn=True)
    options = Options(test_fraction=0.5)
    found = find_samples(toy, options, needs_anomalous=False, weak=weak)
    assert found == find_samples(toy, options, needs_anomalous=False)


def test_leaving_out_is_refused_where_there_is_no_test_part_to_leave(
    toy: Path, screws: Path
) -> None:
    weak = WeakSplit(0.5, learn=False)
    for data, options in ((toy, Options()), (screws, Options(folds=3))):
        with pytest.raises(ValueError, match="needs a data set whose training part"):
            find_samples(data, options, needs_anomalous=False, weak=weak)


def test_weak_labels_without_any_anomalous_image_are_refused(tmp_path: Path) -> None:
    weak = WeakSplit(0.02, learn=True)
    good = mvtec(tmp_path / "good", {})
    for options in (Options(), Options(folds=2)):
        with pytest.raises(ValueError, match="14 normal images and no anomalous one") as caught:
            find_samples(good, options, needs_anomalous=False, weak=weak)
        assert str(caught.value).count("\n") == 1
    few = mvtec(tmp_path / "few", {"bent": 1})
    with pytest.raises(ValueError, match="no anomalous one would be left to test on"):
        find_samples(few, Options(), needs_anomalous=False, weak=weak)
