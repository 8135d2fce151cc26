"""What the commands that write to the mirror have in common: opening it, an event loop, the closing summary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, TypeVar

import msgspec

from heliostat import __version__
from heliostat.cli import running
from heliostat.cli.exit_codes import exit_code
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.messages import summary_lines
from heliostat.cli.options import Options
from heliostat.cli.output import show
from heliostat.cli.progress import showing
from heliostat.cli.running import Stop
from heliostat.config import Config
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror

if TYPE_CHECKING:
    from heliostat.service.requests import Requests

_Result = TypeVar("_Result")


def with_mirror(
    config: Config,
    options: Options,
    work: Callable[[Mirror, Stop], Awaitable[_Result]],
    *,
    requests: Callable[[], Requests] | None = None,
    opening: Callable[[Counters], AbstractAsyncContextManager[None]] | None = None,
    salvage: bool = False,
    adopting: bool = False,
) -> tuple[_Result, int | None]:
    """Runs ``work`` on the opened mirror; its result, and the number of the signal that asked it to end, if one did.

    ``requests``, of a daemon, are the signals that ask it for something; ``opening`` is entered while the mirror is
    opened, with the counters of the rebuild that this may take; ``salvage`` opens it even when its ledger cannot be
    used, ``adopting`` while the tree is another tool's still.
    """
    set_up_logging(options, daemon=requests is not None, wanted=config.logging.format)

    async def opened(stop: Stop) -> tuple[_Result, int | None]:
        counters = Counters()
        async with AsyncExitStack() as stack:
            async with opening(counters) if opening else nullcontext():
                mirror = await stack.enter_async_context(
                    Mirror.open(
                        config,
                        version=__version__,
                        salvage=salvage,
                        adopting=adopting,
                        stop=stop.event,
                        counters=counters,
                    )
                )
            return await work(mirror, stop), stop.number

    return running.run(opened, requests)


async def counted(options: Options, work: Callable[[Counters], Awaitable[_Result]]) -> _Result:
    """Runs ``work`` with counters that are shown meanwhile."""
    counters = Counters()
    async with showing(counters, options):
        return await work(counters)


def report(summary: Summary, options: Options, *, stopped_by: int | None) -> int:
    """Prints the closing summary; returns the exit code."""
    code = exit_code(summary, stopped_by=stopped_by)
    result = {**msgspec.to_builtins(summary), "complete": summary.complete}
    return show(options, code, summary_lines(summary), result)
