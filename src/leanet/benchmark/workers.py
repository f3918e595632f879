"""Tasks over several processes of this machine, or over a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple, TypeVar

import torch

Task = TypeVar("Task")
SECONDS_BETWEEN_LOOKS = 1.0


class Workers(NamedTuple):
    """num: tasks at a time; ray: None for processes of this machine, "" for a Ray on this machine,
    else the address of a cluster (whose machines must share the folders)."""

    num: int = 1
    ray: str | None = None


def each(
    function: Callable[[Task], None], tasks: Sequence[Task], workers: Workers
) -> Iterator[tuple[Task, Exception | None]]:
    """Run all tasks and give each back as it ends, with the ValueError or OSError that ended it.

    Raises:
        ValueError: Ray is asked for and not installed.
    """
    if workers.ray is not None:
        yield from _on_ray(function, tasks, workers)
    elif workers.num == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, _attempt(function, task)
    else:
        yield from _in_processes(function, tasks, workers.num)


def threads_for(num_workers: int) -> int:
    """Threads of one of several workers on this machine."""
    return max(1, (os.cpu_count() or 1) // num_workers)


def _attempt(function: Callable[[Task], None], task: Task) -> Exception | None:
    """The user's mistake, or bad luck, that ended a task; anything else is our mistake: raised."""
    try:
        function(task)
    except (ValueError, OSError) as error:
        return type(error)(str(error)) if isinstance(error, ValueError) else error
    return None


def _in_processes(
    function: Callable[[Task], None], tasks: Sequence[Task], num: int
) -> Iterator[tuple[Task, Exception | None]]:
    with ProcessPoolExecutor(
        min(num, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(os.getpid(), threads_for(num)),
    ) as pool:
        try:
            futures = {pool.submit(_attempt, function, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # Ctrl-C, or a bug in a task: do not wait for the others
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _begin_worker(parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has been killed: nobody would collect its results."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _on_ray(
    function: Callable[[Task], None], tasks: Sequence[Task], workers: Workers
) -> Iterator[tuple[Task, Exception | None]]:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "--ray needs Ray, which is not installed: pip install 'leanet[ray]'"
        ) from error
    threads = threads_for(workers.num)
    if not ray.is_initialized():
        local: dict[str, Any] = {"num_cpus": workers.num * threads, "include_dashboard": False}
        ray.init(**({"address": workers.ray} if workers.ray else local), log_to_driver=False)
    try:
        remote: Any = ray.remote(num_cpus=threads)(_attempt_on_ray)
        pending = {remote.remote(function, task, threads): task for task in tasks}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(done), ray.get(done)
    finally:
        ray.shutdown()


def _attempt_on_ray(function: Callable[[Task], None], task: Task, threads: int) -> Exception | None:
    torch.set_num_threads(threads)
    return _attempt(function, task)
