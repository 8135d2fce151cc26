"""Two calls about reaching the disk that Python has no name for: syncfs(2) and sync_file_range(2)."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

_SYNC_FILE_RANGE_WRITE = 2


class FileSystem:
    """The one that the directory ``root`` is in.

    It stays open: the kernel tells of what could not be written each one who had it open by then, but of those who
    open it afterwards only the first, which may be another program.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._handle = -1
        self._opening = threading.Lock()

    def sync(self) -> None:
        """All that was done there survives a power cut on return; raises OSError if not."""
        with self._opening:
            here = os.stat(self._root)
            if self._handle < 0 or not os.path.samestat(here, os.fstat(self._handle)):  # another one is mounted there
                self.close()
                self._handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _syncfs is None:
            os.sync()
        elif _syncfs(self._handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    __del__ = close


def begin_to_write(handle: int, start: int, size: int) -> None:
    """Have the kernel begin to write these bytes of an open file; promises nothing, and so fails silently.

    What cannot be written is told by :meth:`FileSystem.sync`.
    """
    if _sync_file_range is not None:
        _sync_file_range(handle, start, size, _SYNC_FILE_RANGE_WRITE)


def _load(name: str, *types: Any) -> Any:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes = types
    return function


_syncfs = _load("syncfs", ctypes.c_int)
_sync_file_range = _load("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
