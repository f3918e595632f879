"""A run that is killed, again and again, and resumed ends as one that was left alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LAUNCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import leanet.training.loop as loop
loop.SECONDS_BETWEEN_CHECKPOINTS = float(sys.argv[1])
from leanet.cli import main
sys.exit(main(sys.argv[2:]))
"""
OPTIONS = [
    "--folds=3",
    "--img_size=32",
    "--device=cpu",
    "--precision=32-true",
    "--seed=3",
    "--adn=timm/mobilenetv3_small_050",
    "--aan=mobilenet",
    "--learn_strength",
    "--epochs=6",
    "--map_model.epochs=5",
    "--map_model.base=8",
    "--map_model.dropout=0.2",
]
EVERY_EPOCH, NEVER = 0.0, 1e9
PATIENCE = 120.0  # seconds until a moment that does not come counts as a failure

Moment = Callable[[Path], bool]


def lines(count: int, pattern: str) -> Moment:
    def reached(run: Path) -> bool:
        return any(file.read_bytes().count(b"\n") >= count for file in run.glob(pattern))

    return reached


def exists(pattern: str) -> Moment:
    return lambda run: any(run.glob(pattern))


# (seconds between checkpoints, when to kill)
KILLS: dict[str, tuple[float, Moment]] = {
    "while a map model trains": (EVERY_EPOCH, lines(2, "map_models/*/journal.jsonl")),
    "in phase 2, before any checkpoint": (NEVER, lines(3, "fold-0/journal.jsonl")),
    "between folds": (EVERY_EPOCH, exists("fold-0/metrics.json")),
    "while a checkpoint is written": (EVERY_EPOCH, exists("fold-1/.checkpoint.safetensors.*")),
    "in phase 2 of the final training": (EVERY_EPOCH, lines(3, "final/journal.jsonl")),
}


def start(toy: Path, run: Path, *words: str, between: float = EVERY_EPOCH) -> Any:
    command = [sys.executable, "-c", LAUNCH, str(between), "fit", "leanet", str(toy)]
    return subprocess.Popen(
        [*command, f"--out={run}", *OPTIONS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: Any) -> None:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors


def stop_when(process: Any, run: Path, moment: Moment, how: signal.Signals) -> tuple[int, str]:
    """Send the signal at the moment; exit status and standard error."""
    limit = time.monotonic() + PATIENCE
    while not moment(run):
        assert process.poll() is None, f"ended before the moment came: {process.communicate()[1]}"
        assert time.monotonic() < limit, "the moment never came"
        time.sleep(0.001)
    process.send_signal(how)
    errors = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, errors


def contents(run: Path) -> dict[str, Any]:
    """Every file of a run without what depends on the clock."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        name = file.relative_to(run).as_posix()
        if name in ("environment.json", "report.html"):  # date and durations
            found[name] = None
        elif file.name in ("metrics.json", "journal.jsonl"):
            found[name] = re.sub(r'"seconds": [\d.e-]+', "", file.read_text())
        else:
            found[name] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def uninterrupted(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(toy, run, between=NEVER))
    return run


def test_kills_leave_no_trace_in_the_result(toy: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run, resume = tmp_path / "run", list[str]()
    for name, (between, moment) in KILLS.items():
        process = start(toy, run, *resume, between=between)
        status, errors = stop_when(process, run, moment, signal.SIGKILL)
        assert status == -signal.SIGKILL, f"{name}: {errors}"
        assert not (run / "card.json").exists(), name
        resume = ["--resume"]
    finish(start(toy, run, "--resume"))
    expected, got = contents(uninterrupted), contents(run)
    assert list(got) == list(expected)
    assert [name for name in expected if got[name] != expected[name]] == []


def test_the_comparison_covers_weights_predictions_and_metrics_of_every_fold(
    uninterrupted: Path,
) -> None:
    found = contents(uninterrupted)
    for fold in ("fold-0", "fold-1", "fold-2", "final"):
        for file in ("weights.safetensors", "predictions.csv", "metrics.json", "journal.jsonl"):
            assert found[f"{fold}/{file}"]
    assert found["results.csv"]
    assert json.loads(found["card.json"])["folds"] == 3


def test_control_c_ends_in_one_line_and_the_run_can_be_resumed(toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(toy, run)
    status, errors = stop_when(process, run, lines(1, "map_models/*/journal.jsonl"), signal.SIGINT)
    assert status == 130
    told = errors.strip().splitlines()
    assert told[-1] == "leanet: stopped; the same command with --resume goes on"
    assert not any("Traceback" in line for line in told)
    assert not list(run.rglob(".*")), "no temporary file stays behind"
