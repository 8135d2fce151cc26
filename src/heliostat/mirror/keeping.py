"""What was removed and is kept out of reach for a while goes for good when its time is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from heliostat import names
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow, Tombstone
from heliostat.store.beats import got_on
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

_AT_ONCE = 1000


def expire(tree: Tree, ledger: Ledger, before: float) -> int:
    """Remove what is kept since before that time (seconds since the epoch); how many files.

    Belongs to the keeper's thread.  A kill leaves rows without files, which the next pass clears.
    """
    count = 0
    while rows := ledger.paths.kept_before(before, _AT_ONCE):
        got_on()
        count += len(rows)
        drop(tree, ledger, rows, what="its time in withheld/ is over")
    if count:
        log.info("%d files that were kept out of reach are removed for good", count)
        with ledger.transaction():
            ledger.denials.forget_kept_before(before)
    return count


def drop(tree: Tree, ledger: Ledger, rows: Iterable[PathRow], *, what: str) -> None:
    """Remove bytes that are out of reach, and only once that is durable what is known of them."""
    rows = list(rows)
    for row in rows:
        tree.discard(names.withheld_path(row.path))
    tree.disk.sync()
    now = time.time()
    gone = {(row.project, row.version) for row in rows}
    stones = [
        Tombstone(now, project, None, None, what, approved=True, version=version, what="expired")
        for project, version in sorted(gone, key=lambda one: (one[0], one[1] or ""))
    ]
    with ledger.transaction():
        ledger.paths.clear(rows)
        for row in rows:
            ledger.denials.forget_kept(row.project, [row.path])
        ledger.bury(stones)
