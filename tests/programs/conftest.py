"""A tree that phase 1 wrote from the toy set, and quick calls of both programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.programs import phase1 as program
from leanet.programs.flags import Phase1, Phase2
from leanet.programs.folders import Earlier
from leanet.programs.phase2 import phase2

SIDE = 32
COMMON: dict[str, Any] = {"GPU": -1, "precision": "32-true", "img_size": SIDE, "epochs": 1}
Run = Callable[..., list[str]]


def run_phase1(dataset: Path, out: Path, earlier: Earlier = "refuse", **flags: Any) -> list[str]:
    """Phase 1 with small numbers and a narrow network; returns what it told."""
    told: list[str] = []
    given = {**COMMON, "task": "colorization", "model": "Unet", "n_splits": 2, **flags}
    given |= {"dataset": str(dataset), "save_path": str(out)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "BASE", 8)
        program.phase1(Phase1(**given), earlier=earlier, tell=told.append)
    return told


def run_phase2(dataset: Path, out: Path, earlier: Earlier = "refuse", **flags: Any) -> list[str]:
    """Phase 2 with a small classifier; returns what it told."""
    told: list[str] = []
    small = {"model_ADN": "timm:mobilenetv3_small_050", "model_AAN": "Direct"}
    given = {**COMMON, **small, "attention_points": (1,), **flags}
    given |= {"dataset": str(dataset), "save_path": str(out)}
    phase2(Phase2(**given), earlier=earlier, tell=told.append)
    return told


@pytest.fixture(scope="session", name="run_phase1")
def _run_phase1() -> Run:
    return run_phase1


@pytest.fixture(scope="session", name="run_phase2")
def _run_phase2() -> Run:
    return run_phase2


@pytest.fixture(scope="session")
def tree(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of the toy set, colorized at 32 px; not to be changed."""
    out = tmp_path_factory.mktemp("phase1") / "tree"
    run_phase1(toy, out)
    return out


@pytest.fixture
def copied(tree: Path, tmp_path: Path) -> Path:
    """A copy of the tree that a test may damage."""
    return Path(shutil.copytree(tree, tmp_path / "copied"))
