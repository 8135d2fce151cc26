"""The daemon and what stands around it: signals, and the components that show it to the outside."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from heliostat.config import Config
from heliostat.mirror.run import Mirror
from heliostat.service.control import control_socket
from heliostat.service.daemon import Daemon, Showing, Wish
from heliostat.service.downstream import downstream
from heliostat.service.hook import hook
from heliostat.service.listening import listening
from heliostat.service.mirrors import checking_mirrors
from heliostat.service.notify import Notifier
from heliostat.service.notifying import notifying
from heliostat.service.requests import Requests
from heliostat.service.scrubbing import scrubbing

if TYPE_CHECKING:
    from aiohttp import web


async def run_daemon(
    config: Config,
    mirror: Mirror,
    stop: asyncio.Event,
    *,
    requests: Requests,
    read_config: Callable[[], Config],
    first: Wish,
    showing: Showing,
    notifier: Notifier,
) -> None:
    """Follow upstream until ``stop``; what the ``requests`` (SIGHUP, SIGUSR1) ask for is done meanwhile.

    ``read_config`` reads the configuration anew, and raises ConfigError; ``first`` is what the first pass is asked;
    ``notifier`` tells the supervisor how it goes.
    Raises what ends a daemon: a defect that does not go away.
    """
    daemon = Daemon(config, mirror, stop, read_config=read_config, first=first, showing=showing)
    async with contextlib.AsyncExitStack() as components:
        await components.enter_async_context(listening(daemon, lambda: _ping_routes(daemon)))
        await components.enter_async_context(notifying(daemon, notifier))
        await components.enter_async_context(checking_mirrors(daemon))
        await components.enter_async_context(_answering(daemon, requests))
        await components.enter_async_context(downstream(daemon))
        await components.enter_async_context(hook(daemon))
        await components.enter_async_context(control_socket(daemon))
        await components.enter_async_context(scrubbing(daemon))
        await daemon.run()


def _ping_routes(daemon: Daemon) -> Iterable[web.AbstractRouteDef]:
    from heliostat.service.ping import ping_routes

    return ping_routes(daemon)


@contextlib.asynccontextmanager
async def _answering(daemon: Daemon, requests: Requests) -> AsyncIterator[None]:
    async def answer() -> None:
        while True:
            for number in await requests.take():
                if number == signal.SIGHUP:
                    await daemon.reload()
                else:
                    daemon.poke()

    task = asyncio.create_task(answer(), name="signals")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
