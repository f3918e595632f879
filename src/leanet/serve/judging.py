"""The pictures to review, judged by the live model behind all requests.

Files of `settings.images` are looked for at the start and again from time to time. Whatever the
live model has not judged yet, because it is new or because the model is, goes through the batcher
like a request, but waits while requests take the places.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from leanet.data.images import UnreadableImageError, read_image
from leanet.data.scan import scan
from leanet.inference.predict import find_images
from leanet.serve.batching import QueueFullError, StoppingError
from leanet.serve.entries import Picture, UnknownImageError
from leanet.serve.live import Judgement, Model, shown
from leanet.serve.services import Services

SECONDS_BETWEEN_SEARCHES: Final = 30.0
SECONDS_BETWEEN_LOOKS: Final = 2.0
MOST_UNREADABLE: Final = 1000  # that are listed
_log = logging.getLogger("leanet.serve")


class Progress(NamedTuple):
    """How many pictures the live model has judged, of how many."""

    running: bool
    done: int
    total: int
    unreadable: int


class Judging:
    """Works inside `async with judging.running()`."""

    def __init__(self, services: Services) -> None:
        self._services, self._store = services, services.store
        self._bad: dict[str, str] = {}  # path -> why it cannot be read
        self._skipped: dict[str, set[str]] = {}  # model -> names of pictures that it cannot judge
        self._wake = asyncio.Event()
        self._searched = False
        self._known: set[Path] | None = None  # files that are entered already, and masks

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Judges while inside."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def wake(self) -> None:
        """Look again now: there is a new picture, or another model."""
        self._wake.set()

    def progress(self) -> Progress:
        """How far it is; reads the database."""
        name = self._services.live.model.name
        total = self._store.count(name)
        left = self._store.count(name, verdict="unjudged") - len(self._skipped.get(name, ()))
        left = max(left, 0)
        running = left > 0 or not self._searched
        return Progress(running, total - left, total, len(self._bad))

    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of files that cannot be read."""
        return list(self._bad.items())[:MOST_UNREADABLE]

    async def _run(self) -> None:
        searched = float("-inf")
        clock = asyncio.get_running_loop().time
        await asyncio.to_thread(self._decide_anew)
        while True:
            self._wake.clear()
            try:
                if clock() - searched > SECONDS_BETWEEN_SEARCHES:
                    await asyncio.to_thread(self._search)
                    searched = clock()
                while await self._judge_some():
                    pass
            except StoppingError:
                return
            except (OSError, SQLAlchemyError):  # a full disk, say: once more, later
                _log.exception("judging pictures for review")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_BETWEEN_LOOKS):
                    await self._wake.wait()

    def _decide_anew(self) -> None:
        """The working point may have been changed since the scores were stored."""
        model = self._services.live.model
        if model.point.threshold is not None:
            self._store.judge_anew(model.name, model.point)

    def _search(self) -> None:
        """Enter the files that are new."""
        if self._known is None:
            self._known = set(self._store.paths())
        for given in self._services.settings.images:
            try:
                paths = find_images([given])
            except (ValueError, OSError) as error:
                self._bad[given] = str(error).partition("\n")[0]
                continue
            self._bad.pop(given, None)
            source = Path(given).name or given
            new = [place for path in paths if (place := path.absolute()) not in self._known]
            masks = masks_of(Path(given)) if new else set()
            self._known |= masks
            for path in new:
                if path not in masks:
                    self._enter(path, source[:100])
        self._searched = True

    def _enter(self, path: Path, source: str) -> None:
        assert self._known is not None
        try:
            self._store.add_file(path, source)
        except UnreadableImageError as error:
            self._bad[str(path)] = error.reason
        except (ValueError, OSError) as error:
            self._bad[str(path)] = str(error)
        self._known.add(path)

    async def _judge_some(self) -> bool:
        """Judge some of what is not judged; whether there was anything."""
        model, settings = self._services.live.model, self._services.settings
        skipped = self._skipped.setdefault(model.name, set())
        some = max(1, min(settings.max_batch, settings.queue // 2))
        waiting = await asyncio.to_thread(self._store.unjudged, model.name, some + len(skipped))
        chosen = [picture for picture in waiting if picture.id not in skipped][:some]
        if not chosen:
            return False
        given = await asyncio.gather(*(self._judge(picture, model) for picture in chosen))
        judged = {p.id: j for p, j in zip(chosen, given, strict=True) if j is not None}
        if not judged:
            await asyncio.sleep(0.2)
        else:
            await asyncio.to_thread(self._put, judged, model)
        return True

    async def _judge(self, picture: Picture, model: Model) -> Judgement | None:
        """None if there was no place, or another model has come, or it cannot be judged."""
        batcher = self._services.batcher
        try:
            with batcher.place():
                answer = await batcher.ask(lambda live: shown(live, read_image(picture.path)))
        except QueueFullError:
            return None
        except ValueError as error:  # unreadable, or a score that is not finite
            self._bad[str(picture.path)] = getattr(error, "reason", None) or str(error)
            self._skipped[model.name].add(picture.id)
            return None
        return answer.judgement if answer.judgement.model == model.name else None

    def _put(self, judged: dict[str, Judgement], model: Model) -> None:
        try:
            self._store.put_judgements(judged)
        except UnknownImageError:  # one has made room meanwhile; the others come again
            for image, judgement in judged.items():
                with contextlib.suppress(UnknownImageError):
                    self._store.put_judgement(image, judgement)
        now = self._services.live.model
        if now.name == model.name and now.point != model.point and now.point.threshold is not None:
            self._store.judge_anew(now.name, now.point)


def masks_of(folder: Path) -> set[Path]:
    """The masks of a folder that is a data set: they are no pictures to judge."""
    try:
        samples = scan(folder, normal_required=False).samples if folder.is_dir() else ()
    except (ValueError, OSError):  # no data set, just pictures
        return set()
    return {sample.mask.absolute() for sample in samples if sample.mask is not None}
