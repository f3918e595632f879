"""Training anew as a job, around a `leanet fit` that only pretends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from leanet.data.scan import scan
from leanet.serve import training_process
from leanet.serve.jobs import Job, Plan, write_plan
from leanet.serve.retrain import Retraining
from leanet.serve.versions import lock_of

Open = Callable[[], Retraining]
Png = Callable[..., bytes]


def labeled(retraining: Retraining, png: Png, *reds: int) -> Retraining:
    for red in reds:
        name = retraining.store.add_bytes(png(red), ".png", "request")
        retraining.store.label(name, "ng", "scratch", "ann")
    return retraining


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_new_labels_make_a_new_model(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, png: Png, tmp_path: Path
) -> None:
    retraining = labeled(open_retraining(), png, 1, 2)
    assert retraining.status().state == "idle"
    begun = retraining.start("ann")
    assert (begun.name, begun.state, begun.num_new, begun.folds) == ("001", "running", 2, 2)
    job = retraining.wait()
    assert (job.state, job.share, job.error, job.who) == ("finished", 1.0, "", "ann")
    assert job.log[0] == "fake: begins, --resume"
    assert job.line == "report: done"
    assert job.started < job.ended
    assert retraining.versions.names() == ["original", "001"]
    found = scan(tmp_path / "state/models/001.csv")
    assert [sample.kind for sample in found.samples] == [
        *["good"] * 6,
        *["dent"] * 3,
        *["scratch"] * 2,
    ]
    options = yaml.safe_load((tmp_path / "state/models/001.yaml").read_text())
    assert options == {
        "method": "fake",
        "folds": 2,
        "epochs": 4,
        "positives": None,
        "normal": None,
        "test_fraction": None,
    }
    assert open_retraining().status() == job  # also after a restart


def test_a_training_that_fails_says_why_and_the_next_may_start(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, png: Png, tmp_path: Path
) -> None:
    retraining = labeled(open_retraining(), png, 1)
    fake_fit.setenv("FAKE_ERROR", "1")
    retraining.start("ann")
    job = retraining.wait()
    assert (job.state, job.error) == (
        "failed",
        "3 folds need that many images.\nUse fewer folds.",
    )
    assert retraining.versions.names() == ["original"]
    fake_fit.delenv("FAKE_ERROR")
    retraining.start("ann")
    assert (retraining.wait().name, retraining.status().state) == ("002", "finished")


def test_one_job_at_a_time_and_cancelling_leaves_the_labels(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, png: Png, tmp_path: Path
) -> None:
    fake_fit.setenv("FAKE_PAUSE", "5")
    retraining = labeled(open_retraining(), png, 1)
    retraining.start("ann")
    until(lambda: retraining.status().share > 0)
    assert 0 < retraining.status().share < 1
    with pytest.raises(ValueError, match="is going on"):
        retraining.start("bob")
    assert retraining.cancel().state == "cancelled"
    assert not (tmp_path / "state/models/001").exists()
    assert len(retraining.store.labels()) == 1
    with pytest.raises(ValueError, match="no training is going on"):
        retraining.cancel()


@pytest.mark.parametrize("what", ["", "unsure", "known"])
def test_without_anything_new_nothing_is_trained(
    open_retraining: Open, png: Png, tmp_path: Path, what: str
) -> None:
    retraining = open_retraining()
    if what == "unsure":
        image = retraining.store.add_bytes(png(1), ".png", "request")
        retraining.store.label(image, "unsure", "", "ann")
    if what == "known":
        image = retraining.store.add_file(tmp_path / "data/good/0.png", "folder")
        retraining.store.label(image, "ok", "", "ann")
    with pytest.raises(ValueError, match="label some pictures first"):
        retraining.start("ann")
    assert retraining.status().state == "idle"


def test_images_that_are_gone_are_named(open_retraining: Open, png: Png, tmp_path: Path) -> None:
    retraining = labeled(open_retraining(), png, 1)
    (tmp_path / "data/dent/7.png").unlink()
    with pytest.raises(ValueError, match=r"1 images that .* gone, e.g. .*7\.png"):
        retraining.start("ann")


def test_a_server_that_stops_goes_on_when_it_starts_again(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, png: Png, tmp_path: Path
) -> None:
    fake_fit.setenv("FAKE_PAUSE", "5")
    first = labeled(open_retraining(), png, 1)
    first.start("ann")
    until(lambda: first.status().share > 0)
    first.close()
    assert not training_process.runs(lock_of(first.folder, "001"))
    fake_fit.delenv("FAKE_PAUSE")
    second = open_retraining()
    assert second.status().state == "running"
    assert second.go_on().state == "running"
    job = second.wait()
    assert (job.state, job.log.count("fake: begins, --resume")) == ("finished", 2)


def test_what_nobody_has_gone_on_with_can_be_cancelled(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fake_fit.py").write_text("import time\ntime.sleep(60)")
    retraining = open_retraining()
    retraining.folder.mkdir()
    lock = lock_of(retraining.folder, "001")
    orphan = training_process.start([], log=tmp_path / "log", lock=lock, folder=tmp_path)
    assert orphan is not None
    plan = Plan(Job(name="001", state="running"), starts=1, group=orphan.pid)
    write_plan(tmp_path / "state/job.json", plan)
    assert retraining.cancel().state == "cancelled"
    assert orphan.wait() < 0
    assert not lock.exists()


def test_a_process_group_that_is_not_known_is_not_ours(tmp_path: Path) -> None:
    held = training_process.start([], log=tmp_path / "log", lock=tmp_path / "lock", folder=tmp_path)
    assert held is not None
    training_process.stop(0, tmp_path / "lock")  # os.killpg(0) would end the tests
    training_process.stop(held.pid, tmp_path / "lock")
    assert held.wait() != 0


def test_what_is_killed_again_and_again_is_given_up(
    open_retraining: Open, fake_fit: pytest.MonkeyPatch, png: Png, tmp_path: Path
) -> None:
    script = tmp_path / "fake_fit.py"
    script.write_text("import os\nprint('begins', flush=True)\nos.kill(os.getpid(), 9)")
    retraining = labeled(open_retraining(), png, 1)
    retraining.start("ann")
    job = retraining.wait()
    assert (job.state, job.log.count("begins")) == ("failed", 5)
    assert "killed 5 times" in job.error


def test_the_training_leaves_half_of_the_processors_and_is_less_urgent(
    fake_fit: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "fake_fit.py"
    script.write_text(
        "import os, time\ntime.sleep(0.3)\nprint(os.environ['OMP_NUM_THREADS'], os.nice(0), "
        "'LEANET_TOKEN' in os.environ, os.getsid(0) == os.getpid())"
    )
    fake_fit.setenv("LEANET_TOKEN", "secret")
    fake_fit.delenv("OMP_NUM_THREADS", raising=False)
    log, lock = tmp_path / "log", tmp_path / "lock"
    process = training_process.start([], log=log, lock=lock, folder=tmp_path)
    assert process is not None
    assert training_process.start([], log=log, lock=lock, folder=tmp_path) is None
    assert process.wait() == 0
    told = log.read_text().split()
    assert told[0] == str(max(1, (os.cpu_count() or 2) // 2))
    assert told[1:] == [str(training_process.NICE), "False", "True"]
