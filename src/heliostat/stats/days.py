"""``web/local-stats/days/YYYY-MM-DD.bz2``, as PEP 381 describes it: downloads by project, file and user agent.

Rows are sorted, and a day's file is replaced only when it differs.  Of the user agent stand the installer's name and
version: what else clients say of themselves is not published.
"""

from __future__ import annotations

import bz2
import csv
import io
import sqlite3
import time
from collections.abc import Iterator
from hashlib import sha256

from heliostat.errors import StoreError
from heliostat.names import statistics_day
from heliostat.stats.database import transaction
from heliostat.stats.lines import date_of
from heliostat.store.disk import Operations

_HEADER = "# package,filename,useragent,count\n"
_ROWS = """
SELECT files.project, files.name,
  CASE agents.version WHEN '' THEN agents.installer ELSE agents.installer || '/' || agents.version END AS agent,
  sum(counts.downloads)
FROM counts JOIN files ON files.id = counts.file JOIN agents ON agents.id = counts.agent
WHERE counts.day = ? AND counts.downloads > 0
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_SECOND = 1_000_000_000
#: One is enough: whoever has the database writes these files.
_STAGED = "partial/statistics.bz2"


def publish_days(connection: sqlite3.Connection, disk: Operations) -> list[str]:
    """Write the files of all days that changed; the paths of those that were written.  Raises StoreError."""
    written = []
    for (day,) in connection.execute("SELECT day FROM days WHERE dirty = 1 ORDER BY day").fetchall():
        path = statistics_day(date_of(day))
        try:
            changed = _publish(connection, disk, day, path)
        except StoreError:
            # A mirror that starts just now clears what lies in partial/.
            changed = _publish(connection, disk, day, path)
        if changed:
            written.append(path)
        with transaction(connection):
            connection.execute("UPDATE days SET dirty = 0 WHERE day = ?", (day,))
    return written


def _publish(connection: sqlite3.Connection, disk: Operations, day: int, path: str) -> bool:
    disk.unlink(_STAGED)
    digest = sha256()
    appender = disk.append(_STAGED)
    try:
        for piece in _compressed(connection, day):
            appender.write(piece)
            digest.update(piece)
    finally:
        appender.close()
    old, there = disk.stat(path), disk.read(path)
    if there is not None and sha256(there).digest() == digest.digest():
        disk.unlink(_STAGED)
        return False
    # Web servers make ETags of whole seconds.
    disk.set_mtime(_STAGED, max(time.time_ns(), old.mtime_ns + _SECOND if old else 0))
    disk.sync()
    disk.replace(_STAGED, path)
    return True


def _compressed(connection: sqlite3.Connection, day: int) -> Iterator[bytes]:
    compressor = bz2.BZ2Compressor()
    yield compressor.compress(_HEADER.encode())
    rows = connection.execute(_ROWS, (day,))
    while some := rows.fetchmany(1000):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield compressor.compress(text.getvalue().encode())
    yield compressor.flush()
