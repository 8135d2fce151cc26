"""Ledger rows as reports tell them."""

from __future__ import annotations

from heliostat.mirror.report import Owed, Summary
from heliostat.state.rows import Row


def owed_of(row: Row) -> Owed:
    """A row as the summary and the status tell it."""
    name = row.display if row.name.startswith("!") else row.name
    return Owed(name, row.state, row.error or row.why or "", row.attempts, row.wanted_serial, row.due_at)


def tell_of(summary: Summary, before: Row | None, after: Row | None) -> None:
    """Add to ``summary`` what became of one project, of which these are the rows then and now."""
    there, stays = before is not None and before.published, after is not None and after.published
    if before is not None and after is not None and there and stays:
        changed = (before.page_serial, before.files) != (after.page_serial, after.files)
        summary.updated += changed
        summary.unchanged += not changed
    summary.added += stays and not there
    summary.removed += there and not stays
    # Announced in the meantime, but what is shown is that already: nothing of it is owed any more.
    shown = after is not None and after.state == "pending" and stays and (after.page_serial or 0) >= after.wanted_serial
    if after is not None and after.state in ("pending", "failing", "blocked", "held") and not shown:
        summary.owed.append(owed_of(after))
        summary.owed_by_state[after.state] = summary.owed_by_state.get(after.state, 0) + 1
        summary.held += after.state == "held"
