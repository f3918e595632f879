"""The output root of a program, and what becomes of earlier work in it.

A root holds `run.json` (program, flags, versions) and a folder 01, 02, ... per fold, as the
originals wrote them. A fold is finished when its last file stands. A filled fold folder is refused
unless the user resumes (unfinished folds go on, finished ones stay) or overwrites; folders that
this package has not written are never touched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from leanet.config import UsageError
from leanet.files import read_json, sweep, write_json

Earlier = Literal["refuse", "resume", "overwrite"]

RUN: Final = "run.json"
WORK: Final = "work"  # caches and models for out-of-fold maps; gone when all folds are finished
TRAINING: Final = "training"  # of a fold folder: its unfinished training
MANIFEST: Final = "manifest.csv"
SUMMARY, SUMMARY_TABLE = "summary.json", "summary.csv"
ROOT_FILES: Final = (RUN, MANIFEST, SUMMARY, SUMMARY_TABLE)
FREE: Final = frozenset({"GPU", "fold", "num_workers", "save_path"})  # may differ when going on


def fold_name(fold: int) -> str:
    """Folder of a fold, counted from 1.

    >>> fold_name(1), fold_name(100)
    ('01', '100')
    """
    return f"{fold:02d}"


def on_earlier(*, resume: bool, overwrite: bool) -> Earlier:
    """What the two switches say about earlier work.

    Raises:
        UsageError: both are set.
    """
    if resume and overwrite:
        raise UsageError("--resume keeps earlier folds and --overwrite replaces them; give one")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def claim(
    root: Path,
    program: str,
    flags: Mapping[str, Any],
    folds: Sequence[int],
    *,
    num_folds: int,
    last_file: str,
    earlier: Earlier,
) -> tuple[int, ...]:
    """Decide about earlier work in `root`, make room, and return the folds that are to be done.

    `last_file` is what a finished fold has. Nothing is deleted unless everything is allowed; when
    no fold folder remains, the files beside them go too.

    Raises:
        UsageError: earlier work that must not be touched; says what to do.
    """
    record = root / RUN
    before = read_json(record) if record.exists() else None
    filled = _filled_folds(root, num_folds, last_file)
    everything = set(filled) <= set(folds) or len(folds) == num_folds
    replaced = earlier == "overwrite" and everything
    if before is None:
        _refuse_foreign(root, filled)
    else:
        _refuse_other_run(root, program, flags, before, replaced=replaced)
    taken = [fold for fold in folds if fold in filled]
    if taken and earlier == "refuse":
        names = ", ".join(fold_name(fold) for fold in taken)
        raise UsageError(
            f"{root} has filled folders already ({names}); --resume goes on with them, "
            "--overwrite replaces them, or give another --save_path"
        )
    if earlier == "overwrite":
        for fold in filled if replaced else taken:
            shutil.rmtree(root / fold_name(fold))
        if replaced:
            _clear(root)
        return tuple(folds)
    sweep(root)
    return tuple(fold for fold in folds if not (root / fold_name(fold) / last_file).exists())


def write_run(
    root: Path,
    program: str,
    flags: Mapping[str, Any],
    notices: Sequence[str],
    environment: Mapping[str, object],
) -> None:
    """Write `run.json`, unless an earlier call of the same run has."""
    if not (root / RUN).exists():
        facts = {"program": program, "flags": dict(flags), "notices": list(notices)}
        write_json(root / RUN, facts | {"environment": dict(environment)})


def clean(root: Path, num_folds: int, last_file: str) -> None:
    """Remove the work folder if all folds are finished."""
    names = [fold_name(fold) for fold in range(1, num_folds + 1)]
    if all((root / name / last_file).exists() for name in names):
        shutil.rmtree(root / WORK, ignore_errors=True)


def _filled_folds(root: Path, num_folds: int, last_file: str) -> list[int]:
    """Folds whose folder is not empty, with those of a run of ours that had more folds."""
    filled = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not re.fullmatch(r"\d{2,}", folder.name):
            continue
        fold, names = int(folder.name), _content(folder)
        if names and (1 <= fold <= num_folds or names & {last_file, TRAINING}):
            filled.append(fold)
    return filled


def _content(folder: Path) -> set[str]:
    """The names in a folder; a file in its place holds itself."""
    return {one.name for one in folder.iterdir()} if folder.is_dir() else {folder.name}


def _refuse_foreign(root: Path, filled: Sequence[int]) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"--save_path {root} is a file; give a folder")
    if filled:
        raise UsageError(
            f"{root / fold_name(filled[0])} was not written by leanet ({RUN} is missing beside "
            "it) and stays as it is; give another --save_path"
        )


def _refuse_other_run(
    root: Path,
    program: str,
    flags: Mapping[str, Any],
    before: Mapping[str, Any],
    *,
    replaced: bool,
) -> None:
    if before["program"] != program:
        raise UsageError(
            f"{root} holds the output of {before['program']}; give {program} another --save_path"
        )
    old: Mapping[str, Any] = before["flags"]
    names = [name for name in {**old, **flags} if name not in FREE]
    differing = [name for name in names if old.get(name) != flags.get(name)]
    if differing and not replaced:
        listed = "; ".join(f"--{name} {old.get(name)} -> {flags.get(name)}" for name in differing)
        raise UsageError(
            f"{root} was begun with other flags ({listed}); give the same ones, --overwrite with "
            "all folds, or another --save_path"
        )


def _clear(root: Path) -> None:
    """Remove what an earlier run of ours left beside the fold folders."""
    shutil.rmtree(root / WORK, ignore_errors=True)
    for name in ROOT_FILES:
        (root / name).unlink(missing_ok=True)
