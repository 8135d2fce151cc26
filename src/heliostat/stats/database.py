"""Opening the statistics' SQLite file: one process at a time, and a message for whatever is wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from heliostat.errors import HeliostatError, MirrorLocked, StateError, StoreError
from heliostat.state.database import owner_of, refuse_network_file_system
from heliostat.stats import schema

FILE = "statistics.db"
#: KiB of it that SQLite keeps in memory.
_CACHE = 16384


@contextlib.contextmanager
def opened(path: str | None) -> Iterator[sqlite3.Connection]:
    """The database at ``path``, made if need be; None: one for the moment, which leaves nothing behind.

    Raises MirrorLocked while another process has it, StateError when it is not ours, StoreError when the disk refuses.
    """
    if path is not None:
        refuse_network_file_system(os.path.dirname(path))
        _make(path)
    with explained(path or "temporary database"):
        connection = sqlite3.connect("" if path is None else path, isolation_level=None, timeout=0)
        try:
            # Held until it is closed: no second run can read the same lines.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = FILE")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            _check(connection, path or "temporary database")
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _make(path: str) -> None:
    """For nobody else's eyes: it tells who was there today."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason += f"; run this as {owner_of(path)}"
        raise StoreError("write", path, reason) from error


def _check(connection: sqlite3.Connection, path: str) -> None:
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == schema.VERSION:
        return
    if version > schema.VERSION:
        raise StateError(f"{path}: written by a newer heliostat; upgrade heliostat, or move the file away")
    if tables:
        raise StateError(f"{path}: no statistics of heliostat; move the file away")
    version_now = f"PRAGMA user_version = {schema.VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {schema.TABLES} {version_now} COMMIT;")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(path, error) from error


def _explain(path: str, error: sqlite3.Error) -> HeliostatError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return MirrorLocked(path, "another heliostat stats; wait for it to end")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError("write", path, f"{error}; run this as {owner_of(path)}")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StoreError("write", path, str(error))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StateError(f"{path}: damaged ({error}); move it away, and what logs are left is counted anew")
    return StateError(f"{path}: {error}")
