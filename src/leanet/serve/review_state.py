"""What the review page works with: pictures, background judging, who has learned what."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request

from leanet.data.images import UnreadableImageError, read_image
from leanet.ops.working_point import point_of
from leanet.serve.errors import RefusedError
from leanet.serve.judging import Judging
from leanet.serve.kept import digest
from leanet.serve.learned import Learned, NewLabels
from leanet.serve.live import Model, shown
from leanet.serve.review_pictures import Pictures, open_version
from leanet.serve.services import Services
from leanet.trained import read_card

ANSWERS_KEPT: Final = 2000  # of labels that a page may send again
NEIGHBORS_KEPT: Final = 500


class Review:
    """Beside the services of the server, for the time that it runs."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.learned = Learned()
        self.pictures = Pictures(services, self.learned)
        self.judging = Judging(services)
        self._answered: OrderedDict[str, Any] = OrderedDict()
        self._neighbors: OrderedDict[tuple[str, str], list[tuple[Path, float]]] = OrderedDict()
        self._lock = threading.Lock()
        self._change = threading.Lock()  # one change of the model at a time

    @property
    def model(self) -> Model:
        """The one that answers."""
        return self.services.live.model

    def once(self, key: str, act: Callable[[], Any]) -> Any:
        """What `act` gives; for a key that came before, what it gave then."""
        with self._lock:
            if key not in self._answered:
                self._answered[key] = act()
                while len(self._answered) > ANSWERS_KEPT:
                    self._answered.popitem(last=False)
            return self._answered[key]

    def new_labels(self) -> NewLabels:
        """Labels that the live model has not learned from."""
        return self.learned.new(self.model.run, self.services.store.labels())

    def kinds(self) -> list[str]:
        """The known types of defects: of the run, and of the labels."""
        model = self.model
        of_labels = {label.kind for label in self.services.store.labels().values() if label.kind}
        classes = set(model.card.get("classes") or ()) - {model.card.get("normal")}
        return sorted(self.learned.kinds(model.run) | of_labels | classes, key=str.casefold)

    def neighbors(self, image: str) -> list[tuple[Path, float]]:
        """The normal training picture that a picture is most like, another than itself, and its
        distance; [] where nothing is known, or not yet."""
        neighbors, model = self.services.neighbors, self.model
        path, key = self.pictures.path_of(image), (model.name, image)
        if key in self._neighbors or neighbors is None:
            return self._neighbors.get(key, [])
        try:
            rgb = read_image(path)
        except UnreadableImageError as error:
            raise RefusedError(404, error.reason) from error
        itself = image in self.learned.of(model.run)
        nearest = neighbors.nearest(shown(model, rgb), count=2)
        found = [one for one in nearest if not itself or digest(one[0]) != image][:1]
        if found:  # else they may not be described yet
            self._neighbors[key] = found
            while len(self._neighbors) > NEIGHBORS_KEPT:
                self._neighbors.popitem(last=False)
        return found

    def go_live(self, act: Callable[[], Any]) -> None:
        """Do what makes another model live in `services.versions`, and let it answer.

        Raises `RefusedError` (409) if that is refused."""
        with self._change:
            versions = self.services.versions
            try:
                act()
            except ValueError as error:
                raise RefusedError(409, str(error)) from error
            self.services.live.switch(open_version(self.services, versions.live()))
        self.judging.wake()

    def reload_point(self) -> None:
        """Decide by what the card of the live model says now, and decide anew what was judged."""
        with self._change:
            model = self.model
            card = read_card(model.run)
            self.services.live.switch(model._replace(card=card, point=point_of(card)))
            if self.model.point.threshold is not None:
                self.services.store.judge_anew(model.name, self.model.point)


@asynccontextmanager
async def reviewing(app: FastAPI) -> AsyncIterator[None]:
    """The lifespan of the review routes: `app.state.review`, judging in the background."""
    review = app.state.review = Review(app.state.services)
    async with review.judging.running():
        yield


def review_of(request: Request) -> Review:
    """`Depends(review_of)` in a route."""
    review: Review = request.app.state.review
    return review
