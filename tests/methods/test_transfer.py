"""A teacher has seen the training images of the fold and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.files import read_json_lines

Fit = Callable[..., Path]
ADN: dict[str, Any] = {"epochs": 1, "folds": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def teacher(quick_fit: Fit, class_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_fit("classifier", class_toy, tmp_path_factory.mktemp("teacher") / "run", **ADN)


def transfer_losses(run: Path) -> list[float]:
    return [r["train_transfer_loss"] for r in read_json_lines(run / "fold-0" / "journal.jsonl")]


def test_another_run_teaches(
    quick_fit: Fit, class_toy: Path, teacher: Path, tmp_path: Path
) -> None:
    run = quick_fit(
        "classifier", class_toy, tmp_path / "run", draw=1, transfer_from=str(teacher), **ADN
    )
    assert all(loss > 0 for loss in transfer_losses(run))


def test_the_maps_of_a_run_teach(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    source = str(quick_fit("colorizer", toy, tmp_path / "maps", base=2, epochs=1))
    run = quick_fit("classifier", toy, tmp_path / "run", transfer_from=source, **ADN)
    assert all(loss > 0 for loss in transfer_losses(run))


def test_a_teacher_of_other_folds_is_refused(
    quick_fit: Fit, class_toy: Path, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"was not trained on the images of fold-0.*--seed"):
        quick_fit(
            "classifier", class_toy, tmp_path / "run", transfer_from=str(teacher), seed=1, **ADN
        )


def test_what_is_no_run_cannot_teach(quick_fit: Fit, class_toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--transfer_from maps is no run folder.*mean map"):
        quick_fit("classifier", class_toy, tmp_path / "run", transfer_from="maps", **ADN)


def test_abn_is_not_taught(quick_fit: Fit, class_toy: Path, tmp_path: Path) -> None:
    options = {**ADN, "attention": "abn", "transfer_from": "map"}
    with pytest.raises(ValueError, match="attention abn learns its own map"):
        quick_fit("classifier", class_toy, tmp_path / "run", **options)
