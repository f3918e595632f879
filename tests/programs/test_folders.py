"""Earlier work: refused, gone on with or replaced, and never what somebody else wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leanet.config import UsageError
from leanet.files import read_json, write_json, write_text
from leanet.programs.folders import Earlier, claim, clean, fold_name, on_earlier, write_run

LAST = "last.json"
FLAGS: dict[str, Any] = {"epochs": 3, "GPU": None, "fold": []}


def call(
    root: Path,
    folds: tuple[int, ...] = (1, 2),
    earlier: Earlier = "refuse",
    program: str = "phase1",
    **flags: Any,
) -> tuple[int, ...]:
    return claim(
        root, program, {**FLAGS, **flags}, folds, num_folds=2, last_file=LAST, earlier=earlier
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Fold 01 is finished, fold 02 has begun."""
    write_run(tmp_path, "phase1", FLAGS, [], {"python": "3"})
    write_json(tmp_path / "01" / LAST, {})
    write_text(tmp_path / "02" / "training" / "journal.jsonl", "")
    write_text(tmp_path / "work" / "cache", "")
    write_text(tmp_path / "manifest.csv", "fold\n")
    return tmp_path


def test_a_new_root_has_everything_to_do(tmp_path: Path) -> None:
    assert call(tmp_path / "new") == (1, 2)
    assert not (tmp_path / "new").exists()


def test_files_beside_the_folds_are_nobodys_business(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "mine")
    assert call(tmp_path) == (1, 2)


def test_filled_folders_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match=r"filled folders already \(01, 02\); --resume"):
        call(root)
    assert (root / "01" / LAST).exists()


def test_resuming_leaves_finished_folds_out(root: Path) -> None:
    assert call(root, earlier="resume") == (2,)
    assert (root / "02" / "training" / "journal.jsonl").exists()


def test_overwriting_everything_clears_everything_of_ours(root: Path) -> None:
    write_text(root / "notes.txt", "mine")
    assert call(root, earlier="overwrite", epochs=9) == (1, 2)
    assert sorted(one.name for one in root.iterdir()) == ["notes.txt"]


def test_overwriting_with_fewer_folds_leaves_none_of_the_old_ones(root: Path) -> None:
    write_json(root / "07" / LAST, {})
    write_text(root / "99" / "mine.txt", "")
    assert call(root, earlier="overwrite", n_splits=2) == (1, 2)
    assert sorted(one.name for one in root.iterdir()) == ["99"]


def test_overwriting_one_fold_leaves_the_others(root: Path) -> None:
    assert call(root, (2,), "overwrite") == (2,)
    assert sorted(one.name for one in root.iterdir()) == ["01", "manifest.csv", "run.json", "work"]


@pytest.mark.parametrize("earlier", ["refuse", "resume"])
def test_other_flags_are_refused_and_named(root: Path, earlier: Earlier) -> None:
    with pytest.raises(UsageError, match=r"begun with other flags \(--epochs 3 -> 9\)"):
        call(root, earlier=earlier, epochs=9)


def test_one_fold_cannot_be_overwritten_with_other_flags(root: Path) -> None:
    with pytest.raises(UsageError, match="--overwrite with all folds"):
        call(root, (2,), "overwrite", epochs=9)
    assert (root / "02").exists()


def test_the_device_and_the_choice_of_folds_may_change(root: Path) -> None:
    assert call(root, (2,), "resume", GPU=-1, fold=[2]) == (2,)


def test_the_output_of_the_other_program_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="holds the output of phase1; give phase2 another"):
        call(root, earlier="overwrite", program="phase2")
    assert (root / "01" / LAST).exists()


def test_what_somebody_else_wrote_is_never_touched(tmp_path: Path) -> None:
    write_text(tmp_path / "01" / "thesis.tex", "")
    with pytest.raises(UsageError, match="was not written by leanet"):
        call(tmp_path, earlier="overwrite")
    assert (tmp_path / "01" / "thesis.tex").exists()


def test_a_file_is_no_root(tmp_path: Path) -> None:
    write_text(tmp_path / "out", "")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        call(tmp_path / "out")


def test_the_work_folder_goes_when_all_folds_are_finished(root: Path) -> None:
    clean(root, 2, LAST)
    assert (root / "work").exists()
    write_json(root / "02" / LAST, {})
    clean(root, 2, LAST)
    assert not (root / "work").exists()


def test_the_record_of_a_run_is_that_of_its_first_call(root: Path) -> None:
    write_run(root, "phase1", {**FLAGS, "fold": [2]}, ["notice: x"], {})
    assert read_json(root / "run.json")["environment"] == {"python": "3"}


def test_the_two_switches_exclude_each_other() -> None:
    assert on_earlier(resume=False, overwrite=False) == "refuse"
    assert on_earlier(resume=True, overwrite=False) == "resume"
    assert on_earlier(resume=False, overwrite=True) == "overwrite"
    with pytest.raises(UsageError, match="give one"):
        on_earlier(resume=True, overwrite=True)


def test_fold_folders_have_two_digits_or_more() -> None:
    assert [fold_name(fold) for fold in (1, 10, 123)] == ["01", "10", "123"]
