"""Progress of a pass: a display on a terminal, a log line at intervals elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from heliostat.cli import format as fmt

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from heliostat.cli.options import Options
    from heliostat.mirror.report import Counters

_log = logging.getLogger(__name__)

#: Seconds between two pictures on a terminal, and between two log lines.
REFRESH = 0.25
INTERVAL = 30.0


class Pace:
    """Bytes a second, lately, and the time that is left; fed with the counters and the time in seconds."""

    _WINDOW = 15.0

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, int]] = []

    def feed(self, counters: Counters, now: float) -> None:
        self._seen.append((now, counters.bytes_done, counters.projects_done))
        while len(self._seen) > 2 and now - self._seen[1][0] > self._WINDOW:
            del self._seen[0]

    def _since(self) -> tuple[float, int, int]:
        if len(self._seen) < 2:
            return 0.0, 0, 0
        (first, bytes_then, projects_then), (last, bytes_now, projects_now) = self._seen[0], self._seen[-1]
        return last - first, bytes_now - bytes_then, projects_now - projects_then

    def rate(self) -> str:
        seconds, count, _ = self._since()
        return fmt.rate(count, seconds)

    def left(self, counters: Counters) -> float | None:
        """Seconds left at the present pace, for whichever of projects and bytes takes longer; None while unknown."""
        seconds, fetched, finished = self._since()
        projects = counters.projects_total - counters.projects_done
        size = counters.bytes_total - counters.bytes_done
        if seconds < 1 or (projects > 0 and not finished) or (projects <= 0 and size > 0 and not fetched):
            return None
        return max(projects * seconds / finished if projects > 0 else 0, size * seconds / fetched if fetched else 0)


def line(counters: Counters, pace: Pace) -> str:
    """The state of a pass in one line of text."""
    parts = [
        counters.phase,
        f"{fmt.number(counters.projects_done)} of {fmt.counted(counters.projects_total, 'project')}",
        f"{fmt.counted(counters.files_done, 'file')}, {fmt.size(counters.bytes_done)}",
        pace.rate(),
    ]
    if counters.projects_failed:
        parts.append(f"{fmt.number(counters.projects_failed)} failed")
    left = pace.left(counters)
    if left:
        parts.append(f"{fmt.duration(left)} left")
    return "; ".join(parts)


@contextlib.asynccontextmanager
async def showing(counters: Counters, options: Options, *, interval: float = INTERVAL) -> AsyncIterator[None]:
    """Shows ``counters`` while it is open, as the options and standard error permit.

    ``interval`` is the time between two log lines, in seconds, where there is no terminal.
    """
    if options.quiet or not options.progress or sys.stderr is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        show: Callable[[Pace], None]
        if sys.stderr.isatty():
            display = stack.enter_context(_display())

            def show(pace: Pace) -> None:
                display.update(_picture(counters, pace), refresh=True)

            every = REFRESH
        else:

            def show(pace: Pace) -> None:
                _log.info("%s", line(counters, pace))

            every = interval
        watcher = asyncio.create_task(_watch(counters, show, every), name="progress")
        try:
            yield
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher


async def _watch(counters: Counters, show: Callable[[Pace], None], every: float) -> None:
    """Shows the counters every so many seconds; a terminal that went away ends the display, never the run."""
    pace = Pace()
    pace.feed(counters, time.monotonic())
    with contextlib.suppress(OSError, ValueError):
        while True:
            await asyncio.sleep(every)
            pace.feed(counters, time.monotonic())
            show(pace)


@contextlib.contextmanager
def _display() -> Iterator[Live]:
    """A display on standard error, which may go away while it is open."""
    from rich.console import Console
    from rich.live import Live

    display = Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False)
    with contextlib.suppress(OSError, ValueError):
        display.start()
    try:
        yield display
    finally:
        with contextlib.suppress(OSError, ValueError):
            display.stop()


def _picture(counters: Counters, pace: Pace) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(fmt.plain(counters.phase), style="bold"),
        ProgressBar(max(counters.projects_total, 1), counters.projects_done, width=30),
    )
    done, total = fmt.number(counters.projects_done), fmt.number(counters.projects_total)
    failed = f", {fmt.number(counters.projects_failed)} failed" if counters.projects_failed else ""
    grid.add_row(Text("projects"), Text(f"{done} of {total}{failed}"))
    files, wanted = fmt.number(counters.files_done), fmt.number(counters.files_total)
    grid.add_row(
        Text("files"), Text(f"{files} of {wanted}, {fmt.size(counters.bytes_done)} of {fmt.size(counters.bytes_total)}")
    )
    left = pace.left(counters)
    grid.add_row(Text("pace"), Text(f"{pace.rate()}{f', {fmt.duration(left)} left' if left else ''}"))
    return grid
