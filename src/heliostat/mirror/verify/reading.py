"""Reading a tree that may be hostile, slowly if asked to: nothing is followed, nothing blocks, few system calls.

Nothing here goes through the store's narrow object: a verify also works on a tree that no mirror owns, never changes
anything, and reads very many small files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import stat
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from heliostat.mirror.verify.findings import Kind
from heliostat.store.incoming import new_hash

#: A FIFO must not block, nor a terminal become ours, nor a link be followed.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Bytes that are read in one go.
_PIECE = 1 << 20
#: From here on the kernel is told that the whole file will be read (bytes).
_LARGE = 4 << 20
#: ``ioprio_set`` by machine; "idle" is class 3, and 1 means a thread.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_IDLE = 3 << 13


class Odd(Exception):
    """What lies at a path cannot be used as a file; ``kind`` is the finding's."""

    def __init__(self, kind: Kind, problem: str) -> None:
        self.kind, self.problem = kind, problem
        super().__init__(problem)


class Stopping(Exception):
    """The run was asked to end."""


class Stamp(NamedTuple):
    """Tells one state of a file from another."""

    inode: int
    size: int
    changed_ns: int
    modified_ns: int
    mode: int

    @property
    def modified(self) -> float:
        return self.modified_ns / 1e9


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_ctime_ns, found.st_mtime_ns, found.st_mode)


