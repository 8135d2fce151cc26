"""The daemon asks the sites of ``[mirrors]`` now and then how current they are, and writes ``mirrors.json``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from heliostat.config import Config
from heliostat.errors import ConfigError, StoreError
from heliostat.service.daemon import Daemon

if TYPE_CHECKING:
    from heliostat.mirror.sites.site import Standing

log = logging.getLogger(__name__)
#: Sites that are asked at the same time.
_AT_ONCE = 8


@contextlib.asynccontextmanager
async def checking_mirrors(daemon: Daemon) -> AsyncIterator[None]:
    """While this is open, sites are asked every ``[service] check-mirrors`` seconds; without any nothing is done."""
    changed = asyncio.Event()

    async def follow(_: Config) -> None:
        changed.set()

    task = asyncio.create_task(_Checks(daemon, changed).run(), name="mirrors")
    daemon.after_reload.append(follow)
    try:
        yield
    finally:
        daemon.after_reload.remove(follow)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Checks:
    def __init__(self, daemon: Daemon, changed: asyncio.Event) -> None:
        self._daemon, self._changed = daemon, changed
        #: Sites that gave no usable answer the last time.
        self._failing: set[str] = set()

    async def run(self) -> None:
        while True:
            config = self._daemon.config
            pause = None
            if config.mirrors:
                await self._check(config)
                pause = config.service.check_mirrors
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()

    async def _check(self, config: Config) -> None:
        """Ask all of them, and write what they said; whatever goes wrong is logged, and harms nothing else."""
        from heliostat.mirror.sites.site import Patience, Standing, client, standing

        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(url: str) -> Standing:
            async with gate:
                try:
                    site = client(url, Patience(at_once=2), like=config.upstream, allow_http=config.upstream.allow_http)
                    async with site:
                        return await standing(site)
                except ConfigError as error:
                    return Standing(error=str(error))

        found = await asyncio.gather(*(ask(site.url) for site in config.mirrors))
        told = {site.url: one for site, one in zip(config.mirrors, found, strict=True)}
        self._tell(told)
        try:
            await self._daemon.mirror.list_sites(told, time.time())
        except StoreError as error:
            log.error("the list of mirrors is not written: %s", error)

    def _tell(self, told: dict[str, Standing]) -> None:
        failing = {url for url, one in told.items() if one.error is not None}
        for url in sorted(failing - self._failing):
            log.warning("the mirror at %s gives no usable answer: %s", url, told[url].error)
        for url in sorted(self._failing & told.keys() - failing):
            log.info("the mirror at %s answers again", url)
        self._failing = failing
