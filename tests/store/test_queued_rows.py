"""Rows that are queued and inserted many at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.core.errors import DataError
from knowgen.store import database as module
from knowgen.store.database import Database

INSERT = "insert or replace into results (key, value) values (?, ?)"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Return a database whose thread does not commit during a test."""
    monkeypatch.setattr(module, "COMMIT_SECONDS", 3600)
    made = _open(tmp_path / "rows.sqlite")
    yield made
    made.close()


def _open(path: Path) -> Database:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table if not exists results (number integer primary key, key text unique, value any)")
    return Database(connection, path, writable=True)


def _stored(path: Path) -> list[tuple[str, object]]:
    with sqlite3.connect(path) as other:
        return other.execute("select key, value from results order by number").fetchall()


def test_reads_include_queued_rows_in_order_and_the_latest_of_a_key(database: Database, tmp_path: Path) -> None:
    for number in range(200):
        database.write_later(INSERT, (f"k{number}", number))
    database.write_later(INSERT, ("k0", "again"))
    rows = database.read("select key, value from results order by number")
    assert rows == [*((f"k{number}", number) for number in range(1, 200)), ("k0", "again")]
    assert _stored(tmp_path / "rows.sqlite") == []  # not committed yet
    database.commit()
    assert _stored(tmp_path / "rows.sqlite") == rows


def test_a_later_write_and_a_transaction_come_after_the_queue(database: Database) -> None:
    database.write_later(INSERT, ("a", 1))
    database.write("update results set value = 2")
    database.write_later(INSERT, ("b", 3))
    with database.transaction() as connection:
        assert connection.execute("select key, value from results").fetchall() == [("a", 2), ("b", 3)]


def test_a_value_that_cannot_be_stored_is_an_error_of_its_caller_alone(database: Database) -> None:
    database.write_later(INSERT, ("a", 1))
    with pytest.raises(OverflowError):
        database.write_later(INSERT, ("b", 1 << 70))
    with pytest.raises(UnicodeEncodeError):
        database.write_later(INSERT, ("c", "\ud800"))
    database.write_later(INSERT, ("d", 4))
    assert database.read("select key from results order by number") == [("a",), ("d",)]


def test_a_long_queue_is_inserted_by_the_caller(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_QUEUE", 10)
    for number in range(25):
        database.write_later(INSERT, (f"k{number}", number))
    assert len(database._queue) <= 10


def test_a_failed_insertion_is_the_error_of_every_later_write(database: Database) -> None:
    database.write_later("insert into missing (key) values (?)", ("a",))
    with pytest.raises(DataError, match="missing"):
        database.commit()
    with pytest.raises(DataError, match="missing"):
        database.write_later(INSERT, ("b", 1))
    assert database.read("select count(*) from results") == [(0,)]
    with pytest.raises(DataError, match="missing"):
        database.close()
    database._failure = None  # for the fixture, which closes it once more


def test_the_thread_commits_what_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.001)
    made = _open(tmp_path / "rows.sqlite")
    made.write_later(INSERT, ("a", 1))
    while not _stored(tmp_path / "rows.sqlite"):
        pass
    made.close()
