"""The status as a page on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heliostat.cli import format as fmt
from heliostat.cli import status_words as words

if TYPE_CHECKING:
    from heliostat.mirror.report import Owed, Status
    from heliostat.service.live import Live

#: Projects that are shown when the page is as long as it likes; on a screen as many as fit.
_MOST = 20
_COLOURS = {
    "complete": "green",
    "catching up": "cyan",
    "waiting": "yellow",
    "incomplete": "yellow",
    "in trouble": "red",
    "empty": "dim",
}
_STATE_COLOURS = {"failing": "yellow", "blocked": "yellow", "held": "red", "pending": "cyan", "current": "green"}
_TIGHT = 0.1


def page(status: Status, live: Live | None, now: float, *, lines: int | None = None) -> Group:
    """Everything, for a screen of so many ``lines``; ``now`` is seconds since the epoch."""
    word, reason = words.verdict(status, live, now)
    colour = _COLOURS[word]
    title = Text.assemble((f" {word} ", f"bold reverse {colour}"), "  ", (fmt.plain(status.directory), "bold"))
    parts: list[RenderableType] = [title, Text(fmt.plain(reason), style=colour), "", _facts(status, live, now)]
    room = _MOST if lines is None else max(lines - 18, 3)
    if status.stuck:
        parts += ["", _listed("Accepted as they are, since upstream stays behind", status.stuck_count, "")]
        parts.append(_table(status.stuck, now, min(room, 5)))
    if owed := words.owed_states(status):
        count = sum(status.states.get(state, 0) for state in words.OWED)
        if oldest := words.oldest_owed(status, now):
            owed += f"; the oldest {oldest}"
        parts += ["", _listed("Owed", count, owed), _table(status.owed, now, room)]
        if count > min(room, len(status.owed)):
            parts.append(Text(f"and {fmt.number(count - min(room, len(status.owed)))} more: --json has them", "dim"))
    return Group(*parts)


def _facts(status: Status, live: Live | None, now: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")

    def add(title: str, text: str | None, style: str = "") -> None:
        if text:
            grid.add_row(title, Text(fmt.plain(text), style=style))

    add("complete to", words.reached(status, now), "bold")
    add("upstream", f"{status.upstream}, asked {words.ago(status.upstream_seen, now)}")
    add("running", words.process(status, live, now), "" if status.running or live else "yellow")
    if live and live.phase == "working" and live.counters.projects_total:
        grid.add_row("", ProgressBar(live.counters.projects_total, live.counters.projects_done, width=40))
    if live:
        add("last pass", words.last_pass(live, now))
    if live and live.scrub:
        wrong = live.scrub.unrepaired or live.scrub.trouble
        add("checked", words.scrubbed(live, now), "yellow" if wrong else "")
        add("push", words.push(live, now), "yellow")
    add("last poll", words.ago(status.last_poll, now))
    add("holds", words.holds(status))
    add("denied", words.denied(status))
    add("retained", words.retained(status))
    add("withheld", words.withheld(status))
    add("disk", words.disk(status), _disk_style(status))
    if status.disk_total and status.disk_free is not None:
        used = status.disk_total - status.disk_free
        full = _disk_style(status) or "green"
        bar = ProgressBar(status.disk_total, used, width=40, complete_style=full, finished_style=full)
        grid.add_row("", bar)
    if states := _states(status):
        grid.add_row("states", states)
    return grid


def _disk_style(status: Status) -> str:
    tight = status.disk_total and status.disk_free is not None and status.disk_free < _TIGHT * status.disk_total
    return "red" if tight else ""


def _states(status: Status) -> Text | None:
    found = [(state, count) for state, count in status.states.items() if count]
    text = Text(", ").join(
        Text(f"{fmt.number(count)} {state}", style=_STATE_COLOURS.get(state, "")) for state, count in found
    )
    return text if found else None


def _listed(title: str, count: int, more: str) -> Text:
    return Text.assemble((f"{title}: {fmt.number(count)}", "bold"), f" ({more})" if more else "")


def _table(items: list[Owed], now: float, most: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("project", no_wrap=True, max_width=40)
    table.add_column("state", no_wrap=True)
    table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("tried", justify="right", no_wrap=True)
    table.add_column("next try", no_wrap=True)
    for item in items[:most]:
        table.add_row(
            Text(fmt.plain(item.project), style="bold"),
            Text(item.state, style=_STATE_COLOURS.get(item.state, "")),
            Text(fmt.plain(item.reason)),
            fmt.number(item.attempts),
            words.next_try(item, now),
        )
    return table


def console() -> Console:
    return Console(highlight=False)


def problem(text: str) -> Group:
    """Why there is nothing to be seen just now."""
    return Group(Text.assemble((" unknown ", "bold reverse red"), "  ", fmt.plain(text)))
