"""A progress bar with the time left on a terminal, a plain line now and then elsewhere.

What is done within two seconds shows nothing.
"""

from __future__ import annotations

import functools
import sys
import time
from types import TracebackType
from typing import Any

SECONDS_BEFORE_SHOWN = 2.0  # of a bar
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts steps of one job and shows how far it is, on standard error.

    >>> with Progress("reading", total=3) as bar:
    ...     bar.advance()
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done, self._first = label, total, 0, 0
        self._started = self._line = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = None  # until it shows

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count `steps` more; `note` (a loss, say) stands behind the bar."""
        self.done += steps
        now = time.monotonic()
        if self._on_terminal:
            if self._bar is None and now - self._started >= SECONDS_BEFORE_SHOWN:
                self._bar = _terminal_bar(self.label, self.total)
                self._bar.start()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self.done, note=note)
        elif now - self._line >= SECONDS_BETWEEN_LINES:
            self._line, spent = now, now - self._started
            left = spent / (self.done - self._first) * (self.total - self.done)
            text = f"{self.label}: {self.done}/{self.total}, {_clock(left)} left  {note}"
            print(text.rstrip(), file=sys.stderr, flush=True)  # noqa: T201 - this is its purpose

    def skip_to(self, done: int) -> None:
        """Say that the first `done` steps were finished by an earlier run."""
        self.done = self._first = done
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


@functools.cache
def say_once(text: str) -> None:
    """A line on standard error, the first time that a process says these very words: a run trains
    dozens of networks that have the same to say."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is its purpose


def _terminal_bar(label: str, total: int) -> Any:
    from rich import progress  # only when it shows: not part of a quiet start
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(label, total=total, note="")
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
