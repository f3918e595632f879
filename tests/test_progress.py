from __future__ import annotations

import io
import re
import sys

import pytest

from leanet import progress
from leanet.progress import Progress, say_once


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_short_job_shows_no_bar(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with Progress("reading", total=3) as bar:
        for _ in range(3):
            clock.now += 0.6
            bar.advance()
    assert terminal.getvalue() == ""


def test_a_bar_appears_after_two_seconds_and_goes_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    with Progress("reading", total=30) as bar:
        clock.now += 1.9
        bar.advance(steps=2)
        assert terminal.getvalue() == ""
        clock.now += 0.2
        bar.advance("loss 0.5", steps=5)
        assert bar._bar is not None
        assert bar._bar.tasks[0].completed == 7
        assert bar._bar.tasks[0].fields["note"] == "loss 0.5"
    assert "reading" in terminal.getvalue()
    assert "7/30" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert bar._bar.finished is False
    assert not bar._bar.live.is_started


def test_a_bar_is_taken_away_by_an_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    bar = Progress("reading", total=3)
    clock.now += 5
    bar.advance()
    assert bar._bar.live.is_started
    with pytest.raises(RuntimeError), bar:
        raise RuntimeError
    assert not bar._bar.live.is_started


def test_elsewhere_a_line_comes_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=100) as bar:
        for _ in range(40):
            clock.now += 1
            bar.advance("loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 15/100, 1:25 left  loss 0.5",
        "training: 30/100, 1:10 left  loss 0.5",
    ]


def test_the_time_left_counts_only_what_this_run_did(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=1000) as bar:
        clock.now += 50
        bar.skip_to(990)
        clock.now += 16
        bar.advance(steps=2)
    assert capsys.readouterr().err == "training: 992/1000, 1:04 left\n"


def test_hours_are_shown_where_there_are_some(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=1000) as bar:
        clock.now += 15
        bar.advance()
    assert capsys.readouterr().err == "training: 1/1000, 4:09:45 left\n"


def test_the_same_words_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    say_once.cache_clear()
    for text in ("first", "second", "first"):
        say_once(text)
    assert capsys.readouterr() == ("", "first\nsecond\n")
