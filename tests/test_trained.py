"""The card of a finished run, and paths that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanet.files import write_json
from leanet.trained import CARD, open_detector, read_card, update_card


def run_folder(folder: Path, **card: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").touch()
    if card:
        write_json(folder / CARD, card)
    return folder


def test_what_is_no_run_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run folder .* `leanet fit` makes one"):
        read_card(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2"])
def test_an_exported_file_is_used_through_its_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match="exported file is used through its run"):
            read_card(path)


def test_an_unfinished_run_is_refused_with_how_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume"):
        read_card(run_folder(tmp_path / "run"))


def test_a_changed_value_leaves_the_others(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", method="leanet", threshold=1)
    assert update_card(run, threshold=2) == {"method": "leanet", "threshold": 2}
    assert read_card(run) == {"method": "leanet", "threshold": 2}


def test_an_engine_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", method="leanet")
    with pytest.raises(ValueError, match="unknown engine 'abacus'; allowed: torch, onnx"):
        open_detector(run, "abacus")  # type: ignore[arg-type]
