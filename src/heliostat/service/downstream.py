"""Pings to the mirrors that follow this one, after what was published.

A mirror that cannot be reached is told later what is the latest then; there is no queue, and it holds up nobody.
What it misses altogether it finds at its next poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

import msgspec

from heliostat import __version__
from heliostat.config import Config, PushConfig, without_credentials
from heliostat.mirror.report import Summary
from heliostat.service.daemon import Daemon
from heliostat.service.pushing import Told
from heliostat.service.signature import sign
from heliostat.service.timing import paused

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = logging.getLogger(__name__)

#: Pings under way at the same time, however many mirrors there are.
_AT_ONCE = 8
#: Seconds between two pings to one mirror.
_APART = 1.0
#: The longest pause that an answer can ask for (seconds).
_MOST_PATIENCE = 3600.0


@contextlib.asynccontextmanager
async def downstream(daemon: Daemon) -> AsyncIterator[None]:
    """While this is open, the configured mirrors are pinged after what was published."""
    async with _Pinger(daemon) as pinger:

        async def published(summary: Summary) -> None:
            pinger.tell(summary.checkpoint)

        async def configured(config: Config) -> None:
            await pinger.follow(config.push)

        daemon.after_pass.append(published)
        daemon.after_reload.append(configured)
        await pinger.follow(daemon.config.push)
        try:
            yield
        finally:
            daemon.after_pass.remove(published)
            daemon.after_reload.remove(configured)


class _Pinger:
    """A task for each mirror, which sleeps until there is news."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._pushing = daemon, daemon.health.pushing
        self._stack = contextlib.AsyncExitStack()
        self._session: ClientSession | None = None
        self._permits = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._serial = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop(list(self._tasks))
        await self._stack.aclose()

    def tell(self, serial: int) -> None:
        self._serial = serial
        for event in self._news.values():
            event.set()

    async def follow(self, config: PushConfig) -> None:
        """These mirrors from now on."""
        await self._drop([url for url in self._tasks if url not in config.downstream])
        if config.downstream and self._session is None:
            self._session = await self._stack.enter_async_context(_session())
        for url in config.downstream:
            if url not in self._tasks:
                self._news[url] = asyncio.Event()
                told = self._pushing.downstream.setdefault(without_credentials(url), Told())
                self._tasks[url] = asyncio.create_task(self._serve(url, self._news[url], told), name="downstream")

    async def _drop(self, urls: list[str]) -> None:
        tasks = [self._tasks.pop(url) for url in urls]
        for url, task in zip(urls, tasks, strict=True):
            del self._news[url]
            self._pushing.downstream.pop(without_credentials(url), None)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, url: str, news: asyncio.Event, told: Told) -> None:
        pause, shown = 0.0, without_credentials(url)
        while True:
            await news.wait()
            async with self._permits:
                news.clear()
                trouble, patience = await self._ping(url)
            now, config = time.time(), self._daemon.config.push
            if trouble is None:
                pause = 0.0
                if told.well(now):
                    log.info("%s takes pings again", shown)
                await asyncio.sleep(_APART)
                continue
            pause = min(max(pause * 2, config.retry_first), config.retry_most)
            wait = max(patience, pause * random.uniform(0.5, 1))
            level = logging.WARNING if told.badly(trouble, now) else logging.DEBUG
            told.again = now + wait
            log.log(level, "ping to %s failed: %s; trying again in %s", shown, trouble, paused(wait))
            await asyncio.sleep(wait)
            news.set()

    async def _ping(self, url: str) -> tuple[str | None, float]:
        """Why a ping did not get through, and the seconds that the answer asks to wait."""
        from aiohttp import ClientConnectorError, ClientError

        assert self._session is not None
        config, body = self._daemon.config.push, msgspec.json.encode({"serial": self._serial})
        headers = {"Content-Type": "application/json"}
        if config.downstream_secret is not None:
            headers |= sign(config.downstream_secret, body, time.time())
        try:
            async with (
                asyncio.timeout(config.downstream_timeout),
                self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return None, 0.0
                # What it says is not shown: it could quote what it was sent.
                return f"answer {answer.status}{_MEANING.get(answer.status, '')}", _patience(answer.headers)
        except TimeoutError:
            return f"no answer within {config.downstream_timeout:g} s", 0.0
        except ClientConnectorError as error:  # its own text speaks of TLS also where there is none
            return f"no connection to {error.host}:{error.port}: {error.strerror or error.os_error}", 0.0
        except (ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {without_credentials(str(error)) or 'cut off'}", 0.0
        except Exception as error:  # one mirror must not silence this task for good
            log.exception("a ping failed unexpectedly; please report this")
            return f"unexpected {type(error).__name__}", 0.0


_MEANING = {
    401: " (its [push] secret is not our downstream-secret, or the clocks differ)",
    404: " (nothing takes pings at that path)",
    429: " (it was pinged too often)",
}


def _patience(headers: object) -> float:
    assert hasattr(headers, "get")
    text = headers.get("Retry-After", "")
    return min(float(text), _MOST_PATIENCE) if text.isascii() and text.isdecimal() and len(text) < 9 else 0.0


def _session() -> ClientSession:
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector

    return ClientSession(
        connector=TCPConnector(limit=_AT_ONCE, force_close=True),
        cookie_jar=DummyCookieJar(),
        headers={"User-Agent": f"heliostat/{__version__}"},
        auto_decompress=False,
        max_line_size=8190,
    )
