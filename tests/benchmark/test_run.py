from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from leanet.benchmark import run
from leanet.benchmark.run import benchmark
from leanet.benchmark.suite import Cell, Suite, read_suite
from leanet.benchmark.workers import Workers
from leanet.files import read_csv, read_json, read_json_lines

WriteSuite = Callable[..., Path]
PATIENCE = 300.0  # seconds until something that must happen has not
MOST_WORKERS = 2
PROGRAM = """
import sys
from pathlib import Path
from leanet.benchmark.run import benchmark
from leanet.benchmark.suite import read_suite
from leanet.benchmark.workers import Workers

if __name__ == "__main__":
    file, out = map(Path, sys.argv[1:])
    benchmark(read_suite(file), file.read_text(), out, workers=Workers(2))
"""


def start(file: Path, out: Path, **options: Any) -> Path:
    options = {"tell": lambda text: None, **options}
    return benchmark(read_suite(file), file.read_text(), out, **options)


def times(out: Path, pattern: str = "metrics.json") -> dict[str, int]:
    """When the files of finished cells were written."""
    return {str(f.relative_to(out)): f.stat().st_mtime_ns for f in out.rglob(pattern)}


def figures(results: Path) -> list[dict[str, str]]:
    """The results without what differs between equal runs: the time they took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(results)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write_suite: WriteSuite) -> Path:
    """The folder of a finished benchmark; not to be changed but by running it again."""
    out = tmp_path_factory.mktemp("finished") / "out"
    start(write_suite(), out)
    return out


def test_a_benchmark_leaves_its_suite_its_results_and_every_cell(
    finished: Path, write_suite: WriteSuite
) -> None:
    rows, names = read_csv(finished / "results.csv"), ("plain", "steered, A2", "steered, A4")
    assert (finished / "suite.yaml").read_text() == write_suite().read_text()
    assert read_json(finished / "environment.json")["device"] == "cpu"
    assert {(row["row"], row["fold"]) for row in rows} == set(product(names, "01"))
    assert len(times(finished)) == 2 * 3
    # each map model once, whatever number of rows reads it: per fold one, and one for each part
    assert len(list((finished / "data/toy/seed-0/map_models").iterdir())) == 2 * (1 + 2)
    assert not list(finished.rglob("checkpoint*"))


def test_the_same_command_again_does_nothing_twice(finished: Path, write_suite: WriteSuite) -> None:
    results, told = finished / "results.csv", list[str]()
    before, old = (
        times(finished, "*.json*") | times(finished, "*.safetensors"),
        results.read_bytes(),
    )
    start(write_suite(), finished, tell=told.append)
    after = times(finished, "*.json*") | times(finished, "*.safetensors")
    assert {name for name in before if before[name] != after.get(name)} == {"environment.json"}
    assert results.read_bytes() == old
    assert told == ["suite: 6 cells, 6 of them finished before"]


def test_an_interrupted_benchmark_goes_on_and_ends_alike(
    finished: Path, tmp_path: Path, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, real, left = write_suite(), tmp_path / "out", run.run_cell, [3]

    def interrupted(suite: Suite, cell: Cell, folder: Path) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(suite, cell, folder)

    monkeypatch.setattr(run, "run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(file, out)
    before = times(out)
    assert len(before) == 3
    monkeypatch.setattr(run, "run_cell", real)
    ended = start(file, out)
    assert {name: when for name, when in times(out).items() if name in before} == before
    assert figures(ended) == figures(finished / "results.csv")


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    methods = {
        "impossible": {"method": "leanet", "aan": "direct", "decide": "aan"},
        "plain": {"method": "classifier"},
    }
    file, out = write_suite(methods=methods), tmp_path / "out"
    with pytest.raises(ValueError, match=r"(?s)2 tasks failed.*impossible.*has no head to decide"):
        start(file, out)
    assert {row["row"] for row in read_csv(out / "results.csv")} == {"plain"}
    before = times(out)
    assert len(before) == 2
    with pytest.raises(ValueError, match="2 tasks failed"):
        start(file, out)
    assert times(out) == before


def test_a_row_with_other_options_under_the_same_name_is_refused(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    methods = {"plain": {"method": "classifier"}}
    common = {"epochs": 1, "adn": "timm/mobilenetv3_small_050"}
    out = tmp_path / "out"
    start(write_suite(methods=methods, common=common), out)
    other = write_suite(methods=methods, common={**common, "epochs": 2})
    with pytest.raises(ValueError, match=r"other options \(epochs 1 -> 2\)"):
        start(other, out)
    start(other, out, overwrite=True)
    (journal, *_) = out.rglob("journal.jsonl")
    assert len(read_json_lines(journal)) == 2


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, write_suite: WriteSuite) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is no benchmark of leanet"):
            start(write_suite(), out, overwrite=overwrite)
    assert [file.name for file in out.iterdir()] == ["thesis.tex"]


def test_missing_data_are_named_before_anything_is_trained(
    tmp_path: Path, write_suite: WriteSuite, toy: Path
) -> None:
    file = write_suite(data={"Toy": {"path": str(toy)}, "Gone": {"path": "gone"}})
    with pytest.raises(ValueError, match="gone does not exist"):
        start(file, tmp_path / "out")
    assert times(tmp_path) == {}


FEW = {
    "data": {
        "Leaf": {"generated": {"num_normal": 6, "num_anomalous": 8, "size": 32}},
        "New kinds": {
            "generated": {"num_normal": 6, "num_anomalous": 8, "size": 32},
            "unseen": True,
        },
    },
    "few": {"labelled": [2, 9]},
    "methods": {"plain": {"method": "classifier"}},
    "common": {"epochs": 1, "adn": "timm/mobilenetv3_small_050", "val_fraction": 0},
}


def test_few_defects_are_drawn_trained_told_and_gone_on_with(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    file, out, told = write_suite(**FEW), tmp_path / "out", list[str]()
    not_made = "New kinds: 2 cells are not made: "
    rows = read_csv(start(file, out, tell=told.append))
    assert told == [
        "Leaf: 2 cells are not made: 9 labelled defects are more than the 8 that can be drawn",
        f"{not_made}2 labelled defects leave 2 defects and 3 normal images to test; needed are 5 "
        "and 1",
        f"{not_made}9 labelled defects are more than the 6 that can be drawn",
        "suite: 2 cells, 0 of them finished before",
    ]
    assert {(row["fold"], row["labelled"], row["draw"]) for row in rows} == set(
        product("01", "2", "0"))  # fmt: skip
    for row in rows:
        assert (row["num_train_normal"], row["num_train_anomalous"]) == ("3", "2")
        assert (row["num_normal"], row["num_anomalous"]) == ("3.0", "6.0")
        assert float(row["oracle_f1"]) >= float(row["f1"])
        assert 0 <= float(row["escapes_at_1"]) <= 1
    before = times(out)
    more = write_suite(**{**FEW, "few": {"labelled": [2, 9], "draws": 2}})
    assert len(read_csv(start(more, out))) == 4
    assert {name: when for name, when in times(out).items() if name in before} == before


@pytest.mark.slow
def test_killed_in_the_middle_with_two_workers_it_goes_on_and_ends_alike(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    file, out = write_suite(), tmp_path / "out"
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(file), str(out)], cwd=tmp_path
    )
    wait_until(lambda: len(times(out)) >= MOST_WORKERS or program.poll() is not None)
    workers = children(program.pid)
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    assert program.returncode == -signal.SIGKILL, "it ended before it could be killed"
    wait_until(lambda: not any(map(is_running, workers)))
    before = times(out)
    assert 0 < len(before) < 2 * 3
    ended = start(file, out, workers=Workers(2))
    assert {name: when for name, when in times(out).items() if name in before} == before
    assert not list(out.rglob("*.part"))
    whole = start(file, tmp_path / "whole", workers=Workers(2))
    assert figures(ended) == figures(whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_on_ray_every_cell_is_finished_too(tmp_path: Path, write_suite: WriteSuite) -> None:
    pytest.importorskip("ray")
    results = start(write_suite(), tmp_path / "out", workers=Workers(2, ""))
    assert len(times(tmp_path / "out")) == 2 * 3
    assert {row["row"] for row in read_csv(results)} == {"plain", "steered, A2", "steered, A4"}


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return [pid for pid, of in pairs if of == parent]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which a container may keep for ever."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1] not in ("", "Z")
