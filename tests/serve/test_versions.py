"""Which model answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanet.serve.versions import Versions


def finished(run: Path) -> Path:
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("method: fake\n")
    (run / "card.json").write_text("{}")
    return run


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    finished(tmp_path / "run")
    for name in ("001", "002"):
        finished(tmp_path / "state/models" / name)
    return Versions(tmp_path / "state", tmp_path / "run")


def test_the_run_itself_answers_first(versions: Versions, tmp_path: Path) -> None:
    assert versions.names() == ["original", "001", "002"]
    assert (versions.live(), versions.before(), versions.history()) == ("original", None, [])
    assert versions.run_of("original") == tmp_path / "run"
    assert versions.run_of("002") == tmp_path / "state/models/002"


def test_rolling_back_goes_to_the_one_before_step_by_step(versions: Versions) -> None:
    versions.switch("001", "ann")
    assert versions.switch("001", "ann") is None
    versions.switch("002", "bob")
    assert versions.before() == "001"
    assert versions.roll_back("ann").after == "001"
    assert versions.roll_back("ann").after == "original"
    with pytest.raises(ValueError, match="from the start"):
        versions.roll_back("ann")
    told = [(c.who, c.before, c.after, c.back) for c in versions.history()]
    assert told == [
        ("ann", "original", "001", False),
        ("bob", "001", "002", False),
        ("ann", "002", "001", True),
        ("ann", "001", "original", True),
    ]


def test_the_choice_outlives_the_server(versions: Versions, tmp_path: Path) -> None:
    versions.switch("002", "ann")
    again = Versions(tmp_path / "state", tmp_path / "run")
    assert again.live() == "002"
    assert json.loads((tmp_path / "state/live.json").read_text())["live"] == "002"


@pytest.mark.parametrize("name", ["003", "..", "", "../run", "01"])
def test_a_model_that_is_not_there_cannot_answer(versions: Versions, name: str) -> None:
    with pytest.raises(ValueError, match=r"no model .*there are: original, 001, 002"):
        versions.switch(name, "ann")
    assert versions.live() == "original"


def test_an_unfinished_model_cannot_answer(versions: Versions, tmp_path: Path) -> None:
    (tmp_path / "state/models/003").mkdir()
    (tmp_path / "state/models/002.lock").touch()  # its report is still being written
    for name in ("002", "003"):
        with pytest.raises(ValueError, match="not finished"):
            versions.switch(name, "ann")


def test_a_change_needs_a_name(versions: Versions) -> None:
    with pytest.raises(ValueError, match="give a name"):
        versions.switch("001", "")
    assert versions.live() == "original"
