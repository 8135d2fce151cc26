"""What the kernel refuses, said as the store says it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from heliostat.errors import DiskFull, PlaceTaken, StoreError

#: What the system says where something of another kind lies.
TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO)


@contextlib.contextmanager
def refusals(action: str, path: str) -> Iterator[None]:
    """Every ``OSError`` within leaves as a StoreError that names both."""
    try:
        yield
    except OSError as error:
        raise refused(action, path, error) from error


def refused(action: str, path: str, error: OSError) -> StoreError:
    """The StoreError for it: DiskFull, PlaceTaken, or a plain one."""
    # What could not be synced is perhaps lost, and the next sync need not say so: trying again is no way out of that.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) and action != "sync"
    kind = DiskFull if full else PlaceTaken if error.errno in TAKEN else StoreError
    return kind(action, path, _reason(error))


def _reason(error: OSError) -> str:
    """The system's own words, and where they mislead, better ones."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC and isinstance(error.filename, bytes):
        with contextlib.suppress(OSError):
            figures = os.statvfs(os.path.dirname(error.filename))
            if figures.f_files and not figures.f_favail:
                return f"{reason} (no inodes free)"
    return reason
