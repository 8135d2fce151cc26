"""Opening the ledger's SQLite file, and refusing what cannot be used with a message and a way out."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator

from heliostat.errors import HeliostatError, StateError, StoreError
from heliostat.state import schema

#: How the kernel writes spaces and the like in its table of mounts.
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
#: KiB of the file that SQLite keeps in memory.
_CACHE = 16384
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs", "beegfs")


def open_database(path: str, *, create: bool) -> sqlite3.Connection:
    """Open the ledger for writing.  Raises StateError when it is missing, damaged, newer, or on a network disk."""
    refuse_network_file_system(os.path.dirname(path))
    if not create and not os.path.exists(path):
        raise StateError(f"{path}: no ledger there; 'heliostat rebuild' makes one from the tree")
    with explained(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = FILE")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            # Otherwise rows that are replaced would leave the totals without a word.
            connection.execute("PRAGMA recursive_triggers = ON")
            _check_version(connection, path, create=create)
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def open_readonly(path: str) -> sqlite3.Connection:
    """Open the ledger for short reads, also beside a running mirror; nothing is written.  Raises StateError."""
    try:
        os.stat(path)
    except PermissionError:
        raise StateError(f"{path}: not accessible; run this as {owner_of(path)}") from None
    except OSError:
        raise StateError(f"{path}: no ledger there; has this mirror been run yet?") from None
    if not os.access(path, os.R_OK):
        raise StateError(f"{path}: not readable; run this as {owner_of(path)}")
    with explained(path):
        connection = connect_readonly(path, quiet=is_quiet(path))
        try:
            _check_version(connection, path, create=False)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version < schema.VERSION:
                raise StateError(
                    f"{path}: written by an older heliostat; the next 'heliostat mirror' brings it up to date"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def connect_readonly(path: str, *, quiet: bool) -> sqlite3.Connection:
    """``quiet``: nobody writes to it meanwhile.

    Without that SQLite makes two files beside it even to read, and leaves them there, owned by whoever reads.
    """
    uri = f"file:{_uri(path)}?mode=ro{'&immutable=1' if quiet else ''}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")
    return connection


def is_quiet(path: str) -> bool:
    """True while no mirror has the ledger open: its write-ahead log is there as long as one has."""
    return not os.path.exists(f"{path}-wal")


def refuse_network_file_system(directory: str, mounts: str = "/proc/self/mounts") -> None:
    """Raise StateError when ``directory`` lies on a network file system, where SQLite's locks cannot be trusted."""
    try:
        with open(mounts, "rb") as file:
            table = [line.split(b" ")[1:3] for line in file]
    except OSError:
        return
    where = os.path.realpath(directory)
    best, kind = "", ""
    for point, file_system in table:
        mount = os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), point))
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, os.fsdecode(file_system)
    if kind.startswith(_NETWORK_FILE_SYSTEMS):
        raise StateError(
            f"{directory}: on a network file system ({kind}), where neither lock nor ledger is safe; "
            "set [mirror] state to a directory on a local disk"
        )


def _check_version(connection: sqlite3.Connection, path: str, *, create: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == schema.VERSION or version in schema.MIGRATIONS:
        return
    if version > schema.VERSION:
        raise StateError(
            f"{path}: written by a newer heliostat (schema {version}, this one knows {schema.VERSION}); "
            "upgrade heliostat, or move the file away and run 'heliostat rebuild'"
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not create or tables:
        raise StateError(f"{path}: not a heliostat ledger; move it away and run 'heliostat rebuild'")
    version_now = f"PRAGMA user_version = {schema.VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {schema.TABLES} {schema.FIRST} {version_now} COMMIT;")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring an older ledger up to date, step by step; each is one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    while version < schema.VERSION:
        step = schema.MIGRATIONS[version]
        version += 1
        connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {version}; COMMIT;")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(path, error) from error


def explain(path: str, error: sqlite3.Error) -> HeliostatError:
    """What SQLite reports, as a StoreError when the disk refused, else as a StateError with a way out."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError("write", path, str(error))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StateError(f"{path}: the ledger is damaged ({error}); move it away and run 'heliostat rebuild'")
    return StateError(f"{path}: {error}")


def fault_of(path: str, error: Exception) -> HeliostatError | None:
    """As :func:`explain`, where disk, damage or another process can be the reason; None for a defect of ours."""
    if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
        return None
    assert isinstance(error, sqlite3.Error)
    # What SQLite says of a statement that is wrong; all others say something of the file.
    return None if getattr(error, "sqlite_errorname", None) in (None, "SQLITE_ERROR") else explain(path, error)


def owner_of(path: str) -> str:
    """Whom ``path`` belongs to, or the nearest directory above it that can be looked at, in words."""
    import pwd

    path = os.path.abspath(path)
    try:
        return f"user {pwd.getpwuid(os.stat(path).st_uid).pw_name!r}"
    except KeyError:
        return "the user that owns it"
    except OSError:
        parent = os.path.dirname(path)
        return owner_of(parent) if parent != path else "the user that owns it"


def _uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
