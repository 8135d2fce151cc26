"""What a pass says about itself: live counters for progress, and the summary that decides the exit code."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Live figures of a pass, changed only by the event loop, read by whoever shows progress."""

    phase: str = "starting"
    #: Projects owed in this pass so far, and how many of them have been dealt with.
    projects_total: int = 0
    projects_done: int = 0
    #: Projects that failed, or were blocked, in this pass.
    projects_failed: int = 0
    #: Release files, sidecars and provenance objects fetched; files known to be wanted.
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    requests: int = 0
    retries: int = 0


class Owed(msgspec.Struct, frozen=True):
    """One project that this mirror owes its readers, and why."""

    project: str
    #: pending, failing, blocked or held
    state: str
    reason: str
    attempts: int
    wanted_serial: int
    #: Seconds since the epoch of the next try; None when only a change or an operator can help.
    due_at: float | None


class Summary(msgspec.Struct, kw_only=True):
    """The result of one pass.  Times are seconds since the epoch or seconds, sizes bytes."""

    upstream: str
    started: float
    seconds: float = 0.0
    upstream_serial: int | None = None
    cursor: int = 0
    checkpoint: int = 0
    #: Projects whose pages this mirror serves.
    projects: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    files_added: int = 0
    files_removed: int = 0
    bytes_fetched: int = 0
    requests: int = 0
    retries: int = 0
    #: Everything owed by state; ``owed`` lists the first thousand of them.
    owed_by_state: dict[str, int] = {}
    owed: list[Owed] = []
    #: Accepted as they are, in this pass or before, since upstream stays behind what it announced; at most a thousand.
    stuck: list[str] = []
    stuck_count: int = 0
    #: Names asked for that upstream does not have.
    unknown: list[str] = []
    #: Removals that wait for approval, and how many of them the configuration, not upstream, is the reason for.
    held: int = 0
    held_by_scope: int = 0
    interrupted: bool = False
    #: Nothing told what changed upstream, and this pass did without: the change feed cannot be had for now.
    missed: bool = False
    #: Why no (complete) answer could be had from upstream; None when it answered.
    unreachable: str | None = None
    #: Why the store refused; None when it did not.
    store_error: str | None = None

    @property
    def complete(self) -> bool:
        """True when nothing is owed, held, unknown, and the pass ran to its end."""
        return not (
            any(self.owed_by_state.values())
            or self.held
            or self.unknown
            or self.interrupted
            or self.unreachable
            or self.store_error
        )


class Plan(msgspec.Struct, kw_only=True):
    """What a pass would do (``--dry-run``): sizes in bytes; free space and inodes of the mirror's file system."""

    upstream: str
    adds: list[str] = []
    updates: list[str] = []
    removals: list[str] = []
    #: Removals that would wait for approval, and how many of them the configuration, not upstream, is the reason for.
    held: list[str] = []
    held_by_scope: int = 0
    #: Projects that would stay owed, with the reason.
    problems: list[Owed] = []
    #: Why no (complete) answer could be had from upstream; None when it answered.
    unreachable: str | None = None
    #: It was stopped before everything was looked at: more may be done than is listed here.
    interrupted: bool = False
    #: The mirror's directory, if it is not there: a pass ends until it is made.
    missing_directory: str | None = None
    files: int = 0
    bytes: int = 0
    free_bytes: int = 0
    free_inodes: int = 0


class Deletion(msgspec.Struct, kw_only=True):
    """What became of what was to be deleted, or restored."""

    #: ``deleted``, ``denied`` (there was nothing to delete); ``restored``, ``allowed`` (nothing of it was kept),
    #: ``nothing kept``; by entry (``name`` or ``name==1.0``).
    entries: dict[str, str] = {}
    #: Projects whose pages went or changed, and paths that were removed or put out of reach.
    projects: int = 0
    files: int = 0
    #: Projects of which our own copy could not be published anew, with the reason: the next pass does it.
    failed: dict[str, str] = {}
    #: Of what was restored: owed, with the reason; not known to upstream.
    owed: list[Owed] = []
    unknown: list[str] = []
    interrupted: bool = False
    unreachable: str | None = None
    store_error: str | None = None

    @property
    def complete(self) -> bool:
        return not (
            self.failed
            or self.owed
            or self.unknown
            or self.interrupted
            or self.unreachable
            or self.store_error
            or "nothing kept" in self.entries.values()
        )


class Status(msgspec.Struct, kw_only=True):
    """What ``heliostat status`` shows, read from the ledger without a lock."""

    directory: str
    upstream: str
    upstream_serial: int | None
    #: Seconds since the epoch when ``upstream_serial`` was seen.
    upstream_seen: float | None
    cursor: int
    checkpoint: int
    #: Start of the last complete poll, seconds since the epoch.
    last_poll: float | None
    #: Projects by state: current, pending, failing, blocked, held, excluded, quarantined, gone, retained.
    states: dict[str, int]
    projects: int
    #: On the pages of the projects; see ``keeps_files``.
    files: int
    #: Of the files that are in place.
    bytes: int
    owed: list[Owed]
    #: False with ``[mirror] files = false``: files are listed, with links to upstream, and none is fetched.
    keeps_files: bool = True
    #: Accepted as they are since upstream stays behind what it announced: how many, and the first thousand of them.
    stuck_count: int = 0
    stuck: list[Owed] = []
    #: What is denied (``name`` or ``name==1.0``): by the configuration, and by ``delete``, with reasons.
    denied: list[str] = []
    deleted: dict[str, str] = {}
    #: Files that are served although upstream removed them, beside those of projects that are ``retained``.
    retained_files: int = 0
    #: Paths that are kept out of reach for a while, and when the first of them goes (seconds since the epoch).
    kept_files: int = 0
    kept_until: float | None = None
    #: What ended the last pass before its time, and since when; None when nothing did.
    trouble: str | None = None
    trouble_since: float | None = None
    #: Who holds the lock, when somebody does.
    running: str | None = None
    #: Serials from the checkpoint to upstream's; None while upstream's is not known.
    lag: int | None = None
    #: Since when upstream has been beyond the checkpoint; None when it is not, or that is not known.
    behind_since: float | None = None
    #: Since when the oldest serial that a project owes has been known; None when none is owed, or that is not known.
    owed_since: float | None = None
    #: Of the mirror's file system, in bytes: free for its user, and all; inodes.  None where it cannot be asked.
    disk_free: int | None = None
    disk_total: int | None = None
    inodes_free: int | None = None
