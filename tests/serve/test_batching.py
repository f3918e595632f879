from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from leanet.records import Prediction
from leanet.serve.batching import Answer, Batcher, QueueFullError, StoppingError
from leanet.serve.live import Live, Model

MakeModel = Callable[..., Model]


def picture(red: int, side: int = 16) -> NDArray[np.uint8]:
    return np.full((side, side, 3), red, dtype=np.uint8)


def during(batcher: Batcher, work: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with batcher.running():
            return await work()

    return asyncio.run(asyncio.wait_for(whole(), 20))


class Held:
    """Passes only when it is let; notes the reds of every pass."""

    img_size = 16

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.passes: list[list[int]] = []

    def __call__(self, image: torch.Tensor) -> Prediction:
        self.passes.append([round(255 * float(one.max())) for one in image])
        self.begun.set()
        assert self.go.wait(10)
        return Prediction(image.amax(dim=(1, 2, 3)))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


def test_everyone_gets_his_own_answer_from_shared_passes(make_model: MakeModel) -> None:
    sizes: list[int] = []
    batcher = Batcher(Live(make_model()), max_batch=8, queue=100, on_batch=sizes.append)

    async def work() -> list[Any]:
        return await asyncio.gather(*(batcher.judge(picture(red, 20)) for red in range(100)))

    judged = during(batcher, work)
    assert [one.score for one in judged] == pytest.approx([red / 255 for red in range(100)])
    assert sum(sizes) == 100
    assert 8 >= max(sizes) > 1


def test_a_single_picture_does_not_wait_for_others(make_model: MakeModel) -> None:
    batcher = Batcher(Live(make_model()), max_wait_ms=60_000)
    assert during(batcher, lambda: batcher.judge(picture(255))).verdict == "anomalous"


def test_a_picture_waits_for_one_that_is_being_read(make_model: MakeModel) -> None:
    sizes: list[int] = []
    batcher = Batcher(Live(make_model()), max_wait_ms=5000, on_batch=sizes.append)
    read_first = threading.Event()

    def late(model: Model) -> NDArray[np.uint8]:
        assert read_first.wait(10)
        return picture(2)

    def early(model: Model) -> NDArray[np.uint8]:
        threading.Timer(0.1, read_first.set).start()
        return picture(1)

    async def work() -> None:
        await asyncio.gather(batcher.ask(late), batcher.ask(early))

    during(batcher, work)
    assert sizes == [2]


def test_but_not_longer_than_it_is_told_to(make_model: MakeModel) -> None:
    sizes: list[int] = []
    batcher = Batcher(Live(make_model()), max_wait_ms=1, on_batch=sizes.append)
    answered = threading.Event()

    def late(model: Model) -> NDArray[np.uint8]:
        assert answered.wait(10)
        return picture(2)

    async def work() -> None:
        slow = asyncio.create_task(batcher.ask(late))
        await batcher.ask(lambda model: picture(1))
        answered.set()
        await slow

    during(batcher, work)
    assert sizes == [1, 1]


def test_when_all_places_are_taken_the_next_is_refused(make_model: MakeModel) -> None:
    held = Held()
    batcher = Batcher(Live(make_model(held)), queue=2)

    async def work() -> None:
        inside = [asyncio.create_task(batcher.judge(picture(k))) for k in (1, 2)]
        await until(held.begun.is_set)
        assert (batcher.taken, batcher.free) == (2, 0)
        with pytest.raises(QueueFullError):
            await batcher.judge(picture(3))
        held.go.set()
        await asyncio.gather(*inside)
        await batcher.judge(picture(4))

    during(batcher, work)
    assert batcher.taken == 0


def test_one_who_has_a_place_gets_at_most_what_is_free(make_model: MakeModel) -> None:
    batcher = Batcher(Live(make_model()), queue=4)
    with batcher.place(), batcher.more_places(2) as two, batcher.more_places(9) as one:
        assert (two, one, batcher.free) == (2, 1, 0)
        with batcher.more_places(5) as none:
            assert none == 0
    assert batcher.free == 4


def test_what_its_client_has_left_is_not_judged(make_model: MakeModel) -> None:
    held = Held()
    batcher = Batcher(Live(make_model(held)), max_batch=1)

    async def work() -> None:
        first = asyncio.create_task(batcher.judge(picture(1)))
        await until(held.begun.is_set)
        gone, kept = (asyncio.create_task(batcher.judge(picture(k))) for k in (2, 3))
        await until(lambda: len(batcher._waiting) == 2)
        gone.cancel()
        held.go.set()
        await asyncio.gather(first, kept)
        assert gone.cancelled()

    during(batcher, work)
    assert held.passes == [[1], [3]]


def test_at_the_end_those_inside_are_answered_and_nobody_else_comes_in(
    make_model: MakeModel,
) -> None:
    held = Held()
    batcher = Batcher(Live(make_model(held)), max_batch=1)

    async def whole() -> list[Any]:
        async with batcher.running():
            tasks = [asyncio.create_task(batcher.judge(picture(k))) for k in (1, 2, 3)]
            await until(held.begun.is_set)
            batcher.close()
            with pytest.raises(StoppingError):
                await batcher.judge(picture(4))
            threading.Timer(0.05, held.go.set).start()
        return [task.result().score for task in tasks]

    assert asyncio.run(whole()) == pytest.approx([k / 255 for k in (1, 2, 3)])


def test_a_picture_that_breaks_the_model_does_not_spoil_the_others(make_model: MakeModel) -> None:
    class Picky:
        img_size = 16

        def __call__(self, image: torch.Tensor) -> Prediction:
            score = image.amax(dim=(1, 2, 3))
            return Prediction(torch.where(score > 0.5, float("nan"), score))

    batcher = Batcher(Live(make_model(Picky())), max_wait_ms=1000)

    async def work() -> list[Any]:
        asked = (batcher.judge(picture(red)) for red in (10, 255, 20))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, broken, last = during(batcher, work)
    assert (first.score, last.score) == (pytest.approx(10 / 255), pytest.approx(20 / 255))
    assert isinstance(broken, ValueError)


def test_a_request_is_answered_by_the_model_that_was_live_when_it_came(
    make_model: MakeModel,
) -> None:
    held = Held()
    live = Live(make_model(held, "old"))
    batcher = Batcher(live)

    async def work() -> list[Answer]:
        async def ask(red: int) -> Answer:
            return await batcher.ask(lambda model: picture(red, model.detector.img_size))

        first = asyncio.create_task(ask(1))
        await until(held.begun.is_set)
        second = asyncio.create_task(ask(2))
        await until(lambda: len(batcher._waiting) == 1)
        larger = Held()
        larger.img_size, larger.go = 32, held.go
        live.switch(make_model(larger, "new"))
        third = asyncio.create_task(ask(3))
        await until(lambda: len(batcher._waiting) == 2)
        held.go.set()
        return list(await asyncio.gather(first, second, third))

    answers = during(batcher, work)
    assert [one.judgement.model for one in answers] == ["old", "old", "new"]
    assert [len(one.picture) for one in answers] == [16, 16, 32]


def test_an_error_of_reading_reaches_the_one_who_asked(make_model: MakeModel) -> None:
    batcher = Batcher(Live(make_model()))

    def unreadable(model: Model) -> NDArray[np.uint8]:
        raise ValueError("no picture")

    async def work() -> None:
        with pytest.raises(ValueError, match="no picture"):
            await batcher.ask(unreadable)
        assert (await batcher.judge(picture(0))).score == 0

    during(batcher, work)