class Budget:
    """So many bytes a second for all threads together (None: as many as there are), and the wish to stop."""

    def __init__(
        self,
        bytes_per_second: int | None = None,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` tells seconds, of which ``stop.wait`` lets so many pass as it is told."""
        self._rate, self._clock = bytes_per_second, clock
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.stop = stop or threading.Event()
        #: Bytes read so far, for whoever shows progress.
        self.bytes = 0

    def take(self, count: int) -> None:
        """Wait until so many bytes may be read.  Raises Stopping."""
        if self.stop.is_set():
            raise Stopping
        if self._rate is None:
            self.bytes += count
            return
        with self._lock:
            self.bytes += count
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + count / self._rate
        if start > now and self.stop.wait(start - now):
            raise Stopping

    def limit(self, bytes_per_second: int) -> None:
        """Another rate from now on; who waits for what was read at the old one goes on waiting."""
        with self._lock:
            now, before = self._clock(), self._rate
            if before is not None:
                self._free_at = now + max(0.0, self._free_at - now) * before / bytes_per_second
            self._rate = bytes_per_second

    def share(self, count: int) -> None:
        """So many processes, each with a copy of this, share what may be read."""
        if self._rate is not None:
            self._rate = max(1, self._rate // count)

    @property
    def piece(self) -> int:
        """How much to ask for at once: what a quarter of a second may bring."""
        return _PIECE if self._rate is None else max(4096, min(_PIECE, self._rate // 4))


class Reader:
    """Opens, measures and hashes files below ``root``; ``mode``: the bits that files must have."""

    def __init__(self, root: str, mode: int, budget: Budget) -> None:
        self.root = os.fsencode(root) + b"/"
        self.mode, self.budget = mode, budget
        self._local = threading.local()

    def small(self, path: bytes, most: int) -> tuple[bytes, Stamp]:
        """The whole of a page or document.  Raises FileNotFoundError, Odd."""
        handle, found = self.open(path)
        try:
            if found.st_size > most:
                raise Odd("page", f"{found.st_size} bytes, more than a page or document may have")
            self.budget.take(found.st_size)
            data = os.read(handle, found.st_size + 1)
            while len(data) < found.st_size and (more := os.read(handle, found.st_size - len(data))):
                data += more
            return data, _stamp(found)
        except OSError as error:
            raise Odd("unreadable", f"cannot be read: {error.strerror}") from None
        finally:
            os.close(handle)

    def open(self, path: bytes) -> tuple[int, os.stat_result]:
        """A plain file, to be closed by the caller.  Raises FileNotFoundError, Odd."""
        self._check_way(path)
        try:
            handle = os.open(self.root + path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError from None
        except OSError as error:
            raise self._odd(path, error) from None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise Odd("obstacle", f"{kind_of(found.st_mode)}, where a file belongs")
            if found.st_mode & self.mode != self.mode:
                raise Odd("unreadable", _mode_problem(found.st_mode, self.mode))
        except BaseException:
            os.close(handle)
            raise
        return handle, found

    def _check_way(self, path: bytes) -> None:
        """Raises Odd when the way to ``path`` leads over a link; what is at the top of the tree may be one."""
        end = path.find(b"/")
        known: bytes = getattr(self._local, "folder", b"")
        if path.startswith(known) and path.rfind(b"/") == len(known) - 1:
            return
        while (end := path.find(b"/", end + 1)) >= 0:
            if known[: end + 1] == path[: end + 1]:
                continue
            try:
                found = os.lstat(self.root + path[:end])
            except OSError:
                return  # who opens it is told
            if stat.S_ISLNK(found.st_mode):
                raise Odd("obstacle", f"the way to it leads over a symbolic link, {os.fsdecode(path[:end])!a}")
        self._local.folder = path[: path.rfind(b"/") + 1]

    def obstacle(self, path: bytes) -> tuple[bytes, str] | None:
        """What lies at ``path`` and is no file, or on the way there and is no directory: where, and what."""
        end = path.find(b"/")
        while end < len(path):
            end = path.find(b"/", end + 1)
            last = end < 0
            end = len(path) if last else end
            try:
                mode = os.lstat(self.root + path[:end]).st_mode
            except OSError:
                return None
            if not (stat.S_ISREG(mode) if last else stat.S_ISDIR(mode)):
                return path[:end], f"{kind_of(mode)}, where a {'file' if last else 'directory'} belongs"
        return None

    def digests(self, handle: int, size: int, algorithms: tuple[str, ...]) -> dict[str, str]:
        """Hex digests of an open file of ``size`` bytes.  Raises Odd, Stopping."""
        try:
            if size < _PIECE and len(algorithms) == 1:
                self.budget.take(size)
                data = os.read(handle, size + 1)
                if len(data) == size:
                    return {algorithms[0]: _hash(algorithms[0], data)}
                os.lseek(handle, 0, os.SEEK_SET)
            return self._digests(handle, size, algorithms)
        except OSError as error:
            raise Odd("unreadable", f"cannot be read: {error.strerror}") from None

    def _digests(self, handle: int, size: int, algorithms: tuple[str, ...]) -> dict[str, str]:
        if size >= _LARGE:
            with contextlib.suppress(OSError, AttributeError):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        states = {name: new_hash(name) for name in algorithms}
        piece = self.budget.piece
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(_PIECE))
        target = [buffer[:piece]]
        while count := os.readv(handle, target):
            self.budget.take(count)
            for state in states.values():
                state.update(buffer[:count])
        return {name: state.hexdigest() for name, state in states.items()}

    def stamp(self, path: bytes) -> Stamp | None:
        """What lies at a path now; None when nothing does, or it cannot be told."""
        try:
            found = os.lstat(self.root + path)
        except OSError:
            return None
        return _stamp(found)

    def folder_problem(self, path: bytes) -> str | None:
        """What is wrong with the mode of a directory; None when nothing is, or it is not there."""
        wanted = self.mode | self.mode >> 2
        try:
            mode = os.stat(self.root + path).st_mode
        except OSError:
            return None
        return None if mode & wanted == wanted else _mode_problem(mode, wanted)

    def link(self, path: bytes) -> bytes | None:
        """What a symbolic link holds; None when there is nothing.  Raises Odd when it is something else."""
        self._check_way(path)
        try:
            return os.readlink(self.root + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise Odd("unreadable", f"cannot be read: {error.strerror}") from None
        found = os.lstat(self.root + path)
        raise Odd("link", f"{kind_of(found.st_mode)} instead of a symbolic link")

    def _odd(self, path: bytes, error: OSError) -> Odd:
        if error.errno == errno.ELOOP:
            return Odd("obstacle", "a symbolic link, where a file belongs")
        try:
            found = os.lstat(self.root + path)
        except OSError:
            found = None
        if found is not None and not stat.S_ISREG(found.st_mode):
            return Odd("obstacle", f"{kind_of(found.st_mode)}, where a file belongs")
        if error.errno in (errno.EACCES, errno.EPERM) and found is not None:
            return Odd("unreadable", _mode_problem(found.st_mode, self.mode))
        return Odd("unreadable", f"cannot be opened: {error.strerror}")


def _hash(algorithm: str, data: bytes) -> str:
    if algorithm == "sha256":
        return hashlib.sha256(data, usedforsecurity=False).hexdigest()
    state = new_hash(algorithm)
    state.update(data)
    return str(state.hexdigest())


def _mode_problem(mode: int, wanted: int) -> str:
    return f"its mode is {stat.S_IMODE(mode):04o}, which lacks {wanted & ~mode:04o} of what readers need"


def kind_of(mode: int) -> str:
    """What a thing that is no plain file is, in words."""
    for test, word in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISREG, "a file"),
    ):
        if test(mode):
            return word
    return "a device"


def be_idle() -> bool:
    """Give this thread, and those it begins, the disk only when nobody else wants it; False where that is unknown."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is None or not hasattr(os, "sched_getaffinity"):
        return False
    call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    return call(number, 1, 0, _IDLE) == 0
