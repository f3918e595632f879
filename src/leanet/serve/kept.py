"""Files of pictures: what is known of one, where copies lie, and which kept ones make room.

A kept picture is the bytes that came, below `images/`, in a folder by the first two digits of its
name. Those that people have labeled stay forever, as labels without pictures are worth nothing;
of the others the newest stay, as many as `KeptLimits` allows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from leanet.data.images import IMAGE_SUFFIXES, read_size
from leanet.files import replacing
from leanet.serve.entries import now
from leanet.serve.tables import EVENTS, IMAGES, JUDGEMENTS, PLACES


@dataclass(frozen=True, kw_only=True)
class KeptLimits:
    """How many kept pictures without a label there are at most, and their bytes; the newest one is
    kept in any case."""

    num: int = 20_000
    num_bytes: int = 5_000_000_000


class File(NamedTuple):
    """An image file: sha256 of its bytes, path, size in pixels and bytes."""

    id: str
    path: Path
    width: int
    height: int
    num_bytes: int


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(path: Path) -> File:
    """What is known of an image file.

    Raises:
        UnreadableImageError: it is no image.
        ValueError: its ending is none of an image.
    """
    _check_suffix(path.suffix, path.name)
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{str(path)!r} has a name that is no text; rename it") from error
    height, width = read_size(path)
    return File(digest(path), path, width, height, path.stat().st_size)


def write(folder: Path, data: bytes, suffix: str) -> File:
    """Write a picture below `folder`, unless it is there; errors as `inspect`."""
    _check_suffix(suffix, f"*{suffix}")
    name = hashlib.sha256(data).hexdigest()
    path = (folder / name[:2] / f"{name}{suffix.lower()}").absolute()
    if path.exists():
        height, width = read_size(path)
        return File(name, path, width, height, len(data))
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        height, width = read_size(temporary)
    return File(name, path, width, height, len(data))


def enter(connection: Connection, file: File, source: str, *, ours: bool) -> None:
    """Enter a file, and its picture if that is new. A picture whose own file is found elsewhere
    as well counts as ours no longer, so that it never makes room."""
    known = connection.execute(select(IMAGES.c.kept).where(IMAGES.c.id == file.id)).first()
    if known is None:
        values = {
            "id": file.id,
            "source": source,
            "width": file.width,
            "height": file.height,
            "num_bytes": file.num_bytes,
            "kept": ours,
            "added": now(),
        }
        connection.execute(insert(IMAGES).values(values))
    elif known.kept and not ours:
        connection.execute(update(IMAGES).where(IMAGES.c.id == file.id).values(kept=False))
    place = str(file.path)
    there = connection.execute(select(PLACES.c.image).where(PLACES.c.path == place)).first()
    if there is None:
        connection.execute(insert(PLACES).values(path=place, image=file.id, added=now()))
    elif there.image != file.id:
        changed = update(PLACES).where(PLACES.c.path == place)
        connection.execute(changed.values(image=file.id, added=now()))


def paths_of(connection: Connection, image: str) -> list[Path]:
    """The files of a picture, the first known one first."""
    query = select(PLACES.c.path).where(PLACES.c.image == image).order_by(PLACES.c.added)
    return [Path(path) for path in connection.scalars(query)]


def make_room(connection: Connection, limits: KeptLimits, newest: str) -> list[Path]:
    """Forget the oldest kept pictures without any label event until the limits hold, `newest`
    excepted; returns the files to remove once that is committed."""
    labeled = select(EVENTS.c.image).where(EVENTS.c.image == IMAGES.c.id).exists()
    free = IMAGES.c.kept & ~labeled
    num, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(IMAGES.c.num_bytes), 0)).where(free)
    ).one()
    gone: list[Path] = []
    while num > limits.num or size > limits.num_bytes:
        oldest = (
            select(IMAGES.c.id, IMAGES.c.num_bytes)
            .where(free, IMAGES.c.id != newest)
            .order_by(IMAGES.c.added, IMAGES.c.id)
            .limit(1)
        )
        row = connection.execute(oldest).first()
        if row is None:
            break
        gone += paths_of(connection, row.id)
        for table, column in ((PLACES, PLACES.c.image), (JUDGEMENTS, JUDGEMENTS.c.image)):
            connection.execute(delete(table).where(column == row.id))
        connection.execute(delete(IMAGES).where(IMAGES.c.id == row.id))
        num, size = num - 1, size - row.num_bytes
    return gone


def secure(connection: Connection, image: str) -> None:
    """See that a kept picture is on the disk before its label is."""
    kept = select(IMAGES.c.kept).where(IMAGES.c.id == image)
    if not connection.scalar(kept):
        return
    for path in paths_of(connection, image):
        if path.exists():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _check_suffix(suffix: str, name: str) -> None:
    if suffix.lower() not in IMAGE_SUFFIXES:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{name} does not end as an image file does; allowed: {allowed}")
