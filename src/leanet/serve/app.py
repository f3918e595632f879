"""The server as an ASGI app, put together from its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer

from leanet.runtime import make_runtime
from leanet.serve import drift_routes, login, predicting, review
from leanet.serve.batching import Batcher
from leanet.serve.drift_routes import DriftCollector
from leanet.serve.drift_service import Drift
from leanet.serve.errors import add_errors
from leanet.serve.limits import Guard
from leanet.serve.live import Live, Model, judge_pictures, open_model
from leanet.serve.metrics import Measured, Metrics
from leanet.serve.neighbors import Neighbors
from leanet.serve.retrain import Retraining
from leanet.serve.services import Services
from leanet.serve.settings import Settings
from leanet.serve.store import Store
from leanet.serve.versions import ORIGINAL, Versions
from leanet.version import __version__

ROUTERS: tuple[APIRouter, ...] = (
    predicting.router,
    login.router,
    review.router,
    drift_routes.router,
)

BEARER = HTTPBearer(scheme_name="token", auto_error=False)  # for the description; `Guard` checks


def create_app(settings: Settings) -> FastAPI:
    """A server for a finished run; everything it needs is in `app.state.services`.

    Raises:
        ValueError: no finished run, nothing exported for the engine, or a model that cannot judge
            a picture alone (trained on given maps).
    """
    return make_app(_build(settings))


def make_app(services: Services) -> FastAPI:
    """The app over parts that are there already."""
    app = FastAPI(
        title="leanet",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.services = services
    services.metrics.gauge("queue_images", "Images inside.", lambda: services.batcher.taken)
    if services.drift is not None:
        services.metrics.registry.register(DriftCollector(services.drift))
    add_errors(app)
    described = [] if services.settings.token is None else [Security(BEARER)]
    for router in ROUTERS:
        app.include_router(router, dependencies=described)
    app.add_middleware(Guard, settings=services.settings)
    app.add_middleware(Measured, metrics=services.metrics)
    return app


def _build(settings: Settings) -> Services:
    """The parts, in the order in which they need each other."""
    versions = Versions(settings.state, settings.run)
    name, device = versions.live(), make_runtime(settings.device).device
    model = open_model(
        versions.run_of(name),
        name,
        engine=settings.engine,
        device=device,
        or_torch=name != ORIGINAL,
    )
    _try(model)
    live = Live(model)
    store = Store(settings.state, settings.database)
    metrics = Metrics(live, __version__)
    batcher = Batcher(
        live,
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        queue=settings.queue,
        on_batch=metrics.batch,
    )
    return Services(
        settings=settings,
        live=live,
        batcher=batcher,
        metrics=metrics,
        store=store,
        versions=versions,
        retraining=Retraining(store, versions, settings),
        drift=Drift(live, settings.state),
        neighbors=Neighbors(live, settings.state),
    )


def _try(model: Model) -> None:
    """Judge a picture of noise: whatever is wrong is known before the first request comes, and the
    first request does not pay for what is made once."""
    side = model.detector.img_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    try:
        judge_pictures(model, [noise])
    except ValueError as error:
        raise ValueError(f"{model.run} cannot be served: {error}") from error


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.retraining.go_on()
    if services.drift is not None:
        services.drift.start()
    if services.neighbors is not None:
        services.neighbors.start()
    async with services.batcher.running():
        yield
    if services.drift is not None:
        await asyncio.to_thread(services.drift.save)
    if services.neighbors is not None:
        await asyncio.to_thread(services.neighbors.stop)
    await asyncio.to_thread(services.retraining.close)
    services.store.close()
