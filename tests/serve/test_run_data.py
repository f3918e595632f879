"""Where the images of a run lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanet.serve.run_data import run_data


def with_data(run: Path, data: str) -> Path:
    (run / "config.yaml").write_text(f"method: fake\ndata: {data}\n")
    return run


def test_an_absolute_place_is_taken_as_it_is(fake_run: Path, tmp_path: Path) -> None:
    found = run_data(fake_run)
    assert found.root == tmp_path / "data"
    assert found.samples[0].path == tmp_path / "data/good/0.png"
    assert found.config["folds"] == 2


def test_a_relative_place_counts_from_the_working_folder(
    fake_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_data(with_data(fake_run, "data"))
    assert (found.base, found.root) == (tmp_path, tmp_path / "data")


def test_else_from_a_folder_above_the_run(fake_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/deep/run"
    run.parent.mkdir(parents=True)
    fake_run.rename(run)
    found = run_data(with_data(run, "data"))
    assert (found.base, found.root) == (tmp_path, tmp_path / "data")


def test_images_that_are_gone_are_an_error_that_says_where_they_were(fake_run: Path) -> None:
    with pytest.raises(ValueError, match="not at nowhere/data any more"):
        run_data(with_data(fake_run, "nowhere/data"))
