"""``POST /ping`` and SIGUSR1 of a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex
from heliostat.fakeindex.faults import Hang
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.service.signature import sign
from support.daemon_process import PATIENCE, configure, daemon_process, until
from support.hooks import Hook
from support.small_index import publish, serving

SECRET = "0123456789abcdef"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha") as server:
        yield server


async def test_a_ping_starts_a_poll_at_once(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        for name in ("beta", "gamma"):
            publish(upstream.index, name)
            if name == "beta":
                assert await daemon.ping() == (202, "a poll begins at once\n")
            else:
                daemon.service.process.send_signal(signal.SIGUSR1)
            await until((tmp_path / "pypi/web/simple" / name / "index.html").exists, tell=lambda: daemon.log)
        await daemon.stop()


async def test_a_storm_of_pings_is_one_poll_and_one_more(tmp_path: Path, upstream: FakeIndex) -> None:
    """While one poll is under way, which does not come to an end, any number of pings leads to one more."""
    configure(tmp_path, upstream.url, push=f'pings-a-minute = 1000\nsecret = "{SECRET}"')

    async def ping(number: int) -> int:
        body = b'{"projects": ["alpha"]}'
        return (await daemon.ping(body, sign(SECRET, body, time.time() + number / 1000)))[0]

    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.reset_log()
        upstream.fault("/pypi", Hang())
        reached = upstream.seen("/pypi")
        daemon.poke()
        async with asyncio.timeout(PATIENCE):
            await reached
        assert set(await asyncio.gather(*(ping(number) for number in range(40)))) == {202}
        for _ in range(20):
            daemon.poke()
        status = await daemon.says(lambda it: it["pushing"]["pings"]["accepted"] == 40)
        assert upstream.count("/pypi") == 1
        polls = status["polls"]
        upstream.clear_faults()
        await daemon.says(lambda it: it["polls"] == polls + 2 and it["phase"] == "waiting")
        # The named project was looked at once, whatever the feed says.
        assert upstream.count("/simple/alpha/") == 1
        await daemon.stop()
        assert upstream.count("/pypi") <= 4  # two polls, and the feed where a poll reads it


async def test_none_is_lost(tmp_path: Path, upstream: FakeIndex) -> None:
    """Also one that comes when a pass is about to end, which polls no more."""
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        for number in range(40):
            name = f"project-{number}"
            publish(upstream.index, name)
            daemon.poke()
            await until((tmp_path / "pypi/web/simple" / name / "index.html").exists, tell=lambda: daemon.log)
        await daemon.stop()


async def test_names_need_a_secret(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.reset_log()
        polls = (await daemon.status())["polls"]
        status, text = await daemon.ping(b'{"projects": ["alpha", "not-known"]}')
        assert status == 202
        assert "signed pings only" in text
        await daemon.says(lambda it: it["polls"] > polls and it["phase"] == "waiting")
        await daemon.stop()
    assert upstream.count("/simple/*") == 0


async def test_who_may_ping(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url, push=f'secret = "{SECRET}"\npings-a-minute = 3')
    body = b'{"projects": ["Alpha"]}'
    async with daemon_process(tmp_path) as daemon:
        signed = sign(SECRET, body, time.time())
        assert (await daemon.ping(body))[0] == 401
        assert (await daemon.ping(body, sign(SECRET + "!", body, time.time())))[0] == 401
        assert (await daemon.ping(body + b" ", signed))[0] == 401
        stale = await daemon.ping(body, sign(SECRET, body, time.time() - 1000))
        assert stale[0] == 401
        assert "set the clocks" in stale[1]
        assert (await daemon.ping(body, signed))[0] == 202
        again = await daemon.ping(body, signed)
        assert again[0] == 401
        assert "taken before" in again[1]
        # None of those that were refused counted.
        for number, expected in enumerate((202, 202, 429)):
            found = await daemon.ping(b"", sign(SECRET, b"", time.time() + number / 1000))
            assert found[0] == expected, found
        status = await daemon.status()
        assert status["pushing"]["pings"] == {"accepted": 3, "unauthorised": 5, "limited": 1}
        await daemon.stop()
        assert SECRET not in daemon.log


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"projects": "alpha"}', 400),
        (b'{"projects": [1]}', 400),
        (b'{"projects": ["../../etc"]}', 400),
        (b'{"projects": ["' + b"x" * 300 + b'"]}', 400),
        (json.dumps({"projects": ["alpha"] * 1001}).encode(), 400),
        (b"[" * 50_000, 400),
        (b"\xff\xfe\0", 400),
        (b"x" * (64 * 1024 + 1), 413),
        (b"x" * 1_000_000, 413),
        (b'{"projects": ["not-here"], "serial": 5, "more": {}}', 202),
        (b" \r\n", 202),
    ],
    ids=lambda value: str(value[:20]) if isinstance(value, bytes) else str(value),
)
async def test_what_a_ping_may_say(tmp_path: Path, upstream: FakeIndex, body: bytes, expected: int) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        status, text = await daemon.ping(body)
        assert status == expected, text
        assert len(text) < 400
        assert os.sep + "etc" not in text or expected == 400
        await daemon.stop()


async def test_what_did_not_change_is_not_published_again(tmp_path: Path, upstream: FakeIndex) -> None:
    """A ping names projects that are as they were: nobody is told of them, neither here nor elsewhere."""
    signed = uploaded(wheel("alpha", "2.0"))
    signed.provenance = provenance_for(signed)
    upstream.index.publish("alpha", "2.0", signed)
    hook, told = Hook(tmp_path / "hook"), list[str]()

    async def downstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(downstream, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        push = f'secret = "{SECRET}"\ndownstream = ["http://127.0.0.1:{port}/ping"]\nhook = ["{hook.program}"]'
        configure(tmp_path, upstream.url, push=push)
        async with daemon_process(tmp_path) as daemon:

            def quiet(status: Any) -> bool:
                return status["phase"] == "waiting" and not status["pushing"]["running"]

            await daemon.says(lambda it: it["pushing"]["hook"]["done"] >= 1 and told and quiet(it))
            head = (tmp_path / "pypi/web/changes/head").read_bytes()
            before, polls = (len(hook.calls), len(told)), (await daemon.status())["polls"]
            upstream.reset_log()
            body = b'{"projects": ["alpha"]}'
            assert (await daemon.ping(body, sign(SECRET, body, time.time())))[0] == 202
            await daemon.says(lambda it: it["polls"] > polls and quiet(it))
            assert upstream.count("/simple/alpha/") == 1
            # What is published afterwards is told, and alpha is not among it.
            publish(upstream.index, "beta")
            daemon.poke()
            await until(lambda: len(hook.calls) > before[0] and len(told) > before[1], tell=lambda: daemon.log)
            assert hook.calls[before[0]].projects == ["beta"]
            await daemon.stop()
    assert daemon.log.count("alpha: published") == 1
    assert (len(hook.calls), len(told)) == (before[0] + 1, before[1] + 1)
    assert json.loads(head)["number"] + 1 == json.loads((tmp_path / "pypi/web/changes/head").read_bytes())["number"]
