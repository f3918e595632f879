from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from leanet.data.class_list import class_names, class_numbers, class_of, normal_class
from leanet.records import ANOMALOUS, NORMAL, Sample


def sample(kind: str, label: int = ANOMALOUS, split: str | None = None) -> Sample:
    return Sample(path=Path(kind) / "0.png", label=label, kind=kind, split=split)


LEAVES = [sample("rust10"), sample("healthy", NORMAL), sample("rust2")]


def test_classes_are_in_natural_order_however_the_files_came() -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(LEAVES, 3)
        assert class_names(shuffled) == ("healthy", "rust2", "rust10")


def test_every_image_keeps_its_own_class_whatever_the_order() -> None:
    shuffled = random.Random(1).sample(LEAVES, 3)
    names = class_names(shuffled)
    numbers = class_numbers(shuffled, names)
    assert [names[number] for number in numbers] == [one.kind for one in shuffled]


def test_two_spellings_of_an_accent_are_one_class() -> None:
    composed, decomposed = (unicodedata.normalize(form, "brûlé") for form in ("NFC", "NFD"))
    assert composed != decomposed
    names = class_names([sample(composed), sample(decomposed), sample("good", NORMAL)])
    assert names == (composed, "good")


def test_images_without_a_kind_are_named_after_their_label() -> None:
    assert class_of(sample("", NORMAL)) == "normal"
    assert class_of(sample("")) == "anomalous"


def test_a_test_image_of_a_class_without_training_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'rust3', which has no training image.*mean rust2"):
        class_names([*LEAVES, sample("rust3", split="test")])


def test_a_class_may_be_missing_in_the_test() -> None:
    assert len(class_names([*LEAVES, sample("rust2", split="test")])) == 3


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two classes, and there is only rust2"):
        class_names([sample("rust2")] * 3)


def test_the_normal_class_is_known_if_there_is_exactly_one() -> None:
    assert normal_class(LEAVES, class_names(LEAVES)) == "healthy"
    unknown = [sample("cat", NORMAL), sample("dog", NORMAL)]
    assert normal_class(unknown, ("cat", "dog")) is None


def test_a_class_of_normal_and_anomalous_images_is_refused() -> None:
    with pytest.raises(ValueError, match="'leaf' has normal and anomalous images"):
        normal_class([sample("leaf"), sample("leaf", NORMAL), sample("b")], ("b", "leaf"))
