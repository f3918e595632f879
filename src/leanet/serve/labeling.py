"""Label events: what a person said is added, never changed; undoing is an event as well.

`labels` names for every picture the event whose label stands. Undoing takes back a person's last
event that still stands, so that nobody takes back what another has said since.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from leanet.config import nearest
from leanet.serve.entries import WORDS, Event, Label, UnknownImageError, clean, now
from leanet.serve.tables import EVENTS, IMAGES, LABELS

NOTHING = Label("none", "")


def check_label(label: str, kind: str, who: str) -> tuple[str, str]:
    """The type of defect and the name, without blanks at their ends.

    Raises ValueError for another word than ok, ng, unsure and none, a type of a good picture, or
    no name.
    """
    if label not in WORDS:
        raise ValueError(
            f"label {label[:40]!r} is unknown{nearest(label[:40], WORDS)}; allowed: "
            f"{', '.join(WORDS)}"
        )
    kind, who = clean("kind", kind), clean("who", who)
    if kind and label in ("ok", "none"):
        raise ValueError(f"kind {kind!r} is the type of a defect; {label} has none: leave it out")
    if not who:
        raise ValueError("a label needs to say who gave it; give a name")
    return kind, who


def put_label(connection: Connection, image: str, what: Label, who: str) -> Event:
    """Add an event and let it stand. Raises UnknownImageError."""
    _lock(connection, image)
    return _add(connection, image, what, who, None)


def take_back(connection: Connection, who: str) -> Event | None:
    """Take back the last event of a person whose label still stands; None if there is none."""
    last = connection.execute(
        select(EVENTS)
        .join(LABELS, LABELS.c.event == EVENTS.c.number)
        .where(EVENTS.c.who == who)
        .order_by(EVENTS.c.number.desc())
        .limit(1)
    ).first()
    if last is None:
        return None
    _lock(connection, last.image)
    return _add(connection, last.image, Label(last.before_label, last.before_kind), who, last)


def events_of(connection: Connection, image: str) -> list[Event]:
    """All events of a picture, the first one first."""
    rows = connection.execute(
        select(EVENTS).where(EVENTS.c.image == image).order_by(EVENTS.c.number)
    )
    return [_event(row) for row in rows]


def _lock(connection: Connection, image: str) -> None:
    """Let no other process label the same picture meanwhile (SQLite: nothing else writes at all).

    Raises UnknownImageError."""
    wanted = select(IMAGES.c.id).where(IMAGES.c.id == image).with_for_update()
    if connection.execute(wanted).first() is None:
        raise UnknownImageError(image)


def _add(
    connection: Connection, image: str, what: Label, who: str, undone: Row[Any] | None
) -> Event:
    """Add an event; what stands after it is itself, or what stood before the one undone."""
    standing = connection.execute(select(LABELS).where(LABELS.c.image == image)).first()
    before = NOTHING if standing is None else Label(standing.label, standing.kind)
    values: dict[str, Any] = {
        "image": image,
        "label": what.label,
        "kind": what.kind,
        "who": who,
        "at": now(),
        "before_label": before.label,
        "before_kind": before.kind,
        "before": None if standing is None else standing.event,
        "undoes": None if undone is None else undone.number,
    }
    added = connection.execute(insert(EVENTS).values(values)).inserted_primary_key
    assert added is not None
    number = int(added[0])
    stands = number if undone is None else undone.before
    if standing is not None and stands is None:
        connection.execute(delete(LABELS).where(LABELS.c.image == image))
    else:
        kept = {"label": what.label, "kind": what.kind, "event": stands}
        change = (
            insert(LABELS).values(image=image, **kept)
            if standing is None
            else update(LABELS).where(LABELS.c.image == image).values(kept)
        )
        connection.execute(change)
    del values["before"]
    return Event(number=number, **values)


def _event(row: Row[Any]) -> Event:
    return Event(**{name: getattr(row, name) for name in Event._fields})
