"""What is verified: a web root, what is to be expected in it, and the ledger beside it if there is one."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from heliostat.config import Config
from heliostat.errors import StateError, StoreError
from heliostat.mirror.lock import holder_of
from heliostat.mirror.places import DATABASE, LOCK, state_directory
from heliostat.mirror.verify.reading import Budget, Reader
from heliostat.state.database import explained, open_readonly
from heliostat.state.paths import Paths
from heliostat.state.queries import Queries

#: The largest acceptable page and document where no configuration says it (bytes).
_MAX_PAGE, _MAX_DOCUMENT = 64 << 20, 128 << 20
_ROWS = 2000
#: Looks at the ledger, and the seconds between them, before it counts as unusable.
_TRIES, _PAUSE = 3, 0.2

T = TypeVar("T")

_COLUMNS = (
    "name, state, published, hidden, page_serial, files, extra, due_at IS NOT NULL,"
    " stuck_since IS NOT NULL, EXISTS (SELECT 1 FROM root_changed WHERE root_changed.name = projects.name),"
    " document_digest, document_etag"
)


class Known(msgspec.Struct, frozen=True, gc=False):
    """What the ledger says of a project."""

    name: str
    state: str
    published: bool
    #: Served, but not in the root list.
    hidden: bool
    page_serial: int | None
    files: int
    #: Its document lists files that its page does not.
    extra: bool
    #: A pass has still to look at it.
    owed: bool
    #: Accepted although upstream stayed behind.
    stuck: bool
    #: Its entry in the root pages is out of date.
    root_due: bool
    #: Which document was published, where that is known, and upstream's ETag of it.
    document_digest: bytes | None
    document_etag: str | None


class Books:
    """The ledger, read a little at a time, so that whoever writes it is never in the way."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.get("cursor")

    def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of one short look.  Raises StateError."""
        for attempt in range(_TRIES):
            try:
                with explained(self.path), contextlib.closing(open_readonly(self.path)) as connection:
                    return question(connection)
            except StateError:
                # A mirror that began, or ended, in this instant: what was read is half of each.
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(_PAUSE)
        raise AssertionError("unreachable")

    def rows(self, after: str = "") -> Iterator[Known]:
        """Every project, in the order of names."""
        while found := self.read(functools.partial(_rows, after=after)):
            for values in found:
                yield _known(values)
            after = found[-1][0]

    def row(self, name: str) -> Known | None:
        query = f"SELECT {_COLUMNS} FROM projects WHERE name = ?"
        found = self.read(lambda connection: connection.execute(query, (name,)).fetchone())
        return _known(found) if found else None

    def extras(self, name: str) -> list[str]:
        """The paths of files that only the project's document lists, and of their sidecars."""
        return self.read(lambda connection: [row.path for row in Paths(connection).of_project(name, "extra")])

    def waiting(self, name: str) -> list[str]:
        """The paths at which something lies in the way of the project."""
        return self.read(lambda connection: [row.path for row in Paths(connection).of_project(name, "waiting")])

    def open_fate(self, path: str) -> bool:
        """Whether the ledger has something to say of a path that no page names."""
        return self.read(lambda connection: Paths(connection).is_spoken_for(path))

    def get(self, key: str) -> object:
        """A fact by its key."""
        return self.read(lambda connection: Queries(connection).get(key))


def _rows(connection: sqlite3.Connection, *, after: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        f"SELECT {_COLUMNS} FROM projects WHERE name > ? AND name NOT LIKE '!%' ORDER BY name LIMIT ?", (after, _ROWS)
    ).fetchall()


def _known(values: Sequence[object]) -> Known:
    name, state, published, hidden, serial, files, extra, owed, stuck, due, digest, etag = values
    return Known(
        str(name), str(state), bool(published), bool(hidden), serial if isinstance(serial, int) else None,
        int(str(files)), bool(extra), bool(owed), bool(stuck), bool(due),
        digest if isinstance(digest, bytes) else None, etag if isinstance(etag, str) else None,
    )  # fmt: skip


class Ground(msgspec.Struct, frozen=True):
    """A tree, and what should be in it."""

    #: The web root, absolute.
    web: str
    books: Books | None
    lock: str | None
    #: Whether files, provenance objects and documents are kept.
    files: bool
    provenance: bool
    documents: bool
    reader: Reader
    #: Where temporaries and downloads lie; None for a bare web root.
    partial: str | None = None
    max_page: int = _MAX_PAGE
    max_document: int = _MAX_DOCUMENT
    #: Of the mirror that may be at work.
    batch_seconds: float = 0.0

    @property
    def busy(self) -> str | None:
        """Who may be changing the tree; None when nobody does, or nobody knows."""
        return holder_of(self.lock) if self.lock else None


def bare_ground(web_root: str, budget: Budget) -> Ground:
    """A web root alone.  Raises StoreError when it is none."""
    web = os.path.abspath(web_root)
    mode = _mode_of(web)
    if not os.path.isdir(f"{web}/simple"):
        raise StoreError(
            "verify", web, "there is no simple/ in it; name the document root, the directory that is served"
        )
    kept = _has_entries(f"{web}/packages")
    return Ground(
        web, None, None, kept, _has_entries(f"{web}/integrity"), _has_entries(f"{web}/json"), Reader(web, mode, budget)
    )


def mirror_ground(config: Config, budget: Budget) -> Ground:
    """The mirror that a configuration describes.  Raises StoreError, StateError."""
    directory, state = config.mirror.directory, state_directory(config)
    web = os.path.abspath(f"{directory}/web")
    mode = _mode_of(web)
    books = Books(f"{state}/{DATABASE}")
    documents = books.get("documents")
    return Ground(
        web,
        books,
        f"{state}/{LOCK}",
        config.mirror.files,
        config.mirror.provenance and config.mirror.files,
        _has_entries(f"{web}/json") if documents is None else bool(documents),
        Reader(web, mode, budget),
        os.path.abspath(f"{directory}/partial"),
        config.upstream.max_page,
        config.upstream.max_document,
        config.mirror.batch_seconds,
    )


def _mode_of(web: str) -> int:
    """The bits that a file needs so that whoever may read the web root may read it too."""
    try:
        return stat.S_IMODE(os.stat(web).st_mode) & 0o444
    except OSError as error:
        raise StoreError("verify", web, error.strerror or str(error)) from None


def _has_entries(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
