"""The lock of one mirror: taken before anything is opened, held to the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from heliostat.errors import MirrorLocked, StoreError
from heliostat.state.database import owner_of

if TYPE_CHECKING:
    from filelock import FileLock

#: Whoever looks whether the lock is held shares it for a moment; so many tries, so many seconds apart, outlast that.
_TRIES, _PAUSE = 5, 0.02
_MODE = 0o600


@contextlib.contextmanager
def hold_lock(path: str) -> Iterator[int | None]:
    """Hold the lock at ``path``; the descriptor that holds it, for a process that writes for this one.

    Raises MirrorLocked, telling which process holds it since when, or StoreError when it cannot be made.
    The lock belongs to the process, not to a thread, and ends with it however it ends.
    """
    from filelock import FileLock, Timeout

    # Whoever may open the file could hold the lock as well, and keep the mirror from ever starting.
    lock = FileLock(path, blocking=False, thread_local=False, mode=_MODE)
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.chmod(path, _MODE)
        _acquire(lock)
    except Timeout:
        raise MirrorLocked(path, holder_of(path) or "another process") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason += f"; run this as {owner_of(os.path.dirname(path))}"
        raise StoreError("lock", path, reason) from error
    try:
        _sign(path)
        yield lock._context.lock_file_fd  # noqa: SLF001 - filelock tells it nowhere else
    finally:
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
        lock.release()


def _acquire(lock: FileLock) -> None:
    from filelock import Timeout

    for _ in range(_TRIES - 1):
        try:
            lock.acquire()
        except Timeout:
            time.sleep(_PAUSE)
        else:
            return
    lock.acquire()


def holder_of(path: str) -> str | None:
    """Who holds the lock, as its holder wrote it; None when nobody does.  Needs to read the file only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not _is_held(descriptor):
            return None
        signature = os.read(descriptor, 100).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    pid, _, since = signature.strip().partition(" since ")
    return f"process {pid} since {since}" if pid.isdecimal() else "another process"


def _is_held(descriptor: int) -> bool:
    """A signature may be left from a crash, and its number be another process's by now: the lock itself tells."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _sign(path: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    try:
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate(0)
            file.write(f"{os.getpid()} since {now}\n")
    except OSError as error:
        raise StoreError("sign", path, error.strerror or str(error)) from error
