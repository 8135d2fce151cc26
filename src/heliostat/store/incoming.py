"""A large file on its way into the store: appended, hashed as it comes, and resumable.

It lies under ``partial/`` under the name of the digest it must have, so that whoever wants the same bytes later, also
after a kill, goes on where it stopped.  What is there is never trusted: it is hashed again before more is added, and
the digest of the whole decides.
"""

from __future__ import annotations

import hashlib
from typing import Any

from heliostat.errors import PlaceTaken
from heliostat.store.appender import Appender, Buffer
from heliostat.store.disk import Operations


def new_hash(algorithm: str) -> Any:
    """A hash object for an index's algorithm name; ``blake2b_256`` is BLAKE2b with 32 bytes of output."""
    if algorithm == "sha256":  # by far the most
        return hashlib.sha256(usedforsecurity=False)
    if algorithm == "blake2b_256":
        return hashlib.blake2b(digest_size=32, usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def digests_of(data: Buffer, algorithms: tuple[str, ...]) -> dict[str, str]:
    """The hex digests of a whole body."""
    found = {}
    for algorithm in algorithms:
        state = new_hash(algorithm)
        state.update(data)
        found[algorithm] = state.hexdigest()
    return found


def document_digest(body: Buffer) -> bytes:
    """What the ledger keeps of a project's document, to tell whether it is still the same: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(body, digest_size=16, usedforsecurity=False).digest()


class Incoming:
    """One download; all methods block, and are called one at a time, from whatever thread.  Raise StoreError."""

    def __init__(self, disk: Operations, path: str, algorithms: tuple[str, ...]) -> None:
        self.path = path
        self._disk = disk
        self._algorithms = algorithms
        self._file: Appender | None = None
        self._states: list[Any] = []

    @property
    def size(self) -> int:
        return self._file.size if self._file else 0

    def open(self) -> int:
        """Open the file and hash what is there; returns how many bytes that is.  What is no file there goes."""
        try:
            self._file = self._disk.append(self.path)
        except PlaceTaken:
            self._disk.unlink(self.path)
            self._file = self._disk.append(self.path)
        self._states = [new_hash(algorithm) for algorithm in self._algorithms]
        for piece in self._file.read_all():
            for state in self._states:
                state.update(piece)
        return self._file.size

    def write(self, data: Buffer) -> None:
        """Append and hash one batch."""
        assert self._file is not None
        self._file.write(data)
        for state in self._states:
            state.update(data)

    def restart(self) -> None:
        """Forget what is there and begin at byte 0."""
        assert self._file is not None
        self._file.truncate()
        self._states = [new_hash(algorithm) for algorithm in self._algorithms]

    def digests(self) -> dict[str, str]:
        """The hex digests of what was written so far."""
        return {name: state.hexdigest() for name, state in zip(self._algorithms, self._states, strict=True)}

    def finish(self, mtime_ns: int | None) -> None:
        """Close the file and give it its time; the bytes stay at ``path`` for the caller to rename."""
        self.close()
        if mtime_ns is not None:
            self._disk.set_mtime(self.path, mtime_ns)

    def close(self) -> None:
        """Close the file and keep it, to be resumed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Close and remove it: what came is wrong."""
        self.close()
        self._disk.unlink(self.path)
