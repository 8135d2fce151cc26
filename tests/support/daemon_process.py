"""``heliostat mirror`` as a process that keeps running: its log, its HTTP endpoint, its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from support.cli import arun
from support.supervisor import Service, supervised

#: Seconds that only a test that fails waits.
PATIENCE = 60.0
_TICK = 0.01


async def until(condition: Callable[[], Any], *, tell: Callable[[], object] = lambda: "") -> Any:
    """The first true value of ``condition``; ``tell`` says what there was instead."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := condition()):
                await asyncio.sleep(_TICK)
            return found
    except TimeoutError:
        raise AssertionError(f"did not come about: {tell()}") from None


class DaemonProcess:
    """A daemon that was started in ``home``, with what :func:`configure` wrote there."""

    def __init__(self, home: Path, service: Service) -> None:
        self.home, self.service = home, service

    @property
    def log(self) -> str:
        return "".join(self.service.lines)

    async def logged(self, pattern: str, count: int = 1) -> str:
        """Wait until so many lines of the log match; the last of them."""

        def found() -> list[str]:
            return [line for line in self.service.lines if re.search(pattern, line)]

        lines = await until(lambda: found() if len(found()) >= count else None, tell=lambda: self.log)
        return str(lines[-1])

    def poke(self) -> None:
        self.service.process.send_signal(signal.SIGUSR1)

    async def ping(self, body: bytes = b"", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """What its endpoint answers."""
        return await post(self.home, body, headers or {})

    async def status(self) -> Any:
        """What ``/status.json`` tells of the process."""
        async with _session(self.home) as session, session.get("http://daemon/status.json") as answer:
            return json.loads(await answer.read())["live"]

    async def says(self, condition: Callable[[Any], Any]) -> Any:
        """Wait until the status is as wanted."""
        async with asyncio.timeout(PATIENCE):
            while not condition(status := await self.status()):
                await asyncio.sleep(_TICK)
            return status

    async def stop(self) -> None:
        async with asyncio.timeout(PATIENCE):
            code = await self.service.stop()
        assert code == 0, self.log
        assert "Traceback" not in self.log, self.log

    async def kill(self) -> None:
        self.service.process.kill()
        await self.service.process.wait()


async def post(home: Path, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    async with _session(home) as session, session.post("http://daemon/ping", data=body, headers=headers) as answer:
        return answer.status, await answer.text()


async def metrics_of(home: Path) -> str:
    """What ``/metrics`` tells."""
    async with _session(home) as session, session.get("http://daemon/metrics") as answer:
        return await answer.text()


def _session(home: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(home / "http.sock")))


def configure(home: Path, upstream: str, *, push: str = "", mirror: str = "", address: str = "") -> None:
    """A mirror of everything at ``upstream`` that polls only when it is told to; further lines for its sections.

    ``address`` is where its endpoint listens besides the socket that is used here.
    """
    listen = [f"unix:{home}/http.sock", *([address] if address else [])]
    (home / "pypi").mkdir(exist_ok=True)
    (home / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\neverything = true\ninterval = 86400\nmin-free = "0%"\nshrink-seconds = 0\n'
        f"batch-seconds = 0.02\nroot-interval = 0\n{mirror}\n"
        f'[upstream]\nurl = "{upstream}"\nallow-http = true\nretry-delay = 0.01\n'
        f"[service]\nlisten = {json.dumps(listen)}\ngrace = 0.5\n"
        f"[push]\nretry-first = 0.05\nretry-most = 0.2\n{push}\n"
    )


@contextlib.asynccontextmanager
async def daemon_process(
    home: Path, *arguments: str, env: Mapping[str, str] | None = None, ready: bool = True
) -> AsyncIterator[DaemonProcess]:
    """A daemon that has polled once; it is killed in the end if it still runs."""
    async with supervised("mirror", *arguments, cwd=home, env=env) as service:
        daemon = DaemonProcess(home, service)
        if ready:
            try:
                async with asyncio.timeout(PATIENCE):
                    await service.until_said("READY")
            except TimeoutError:
                raise AssertionError(daemon.log) from None
        yield daemon


async def status_of(home: Path) -> Any:
    """``heliostat status --json``."""
    return json.loads((await arun("status", "--json", cwd=home)).stdout)
