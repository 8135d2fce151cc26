"""Two calls about reaching the disk that Python has no name for: syncfs(2) and sync_file_range(2)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_SYNC_FILE_RANGE_WRITE = 2


def sync_file_system(handle: int) -> None:
    """All that was done in the file system of an open file survives a power cut on return; raises OSError if not."""
    if _syncfs is None:
        os.sync()
    elif _syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def begin_to_write(handle: int, start: int, size: int) -> None:
    """Have the kernel begin to write these bytes of an open file; promises nothing, and so fails silently.

    What cannot be written is told by :func:`sync_file_system`.
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
