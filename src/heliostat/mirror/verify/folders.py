"""Sorted listings and walks of a tree, in memory that does not grow with it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from heliostat.mirror.verify.sorter import Sorter

#: Entries of one directory that are sorted in memory; more are sorted on disk.
_MANY = 50_000
#: A directory of this size (bytes) has some ten thousand entries.
_LARGE = 1 << 20
_REST = re.compile(rb"[0-9a-f]{60}")
#: Where only directories belong.
_UPPER = re.compile(rb"packages/[0-9a-f]{2}(?:/[0-9a-f]{2}(?:/[0-9a-f]{60})?)?")
#: A directory of the store, which has files, and none below it.
_SHELF = re.compile(rb"packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/|integrity/[^/]+/[^/]+/[^/]+/")
#: What is a file, going by its name, as far as it need be known: one that no page names is looked at.
_FILE = re.compile(rb"[A-Za-z0-9][^\n]*\.[A-Za-z0-9]{1,8}")
#: No directory of ours lies deeper than five below its top.
_DEEPEST = 32


def is_for_directory(path: bytes) -> bool:
    """Whether the path is one of the store's own, at which only a directory belongs."""
    return _UPPER.fullmatch(path) is not None


def is_for_file(path: bytes) -> bool:
    """Whether the path is one of the store's own, at which only a file belongs."""
    return _SHELF.fullmatch(path[: path.rfind(b"/") + 1]) is not None


def listing(path: bytes, scratch: str, label: str, *, mark: bytes = b"/") -> Iterator[bytes]:
    """The entries of a directory in byte order, those that are directories with ``mark`` at the end.

    With a slash they come in the order of the paths below them, with a NUL byte in that of their names.
    A link is none, whatever it leads to.  Raises OSError; yields nothing where there is no such directory.
    """
    spill: Sorter | None = None
    found: list[bytes] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                found.append(entry.name + mark if entry.is_dir(follow_symlinks=False) else entry.name)
                if len(found) >= _MANY:
                    spill = spill or Sorter(scratch, label)
                    spill.add(map(_escaped, found))
                    spill.flush()
                    found = []
    except (FileNotFoundError, NotADirectoryError):
        return
    if spill is None:
        found.sort()
        yield from found
        return
    spill.add(map(_escaped, found))
    del found
    try:
        yield from map(_plain, spill.sorted())
    finally:
        spill.discard()


def _escaped(name: bytes) -> bytes:
    """A line break would end a line on disk."""
    return name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") if b"\n" in name or b"\\" in name else name


def _plain(name: bytes) -> bytes:
    return re.sub(rb"\\(.)", lambda found: b"\n" if found[1] == b"n" else b"\\", name) if b"\\" in name else name


class Walk:
    """The files below some directories of ``root`` whose paths lie between two bounds, in byte order.

    What cannot be listed, or has not the bits of ``mode``, goes to ``wrong`` with the reason.
    """

    def __init__(
        self, root: bytes, scratch: str, label: str, *, low: bytes = b"", high: bytes | None = None, mode: int = 0
    ) -> None:
        self._root, self._scratch, self._label = root, scratch, label
        self._low, self._high, self._mode = low, high, mode
        self.wrong: list[tuple[bytes, str]] = []

    def below(self, folder: bytes) -> Iterator[bytes]:
        """``folder`` ends with a slash."""
        try:
            size = self._look(folder)
            if folder.count(b"/") > _DEEPEST:
                self.wrong.append((folder, "nested too deep to be looked at"))
                return
            if folder.startswith(b"packages/") and size <= _LARGE and (entries := self._usual(folder)) is not None:
                yield from entries
                return
            mark = b"" if _SHELF.fullmatch(folder) else b"/"
            for entry in listing(self._root + folder, self._scratch, self._label, mark=mark):
                path = folder + entry
                if self._high is not None and path >= self._high:
                    return
                if entry.endswith(b"/"):
                    if path >= self._low or self._low.startswith(path):
                        yield from self.below(path)
                elif path >= self._low:
                    yield path
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.wrong.append((folder, f"cannot be listed: {error.strerror}"))

    def _look(self, folder: bytes) -> int:
        """Check the mode of a directory; its own size, which tells whether it has very many entries."""
        inner = folder.find(b"/") + 1 < len(folder)
        found = os.stat(self._root + folder.rstrip(b"/"), follow_symlinks=not inner)
        mode = found.st_mode
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError
        if mode & self._mode != self._mode and folder >= self._low:
            lacks = self._mode & ~mode
            self.wrong.append((folder, f"its mode is {mode & 0o7777:04o}, which lacks {lacks:04o}"))
        return found.st_size

    def _usual(self, folder: bytes) -> Iterator[bytes] | None:
        """What lies below ``packages/aa/bb/`` when there is nothing unusual, which names alone tell.

        None where there is.  Most of the time of a verify of small files goes here.
        """
        if len(folder) != 15:
            return None
        names = os.listdir(self._root + folder)
        names.sort()
        found: list[bytes] = []
        for name in names:
            if not _REST.fullmatch(name):
                return None
            inner = folder + name + b"/"
            try:
                if self._look(inner) > _LARGE:
                    return None
                files = os.listdir(self._root + inner)
            except OSError:
                return None
            if not all(map(_FILE.fullmatch, files)):
                return None
            files.sort()
            found += [inner + file for file in files]
        return (path for path in found if path >= self._low and (self._high is None or path < self._high))
