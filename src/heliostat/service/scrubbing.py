"""The scrub of a daemon: it checks what is served, again and again, within a budget, and repairs what it finds.

Here it is begun and ended as the configuration says; :mod:`heliostat.service.scrubber` does it, and while it is off
nothing of that is loaded, read or written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from heliostat.config import Config
from heliostat.service.daemon import Daemon

if TYPE_CHECKING:
    from heliostat.mirror.verify.again import Pace
    from heliostat.service.scrubber import Scrubber

#: Seconds until what could not be repaired is looked at again.
_AGAIN = 3600.0


@contextlib.asynccontextmanager
async def scrubbing(daemon: Daemon, *, pace: Pace | None = None, again: float = _AGAIN) -> AsyncIterator[None]:
    """While this is open the daemon scrubs, if its configuration says so by then.

    ``pace`` of second looks, and the seconds until what was not repaired is tried ``again``, are the tests'.
    """
    changed = asyncio.Event()
    scrubber: Scrubber | None = None

    async def follow() -> None:
        nonlocal scrubber
        while not daemon.stop.is_set():
            changed.clear()
            if daemon.config.scrub.enabled:
                from heliostat.service.scrubber import Scrubber

                scrubber = Scrubber(daemon, pace, again)
                try:
                    await scrubber.run()
                finally:
                    scrubber = None
            else:
                await changed.wait()

    async def stop() -> None:
        await daemon.stop.wait()
        if scrubber is not None:
            scrubber.end()

    async def reloaded(config: Config) -> None:
        changed.set()
        if scrubber is not None:
            scrubber.take(config)

    daemon.after_reload.append(reloaded)
    task = asyncio.create_task(follow(), name="scrub")
    stopping = asyncio.create_task(stop(), name="end of the scrub")
    try:
        yield
    finally:
        changed.set()
        if scrubber is not None:
            scrubber.end()
        if not daemon.stop.is_set():  # the loop ended by itself, or is torn down
            task.cancel()
        stopping.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
        daemon.after_reload.remove(reloaded)
