"""Pictures to review, what models said of them, and the labels that people gave.

The same picture twice is one entry: its name is the sha256 of the file's bytes. Every label is an
event of its own (who, when, what was before) and is on the disk when `label` returns. Any thread
may call any method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from leanet.ops.working_point import WorkingPoint
from leanet.serve import gallery_query, judgements, kept
from leanet.serve.entries import Event, Label, Picture, Shown, UnknownImageError, clean
from leanet.serve.gallery_query import Filter
from leanet.serve.kept import KeptLimits
from leanet.serve.labeling import check_label, events_of, put_label, take_back
from leanet.serve.live import Judgement
from leanet.serve.tables import IMAGES, LABELS, PLACES, SYNC, open_database

_AT_A_TIME: Final = 1000  # judgements in one transaction, so that labels need not wait for all


class Store:
    """The review database and the pictures kept beside it, below the folder `state`.

    `database`: an SQLAlchemy URL in place of `state/labels.db`. One server writes to it at a time.
    Raises ValueError as `leanet.serve.tables.open_database`.
    """

    def __init__(
        self, state: Path, database: str | None = None, *, limits: KeptLimits | None = None
    ) -> None:
        self.folder = state / "images"
        self.limits = limits or KeptLimits()
        self._engine = open_database(state, database)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # pictures

    def add_file(self, path: Path, source: str) -> str:
        """Enter an image file that stays where it is; returns its name, that of an earlier entry
        if the picture is known. A file that has changed is another picture.

        Raises:
            UnreadableImageError: it is no image.
            ValueError: its ending is none of an image.
        """
        file = kept.inspect(path.absolute())
        with self._writing("NORMAL") as connection:
            kept.enter(connection, file, clean("source", source), ours=False)
        return file.id

    def add_bytes(self, data: bytes, suffix: str, source: str) -> str:
        """Keep a picture, the bytes of an image file; `suffix` is the ending of its new name.

        The oldest kept pictures without a label make room for it (`KeptLimits`).

        Raises:
            UnreadableImageError: these are no bytes of an image.
            ValueError: the ending is none of an image.
        """
        with self._lock:  # no file goes between being found and being entered
            file = kept.write(self.folder, data, suffix)
            with self._writing("NORMAL") as connection:
                kept.enter(connection, file, clean("source", source), ours=True)
                gone = kept.make_room(connection, self.limits, file.id)
            for path in gone:
                path.unlink(missing_ok=True)
        return file.id

    def get(self, image: str) -> Picture:
        """A picture. Raises UnknownImageError."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(IMAGES, LABELS.c.label, LABELS.c.kind)
                .select_from(IMAGES.outerjoin(LABELS, LABELS.c.image == IMAGES.c.id))
                .where(IMAGES.c.id == image)
            ).first()
            paths = kept.paths_of(connection, image)
        if row is None or not paths:
            raise UnknownImageError(image)
        values = {name: getattr(row, name) for name in Picture._fields if name != "path"}
        values |= {"label": row.label or "none", "kind": row.kind or ""}
        return Picture(path=next((p for p in paths if p.exists()), paths[0]), **values)

    def paths(self) -> dict[Path, str]:
        """Every file that is known, and the name of its picture."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(PLACES.c.path, PLACES.c.image)).all()
        return {Path(row.path): row.image for row in rows}

    # judgements

    def put_judgement(self, image: str, judgement: Judgement) -> None:
        """Enter what a model says of a picture, in place of what it said before; the map is not
        kept. Raises UnknownImageError."""
        self.put_judgements({image: judgement})

    def put_judgements(self, given: Mapping[str, Judgement]) -> None:
        """`put_judgement` for many pictures at once. Raises UnknownImageError."""
        with self._writing("NORMAL") as connection:
            judgements.put(connection, given)

    def bind(self, model: str, weights: str) -> None:
        """Say which weights a name stands for (sha256): what other weights of that name said, of a
        run that was trained anew in its place, is forgotten."""
        with self._writing("NORMAL") as connection:
            judgements.bind(connection, model, weights)

    def judge_anew(self, model: str, point: WorkingPoint) -> None:
        """Decide all pictures again from the scores that a model gave, after its working point was
        changed."""
        found = list(self.scores(model).items())
        for start in range(0, len(found), _AT_A_TIME):
            with self._writing("NORMAL") as connection:
                some = dict(found[start : start + _AT_A_TIME])
                judgements.decide_anew(connection, model, some, point)

    def unjudged(self, model: str, limit: int = 1000) -> list[Picture]:
        """Pictures that a model has not judged, the newest first."""
        rows = self.gallery(model, order="newest", verdict="unjudged", limit=limit)
        names = Picture._fields
        return [Picture(**{name: getattr(row, name) for name in names}) for row in rows]

    def scores(self, model: str) -> dict[str, float]:
        """The score that a model gave, by picture."""
        with self._engine.connect() as connection:
            return judgements.scores(connection, model)

    # the gallery

    def gallery(  # noqa: PLR0913 - filters, by name
        self,
        model: str,
        *,
        order: str = "score",
        verdict: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        source: str | None = None,
        search: str | None = None,
        near: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Shown]:
        """Pictures with what a model says of them.

        `order`, `verdict` and `label` are keys of ORDERS, VERDICTS and STATES in
        `leanet.serve.gallery_query`; `kind` is that of the label, `search` part of a file's
        path; None = all. With `near` the scores nearest to it come first, whatever `order` says.

        Raises:
            ValueError: an unknown order or filter, a negative limit or offset.
        """
        if limit < 0 or offset < 0:
            raise ValueError(f"limit {limit} and offset {offset} must be 0 or more")
        wanted = Filter(verdict, label, kind, source, search)
        query = gallery_query.shown_rows(model, wanted, order, near).limit(limit).offset(offset)
        with self._engine.connect() as connection:
            return [gallery_query.shown_of(row) for row in connection.execute(query)]

    def count(
        self,
        model: str,
        *,
        verdict: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        source: str | None = None,
        search: str | None = None,
    ) -> int:
        """How many pictures `gallery` has with these filters; errors as there."""
        query = gallery_query.counted(model, Filter(verdict, label, kind, source, search))
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def totals(self, model: str) -> dict[str, dict[str, int]]:
        """How many pictures there are by verdict ("unjudged" for those without), label, kind of
        the label and source."""
        names = ("verdict", "label", "kind", "source")
        found: dict[str, dict[str, int]] = {name: {} for name in names}
        with self._engine.connect() as connection:
            for *values, count in connection.execute(gallery_query.totals(model)):
                for name, value in zip(names, values, strict=True):
                    key = "unjudged" if value is None else str(value)
                    found[name][key] = found[name].get(key, 0) + int(count)
        return found

    # labels

    def label(self, image: str, label: str, kind: str, who: str) -> Event:
        """Label a picture ok, ng (with the type of defect, or class, where it is known), unsure or
        none; it is on the disk when this returns.

        Raises:
            UnknownImageError: there is no such picture (any longer).
            ValueError: see `leanet.serve.labeling.check_label`.
        """
        kind, who = check_label(label, kind, who)
        with self._writing("FULL") as connection:
            kept.secure(connection, image)
            return put_label(connection, image, Label(label, kind), who)

    def undo(self, who: str) -> Event | None:
        """Take back the last label of a person that still stands, by an event that restores what
        was before; None if there is none. What another has labeled since stays."""
        with self._writing("FULL") as connection:
            return take_back(connection, clean("who", who))

    def history(self, image: str) -> list[Event]:
        """All label events of a picture, the first one first. Raises UnknownImageError."""
        with self._engine.connect() as connection:
            if connection.execute(select(IMAGES.c.id).where(IMAGES.c.id == image)).first() is None:
                raise UnknownImageError(image)
            return events_of(connection, image)

    def labels(self) -> dict[str, Label]:
        """The label that stands, by picture; those without one are left out."""
        wanted = select(LABELS).where(LABELS.c.label != "none")
        with self._engine.connect() as connection:
            return {row.image: Label(row.label, row.kind) for row in connection.execute(wanted)}

    @contextmanager
    def _writing(self, sync: str) -> Iterator[Connection]:
        """A transaction, one at a time; "FULL" returns when it is on the disk."""
        with self._lock, self._engine.connect() as plain:
            connection = plain.execution_options(**{SYNC: sync})
            with connection.begin():
                yield connection
