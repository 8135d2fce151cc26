"""How much may still be written: what is free, less what stays free, less what downloads in progress will need."""

from __future__ import annotations

import threading
from collections.abc import Callable

from heliostat.errors import NoRoom, StoreError
from heliostat.store.disk import Operations


class Room:
    """The space of one mirror; ``share`` (0 to 1) of its file system stays free.  From any thread."""

    def __init__(self, disk: Operations, share: float) -> None:
        self._disk, self._share = disk, share
        self._promised: dict[object, Callable[[], int]] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises StoreError when less is free than is to stay free, or no inode is."""
        free, total, inodes = self._disk.free()
        if total and free < total * self._share:
            raise StoreError(*self._refusal("go on in", free))
        if inodes == 0:
            raise StoreError("go on in", self._disk.root, "no inodes free")

    def reserve(self, what: str, rest: Callable[[], int]) -> object:
        """Promise what ``rest()`` says is still to be written of ``what``; the key to give it back with.

        Raises NoRoom when that, beside what is promised already, would leave less than stays free.
        """
        with self._lock:
            free, total, _ = self._disk.free()
            promised = sum(max(0, other()) for other in self._promised.values())
            needed = rest()
            if total and free - promised - needed < total * self._share:
                action, path, reason = self._refusal(f"keep {what} ({needed} bytes more) in", free - promised)
                raise NoRoom(action, path, reason, ever=needed <= total)
            key = object()
            self._promised[key] = rest
        return key

    def release(self, key: object) -> None:
        """What was reserved is written, or will not be."""
        with self._lock:
            self._promised.pop(key, None)

    def _refusal(self, action: str, free: int) -> tuple[str, str, str]:
        least = f", and [mirror] min-free keeps {self._share:.0%}" if self._share else ""
        return action, self._disk.root, f"only {max(0, free)} bytes free{least}"
