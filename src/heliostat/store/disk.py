"""The one narrow object through which every file-system operation of the store goes.

All paths are relative POSIX paths below one root, made by :mod:`heliostat.names`.  Every ``OSError`` leaves as a
:class:`~heliostat.errors.StoreError` that names the action and the path.  Nothing here knows what a project is.
The durability of everything done before is had by :meth:`Disk.sync`, never file by file: one ``syncfs`` for a
batch costs far less than an ``fsync`` for each of its files and directories.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from heliostat.errors import PlaceTaken
from heliostat.store.appender import Appender, Buffer, DiskAppender, write_all
from heliostat.store.beats import got_on
from heliostat.store.refusals import TAKEN, refusals, refused
from heliostat.store.syncing import FileSystem

#: A FIFO must not block, nor a terminal become ours, nor a link be followed.
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
#: Directories here hold one file and its sidecar: making them first is cheaper than finding that they are missing.
_MOSTLY_NEW = "web/packages/"


class Entry(NamedTuple):
    """What ``stat`` says of a path, without following a symbolic link; times in whole nanoseconds."""

    size: int
    mtime_ns: int
    inode: int
    links: int
    is_directory: bool
    is_file: bool


class Operations(Protocol):
    """What the store needs of a file system; a test records these and replays a power cut from the record."""

    root: str

    def write(self, path: str, data: Buffer, mtime_ns: int | None = None) -> None: ...
    def append(self, path: str) -> Appender: ...
    def pieces(self, path: str) -> Iterator[bytes]: ...
    def replace(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def symlink(self, content: str, path: str) -> None: ...
    def unlink(self, path: str) -> bool: ...
    def make_directory(self, path: str) -> None: ...
    def remove_directory(self, path: str) -> bool: ...
    def set_mtime(self, path: str, mtime_ns: int) -> None: ...
    def set_mode(self, path: str, mode: int) -> None: ...
    def stat(self, path: str) -> Entry | None: ...
    def stat_directory(self, path: str) -> Entry | None: ...
    def read(self, path: str) -> bytes | None: ...
    def read_part(self, path: str, start: int, size: int) -> bytes: ...
    def read_link(self, path: str) -> str | None: ...
    def names(self, path: str) -> list[str]: ...
    def free(self) -> tuple[int, int, int]: ...
    def sync(self) -> None: ...


class Disk:
    """:class:`Operations` on a real directory.  Raises StoreError for everything the kernel refuses."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._root = os.fsencode(self.root) + b"/"
        # Directories known to exist: the two upper levels of the content-addressed store, and the fixed ones.
        # Bounded by construction: paths deeper than that are never remembered.
        self._known: set[str] = set()
        self._file_system = FileSystem(self.root)
        #: Where the last file went: its sidecar goes there too.
        self._last = ""

    def full(self, path: str) -> bytes:
        """In UTF-8 whatever the locale says: URLs of file names mean that."""
        return self._root + path.encode("utf-8", "surrogateescape")

    # What every file and every page costs is written without a helper around it: the helper would cost as much.

    def write(self, path: str, data: Buffer, mtime_ns: int | None = None) -> None:
        """Create ``path``, which must not exist, with ``data``, and if it is given with that time."""
        try:
            handle = self._open_new(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                if os.write(handle, data) != len(data):
                    write_all(handle, memoryview(data)[os.fstat(handle).st_size :])
                if mtime_ns is not None:
                    os.utime(handle, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(handle)
        except OSError as error:
            raise refused("write", path, error) from error

    def replace(self, source: str, target: str) -> None:
        """Rename over ``target``; makes the directories above it."""
        try:
            directory, _, _ = target.rpartition("/")
            if directory != self._last and directory.startswith(_MOSTLY_NEW):
                self.make_directory(directory)
                self._last = directory
            try:
                os.rename(self.full(source), self.full(target))
            except FileNotFoundError:
                self._last = ""
                self.make_directory(directory)
                os.rename(self.full(source), self.full(target))
        except OSError as error:
            raise refused("rename to", target, error) from error

    def stat(self, path: str) -> Entry | None:
        """What is at ``path`` itself, or None."""
        try:
            found = os.lstat(self.full(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise refused("look at", path, error) from error
        return _entry(found)

    def stat_directory(self, path: str) -> Entry | None:
        """The same; raises PlaceTaken where nothing can be, since something else lies where a directory belongs."""
        try:
            found = os.lstat(self.full(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refused("look at", path, error) from error
        if not stat.S_ISDIR(found.st_mode):
            raise PlaceTaken("look at", path, os.strerror(errno.ENOTDIR))
        return _entry(found)

    def make_directory(self, path: str) -> None:
        """Make ``path`` and what is missing above it."""
        if path in self._known:
            return
        try:
            self._make_directory(path)
        except OSError as error:
            raise refused("make directory", path, error) from error
        if path.count("/") <= 3 and not path.startswith(("web/simple/", "web/pypi/", "web/integrity/")):
            self._known.add(path)

    def _make_directory(self, path: str) -> None:
        parent, _, _ = path.rpartition("/")
        if parent.startswith(_MOSTLY_NEW):
            self.make_directory(parent)
        try:
            os.mkdir(self.full(path), _DIRECTORY_MODE)
        except FileExistsError:
            # The directories at the top may be links that somebody has made, those below are our own.
            if not os.path.isdir(self.full(path)) or (parent.startswith("web/") and os.path.islink(self.full(path))):
                raise
        except FileNotFoundError:
            self._known.discard(parent)
            if parent:
                self.make_directory(parent)
            else:
                os.makedirs(self.root, _DIRECTORY_MODE, exist_ok=True)
            os.mkdir(self.full(path), _DIRECTORY_MODE)

    def append(self, path: str) -> Appender:
        """Open the plain file ``path``, created if need be, to write at its end; raises PlaceTaken for what is none."""
        with refusals("open", path):
            handle = self._open_new(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise PlaceTaken("open", path, "not a plain file")
        return DiskAppender(path, handle)

    def pieces(self, path: str) -> Iterator[bytes]:
        """A plain file from its beginning, in pieces of 1 MiB; nothing of what is none, which is never followed."""
        with refusals("read", path):
            try:
                handle = os.open(self.full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in (*TAKEN, errno.ENOENT):
                    return
                raise
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    while piece := os.read(handle, 1 << 20):
                        yield piece
            finally:
                os.close(handle)

    def link(self, source: str, target: str) -> None:
        with refusals("link", target):
            os.link(self.full(source), self.full(target))

    def symlink(self, content: str, path: str) -> None:
        """Create the symbolic link ``path``, which must not exist; makes the directories above it."""
        with refusals("link", path):
            try:
                os.symlink(_encoded(content), self.full(path))
            except FileNotFoundError:
                self.make_directory(os.path.dirname(path))
                os.symlink(_encoded(content), self.full(path))

    def unlink(self, path: str) -> bool:
        """Remove a file or link; False when none was there."""
        with refusals("remove", path):
            try:
                os.unlink(self.full(path))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return False
            return True

    def remove_directory(self, path: str) -> bool:
        """Remove an empty directory; False when it is not there or not empty."""
        with refusals("remove directory", path):
            try:
                os.rmdir(self.full(path))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                    return False
                raise
            self._known.discard(path)
            if path == self._last:
                self._last = ""
            return True

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        with refusals("set the time of", path):
            os.utime(self.full(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits of a file or directory; a link's are left alone."""
        with refusals("set the mode of", path):
            if not stat.S_ISLNK(os.lstat(self.full(path)).st_mode):
                os.chmod(self.full(path), mode)

    def read(self, path: str) -> bytes | None:
        """The whole of a small file, or None when there is none, or something else instead: a link, a FIFO."""
        with refusals("read", path):
            try:
                handle = os.open(self.full(path), _READING)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, a link
                    return None
                raise
            try:
                found = os.fstat(handle)
                return _read_all(handle, found.st_size) if stat.S_ISREG(found.st_mode) else None
            finally:
                os.close(handle)

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """Up to ``size`` bytes of a file from ``start`` on."""
        with refusals("read", path):
            handle = os.open(self.full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return os.pread(handle, size, start)
            finally:
                os.close(handle)

    def read_link(self, path: str) -> str | None:
        """What a symbolic link holds; None when there is none."""
        with refusals("read", path):
            try:
                return os.readlink(self.full(path)).decode("utf-8", "surrogateescape")
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return None
                raise

    def names(self, path: str) -> list[str]:
        """The entries of a directory, unsorted; empty when it is not there."""
        with refusals("list", path):
            try:
                return [name.decode("utf-8", "surrogateescape") for name in os.listdir(self.full(path))]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def free(self) -> tuple[int, int, int]:
        """Bytes free for us, bytes in all, and inodes free (0 in all where the file system has no such limit)."""
        with refusals("look at", self.root):
            figures = os.statvfs(self.root)
        inodes = figures.f_favail if figures.f_files else -1
        return figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize, inodes

    def sync(self) -> None:
        """Everything done before this call survives a power cut when it returns."""
        with refusals("sync", self.root):
            self._file_system.sync()
        got_on()

    def _open_new(self, path: str, flags: int) -> int:
        try:
            return os.open(self.full(path), flags | os.O_CLOEXEC, _FILE_MODE)
        except FileNotFoundError:
            self.make_directory(os.path.dirname(path))
            return os.open(self.full(path), flags | os.O_CLOEXEC, _FILE_MODE)


def _entry(found: os.stat_result) -> Entry:
    mode = found.st_mode
    return Entry(
        found.st_size, found.st_mtime_ns, found.st_ino, found.st_nlink, stat.S_ISDIR(mode), stat.S_ISREG(mode)
    )  # fmt: skip


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _read_all(handle: int, size: int) -> bytes:
    """A file that is ``size`` bytes long, or longer by now."""
    data = os.read(handle, size + 1)
    if len(data) == size:
        return data
    pieces = [data]
    while piece := os.read(handle, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
