"""`leanet fit` as a process of its own, which outlives a server that is killed.

It runs in its own process group, so that Ctrl-C in the terminal of the server does not end it, at
a lower priority, and with half of the processors, so that the server answers meanwhile. It holds a
lock on a file for as long as it lives: the next server can tell whether it still runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NICE: Final = 10  # 0 = as urgent as the server, 19 = only what nobody else wants
SECONDS_TO_STOP: Final = 10.0
COMMAND: Final = (sys.executable, "-m", "leanet")


def start(
    words: Sequence[str], *, log: Path, lock: Path, folder: Path
) -> subprocess.Popen[bytes] | None:
    """`leanet WORDS` in `folder`; its output goes to the end of `log`. None if one runs already
    with this lock."""
    threads = max(1, (os.cpu_count() or 2) // 2)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit():
        threads = min(threads, max(1, int(given)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    environment.pop("LEANET_TOKEN", None)  # the server's secret is none of its business
    with log.open("ab") as output, lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(held.fileno(),),
        )
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    return process


def runs(lock: Path) -> bool:
    """Whether a process that was started with this lock still lives."""
    if not lock.exists():
        return False
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop(group: int, lock: Path) -> None:
    """End a process group, politely and then not, if it still holds its lock; 0 = not known, when
    a server was killed in the moment after it began, and then it goes on."""
    if group <= 0:
        return  # 0 would be our own
    for kill in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + SECONDS_TO_STOP
        if runs(lock):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, kill)
        while runs(lock) and time.monotonic() < end:
            time.sleep(0.05)
