"""How far a training is."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanet.serve.training_progress import mistake, share_done, tail


def test_folds_and_epochs_count(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert share_done(run) == 0.0
    (run / "fold-0").mkdir(parents=True)
    (run / "fold-1").mkdir()
    (run / "config.yaml").write_text("folds: 3\nepochs: 4\n")
    assert share_done(run) == 0.0
    (run / "fold-0/metrics.json").touch()
    (run / "fold-1/journal.jsonl").write_text("{}\n{}\n{}")  # the last line is being written
    assert share_done(run) == pytest.approx((1 + 2 / 4) / 4)
    (run / "fold-1/journal.jsonl").write_text("{}\n" * 9)  # of another stage of the method
    assert share_done(run) == pytest.approx((1 + 0.95) / 4)
    (run / "config.yaml").write_text("folds: 0\n")  # a method without epochs
    (run / "final").mkdir()
    assert share_done(run) == 0.0
    (run / "final/metrics.json").touch()
    assert share_done(run) == 1.0


def test_the_end_of_a_long_log_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == []
    log.write_bytes("\n".join(f"line {k} ä" for k in range(9000)).encode() + b"\n\n\xff")
    assert tail(log)[-2:] == ["line 8999 ä", "\N{REPLACEMENT CHARACTER}"]
    assert len(tail(log)) == 20


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("", "the training ended without a word"),
        ("fold-0: 3 s\nKilled\n", "Killed"),
        ("a\nleanet: first\nb\nleanet: bad data.\nMend it.\n", "bad data.\nMend it."),
    ],
)
def test_a_mistake_is_what_was_said_last(tmp_path: Path, log: str, told: str) -> None:
    (tmp_path / "log").write_text(log)
    assert mistake(tmp_path / "log") == told
