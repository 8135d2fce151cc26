"""What ``heliostat status`` tells: read from the ledger in one short transaction, without the lock."""

from __future__ import annotations

import contextlib
import sqlite3

from heliostat.config import Config, without_credentials
from heliostat.mirror.figures import disk_figures
from heliostat.mirror.lock import holder_of
from heliostat.mirror.places import DATABASE, LOCK, state_directory
from heliostat.mirror.report import Status
from heliostat.mirror.rows import owed_of
from heliostat.mirror.sightings import seen_at
from heliostat.policy.denials import parse_entry
from heliostat.state.database import explain, open_readonly
from heliostat.state.queries import Queries

_LISTED = 1000


def read_status(config: Config) -> Status:
    """Serials, counts and what is owed.  Raises StateError when there is no ledger to read."""
    directory = state_directory(config)
    path = f"{directory}/{DATABASE}"
    connection = open_readonly(path)
    try:
        with contextlib.closing(connection):
            connection.execute("BEGIN")
            status = _read(config, Queries(connection), holder_of(f"{directory}/{LOCK}"))
    except sqlite3.Error as error:
        raise explain(path, error) from error
    with contextlib.suppress(OSError):
        disk = disk_figures(config.mirror.directory)
        status.disk_free, status.disk_total, status.inodes_free = disk.free, disk.size, disk.inodes
    return status


def _read(config: Config, queries: Queries, running: str | None) -> Status:
    facts, checkpoint, oldest = queries.facts(), queries.checkpoint(), queries.oldest_owed()
    upstream_serial, sightings = facts.get("upstream_serial"), facts.get("sightings")
    projects, files, size = queries.totals()
    (kept, oldest_kept) = queries.kept_files()
    return Status(
        directory=config.mirror.directory,
        upstream=str(facts.get("source") or facts.get("upstream") or without_credentials(config.upstream.url[0])),
        upstream_serial=upstream_serial,
        upstream_seen=facts.get("upstream_seen"),
        cursor=queries.cursor,
        checkpoint=checkpoint,
        last_poll=facts.get("last_poll"),
        states=queries.states(),
        projects=projects,
        files=files,
        bytes=size,
        keeps_files=config.mirror.files,
        owed=[owed_of(row) for row in queries.owed(_LISTED)],
        stuck_count=queries.stuck_count(),
        stuck=[owed_of(row) for row in queries.stuck(_LISTED)],
        denied=sorted(str(parse_entry(text)) for text in config.mirror.deny),
        deleted={row.entry: row.reason for row in queries.denied() if row.origin == "operator"},
        retained_files=queries.retained_files(),
        kept_files=kept,
        kept_until=None if oldest_kept is None else oldest_kept + config.removal.withhold_days * 86400,
        trouble=facts.get("trouble"),
        trouble_since=facts.get("trouble_since"),
        running=running,
        lag=None if upstream_serial is None else max(upstream_serial - checkpoint, 0),
        behind_since=seen_at(sightings, checkpoint + 1),
        owed_since=None if oldest is None else seen_at(sightings, oldest),
    )
