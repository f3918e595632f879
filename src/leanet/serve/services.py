"""What the routes of a server share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from leanet.serve.batching import Batcher
from leanet.serve.drift_service import Drift
from leanet.serve.live import Live
from leanet.serve.metrics import Metrics
from leanet.serve.neighbors import Neighbors
from leanet.serve.retrain import Retraining
from leanet.serve.settings import Settings
from leanet.serve.store import Store
from leanet.serve.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of one server; made by `leanet.serve.app.create_app`, in `app.state.services`."""

    settings: Settings
    live: Live
    batcher: Batcher
    metrics: Metrics
    store: Store
    versions: Versions
    retraining: Retraining
    drift: Drift | None = None
    neighbors: Neighbors | None = None


def services_of(request: Request) -> Services:
    """The parts of the server that answers a request: `Depends(services_of)` in a route."""
    services: Services = request.app.state.services
    return services
