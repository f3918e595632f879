"""The tables of the review database, the same for every database that SQLAlchemy knows.

An image is its bytes (sha256), with the places where a file of them lies. Label events are never
changed nor deleted; `labels` holds what stands after them, so that a gallery can filter by it.
Times are UTC in ISO 8601, texts that sort as the times do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    JSON,
    URL,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from leanet.serve.entries import MAX_WORD

SCHEMA: Final = 1  # of the tables below; a database of a newer one is refused
_ID: Final = String(64)
_WORD: Final = String(MAX_WORD)
_TIME: Final = String(40)
SYNC: Final = "leanet_sync"  # execution option of a transaction that writes: FULL or NORMAL

METADATA: Final = MetaData()
META = Table(
    "meta", METADATA, Column("name", _WORD, primary_key=True), Column("value", Text, nullable=False)
)
IMAGES = Table(
    "images",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("source", _WORD, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_bytes", Integer, nullable=False),
    Column("kept", Boolean, nullable=False),  # the file is ours, below images/
    Column("added", _TIME, nullable=False),
    Index("images_kept", "kept", "added"),
)
PLACES = Table(
    "places",
    METADATA,
    Column("path", String(4096), primary_key=True),
    Column("image", _ID, ForeignKey("images.id"), nullable=False, index=True),
    Column("added", _TIME, nullable=False),
)
JUDGEMENTS = Table(
    "judgements",
    METADATA,
    Column("model", _WORD, primary_key=True),
    Column("image", _ID, ForeignKey("images.id"), primary_key=True, index=True),
    Column("score", Float),  # NULL where no class is the normal one
    Column("verdict", String(16)),
    Column("review", Boolean),
    Column("probability", Float),
    Column("predicted", _WORD, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("at", _TIME, nullable=False),
    Index("judgements_score", "model", "score"),
)
EVENTS = Table(
    "events",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("image", _ID, ForeignKey("images.id"), nullable=False, index=True),
    Column("label", String(16), nullable=False),
    Column("kind", _WORD, nullable=False),
    Column("who", _WORD, nullable=False, index=True),
    Column("at", _TIME, nullable=False),
    Column("before_label", String(16), nullable=False),
    Column("before_kind", _WORD, nullable=False),
    Column("before", Integer),  # number of the event that stood before; NULL = none did
    Column("undoes", Integer),  # number of the event that this one takes back
    sqlite_autoincrement=True,
)
LABELS = Table(
    "labels",
    METADATA,
    Column("image", _ID, ForeignKey("images.id"), primary_key=True),
    Column("label", String(16), nullable=False),
    Column("kind", _WORD, nullable=False),
    Column("event", Integer, nullable=False),  # whose label stands
    Index("labels_label", "label"),
)


def open_database(state: Path, database: str | None = None) -> Engine:
    """The database at an SQLAlchemy URL, or `state/labels.db`, with all its tables.

    SQLite writes ahead (WAL), and waits for the disk at the end of every transaction that asks for
    it (`SYNC`), so that neither a kill nor a power cut takes back what was answered.

    Raises:
        ValueError: no database URL, a driver that is not installed, a database that does not answer
            or is none, or one that another version of this package has written.
    """
    state.mkdir(parents=True, exist_ok=True)
    url: URL | str = database or URL.create("sqlite", database=str(state / "labels.db"))
    try:
        engine = create_engine(url, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ValueError(
            f"cannot open the database for labels: {error}.\nGive an SQLAlchemy URL, such as "
            "postgresql+psycopg://user:password@host/name, and install its driver"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.begin() as connection:
            METADATA.create_all(connection)
            _check_schema(connection, str(engine.url))
    except DBAPIError as error:
        raise ValueError(f"cannot open {engine.url}: {error.orig}") from error
    return engine


def _check_schema(connection: Connection, where: str) -> None:
    found = connection.scalar(select(META.c.value).where(META.c.name == "schema"))
    if found is None:
        connection.execute(insert(META).values(name="schema", value=str(SCHEMA)))
    elif int(found) != SCHEMA:
        raise ValueError(
            f"{where} was written by another version of leanet (its tables are of version {found}, "
            f"these here of version {SCHEMA}); use that version, or another state folder"
        )


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that writes takes the lock at once: one that reads first and then finds that
    another has written could only fail."""
    sync = connection.get_execution_options().get(SYNC)
    connection.exec_driver_sql(f"PRAGMA synchronous={sync or 'FULL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sync else "BEGIN")
