"""A kill at any moment loses no label that was acknowledged, and no retraining."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.files import read_csv, read_json
from leanet.serve.retrain import Retraining
from leanet.serve.settings import Settings
from leanet.serve.store import Store
from leanet.serve.versions import Versions

Png = Callable[..., bytes]


Open = Callable[[], Retraining]
Kill = Callable[[int], None]
Fit = Callable[..., Path]


def label_until_killed(state: Path, names: list[str], wall: int) -> None:
    """In a child: label in turn, and say so after each one."""
    store = Store(state)
    for number in range(10**6):
        store.label(names[number % len(names)], "ng", str(number), f"child {os.getpid()}")
        os.write(wall, f"{number}\n".encode())


def kill_while_labeling(state: Path, names: list[str], seconds: float) -> tuple[int, int]:
    """Returns the process id of a child that was killed, and how many labels it acknowledged."""
    out, wall = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            label_until_killed(state, names, wall)
        finally:
            os._exit(1)
    os.close(wall)
    with os.fdopen(out, "rb") as lines:
        lines.readline()  # it has begun
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return child, 1 + sum(line.endswith(b"\n") for line in lines)


def check_kills(state: Path, png: Png, kills: int, longest: float) -> None:
    names = [Store(state).add_bytes(png(red), ".png", "request") for red in range(3)]
    times = random.Random(0)
    for _ in range(kills):
        child, said = kill_while_labeling(state, names, times.uniform(0, longest))
        events = [e for name in names for e in Store(state).history(name)]
        own = sorted(int(e.kind) for e in events if e.who == f"child {child}")
        assert own == list(range(len(own)))
        assert said <= len(own) <= said + 1  # the last one may have been written and not said
        last = {e.image: e for e in sorted(events, key=lambda e: e.number)}
        labels = Store(state).labels()
        assert labels == {name: (e.label, e.kind) for name, e in last.items()}


def test_no_label_is_lost_when_the_process_is_killed(tmp_path: Path, png: Png) -> None:
    check_kills(tmp_path, png, kills=3, longest=0.1)


@pytest.mark.slow
def test_no_label_is_lost_in_a_hundred_kills(tmp_path: Path, png: Png) -> None:
    check_kills(tmp_path, png, kills=100, longest=0.4)


def serve_until_killed(retraining: Open, names: list[str], wall: int) -> None:
    """In a child: begin to train, and label on."""
    retraining().start("ann")
    label_until_killed(retraining().settings.state, names, wall)


def only_the_server(group: int) -> None:
    """Leave the training alone."""


def also_the_training(group: int) -> None:
    os.killpg(group, signal.SIGKILL)


@pytest.mark.parametrize(("kill", "starts"), [(only_the_server, 1), (also_the_training, 2)])
def test_a_kill_during_a_retraining_loses_neither_it_nor_a_label(
    open_retraining: Open,
    fake_fit: pytest.MonkeyPatch,
    png: Png,
    tmp_path: Path,
    kill: Kill,
    starts: int,
) -> None:
    fake_fit.setenv("FAKE_PAUSE", "0.1")
    first = open_retraining()
    names = [first.store.add_bytes(png(red), ".png", "request") for red in range(3)]
    first.store.label(names[0], "ng", "first", "ann")
    out, wall = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            serve_until_killed(open_retraining, names, wall)
        finally:
            os._exit(1)
    os.close(wall)
    with os.fdopen(out, "rb") as lines:
        lines.readline()
        time.sleep(0.15)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = 1 + sum(line.endswith(b"\n") for line in lines)
    kill(read_json(tmp_path / "state/job.json")["group"])
    again = open_retraining()
    assert again.go_on().state == "running"
    job = again.wait(20)
    assert (job.state, job.share) == ("finished", 1.0)
    assert job.log.count("fake: begins, --resume") == starts
    assert again.versions.names() == ["original", "001"]
    events = [e for name in names for e in again.store.history(name)]
    assert said <= sum(e.who == f"child {child}" for e in events) <= said + 1


@pytest.mark.slow
def test_a_real_training_that_is_killed_ends_as_one_that_was_not(
    toy: Path, quick_fit: Fit, tmp_path: Path
) -> None:
    run = quick_fit("classifier", toy, tmp_path / "run", folds=2)

    def open_state(name: str) -> Retraining:
        settings = Settings(run=run, state=tmp_path / name)
        return Retraining(Store(settings.state), Versions(settings.state, run), settings)

    def label(retraining: Retraining) -> None:
        for k, file in enumerate(sorted((toy / "Mask").rglob("*.png"))[:4]):  # other pictures
            image = retraining.store.add_file(file, "folder")
            retraining.store.label(image, "ng" if k % 2 else "ok", "", "ann")

    plain = open_state("plain")
    label(plain)
    plain.start("ann")
    assert plain.wait().state == "finished"
    killed = open_state("killed")
    label(killed)
    killed.start("ann")
    kills = random.Random(1)
    for _ in range(3):
        time.sleep(kills.uniform(1, 8))
        if killed.status().state == "running":
            os.killpg(read_json(tmp_path / "killed/job.json")["group"], signal.SIGKILL)
    assert killed.wait().state == "finished"
    runs = [tmp_path / name / "models/001" for name in ("plain", "killed")]
    assert read_csv(runs[0] / "results.csv") == read_csv(runs[1] / "results.csv")
    scores = [[row["score"] for row in read_csv(one / "fold-0/predictions.csv")] for one in runs]
    assert scores[0] == scores[1]
