"""The ledger's connection for whoever holds the mirror's lock: it leaves no trace on disk until something is written.

To open a SQLite file in WAL mode for writing makes two files beside it, and takes them away at the end; a poll that
finds nothing new should not touch the disk at all.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, Protocol

from heliostat.state import schema
from heliostat.state.database import connect_readonly, explained, is_quiet, open_database, refuse_network_file_system


class Executes(Protocol):
    """What is needed of a connection."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Any = ..., /) -> sqlite3.Cursor: ...
    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def transaction(connection: Executes) -> Iterator[None]:
    """All or nothing, durable at the end; joins a transaction that is open already."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Connection:
    """Reads the file as it is, and opens it for writing at the first statement that is no SELECT.

    Only the holder of the mirror's lock may do so: nobody else writes it then.  Raises StateError, StoreError.
    """

    def __init__(self, path: str, *, create: bool) -> None:
        self._path = path
        refuse_network_file_system(os.path.dirname(path))
        quiet = _open_quietly(path)
        self._reading = quiet is not None
        self._connection = quiet or open_database(path, create=create)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self._reading and not sql.startswith("SELECT"):
            self._open_for_writing()
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        if self._reading:
            self._open_for_writing()
        return self._connection.executemany(sql, parameters)

    def close(self) -> None:
        self._connection.close()

    def forget_pages(self) -> None:
        """Give back the memory in which pages of the file are kept; nothing is written, and no transaction is open."""
        self._connection.execute("PRAGMA shrink_memory")

    def _open_for_writing(self) -> None:
        writing = open_database(self._path, create=False)
        self._connection.close()
        self._connection, self._reading = writing, False


def _open_quietly(path: str) -> sqlite3.Connection | None:
    """The file opened for reading only; None when it has to be opened for writing in any case, or to learn why not."""
    if not os.access(path, os.R_OK | os.W_OK) or not is_quiet(path):
        return None
    with explained(path):
        connection = connect_readonly(path, quiet=True)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == schema.VERSION:
            return connection
    except sqlite3.Error:
        pass
    connection.close()
    return None
