"""What an adoption found: one line a finding, on disk, so that a run that was killed loses none of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from heliostat.errors import StoreError

Kind = Literal[
    "missing", "size", "digest", "obstacle", "page", "name", "strange", "moved", "renamed", "placed", "removed", "mode"
]

#: What each kind means; the order is that of reports.
KINDS: dict[Kind, str] = {
    "missing": "files that a page names and that are not there",
    "size": "files of another size than page or document say",
    "digest": "files of another digest than page or document say",
    "obstacle": "what lies where a file belongs and is none",
    "page": "pages and documents that cannot be read",
    "name": "files with names or links that are refused",
    "strange": "what is no part of a mirror; left alone",
    "moved": "moved below web/",
    "renamed": "files given their content-addressed places",
    "placed": "files of a plain directory given content-addressed places",
    "mode": "files that readers could not read, made readable",
    "removed": "leftovers of the old tool",
}
#: What differs from what it should be, and is fetched by the next pass; the rest is said for the record.
DIFFERENCES: frozenset[Kind] = frozenset({"missing", "size", "digest", "obstacle", "page", "name"})


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found; ``path`` is relative to the mirror's directory."""

    kind: Kind
    path: str
    project: str
    problem: str


class Result(msgspec.Struct, kw_only=True):
    """What came of it; sizes in bytes, times in seconds."""

    tool: str
    check: str
    dry_run: bool = False
    projects: int = 0
    files: int = 0
    bytes: int = 0
    #: Files that were read to compare their digests.
    hashed: int = 0
    #: Projects outside the configured scope, kept as if asked for by name.
    outside: int = 0
    #: Findings by kind.
    kinds: dict[str, int] = {}
    resumed: bool = False
    interrupted: bool = False
    #: It was adopted before: nothing was done now.
    already: bool = False
    seconds: float = 0.0

    @property
    def differences(self) -> int:
        return sum(count for kind, count in self.kinds.items() if kind in DIFFERENCES)

    def count(self, findings: Iterable[Finding]) -> None:
        """These were found, too."""
        for one in findings:
            self.kinds[one.kind] = self.kinds.get(one.kind, 0) + 1


def _line(one: Finding) -> bytes:
    """As the record has it; bytes that are not UTF-8 in hexadecimal digits, whatever lies about in a tree."""
    try:
        return msgspec.json.encode(one)
    except UnicodeEncodeError:
        return msgspec.json.encode(Finding(one.kind, _legible(one.path), one.project, _legible(one.problem)))


def _legible(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(path: str, flags: int) -> int:
    """A plain file alone; a pipe that lies there is not waited for.  Raises OSError."""
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY, 0o666)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ELOOP):
            raise
    raise OSError(errno.EEXIST, "something that is no file lies there; move it away", path)


class Record:
    """The findings, in the file at ``path``; with None in memory, for a run that changes nothing.

    What an interrupted run wrote after ``kept`` bytes is about what is done again: it is kept, and not said twice.
    """

    def __init__(self, path: str | None, kept: int, *, new: bool) -> None:
        self.path = path
        self._lines: list[bytes] = []
        self._again: set[bytes] = set()
        self.size = kept
        #: What an interrupted run found after its last commit.
        self.pending: list[Finding] = []
        if path is None:
            return
        try:
            if new:
                with open(path, "wb", opener=_plain):
                    pass
            with open(path, "ab+", opener=_plain) as file:
                file.seek(kept)
                rest = file.read()
                whole = rest[: rest.rfind(b"\n") + 1]
                if whole != rest:
                    file.truncate(kept + len(whole))
        except OSError as error:
            raise StoreError("write", path, error.strerror or str(error)) from error
        self._again = set(whole.splitlines())
        self.size = kept + len(whole)
        self.pending = [msgspec.json.decode(line, type=Finding) for line in sorted(self._again)]

    def add(self, findings: Iterable[Finding]) -> list[Finding]:
        """Write them down, durably; those that are new."""
        new = [(line, one) for one in findings if (line := _line(one)) not in self._again]
        lines = [line for line, _ in new]
        if self.path is None:
            self._lines += lines
        elif lines:
            try:
                with open(self.path, "ab", opener=_plain) as file:
                    self.size += file.write(b"\n".join(lines) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreError("write", self.path, error.strerror or str(error)) from error
        return [one for _, one in new]

    def __iter__(self) -> Iterator[Finding]:
        if self.path is None:
            yield from (msgspec.json.decode(line, type=Finding) for line in self._lines)
            return
        try:
            with open(self.path, "rb", opener=_plain) as file:
                for line in file:
                    yield msgspec.json.decode(line, type=Finding)
        except OSError as error:
            raise StoreError("read", self.path, error.strerror or str(error)) from error
