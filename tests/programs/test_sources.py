"""Trees that phase 2 accepts, and those it refuses before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from leanet.config import UsageError
from leanet.files import read_csv, write_csv
from leanet.programs.sources import (
    available_folds,
    notices_of,
    open_folds,
    read_labels,
    wanted_folds,
)


def test_a_tree_of_ours_is_read_in_the_order_of_its_labels(tree: Path) -> None:
    first, second = open_folds(tree, [1, 2])
    assert (first.name, first.origin, second.name) == ("01", "ours", "02")
    assert [one.name for one in first.train.images[:2]] == ["000.png", "001.png"]
    assert [one.stem for one in first.test.maps] == [one.stem for one in first.test.images]
    for name, label in zip(first.train.names, first.train.labels, strict=True):
        assert label == int(name.startswith("Positive/"))
    assert first.facts["metric"] == "ciede2000"
    assert first.model == tree / "01" / "phase1_model.safetensors"
    assert notices_of((first, second)) == ()


def test_a_tree_of_the_original_is_told_apart(copied: Path) -> None:
    for name in ("01", "02"):
        (copied / name / "maps.json").unlink()
        (copied / name / "phase1_model.safetensors").rename(copied / name / "phase1_model.h5")
    (copied / "run.json").unlink()
    (copied / "manifest.csv").unlink()
    folds = open_folds(copied, [1])
    assert (folds[0].origin, folds[0].model, folds[0].facts) == ("original", None, {})
    assert folds[0].train.names[0] == "GT/Train/000.png"
    (told,) = notices_of(folds)
    assert told.startswith("warning: this tree was written by the original program")
    assert "--legacy_gt lab" in told
    (copied / "01" / "phase1_model.h5").unlink()
    (plain,) = open_folds(copied, [1])
    assert plain.origin == "maps"
    assert "shares of full brightness" in notices_of([plain])[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "GT/Train/003.png",
            "GT/Train and .*Anomap/Train do not fit: 11 images, 12 maps, e.g. 003",
        ),
        ("Anomap/Test/011.png", "12 images, 11 maps, e.g. 011"),
        ("Label.npz", "Label.npz is missing"),
        ("maps.json", "is not finished; complete it with leanet phase1 ... --resume"),
        ("Anomap", "Anomap/Train is missing"),
    ],
)
def test_what_does_not_fit_is_named(copied: Path, damage: str, message: str) -> None:
    place = copied / "02" / damage
    (shutil.rmtree if place.is_dir() else Path.unlink)(place)
    with pytest.raises(UsageError, match=f"{message}.*Nothing was trained"):
        open_folds(copied, [1, 2])


def test_every_problem_of_every_fold_is_named_at_once(copied: Path) -> None:
    for name in ("01", "02"):
        (copied / name / "Label.npz").unlink()
    with pytest.raises(UsageError, match=r"01/Label.npz is missing; .*02/Label.npz is missing"):
        open_folds(copied, [1, 2])


def test_fewer_labels_than_images_is_an_error(copied: Path) -> None:
    np.savez(copied / "01" / "Label.npz", train=np.zeros(11, np.float32), test=np.zeros(12))
    with pytest.raises(UsageError, match="has 11 labels for 12 images"):
        open_folds(copied, [1])


def test_a_manifest_that_says_otherwise_is_an_error(copied: Path) -> None:
    rows = read_csv(copied / "manifest.csv")
    write_csv(copied / "manifest.csv", [{**row, "label": "0"} for row in rows])
    with pytest.raises(UsageError, match=r"manifest.csv and .*Label.npz disagree about train"):
        open_folds(copied, [1])


def test_labels_with_python_objects_are_never_loaded(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "Label.npz", train=objects, test=objects)
    with pytest.raises(ValueError, match="holds no label arrays train and test"):
        read_labels(tmp_path / "Label.npz")


def test_other_labels_than_0_and_1_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "Label.npz", train=np.array([0, 2]), test=np.array([1]))
    with pytest.raises(ValueError, match="train holds labels other than 0 and 1"):
        read_labels(tmp_path / "Label.npz")


# --- which folds --------------------------------------------------------------------------------


def folds(root: Path, number: int) -> Path:
    for fold in range(1, number + 1):
        (root / f"{fold:02d}").mkdir(parents=True)
    return root


def test_without_a_number_the_first_ten_folds_are_run_as_in_the_original(tmp_path: Path) -> None:
    wanted = wanted_folds(folds(tmp_path, 12), None, ())
    assert wanted.folds == tuple(range(1, 11))
    assert "has 12 folds; the first 10 are run" in wanted.notices[0]
    ten = wanted_folds(folds(tmp_path / "ten", 10), None, ())
    assert (ten.folds, ten.notices) == (tuple(range(1, 11)), ())


def test_fewer_folds_than_usual_are_all_run_and_told(tmp_path: Path) -> None:
    wanted = wanted_folds(folds(tmp_path, 3), None, ())
    assert wanted.folds == (1, 2, 3)
    assert "all 3 folds" in wanted.notices[0]


def test_fewer_folds_than_there_are_is_a_notice_and_more_an_error(tmp_path: Path) -> None:
    assert "the first 2 are run" in wanted_folds(folds(tmp_path, 3), 2, ()).notices[0]
    with pytest.raises(UsageError, match="lacks the fold folders 04, 05; it has 01, 02, 03"):
        wanted_folds(tmp_path, 5, ())


def test_single_folds_can_be_named(tmp_path: Path) -> None:
    wanted = wanted_folds(folds(tmp_path, 3), None, (3, 1, 3))
    assert (wanted.folds, wanted.num_folds, wanted.notices) == ((1, 3), 3, ())
    with pytest.raises(UsageError, match="lacks the fold folders 07"):
        wanted_folds(tmp_path, None, (7,))


def test_what_is_no_tree_says_what_to_do(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(UsageError, match=r"has no fold folders 01, 02, ... of phase 1; run leanet"):
        available_folds(toy)
    with pytest.raises(UsageError, match="is no folder"):
        available_folds(tmp_path / "missing")
