"""A run folder is never overwritten by accident, and resumed with the same options only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from leanet.config import option
from leanet.run_folder import open_run


@dataclass(frozen=True, kw_only=True)
class Options:
    """One option."""

    size: int = option(4, "side of something")


def opened(out: Path, size: int = 4, earlier: str = "refuse") -> dict[str, object]:
    open_run(out, "method", Path("data"), (Options(size=size),), earlier)
    return dict(yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8")))


def test_a_new_run_begins_with_its_whole_configuration(tmp_path: Path) -> None:
    assert opened(tmp_path / "run") == {"method": "method", "data": "data", "size": 4}


def test_an_earlier_run_is_refused_unless_something_else_is_said(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ValueError, match="--resume to go on with it, --overwrite to start anew"):
        opened(tmp_path)


def test_only_the_same_options_go_on(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "weights").touch()
    assert opened(tmp_path, earlier="resume")["size"] == 4
    assert (tmp_path / "weights").exists()
    with pytest.raises(ValueError, match=r"other options \(size 4 -> 8\)"):
        opened(tmp_path, size=8, earlier="resume")


def test_overwriting_leaves_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "weights").touch()
    assert opened(tmp_path, size=8, earlier="overwrite")["size"] == 8
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("earlier", ["refuse", "resume", "overwrite"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, earlier: str) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="is no run folder of leanet"):
        opened(tmp_path, earlier=earlier)
    assert (tmp_path / "thesis.txt").exists()
