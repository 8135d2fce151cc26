"""The ledger in figures, for whoever looks often: no rows, and nothing that costs in proportion to what is complete."""

from __future__ import annotations

import contextlib
import os
import sqlite3

import msgspec

from heliostat.config import Config
from heliostat.mirror.places import DATABASE, state_directory
from heliostat.mirror.sightings import seen_at
from heliostat.state.database import explain, open_readonly
from heliostat.state.queries import Queries

#: All states of a project.
STATES = ("current", "pending", "failing", "blocked", "held", "excluded", "quarantined", "gone", "retained")


class LedgerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds since the epoch, sizes bytes."""

    upstream_serial: int | None
    cursor: int
    checkpoint: int
    #: When upstream was first seen beyond the checkpoint; None when it is not beyond it, or that is not known.
    behind_since: float | None
    #: When the oldest serial that any project owes was seen; None when none is owed, or that is not known.
    owed_since: float | None
    #: Start of the last complete poll, as recorded: at most ``heartbeat`` late while nothing changes.
    last_poll: float | None
    states: dict[str, int]
    projects: int
    files: int
    bytes: int
    stuck: int
    trouble: str | None
    trouble_since: float | None

    @property
    def lag(self) -> int | None:
        """Serials from the checkpoint to upstream's; None while upstream's is not known."""
        return None if self.upstream_serial is None else max(0, self.upstream_serial - self.checkpoint)


class DiskFigures(msgspec.Struct, frozen=True):
    """The file system of the mirror: bytes free for us, bytes in all, inodes free (None where it has no such limit)."""

    free: int
    size: int
    inodes: int | None


def read_figures(config: Config) -> LedgerFigures:
    """The figures as they are now, without the lock.  Raises StateError when there is no ledger to read."""
    path = f"{state_directory(config)}/{DATABASE}"
    connection = open_readonly(path)
    try:
        with contextlib.closing(connection):
            connection.execute("BEGIN")
            return figures_of(Queries(connection))
    except sqlite3.Error as error:
        raise explain(path, error) from error


def disk_figures(directory: str) -> DiskFigures:
    """Raises OSError."""
    found = os.statvfs(directory)
    return DiskFigures(
        found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail if found.f_files else None
    )


def figures_of(queries: Queries) -> LedgerFigures:
    """The figures within one transaction."""
    facts = queries.facts()
    projects, files, size = queries.totals()
    upstream, checkpoint = facts.get("upstream_serial"), queries.checkpoint()
    sightings, owed = facts.get("sightings"), queries.oldest_owed()
    return LedgerFigures(
        upstream_serial=upstream,
        cursor=queries.cursor,
        checkpoint=checkpoint,
        behind_since=seen_at(sightings, checkpoint + 1),
        owed_since=None if owed is None else seen_at(sightings, owed),
        last_poll=facts.get("last_poll"),
        states=dict.fromkeys(STATES, 0) | queries.states_of_totals(),
        projects=projects,
        files=files,
        bytes=size,
        stuck=queries.stuck_count(),
        trouble=facts.get("trouble"),
        trouble_since=facts.get("trouble_since"),
    )
