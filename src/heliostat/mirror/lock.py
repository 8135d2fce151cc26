"""The lock of one mirror: taken before anything is opened, held to the end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from heliostat.errors import MirrorLocked, StoreError
from heliostat.state.database import owner_of


@contextlib.contextmanager
def hold_lock(path: str) -> Iterator[None]:
    """Hold the lock at ``path``.

    Raises MirrorLocked, telling which process holds it since when, or StoreError when it cannot be made.
    The lock belongs to the process, not to a thread, and ends with it however it ends.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, blocking=False, thread_local=False, mode=0o644)
    try:
        lock.acquire()
    except Timeout:
        raise MirrorLocked(path, holder_of(path) or "another process") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason += f"; run this as {owner_of(os.path.dirname(path))}"
        raise StoreError("lock", path, reason) from error
    try:
        _sign(path)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
        lock.release()


def holder_of(path: str) -> str | None:
    """Who holds the lock, as its holder wrote it; None when nobody signed it."""
    try:
        with open(path, encoding="utf-8") as file:
            pid, _, since = file.read(100).strip().partition(" since ")
    except (OSError, UnicodeDecodeError):
        return None
    if not pid.isdecimal() or not os.path.exists(f"/proc/{pid}"):
        return None
    return f"process {pid} since {since}"


def _sign(path: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    try:
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate(0)
            file.write(f"{os.getpid()} since {now}\n")
    except OSError as error:
        raise StoreError("sign", path, error.strerror or str(error)) from error
