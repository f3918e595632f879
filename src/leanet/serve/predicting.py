"""The routes that judge pictures, and those that say how the server is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from leanet.data.images import UnreadableImageError, decode_image, suffix_of
from leanet.records import PROBABILITY
from leanet.serve.batching import Answer
from leanet.serve.drawing import drawn_answer, raw_answer
from leanet.serve.entries import UnknownImageError
from leanet.serve.errors import RefusedError, answers
from leanet.serve.live import Model, shown
from leanet.serve.schemas import BatchAnswer, FailedAnswer, HealthAnswer, JudgedAnswer, MapAnswer
from leanet.serve.services import Services, services_of
from leanet.serve.uploads import (
    ONE_BODY,
    SEVERAL_BODY,
    MapKind,
    Upload,
    one_upload,
    read_upload,
    several_uploads,
)
from leanet.version import __version__

Result = TypeVar("Result")
Parts = Annotated[Services, Depends(services_of)]
Size = tuple[int, int]  # height, width

router = APIRouter()
_log = logging.getLogger("leanet.serve")


@router.post(
    "/predict",
    openapi_extra={"requestBody": ONE_BODY},
    responses=answers(400, 401, 408, 413, 415, 422, 429, 503),
)
async def predict(request: Request, services: Parts, map: MapKind = "none") -> JudgedAnswer:
    """Judge one picture: part `file` of a form, or the body itself.

    `map=png` adds the heat map over the picture at its own resolution, `map=raw` its values.
    """
    with services.batcher.place():
        upload = await one_upload(request, services.settings)
        return await _unless_gone(request, _judged(services, upload, map))


@router.post(
    "/predict/batch",
    openapi_extra={"requestBody": SEVERAL_BODY},
    responses=answers(400, 401, 408, 413, 415, 422, 429, 503),
)
async def predict_batch(request: Request, services: Parts, map: MapKind = "none") -> BatchAnswer:
    """Judge several pictures: parts `files` of a form. A file that cannot be judged has an error
    in its place and does not spoil the others."""
    start = time.perf_counter()
    with services.batcher.place():
        async with several_uploads(request, services.settings) as files:
            results = await _unless_gone(request, _judged_all(services, files, map))
    failed = sum(isinstance(one, FailedAnswer) for one in results)
    return BatchAnswer(results=results, failed=failed, milliseconds=_since(start))


@router.get("/health", response_model=HealthAnswer, responses={503: {"model": HealthAnswer}})
async def health(services: Parts) -> JSONResponse:
    """Whether requests are taken (503 while the server ends), and what answers them."""
    model, settings = services.live.model, services.settings
    ready = not services.batcher.closed
    answer = HealthAnswer(
        ready=ready,
        model=model.name,
        method=str(model.card.get("method", "")),
        img_size=model.detector.img_size,
        engine=model.engine,
        threshold=model.point.threshold,
        classes=list(model.card.get("classes") or ()),
        uptime_seconds=round(services.metrics.uptime(), 3),
        version=__version__,
        login=settings.token is not None,
    )
    return JSONResponse(answer.model_dump(), 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses=answers(401))
async def metrics(services: Parts) -> Response:
    """Figures for Prometheus."""
    return Response(services.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Extras(NamedTuple):
    """What follows a judgement, where it is asked for."""

    unusual: tuple[str, ...] = ()
    image: str | None = None
    map: MapAnswer | None = None


async def _judged_all(
    services: Services, files: Sequence[UploadFile], kind: MapKind
) -> list[JudgedAnswer | FailedAnswer]:
    """Every file's answer, as many at a time as one pass takes and places are free."""
    wanted = min(len(files), services.settings.max_batch) - 1
    with services.batcher.more_places(wanted) as extra:
        gate = asyncio.Semaphore(1 + extra)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one_of(services, file, kind, gate)) for file in files]
    return [task.result() for task in tasks]


async def _one_of(
    services: Services, file: UploadFile, kind: MapKind, gate: asyncio.Semaphore
) -> JudgedAnswer | FailedAnswer:
    async with gate:
        upload = Upload("", b"")
        try:
            upload = await read_upload(file, services.settings)
            return await _judged(services, upload, kind)
        except RefusedError as refused:
            services.metrics.rejected("file")
            return FailedAnswer(file=upload.name, error=refused.word, detail=refused.detail)


async def _judged(services: Services, upload: Upload, kind: MapKind) -> JudgedAnswer:
    """The answer for one picture. Raises `RefusedError` if it cannot be read."""
    start, sizes, limit = time.perf_counter(), list[Size](), services.settings.max_pixels

    def read(model: Model) -> NDArray[np.uint8]:
        rgb = decode_image(upload.data, max_pixels=limit)
        sizes.append((rgb.shape[0], rgb.shape[1]))
        return shown(model, rgb)

    try:
        answer = await services.batcher.ask(read)
    except UnreadableImageError as error:
        raise RefusedError(400, error.reason, word="unreadable") from error
    services.metrics.judged(answer.judgement, answer.model.point.threshold)
    extras = _Extras()
    if services.drift is not None or services.settings.keep or kind != "none":
        extras = await services.batcher.in_thread(lambda: _extras(services, upload, answer, kind))
    return _in_words(upload, answer, extras, sizes[0], start)


def _extras(services: Services, upload: Upload, answer: Answer, kind: MapKind) -> _Extras:
    """Runs in a thread."""
    judgement, drawn = answer.judgement, None
    unusual: tuple[str, ...] = ()
    if services.drift is not None:
        unusual = services.drift.observe(answer.picture, judgement.score)
    if judgement.map is not None and kind == "raw":
        drawn = raw_answer(answer.model, judgement.map)
    elif judgement.map is not None and kind == "png":  # decoded again: no picture is held waiting
        rgb = decode_image(upload.data, max_pixels=services.settings.max_pixels)
        drawn = drawn_answer(answer.model, judgement.map, rgb)
    image = _kept(services, upload, answer) if services.settings.keep else None
    return _Extras(unusual, image, drawn)


def _kept(services: Services, upload: Upload, answer: Answer) -> str | None:
    """The id of the kept picture; None, with a line in the log, where it could not be kept: the
    verdict is worth more."""
    try:
        image = services.store.add_bytes(upload.data, suffix_of(upload.data), "request")
        services.store.put_judgement(image, answer.judgement)
    except (OSError, UnknownImageError, SQLAlchemyError):
        _log.exception("a picture could not be kept")
        services.metrics.rejected("not_kept")
        return None
    return image


def _in_words(
    upload: Upload, answer: Answer, extras: _Extras, size: Size, start: float
) -> JudgedAnswer:
    judgement, parts = answer.judgement, answer.judgement.parts
    of_class = {name: value for name, value in parts.items() if name.startswith(PROBABILITY)}
    return JudgedAnswer(
        file=upload.name,
        model=judgement.model,
        score=judgement.score,
        verdict=judgement.verdict,
        review=judgement.review,
        probability=judgement.probability,
        threshold=answer.model.point.threshold,
        parts={name: value for name, value in parts.items() if name not in of_class},
        predicted=judgement.predicted or None,
        probabilities={n.removeprefix(PROBABILITY): value for n, value in of_class.items()},
        unusual=list(extras.unusual),
        image=extras.image,
        width=size[1],
        height=size[0],
        milliseconds=_since(start),
        map=extras.map,
    )


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work for a request; stop it when the client goes away."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_client_goes(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _client_goes(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _since(start: float) -> float:
    """Milliseconds."""
    return round(1000 * (time.perf_counter() - start), 3)
