"""Opening the review database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from leanet.serve.store import Store
from leanet.serve.tables import SCHEMA, SYNC, open_database


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path).dispose()
    with sqlite3.connect(tmp_path / "labels.db") as file:
        file.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (str(SCHEMA + 1),))
    file.close()
    with pytest.raises(ValueError, match="another version of leanet"):
        open_database(tmp_path)


@pytest.mark.parametrize("url", ["no url", "nosuch://host/name"])
def test_what_is_no_database_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="SQLAlchemy URL"):
        open_database(tmp_path, url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.db").write_text("something else, and long enough to be looked at" * 50)
    with pytest.raises(ValueError, match=r"cannot open sqlite:.*not a database"):
        open_database(tmp_path)


def test_another_database_takes_the_labels(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", f"sqlite:///{tmp_path / 'other.db'}")
    assert store.labels() == {}
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "state/labels.db").exists()


@pytest.mark.parametrize(("asked", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_sqlite_writes_ahead_and_waits_for_the_disk_when_asked(
    tmp_path: Path, asked: str, level: int
) -> None:
    engine = open_database(tmp_path)
    with engine.connect() as plain:
        connection = plain.execution_options(**{SYNC: asked})
        with connection.begin():
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
