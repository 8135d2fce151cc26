"""How a mirror stands, in words: one source for the page on a terminal and for plain text.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.cli import format as fmt

if TYPE_CHECKING:
    from heliostat.mirror.report import Owed, Status
    from heliostat.service.live import Live

OWED = ("pending", "failing", "blocked", "held")


def verdict(status: Status, live: Live | None, now: float) -> tuple[str, str]:
    """One word for it, and the reason.

    ``complete``, ``catching up``, ``waiting`` (upstream asks for it), ``incomplete``, ``in trouble`` or ``empty``.
    """
    trouble = live.trouble_text if live else status.trouble
    since = live.trouble_since if live else status.trouble_since
    if trouble:
        lasting = f"for {fmt.duration(now - since)}: " if since is not None else ""
        return "in trouble", f"{lasting}{trouble}"
    states = status.states
    if states.get("held"):
        count = fmt.counted(states["held"], "removal")
        return "incomplete", f"{count} wait for approval: heliostat mirror --once --allow-removals {states['held']}"
    if live and live.held_until is not None and live.held_until > now:
        return "waiting", f"{live.held_by} asks to wait until {fmt.moment(live.held_until)}"
    if not status.cursor and not status.projects:
        return "empty", "nothing has been mirrored yet"
    lag = status.lag or 0
    if live and live.phase == "working" and (lag or live.counters.projects_total):
        left = live.counters.projects_total - live.counters.projects_done
        return "catching up", f"{fmt.counted(max(left, 0), 'project')} to go in this pass"
    bad = [f"{fmt.number(states[state])} {state}" for state in ("failing", "blocked") if states.get(state)]
    if bad:
        return "incomplete", f"{' and '.join(bad)}, see below"
    if states.get("pending"):
        return "catching up", f"{fmt.counted(states['pending'], 'project')} to go"
    if lag and status.upstream_serial is not None and status.cursor < status.upstream_serial:
        return "catching up", "changes are still to be read"
    return "complete", "as upstream was when it was last asked"


def reached(status: Status, now: float) -> str:
    """Up to where it is complete, and how far that is behind."""
    text = f"serial {status.checkpoint}"
    if status.lag:
        text += f", {fmt.number(status.lag)} behind {status.upstream_serial}"
        if status.behind_since is not None:
            text += f" for {fmt.duration(now - status.behind_since)}"
    return text


def ago(moment: float | None, now: float) -> str:
    """``12 s ago (2026-01-02 03:04:05 UTC)``."""
    return "never" if moment is None else f"{fmt.duration(now - moment)} ago ({fmt.moment(moment)})"


def process(status: Status, live: Live | None, now: float) -> str:
    """What runs, and what it does next."""
    if live is None:
        return status.running or "no"
    who = (status.running or "a process").partition(" since ")[0]
    text = f"{who} for {fmt.duration(now - live.started)}, heliostat {live.version}: "
    if live.phase == "working":
        return text + work(live)
    if live.phase == "waiting" and live.next_poll is not None:
        wait = live.next_poll - now
        return text + (f"next poll in {fmt.duration(wait)}" if wait > 0 else "next poll now")
    return text + live.phase


def work(live: Live) -> str:
    """What the pass that runs has done so far."""
    counters = live.counters
    if not counters.projects_total:
        return counters.phase
    done, total = fmt.number(counters.projects_done), fmt.counted(counters.projects_total, "project")
    files = f"{fmt.counted(counters.files_done, 'file')}, {fmt.size(counters.bytes_done)}"
    return f"{counters.phase}, {done} of {total}, {files}"


def last_pass(live: Live, now: float) -> str | None:
    """How the last pass ended."""
    if live.last is None:
        return None
    one = live.last
    end = one.started + one.seconds
    return (
        f"{live.result or 'ended'} {fmt.duration(now - end)} ago: {fmt.number(one.added)} added, "
        f"{fmt.number(one.updated)} updated, {fmt.number(one.removed)} removed, {fmt.size(one.bytes_fetched)} "
        f"in {fmt.duration(one.seconds)}"
    )


def scrubbed(live: Live, now: float) -> str | None:
    """What the continuous check has seen; None while there is none."""
    one = live.scrub
    if one is None or one.round_began is None:
        return None
    oldest = "not everything yet" if one.oldest is None else f"everything within {fmt.duration(now - one.oldest)}"
    text = f"{oldest}, {one.share:.0%} in this round"
    if found := sum(one.found.values()):
        text += f"; {fmt.counted(found, 'finding')}, {fmt.number(one.repaired)} repaired"
    if one.unrepaired:
        text += f"; {fmt.number(one.unrepaired)} not repaired"
    return f"{text}; {one.trouble}" if one.trouble else text


def push(live: Live, now: float) -> str | None:
    """Whom it cannot tell of changes; None when there is nobody."""
    found = [("hook", live.pushing.hook), *sorted(live.pushing.downstream.items())]
    failing = [
        f"{name} fails for {fmt.duration(now - (told.since or now))}: {told.trouble}"
        for name, told in found
        if told.trouble
    ]
    return "; ".join(failing) or None


def disk(status: Status) -> str | None:
    """What is free where the mirror lies."""
    if status.disk_free is None or not status.disk_total:
        return None
    share = status.disk_free / status.disk_total
    inodes = f", {fmt.counted(status.inodes_free, 'inode')}" if status.inodes_free is not None else ""
    return f"{fmt.size(status.disk_free)} of {fmt.size(status.disk_total)} free ({share:.0%}){inodes}"


def holds(status: Status) -> str:
    """What there is of it."""
    projects, files, size = fmt.counted(status.projects, "project"), fmt.counted(status.files, "file"), status.bytes
    if status.keeps_files:
        return f"{projects}, {files}, {fmt.size(size)}"
    held = f"of which {fmt.size(size)} are held from before" if size else "none of which is held"
    return f"{projects} listing {files}, {held}: [mirror] files = false"


def denied(status: Status) -> str | None:
    """What is kept out, the first few by name."""
    entries = sorted([*status.denied, *status.deleted])
    if not entries:
        return None
    shown = ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "")
    where = f"{fmt.number(len(status.denied))} by the configuration, {fmt.number(len(status.deleted))} by delete"
    return f"{shown} ({where})"


def retained(status: Status) -> str | None:
    """What is served although upstream removed it."""
    projects = status.states.get("retained", 0)
    if not projects and not status.retained_files:
        return None
    files = fmt.counted(status.retained_files, "file")
    return f"{fmt.counted(projects, 'project')}, and {files} of others, that upstream removed"


def withheld(status: Status) -> str | None:
    """What is kept out of reach for a while."""
    if not status.kept_files:
        return None
    until = f"; the first go after {fmt.moment(status.kept_until)}" if status.kept_until is not None else ""
    return f"{fmt.counted(status.kept_files, 'file')} of what was removed{until}"


def owed_states(status: Status) -> str:
    """``3 failing, 7 pending``."""
    return ", ".join(f"{fmt.number(status.states[state])} {state}" for state in OWED if status.states.get(state))


def oldest_owed(status: Status, now: float) -> str | None:
    """The age of the oldest change that is owed."""
    return None if status.owed_since is None else f"announced {fmt.duration(now - status.owed_since)} ago"


def next_try(item: Owed, now: float) -> str:
    if item.due_at is None:
        return "-"
    wait = item.due_at - now
    return f"in {fmt.duration(wait)}" if wait > 0 else "now"
