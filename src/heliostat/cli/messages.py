"""Results in words: what a pass did, what it would do, how the mirror stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heliostat.cli import format as fmt
from heliostat.cli import status_words as words

if TYPE_CHECKING:
    from heliostat.mirror.report import Deletion, Owed, Plan, Status, Summary
    from heliostat.service.live import Live

#: Lines of one list that are printed; --json has all there are.
_MOST = 100
_STUCK = "accepted as they are, since upstream stays behind what it announced"

_PARTIAL = "interrupted: this plan is incomplete, since not everything was looked at"


def summary_lines(summary: Summary) -> list[str]:
    """The closing summary of a pass."""
    changes = (
        f"{fmt.counted(summary.added, 'project')} added, {fmt.number(summary.updated)} updated, "
        f"{fmt.number(summary.removed)} removed, {fmt.number(summary.unchanged)} unchanged"
    )
    files = (
        f"{fmt.number(summary.files_added)} added, {fmt.number(summary.files_removed)} removed; "
        f"{fmt.size(summary.bytes_fetched)} fetched in {fmt.duration(summary.seconds)} "
        f"({fmt.rate(summary.bytes_fetched, summary.seconds)}), {fmt.counted(summary.requests, 'request')}, "
        f"{fmt.counted(summary.retries, 'retry', 'retries')}"
    )
    reached = f"complete to serial {summary.checkpoint}{_behind(summary.upstream_serial, summary.checkpoint)}"
    lines = [
        f"{_verdict(summary)}: {changes}",
        f"files: {files}",
        f"mirror: {fmt.counted(summary.projects, 'project')}, {reached}",
    ]
    if summary.store_error is not None:
        lines.append(f"store: {fmt.plain(summary.store_error)}")
    if summary.unreachable is not None:
        lines.append(f"upstream: {fmt.plain(summary.unreachable)}")
    if summary.held:
        lines.append(f"held: {_approval(summary.held, summary.held_by_scope)}")
    lines += _listed("not known to upstream", summary.unknown)
    lines += _listed(_STUCK, summary.stuck, summary.stuck_count)
    return lines + owed_lines(summary.owed, summary.owed_by_state)


_BECAME = {
    "deleted": "deleted, and kept out",
    "denied": "not in this mirror; kept out",
    "restored": "restored",
    "allowed": "not kept out any more",
    "nothing kept": "nothing of it is kept, and it is not on the deny-list",
}


def deletion_lines(result: Deletion) -> list[str]:
    """What became of what was to be deleted or restored."""
    lines = [f"{fmt.plain(entry)}: {_BECAME.get(what, what)}" for entry, what in sorted(result.entries.items())]
    lines.append(
        f"{fmt.counted(result.projects, 'project')} changed, "
        f"{fmt.counted(result.files, 'file')} removed or put out of reach"
    )
    if result.store_error is not None:
        lines.append(f"store: {fmt.plain(result.store_error)}")
    if result.unreachable is not None:
        lines.append(f"upstream: {fmt.plain(result.unreachable)}")
    lines += [
        f"{fmt.plain(name)}: left to the next pass: {fmt.plain(reason)}" for name, reason in result.failed.items()
    ]
    lines += _listed("not known to upstream", result.unknown)
    return lines + owed_lines(result.owed, {})


def _approval(held: int, by_scope: int) -> str:
    """How many removals wait, for what reason, and how they are approved."""
    wait = f"{fmt.counted(held, 'removal')} {'waits' if held == 1 else 'wait'} for approval"
    if not by_scope:
        reason = f"; if upstream really removed {'it' if held == 1 else 'them'}"
    elif by_scope == held:
        reason = ", left out by the configuration; if that is meant"
    else:
        reason = (
            f", {fmt.number(by_scope)} of them left out by the configuration; if that is meant, and upstream really"
        )
        reason += " removed the others"
    return f"{wait}{reason}: heliostat mirror --once --allow-removals {held}"


def _verdict(summary: Summary) -> str:
    if summary.interrupted:
        return "interrupted"
    return "complete" if summary.complete else "incomplete"


def _behind(upstream: int | None, checkpoint: int) -> str:
    if upstream is None:
        return ""
    return f" of {upstream}" if upstream > checkpoint else ""


def _listed(title: str, names: Sequence[str], count: int = 0) -> list[str]:
    """``count``: how many there are, when they are more than ``names``."""
    if not names:
        return []
    count = max(count, len(names))
    lines = [f"{title}: {fmt.number(count)}"]
    lines += [f"  {fmt.plain(name)}" for name in names[:_MOST]]
    return lines + _rest(count - min(len(names), _MOST))


def _rest(count: int) -> list[str]:
    return [f"  and {fmt.number(count)} more"] if count > 0 else []


def owed_lines(owed: Sequence[Owed], by_state: dict[str, int]) -> list[str]:
    """What is owed and why, one project a line."""
    total = max(sum(by_state.values()), len(owed))
    if not total:
        return []
    states = ", ".join(f"{fmt.number(count)} {state}" for state, count in sorted(by_state.items()) if count)
    lines = [f"owed: {states or fmt.number(total)}"]
    lines += [
        f"  {fmt.plain(item.project)}  {item.state}: {fmt.plain(item.reason)}{_again(item)}" for item in owed[:_MOST]
    ]
    return lines + _rest(total - min(len(owed), _MOST))


def _again(item: Owed) -> str:
    if item.due_at is None:
        return ""
    wait = item.due_at - time.time()
    tried = f", tried {fmt.counted(item.attempts, 'time')}" if item.attempts else ""
    return f" ({'next try in ' + fmt.duration(wait) if wait > 0 else 'due now'}{tried})"


def plan_lines(plan: Plan) -> list[str]:
    """What a pass would do."""
    lines = [_PARTIAL] if plan.interrupted else []
    lines += (
        _listed("would add", plan.adds) + _listed("would update", plan.updates) + _listed("would remove", plan.removals)
    )
    if plan.held:
        lines += _listed("would hold", plan.held)
        lines.append(f"held: {_approval(len(plan.held), plan.held_by_scope)}")
    so_far = "so far: " if plan.interrupted else ""
    lines.append(
        f"{so_far}would fetch {fmt.counted(plan.files, 'file')}, {fmt.size(plan.bytes)}; "
        f"free: {fmt.size(plan.free_bytes)}, {fmt.counted(plan.free_inodes, 'inode')}"
    )
    if plan.missing_directory is not None:
        directory = fmt.plain(plan.missing_directory)
        lines.append(f"directory: {directory} is missing; make it, writable for this user, before the pass")
    if plan.unreachable is not None:
        lines.append(f"upstream: {fmt.plain(plan.unreachable)}")
    return lines + owed_lines(plan.problems, {})


def status_lines(status: Status, live: Live | None, now: float) -> list[str]:
    """How the mirror stands; ``now`` is seconds since the epoch."""
    word, reason = words.verdict(status, live, now)
    upstream = "unknown" if status.upstream_serial is None else str(status.upstream_serial)
    states = ", ".join(f"{fmt.number(count)} {state}" for state, count in sorted(status.states.items()) if count)
    found = [
        ("mirror", status.directory),
        ("state", f"{word}: {reason}"),
        ("upstream", f"{status.upstream}, serial {upstream} seen {fmt.moment(status.upstream_seen)}"),
        ("complete to", words.reached(status, now)),
        ("changes read", f"to serial {status.cursor}"),
        ("last poll", fmt.moment(status.last_poll)),
        ("last pass", words.last_pass(live, now) if live else None),
        ("push", words.push(live, now) if live else None),
        ("checked", words.scrubbed(live, now) if live else None),
        ("holds", words.holds(status)),
        ("states", states or "no projects"),
        ("denied", words.denied(status)),
        ("retained", words.retained(status)),
        ("withheld", words.withheld(status)),
        ("oldest owed", words.oldest_owed(status, now)),
        ("disk", words.disk(status)),
        ("running", words.process(status, live, now)),
    ]
    rows = [(title, text) for title, text in found if text is not None]
    width = max(len(title) for title, _ in rows)
    lines = [f"{title:{width}}  {fmt.plain(text)}" for title, text in rows]
    owed = {state: status.states.get(state, 0) for state in words.OWED}
    if status.stuck:
        lines.append(f"{_STUCK}: {fmt.number(status.stuck_count)}")
        lines += [
            f"  {fmt.plain(item.project)}  {fmt.plain(item.reason)}{_again(item)}" for item in status.stuck[:_MOST]
        ]
        lines += _rest(status.stuck_count - min(len(status.stuck), _MOST))
    return lines + owed_lines(status.owed, owed)
