"""Commands that a running daemon carries out, since it holds the lock."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from heliostat.cli import format as fmt
from heliostat.cli import running
from heliostat.cli.exit_codes import Detached
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
from heliostat.cli.progress import showing
from heliostat.config import Config
from heliostat.errors import Held
from heliostat.mirror.report import Counters
from heliostat.service.control_client import ask

if TYPE_CHECKING:
    from heliostat.cli.running import Stop

_log = logging.getLogger(__name__)

#: Seconds that a command waits at most for what upstream asks the daemon to wait for.
_MOST_HOLD = 60.0


class _Holds:
    """What upstream asked the daemon to wait: told once each, and not waited for where it is too long."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, server: str, until: float) -> None:
        left = until - time.time()
        if left > _MOST_HOLD:
            raise Held(
                f"{server} asks to wait until {fmt.moment(until)} (Retry-After), {fmt.duration(left)} from now; this "
                f"command waits {_MOST_HOLD:g} s at most, the daemon goes on with it then; heliostat status shows how "
                "far it is"
            )
        if until != self._told:
            self._told = until
            _log.warning("waiting until %s: %s asks for it (Retry-After)", fmt.moment(until), server)


def handed_over(config: Config, options: Options, command: str, arguments: dict[str, Any]) -> Any | None:
    """What the daemon of this mirror made of ``command``; None when none listens.  Its progress is shown meanwhile.

    A signal detaches: Detached is raised, and the daemon goes on.  A wait that upstream asks for is told, and detaches
    too, with Held, when it is longer than a minute.  Raises DaemonAnswer, DaemonLost, StoreError.
    """
    set_up_logging(options, wanted=config.logging.format)

    async def work(stop: Stop) -> Any | None:
        counters = Counters()
        asking = asyncio.create_task(ask(config, command, arguments, counters, _Holds()))
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
