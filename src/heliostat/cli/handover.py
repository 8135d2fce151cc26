"""Commands that a running daemon carries out, since it holds the lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from heliostat.cli import running
from heliostat.cli.exit_codes import Detached
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
from heliostat.cli.progress import showing
from heliostat.config import Config
from heliostat.mirror.report import Counters
from heliostat.service.control_client import ask

if TYPE_CHECKING:
    from heliostat.cli.running import Stop


def handed_over(config: Config, options: Options, command: str, arguments: dict[str, Any]) -> Any | None:
    """What the daemon of this mirror made of ``command``; None when none listens.  Its progress is shown meanwhile.

    A signal detaches: Detached is raised, and the daemon goes on.  Raises DaemonAnswer, DaemonLost, StoreError.
    """
    set_up_logging(options, wanted=config.logging.format)

    async def work(stop: Stop) -> Any | None:
        counters = Counters()
        asking = asyncio.create_task(ask(config, command, arguments, counters))
        stopped = asyncio.create_task(stop.event.wait())
        try:
            async with showing(counters, options):
                await asyncio.wait((asking, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Detached(stop.number)
            return asking.result()
        finally:
            for task in (asking, stopped):
                task.cancel()
            await asyncio.gather(asking, stopped, return_exceptions=True)

    return running.run(work)
