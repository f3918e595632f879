"""Which samples train and which test, and what is told apart, before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.prepare import Options, find_samples, folds_of

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
