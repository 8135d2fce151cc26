"""A daemon that pings the mirrors which follow it: another real daemon, one that is down, one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from heliostat.fakeindex import FakeIndex
from heliostat.service.signature import SIGNATURE, TIMESTAMP, Verifier
from support.daemon_process import configure, daemon_process, until
from support.equality import differences
from support.served import static_server
from support.small_index import publish, serving

SECRET = "0123456789abcdef"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha") as server:
        yield server


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Listener:
    """Takes pings as another mirror would; what it answers is up to the test."""

    def __init__(self) -> None:
        self.pings: list[tuple[dict[str, str], bytes]] = []
        self.status = 202
        self.headers: dict[str, str] = {}
        self.hang: asyncio.Event | None = None
        self.url = ""

    async def ping(self, request: web.Request) -> web.Response:
        self.pings.append((dict(request.headers), await request.read()))
        if self.hang is not None:
            await self.hang.wait()
        return web.Response(status=self.status, headers=self.headers)

    @property
    def serials(self) -> list[int]:
        return [json.loads(body)["serial"] for _, body in self.pings]


@contextlib.asynccontextmanager
async def listener(port: int = 0) -> AsyncIterator[Listener]:
    one, app = Listener(), web.Application()
    app.router.add_post("/there/ping", one.ping)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/there/ping"
    try:
        yield one
    finally:
        await runner.cleanup()


async def test_a_second_daemon_follows_within_one_ping(tmp_path: Path, upstream: FakeIndex) -> None:
    """Neither polls by itself: central is told by a signal, and the region by central."""
    central, region = tmp_path / "central", tmp_path / "region"
    for place in (central, region):
        place.mkdir()
    configure(central, upstream.url)
    (central / "pypi/web").mkdir()
    address = f"127.0.0.1:{free_port()}"
    with static_server(central / "pypi/web") as served:
        configure(region, served.url, push=f'secret = "{SECRET}"', address=address)
        text = f'downstream = ["http://{address}/ping"]\ndownstream-secret = "{SECRET}"'
        configure(central, upstream.url, push=text)
        async with daemon_process(central) as above:
            await until((central / "pypi/web/simple/alpha/index.html").exists, tell=lambda: above.log)
            await above.says(lambda it: it["phase"] == "waiting")
            async with daemon_process(region) as below:
                await until((region / "pypi/web/simple/alpha/index.html").exists, tell=lambda: below.log)
                for name in ("beta", "gamma"):
                    publish(upstream.index, name)
                    above.poke()
                    page = region / "pypi/web/simple" / name / "index.html"
                    await until(page.exists, tell=lambda: above.log + below.log)
                upstream.index.remove_project("beta")
                above.poke()
                await until(lambda: not differences(upstream.index, region / "pypi"), tell=lambda: below.log)
                await below.stop()
            await above.stop()


async def test_pings_are_signed_and_say_the_serial(tmp_path: Path, upstream: FakeIndex) -> None:
    async with listener() as one:
        configure(tmp_path, upstream.url, push=f'downstream = ["{one.url}"]\ndownstream-secret = "{SECRET}"')
        async with daemon_process(tmp_path) as daemon:
            await until(lambda: one.pings, tell=lambda: daemon.log)
            publish(upstream.index, "beta")
            daemon.poke()
            await until(lambda: upstream.index.serial in one.serials, tell=lambda: daemon.log)
            await daemon.stop()
            assert SECRET not in daemon.log
    headers, body = one.pings[-1]
    now = float(headers[TIMESTAMP])
    assert Verifier(0).problem(SECRET, [headers[TIMESTAMP]], [headers[SIGNATURE]], body, now=now, window=1) is None


async def test_without_a_secret_they_are_not_signed(tmp_path: Path, upstream: FakeIndex) -> None:
    async with listener() as one:
        configure(tmp_path, upstream.url, push=f'downstream = ["{one.url}"]')
        async with daemon_process(tmp_path) as daemon:
            await until(lambda: one.pings, tell=lambda: daemon.log)
            await daemon.stop()
    assert SIGNATURE not in one.pings[0][0]


async def test_one_that_is_down_is_told_the_latest_when_it_is_back(tmp_path: Path, upstream: FakeIndex) -> None:
    async with listener() as gone:
        pass
    port = int(gone.url.split(":")[2].split("/")[0])
    async with listener() as other:
        configure(tmp_path, upstream.url, push=f'downstream = ["{gone.url}", "{other.url}"]')
        async with daemon_process(tmp_path) as daemon:
            await daemon.logged(
                rf"^<4>.*ping to {gone.url} failed: no connection to [^:]*:\d+: [^;]*; trying again in \d"
            )
            for name in ("beta", "gamma", "delta"):
                publish(upstream.index, name)
                daemon.poke()
                await until((tmp_path / "pypi/web/simple" / name / "index.html").exists, tell=lambda: daemon.log)
            # Neither the mirror nor the other one had to wait.
            await until(lambda: upstream.index.serial in other.serials, tell=lambda: daemon.log)
            status = await daemon.status()
            assert status["pushing"]["downstream"][gone.url]["trouble"]
            async with listener(port) as back:
                await until(lambda: back.pings, tell=lambda: daemon.log)
                await daemon.logged(f"{gone.url} takes pings again")
                # One ping with the latest state, not one for each that failed.
                assert set(back.serials) == {upstream.index.serial}
            await daemon.stop()
    assert daemon.log.count("trying again in") == 1, daemon.log


@pytest.mark.parametrize(("status", "says"), [(401, "downstream-secret"), (404, "nothing takes pings"), (500, "500")])
async def test_one_that_refuses_is_said(tmp_path: Path, upstream: FakeIndex, status: int, says: str) -> None:
    async with listener() as one:
        one.status = status
        configure(tmp_path, upstream.url, push=f'downstream = ["{one.url}"]')
        async with daemon_process(tmp_path) as daemon:
            assert says in await daemon.logged(rf"failed: answer {status}")
            one.status = 204
            await daemon.logged("takes pings again")
            await daemon.stop()


async def test_a_redirect_is_not_followed(tmp_path: Path, upstream: FakeIndex) -> None:
    async with listener() as other, listener() as one:
        one.status, one.headers = 307, {"Location": other.url}
        configure(tmp_path, upstream.url, push=f'downstream = ["{one.url}"]')
        async with daemon_process(tmp_path) as daemon:
            await daemon.logged("failed: answer 307")
            await daemon.stop()
    assert other.pings == []


async def test_many_that_hang_hold_up_nobody_for_long(tmp_path: Path, upstream: FakeIndex) -> None:
    """More of them than pings at once."""
    async with contextlib.AsyncExitStack() as stack:
        hanging = [await stack.enter_async_context(listener()) for _ in range(12)]
        for each in hanging:
            each.hang = asyncio.Event()
        well = await stack.enter_async_context(listener())
        urls = ", ".join(f'"{one.url}"' for one in [*hanging, well])
        configure(tmp_path, upstream.url, push=f"downstream = [{urls}]\ndownstream-timeout = 0.3")
        async with daemon_process(tmp_path) as daemon:
            await daemon.logged("failed: no answer within 0.3 s", count=12)
            publish(upstream.index, "beta")
            daemon.poke()
            await until(lambda: upstream.index.serial in well.serials, tell=lambda: daemon.log)
            await daemon.stop()  # also while they hang


async def test_a_reload_changes_whom_it_tells(tmp_path: Path, upstream: FakeIndex) -> None:
    async with listener() as old, listener() as new:
        configure(tmp_path, upstream.url, push=f'downstream = ["{old.url}"]')
        async with daemon_process(tmp_path) as daemon:
            await until(lambda: old.pings, tell=lambda: daemon.log)
            configure(tmp_path, upstream.url, push=f'downstream = ["{new.url}"]')
            daemon.service.process.send_signal(signal.SIGHUP)
            await daemon.says(lambda it: list(it["pushing"]["downstream"]) == [new.url])
            told = len(old.pings)
            publish(upstream.index, "beta")
            daemon.poke()
            await until(lambda: upstream.index.serial in new.serials, tell=lambda: daemon.log)
            assert len(old.pings) == told
            await daemon.stop()
