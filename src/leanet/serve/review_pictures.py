"""Pictures for the review page: thumbnails, pictures that a browser shows, heat maps over them.

Maps are not stored: a model draws one again when somebody looks, the live model through the
batcher, any other (for a comparison) one at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.images import (
    UnreadableImageError,
    encode_png,
    encode_thumbnail,
    read_image,
    read_mode,
    suffix_of,
)
from leanet.files import replacing
from leanet.runtime import make_runtime
from leanet.serve.drawing import draw
from leanet.serve.entries import Picture, UnknownImageError
from leanet.serve.errors import RefusedError
from leanet.serve.learned import Learned
from leanet.serve.live import Model, judge_pictures, open_model, shown
from leanet.serve.services import Services

THUMBNAIL: Final = 256  # px, the longer side
MAPS_KEPT: Final = 64  # in memory; one of 256 px takes 256 KB
AS_THEY_ARE: Final = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
PLAIN_MODES: Final = ("RGB", "L")  # what a browser shows as the model sees it

Map = NDArray[np.float32]


class File(NamedTuple):
    """Bytes and what they are."""

    data: bytes
    media_type: str


class Pictures:
    """Files for an `<img>`. All errors are `RefusedError` (404) or those of the store."""

    def __init__(self, services: Services, learned: Learned) -> None:
        self._services, self._learned = services, learned
        self._folder = services.settings.state / "thumbnails"
        self._maps: OrderedDict[tuple[str, str], Map] = OrderedDict()
        self._other: Model | None = None  # the last model opened that does not answer
        self._lock = threading.Lock()

    def thumbnail(self, image: str) -> File:
        """A small JPEG, made once."""
        path = self._folder / image[:2] / f"{image}.jpg"
        try:
            return File(path.read_bytes(), "image/jpeg")
        except FileNotFoundError:
            data = encode_thumbnail(_read(self.path_of(image)), THUMBNAIL)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return File(data, "image/jpeg")

    def picture(self, image: str) -> File:
        """The picture at its own resolution."""
        return shown_file(self.path_of(image))

    def path_of(self, image: str) -> Path:
        """A file of a picture in the store, or of one that a model was trained on.

        Raises UnknownImageError."""
        try:
            picture: Picture = self._services.store.get(image)
        except UnknownImageError:
            path = self._learned.path_of(image)
            if path is None:
                raise
            return path
        return picture.path

    async def overlay(self, image: str, name: str) -> File:
        """The heat map of a model over the picture, at the picture's resolution, as PNG."""
        path = await asyncio.to_thread(self.path_of, image)
        model = await asyncio.to_thread(self.model, name)
        found = await self._map_of(image, path, model)
        if found is None:
            raise RefusedError(404, f"{name} draws no map")
        anomaly_map = found
        return await asyncio.to_thread(
            lambda: File(draw(model, anomaly_map, _read(path)), "image/png")
        )

    def model(self, name: str) -> Model:
        """A model by its name; raises RefusedError (404)."""
        live = self._services.live.model
        if name == live.name:
            return live
        with self._lock:
            if self._other is None or self._other.name != name:
                self._other = open_version(self._services, name)
            return self._other

    async def _map_of(self, image: str, path: Path, model: Model) -> Map | None:
        key = model.name, image
        if key in self._maps:
            self._maps.move_to_end(key)
            return self._maps[key]
        if model.name == self._services.live.model.name:
            found = await self._map_of_live(path)
        else:
            found = await asyncio.to_thread(self._map_of_other, path, model)
        if found is not None:
            self._maps[key] = found
            while len(self._maps) > MAPS_KEPT:
                self._maps.popitem(last=False)
        return found

    async def _map_of_live(self, path: Path) -> Map | None:
        batcher = self._services.batcher
        with batcher.place():
            answer = await batcher.ask(lambda model: shown(model, _read(path)))
        return answer.judgement.map

    def _map_of_other(self, path: Path, model: Model) -> Map | None:
        seen = shown(model, _read(path))
        with self._lock:
            return judge_pictures(model, [seen])[0].map


def open_version(services: Services, name: str) -> Model:
    """A model of the server, with its engine if it was exported for it, else with torch.

    Raises `RefusedError` (404) if there is none of that name.
    """
    settings = services.settings
    try:
        run = services.versions.run_of(name)
    except ValueError as error:
        raise RefusedError(404, str(error)) from error
    device = make_runtime(settings.device).device
    return open_model(run, name, engine=settings.engine, device=device, or_torch=True)


def shown_file(path: Path) -> File:
    """A picture as a browser can show it: its own bytes if it can, else PNG.

    Raises `RefusedError` (404) if it is gone or damaged.
    """
    try:
        if read_mode(path) in PLAIN_MODES:
            data = path.read_bytes()
            media_type = AS_THEY_ARE.get(suffix_of(data))
            if media_type is not None:
                return File(data, media_type)
        return File(encode_png(read_image(path)), "image/png")
    except (UnreadableImageError, OSError) as error:
        raise _gone(path, error) from error


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return read_image(path)
    except UnreadableImageError as error:
        raise _gone(path, error) from error


def _gone(path: Path, error: Exception) -> RefusedError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return RefusedError(404, f"{path.name} cannot be shown: {reason}")
