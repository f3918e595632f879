"""The data set of a retraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from leanet.data.scan import scan
from leanet.files import write_csv
from leanet.records import ANOMALOUS, NORMAL, Sample
from leanet.serve.entries import Label
from leanet.serve.training_set import (
    Classes,
    TrainingSet,
    merge,
    options_for,
    possible_folds,
    write_table,
)

OWN = (
    Sample(path=Path("a.png"), label=NORMAL, kind="good", group="leaf1", split="train"),
    Sample(path=Path("b.png"), label=ANOMALOUS, kind="rust", mask=Path("b_mask.png")),
    Sample(path=Path("c.png"), label=NORMAL, kind="good", split="test"),
)
NAMES = ("a", "b", "c")


def merged(labels: Mapping[str, Label], classes: Classes = Classes()) -> TrainingSet:  # noqa: B008
    return merge(OWN, NAMES, labels, lambda n: None if n == "gone" else Path(f"{n}.png"), classes)


def test_labels_add_images_and_replace_what_the_run_says() -> None:
    made = merged(
        {
            "z": Label("ng", "dent"),
            "y": Label("ok", ""),
            "a": Label("ng", "dent"),
            "c": Label("ok", ""),
            "x": Label("unsure", ""),
        }
    )
    assert made.names == ("a", "b", "c", "y", "z")
    assert made.samples == (
        Sample(path=Path("a.png"), label=ANOMALOUS, kind="dent", group="leaf1", split="train"),
        OWN[1],
        OWN[2],
        Sample(path=Path("y.png"), label=NORMAL, kind="good", split="train"),
        Sample(path=Path("z.png"), label=ANOMALOUS, kind="dent", split="train"),
    )
    assert (made.num_new, made.num_changed, made.notices) == (2, 1, ())


def test_a_defect_keeps_type_and_mask_until_something_else_is_said() -> None:
    assert merged({"b": Label("ng", "")}).samples[1] == OWN[1]
    typed = merged({"b": Label("ng", "mold")}).samples[1]
    assert (typed.kind, typed.mask) == ("mold", Path("b_mask.png"))
    good = merged({"b": Label("ok", "")}).samples[1]
    assert (good.label, good.kind, good.mask) == (NORMAL, "good", None)


def test_the_same_bytes_are_taken_once_and_missing_files_are_told() -> None:
    made = merge(OWN, ("a", "b", "a"), {"gone": Label("ng", "")}, lambda n: None, Classes())
    assert made.names == ("a", "b")
    assert made.notices == (
        "1 left out: copy of another image of the run",
        "1 left out: labeled, but its file is gone",
    )


@pytest.mark.parametrize(
    ("label", "normal", "expected"),
    [
        (Label("ok", ""), "good", (NORMAL, "good")),
        (Label("ok", ""), None, "no class of this run is the normal one"),
        (Label("ng", "rust"), "good", (ANOMALOUS, "rust")),
        (Label("ng", "rust"), None, (NORMAL, "rust")),
        (Label("ng", ""), "good", "ng without its class"),
        (Label("ng", "good"), "good", "of the normal class good"),
        (Label("ng", "new"), "good", "the new class new needs 2"),
    ],
)
def test_of_several_classes_the_type_is_the_class(
    label: Label, normal: str | None, expected: tuple[int, str] | str
) -> None:
    made = merged({"z": label}, Classes(("good", "mold", "rust"), normal))
    if isinstance(expected, str):
        assert made.num_new == 0
        assert expected in made.notices[0]
    else:
        assert (made.samples[-1].label, made.samples[-1].kind) == expected


def test_with_two_classes_a_defect_needs_no_type_and_two_images_make_a_class() -> None:
    classes = Classes(("good", "rust"), "good")
    assert merged({"z": Label("ng", "")}, classes).samples[-1].kind == "rust"
    made = merged({"y": Label("ng", "new"), "z": Label("ng", "new")}, classes)
    assert [sample.kind for sample in made.samples[-2:]] == ["new", "new"]


def many(normal: int, anomalous: int, **more: object) -> list[Sample]:
    labels = [NORMAL] * normal + [ANOMALOUS] * anomalous
    return [
        Sample(path=Path(f"{k}.png"), label=label, kind=f"k{label}", **more)  # type: ignore[arg-type]
        for k, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("samples", "wanted", "folds"),
    [
        (many(9, 9), 5, 5),
        (many(9, 9), 0, 3),
        (many(9, 2), 5, 2),
        (many(9, 1), 5, 0),
        (many(9, 0), 5, 0),
        (many(9, 9, group="one"), 5, 0),
        (many(9, 9, split="test"), 5, 0),
    ],
)
def test_there_are_as_many_folds_as_the_rarer_label_allows(
    samples: list[Sample], wanted: int, folds: int
) -> None:
    assert possible_folds(samples, wanted, by_kind=False) == folds


def test_the_configuration_stays_but_for_what_the_table_says() -> None:
    config = {"method": "classifier", "data": "x", "folds": 0, "positives": 3, "normal": "good"}
    config |= {"test_fraction": 0.2, "classes": "auto", "weak_test_split": True, "lr": 0.1}
    assert options_for(config, many(4, 4), Classes(("k0", "k1"), "k0")) == {
        "method": "classifier",
        "folds": 3,
        "positives": None,
        "normal": None,
        "test_fraction": None,
        "classes": "kinds",
        "weak_test_split": False,
        "lr": 0.1,
    }
    assert options_for(config, many(4, 0), Classes())["test_fraction"] == 0.2


def test_the_table_is_one_that_fit_reads(tmp_path: Path) -> None:
    write_csv(tmp_path / "unused.csv", [{"a": 1}])
    for name in ("a.png", "b, with comma.png", "m.png"):
        (tmp_path / name).touch()
    samples = (
        Sample(path=tmp_path / "a.png", label=NORMAL, kind="good", group="g", split="test"),
        Sample(
            path=tmp_path / "b, with comma.png",
            label=ANOMALOUS,
            kind='5" dent',
            mask=tmp_path / "m.png",
        ),
    )
    write_table(tmp_path / "models/001.csv", samples)
    assert scan(tmp_path / "models/001.csv").samples == samples
