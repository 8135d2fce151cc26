"""The projects by traffic as a text file, a name a line, that can say what to mirror."""

from __future__ import annotations

import os
import sqlite3
import time
from fractions import Fraction

from heliostat.errors import StoreError
from heliostat.stats.summary import Period, traffic
from heliostat.store.disk import Disk


def write_list(connection: sqlite3.Connection, path: str, period: Period, share: Fraction) -> bool:
    """Replace ``path`` by the projects that make up ``share`` of the requests, if it differs.

    False, and nothing written, when there are none: an empty list would say that nothing is to be mirrored.
    Raises StoreError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise StoreError("write", path, "its directory is missing; make it first")
    disk = Disk(folder)
    text = "".join(f"{one.project}\n" for one in traffic(connection, period, share)).encode()
    if not text:
        return False
    if disk.read(name) != text:
        staged = f".{name}.{os.getpid()}-{time.monotonic_ns()}"
        disk.write(staged, text)
        try:
            disk.sync()
            disk.replace(staged, name)
        except BaseException:
            disk.unlink(staged)
            raise
    return True
