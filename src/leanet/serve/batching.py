"""Requests that come at the same time share one pass through the model.

A picture goes through two stages: a few threads read it (decode, shrink), and one thread runs the
model on all pictures that are ready, at most `max_batch`. While the model works the next batch
gathers by itself; a picture waits, up to `max_wait_ms`, only for others that are being read right
now, so a single client never waits. A request needs a place before anything is done for it; when
all are taken it is refused, so memory stays bounded whatever comes in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from leanet.data.cache import READER_THREADS
from leanet.serve.live import Judgement, Live, Model, judge_pictures, shown

Read = Callable[[Model], NDArray[np.uint8]]  # what gives the picture [S, S, 3] for a model
Result = TypeVar("Result")


class QueueFullError(Exception):
    """All places are taken: come again later."""


class StoppingError(Exception):
    """The server is about to end and takes nothing new."""


class Answer(NamedTuple):
    """A judgement, the model that gave it, and the picture [S, S, 3] that it saw."""

    judgement: Judgement
    model: Model
    picture: NDArray[np.uint8]


class _Waiting(NamedTuple):
    model: Model
    picture: NDArray[np.uint8]
    judged: asyncio.Future[Judgement]


class Batcher:
    """Judges pictures for many requests at a time; works inside `async with batcher.running()`.

    Args:
        live: holds the model; a request is answered by the one that was live when it came.
        max_batch: pictures in one pass, at most.
        max_wait_ms: how long a picture waits for those that are being read.
        queue: places.
        on_batch: is told the size of every batch.
    """

    def __init__(
        self,
        live: Live,
        *,
        max_batch: int = 16,
        max_wait_ms: float = 5.0,
        queue: int = 64,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._live, self._on_batch = live, on_batch
        self._max_batch, self._max_wait, self._queue = max_batch, max_wait_ms / 1000, queue
        self._waiting: deque[_Waiting] = deque()
        self._taken = self._being_read = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._readers = ThreadPoolExecutor(READER_THREADS, "leanet-read")
        self._worker = ThreadPoolExecutor(1, "leanet-judge")

    @property
    def taken(self) -> int:
        """Places that are taken: images from being received to being answered."""
        return self._taken

    @property
    def free(self) -> int:
        """Places that are free."""
        return self._queue - self._taken

    @property
    def closed(self) -> bool:
        """Whether nothing new is taken."""
        return self._closed

    def close(self) -> None:
        """Take nothing new from now on; what has a place is still answered."""
        self._closed = True

    @contextmanager
    def place(self, num: int = 1) -> Iterator[None]:
        """Hold so many places.

        Raises:
            QueueFullError: there are fewer.
            StoppingError: the server is about to end.
        """
        if self._closed:
            raise StoppingError
        if num > self.free:
            raise QueueFullError
        self._taken += num
        try:
            yield
        finally:
            self._taken -= num
            if self._closed:  # this may have been the last one
                self._changed.set()

    @contextmanager
    def more_places(self, up_to: int) -> Iterator[int]:
        """For one who holds a place already: as many more as are free; gives their number."""
        num = max(0, min(up_to, self.free))
        self._taken += num
        try:
            yield num
        finally:
            self._taken -= num

    async def judge(self, rgb: NDArray[np.uint8]) -> Judgement:
        """What the live model says of a picture [H, W, 3]; errors as `place` and `ask`."""
        with self.place():
            return (await self.ask(lambda model: shown(model, rgb))).judgement

    async def ask(self, read: Read) -> Answer:
        """What the live model says of the picture that `read`, in a thread, makes for it.

        The caller holds a place. When the caller is cancelled, so is the work that has not begun.

        Raises:
            ValueError: the model gave something that is not finite, or as `read` raises.
        """
        model = self._live.model
        self._being_read += 1
        try:
            picture = await self.in_thread(lambda: read(model))
        finally:
            self._being_read -= 1
            self._changed.set()
        judged: asyncio.Future[Judgement] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(model, picture, judged))
        return Answer(await judged, model, picture)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do something for a request in one of the reading threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Judges while inside; what has a place at the end is answered before it returns."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.close()
            self._changed.set()
            await task
            self._readers.shutdown()
            self._worker.shutdown()

    async def _run(self) -> None:
        while not (self._closed and self._taken == 0):
            batch = await self._gather()
            if batch:
                await self._answer(batch)

    async def _gather(self) -> list[_Waiting]:
        """The next pictures for one model; [] when there is nothing to do for now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            await self._change(1.0)
        until = loop.time() + self._max_wait
        while self._being_read and 0 < len(self._waiting) < self._max_batch:
            if (left := until - loop.time()) <= 0:
                break
            await self._change(left)
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._max_batch:
            if batch and self._waiting[0].model is not batch[0].model:
                break
            one = self._waiting.popleft()
            if not one.judged.done():  # its client has gone
                batch.append(one)
        return batch

    async def _change(self, seconds: float) -> None:
        """Wait until a picture may have come, or so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _answer(self, batch: list[_Waiting]) -> None:
        self._on_batch(len(batch))
        try:
            judged = await self._judge(batch)
        except Exception as error:
            if len(batch) > 1:  # one picture does not spoil the others
                for one in batch:
                    await self._answer([one])
            elif not batch[0].judged.done():
                batch[0].judged.set_exception(error)
            return
        for one, judgement in zip(batch, judged, strict=True):
            if not one.judged.done():
                one.judged.set_result(judgement)

    async def _judge(self, batch: list[_Waiting]) -> list[Judgement]:
        model, pictures = batch[0].model, [one.picture for one in batch]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, judge_pictures, model, pictures)
