from __future__ import annotations

import operator
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from leanet.benchmark.workers import Workers, each, threads_for

PATIENCE = 300.0  # seconds until something that must happen has not
HERE, PROCESSES = Workers(1), Workers(2)
both = pytest.mark.parametrize("workers", [HERE, PROCESSES], ids=["here", "two processes"])
# Tasks are functions that any process can import: those of this file are not.
SLEEPERS = """
import os, sys, time
from pathlib import Path
from leanet.benchmark.workers import Workers, each

def sleep(folder):
    (folder / f"pid-{os.getpid()}").touch()
    time.sleep(3600)

if __name__ == "__main__":
    list(each(sleep, [Path(sys.argv[1])] * 2, Workers(2)))
"""


@both
def test_every_task_is_done_and_a_mistake_of_the_user_or_bad_luck_ends_its_task_alone(
    workers: Workers, tmp_path: Path
) -> None:
    there, new, newer = (tmp_path / name for name in ("there", "new", "newer"))
    there.mkdir()
    tasks = [partial(os.mkdir, new), partial(os.mkdir, there), partial(int, "one"),
             partial(os.mkdir, newer)]  # fmt: skip
    ended = dict(each(operator.call, tasks, workers))
    assert set(ended) == set(tasks)
    first, twice, wrong, last = (ended[task] for task in tasks)
    assert isinstance(twice, FileExistsError)
    assert isinstance(wrong, ValueError)
    assert (first, last) == (None, None)
    assert new.is_dir()
    assert newer.is_dir()


@both
def test_a_mistake_of_ours_is_raised(workers: Workers) -> None:
    with pytest.raises(TypeError):
        list(each(operator.neg, ["text", "other"], workers))


def test_one_task_or_one_worker_needs_no_other_process() -> None:
    seen: list[int] = []
    list(each(seen.append, [1], PROCESSES))
    list(each(seen.append, [2, 3], HERE))
    assert seen == [1, 2, 3]


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [threads_for(num) for num in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'leanet\[ray\]'"):
        list(each(int, ["1"], Workers(2, "")))


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "sleepers.py"), str(tmp_path)])
    try:
        wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2 or parent.poll() is not None)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(file.name.removeprefix("pid-")) for file in tmp_path.glob("pid-*")]
    assert len(workers) == 2
    assert parent.pid not in workers
    wait_until(lambda: not any(map(is_running, workers)))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_does_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    there = tmp_path / "there"
    there.mkdir()
    tasks = [there, tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    ended = dict(each(os.mkdir, tasks, Workers(2, "")))
    assert isinstance(ended.pop(there), FileExistsError)
    assert list(ended.values()) == [None] * 3
    assert all(folder.is_dir() for folder in tasks)


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which a container may keep for ever."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1] not in ("", "Z")
