"""Every fault behaves on the wire as it promises."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
import xmlrpc.client
import zlib
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import (
    Action,
    Body,
    Cut,
    Drip,
    Endless,
    Frozen,
    GzipBomb,
    GzipJunk,
    Hang,
    Headers,
    IgnoreRange,
    Redirect,
    Reset,
    Rewrite,
    Stale,
    Status,
    Wrong,
    WrongLength,
    XmlBomb,
    XmlFault,
    http_date,
    method_removed,
    rate_limited,
)

JSON = "application/vnd.pypi.simple.v1+json"
DATA = Virtual(1000, 9).read(0, 1000)


class Wire:
    """A raw connection that asks once and reads at its own pace."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *fields = head.strip().split("\r\n")
        pairs = (field.split(": ", 1) for field in fields)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def end(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass


async def until_reset(wire: Wire, *, or_end: bool = False) -> bytes:
    """What came before the reset, which must come."""
    received = b""
    try:
        while data := await wire.reader.read(1 << 16):
            received += data
        assert or_end, "the connection ended in good order"
    except ConnectionResetError:
        pass
    await wire.end()
    return received


async def connect(server: FakeIndex, path: str, *, method: str = "GET", body: bytes = b"", **headers: Any) -> Wire:
    reader, writer = await asyncio.open_connection(urlsplit(server.url).hostname, urlsplit(server.url).port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return Wire(reader, writer)


async def ask(server: FakeIndex, path: str, **headers: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and as many bytes of the body as the headers promise."""
    wire = await connect(server, path, **headers)
    status, said = await wire.head()
    body = await wire.reader.readexactly(int(said["content-length"])) if "content-length" in said else b""
    await wire.end()
    return status, said, body


async def call(server: FakeIndex, method: str) -> bytes:
    request = xmlrpc.client.dumps((), method).encode()
    wire = await connect(server, "/pypi", method="POST", body=request, content_type="text/xml")
    status, said = await wire.head()
    body = await wire.reader.readexactly(int(said["content-length"]))
    await wire.end()
    assert status == 200
    return body


@pytest.fixture
async def server() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("demo-1.0.zip", DATA))
    async with FakeIndex(index) as running:
        yield running


def path_of(server: FakeIndex) -> str:
    return server.index.expected_files("demo")[0].file.path


# -- which requests meet a fault -----------------------------------------------------------------------------------


async def test_a_fault_is_met_so_many_times_after_so_many_requests(server: FakeIndex) -> None:
    fault = server.fault("/simple/demo/", Status(404), times=2, skip=1)
    statuses = [(await ask(server, "/simple/demo/"))[0] for _ in range(5)]
    assert statuses == [200, 404, 404, 200, 200]
    assert fault.fired == 2
    assert (await ask(server, "/pypi/demo/json"))[0] == 200


async def test_patterns_expressions_functions_and_methods_choose_requests(server: FakeIndex) -> None:
    for pattern in (
        "/packages/*",
        re.compile("/packages/.*[.]zip"),
        lambda request: request.path.startswith("/packages"),
    ):
        fault = server.fault(pattern, Status(500))
        assert (await ask(server, path_of(server)))[0] == 500
        assert (await ask(server, "/simple/"))[0] == 200
        fault.remove()
        assert (await ask(server, path_of(server)))[0] == 200
    server.fault(re.compile("/simple/de"), Status(500))
    assert (await ask(server, "/simple/demo/"))[0] == 200
    server.fault("*", Status(500), method="POST")
    assert (await ask(server, "/simple/"))[0] == 200


async def test_the_newest_fault_counts_and_all_can_be_cleared(server: FakeIndex) -> None:
    server.fault("/simple/*", Status(500))
    newest = server.fault("/simple/demo/", Status(502), times=1)
    assert [(await ask(server, "/simple/demo/"))[0] for _ in range(2)] == [502, 500]
    assert newest.fired == 1
    server.clear_faults()
    assert (await ask(server, "/simple/demo/"))[0] == 200


async def test_a_fault_may_wait_before_it_strikes(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Status(500), delay=0.05)
    started = time.monotonic()
    assert (await ask(server, "/simple/demo/"))[0] == 500
    assert time.monotonic() - started >= 0.05


# -- statuses ------------------------------------------------------------------------------------------------------


async def test_statuses_with_retry_after(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Status(429, retry_after=7))
    status, said, _ = await ask(server, "/simple/demo/")
    assert (status, said["retry-after"]) == (429, "7")
    server.fault("/simple/demo/", Status(503, retry_after=http_date(1_800_000_000)))
    status, said, _ = await ask(server, "/simple/demo/")
    assert (status, parsedate_to_datetime(said["retry-after"]).timestamp()) == (503, 1_800_000_000)
    server.fault("/simple/demo/", Status(500, body="<html>"))
    status, said, body = await ask(server, "/simple/demo/")
    assert (status, body) == (500, b"<html>")
    assert "retry-after" not in said


async def test_stale_gives_what_was_before_the_last_change(server: FakeIndex) -> None:
    before = [(await ask(server, path, accept=JSON))[1:] for path in ("/simple/demo/", "/pypi/demo/json")]
    server.index.publish("demo", "2.0", UploadedFile("demo-2.0.zip", b"2"))
    server.fault("/simple/demo/", Stale(), times=1)
    server.fault("/pypi/demo/json", Stale(), times=1)
    for (said, body), path in zip(before, ("/simple/demo/", "/pypi/demo/json"), strict=True):
        status, now, stale = await ask(server, path, accept=JSON)
        assert (status, stale, now["x-pypi-last-serial"]) == (200, body, said["x-pypi-last-serial"])
        fresh = (await ask(server, path, accept=JSON))[1]
        assert int(fresh["x-pypi-last-serial"]) > int(said["x-pypi-last-serial"])


async def test_stale_of_a_new_project_is_404_and_of_a_removed_one_the_page(server: FakeIndex) -> None:
    server.index.create("new")
    server.fault("/simple/new/", Stale())
    assert (await ask(server, "/simple/new/"))[0] == 404
    page = (await ask(server, "/simple/demo/", accept=JSON))[2]
    server.index.remove_project("demo")
    server.fault("/simple/demo/", Stale())
    assert (await ask(server, "/simple/demo/", accept=JSON))[2] == page


async def test_frozen_gives_what_was_when_it_began(server: FakeIndex) -> None:
    before = [(await ask(server, "/simple/", accept=kind))[2] for kind in (JSON, "text/html")]
    server.fault("/simple/", Frozen())
    server.index.publish("other", "1.0")
    server.index.remove_project("demo")
    assert [(await ask(server, "/simple/", accept=kind))[2] for kind in (JSON, "text/html")] == before
    server.clear_faults()
    assert (await ask(server, "/simple/", accept=JSON))[2] != before[0]
    with pytest.raises(TypeError):
        server.fault(re.compile("/simple/"), Frozen())


# -- connections ---------------------------------------------------------------------------------------------------


async def test_a_reset_comes_after_exactly_the_promised_bytes(server: FakeIndex) -> None:
    server.fault("/packages/*", Reset(0.9))
    wire = await connect(server, path_of(server))
    _, said = await wire.head()
    assert said["content-length"] == "1000"
    assert await until_reset(wire) == DATA[:900]
    assert server.bytes_sent[path_of(server)] == 900


async def test_a_resumed_range_is_cut_in_turn(server: FakeIndex) -> None:
    server.fault("/packages/*", Cut(10))
    wire = await connect(server, path_of(server), range="bytes=500-")
    status, said = await wire.head()
    assert (status, said["content-length"]) == (206, "500")
    assert await wire.reader.read() == DATA[500:510]
    await wire.end()


async def test_a_large_body_is_reset_in_its_middle() -> None:
    index = Index()
    index.publish("big", "1", UploadedFile("big-1.zip", Virtual(5_000_000, 1)))
    path = index.expected_files("big")[0].file.path
    async with FakeIndex(index) as server:
        server.fault("/packages/*", Reset(4_000_000))
        wire = await connect(server, path)
        await wire.head()
        assert len(await until_reset(wire)) == server.bytes_sent[path] == 4_000_000


async def test_no_answer_at_all(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Reset(-1))
    assert await until_reset(await connect(server, "/simple/demo/")) == b""
    server.fault("/simple/demo/", Cut(-1))
    wire = await connect(server, "/simple/demo/")
    assert await wire.reader.read() == b""
    await wire.end()


async def test_a_cut_body_ends_in_good_order_but_short(server: FakeIndex) -> None:
    server.fault("/packages/*", Cut(0.5))
    wire = await connect(server, path_of(server))
    _, said = await wire.head()
    assert said["content-length"] == "1000"
    assert await wire.reader.read() == DATA[:500]
    await wire.end()


@pytest.mark.parametrize("honest", [True, False])
async def test_an_endless_body_goes_on_until_the_client_leaves(server: FakeIndex, honest: bool) -> None:
    server.fault("/packages/*", Endless(b"ab", honest=honest))
    wire = await connect(server, path_of(server))
    _, said = await wire.head()
    assert "content-length" not in said
    expected = (DATA if honest else b"") + b"ab" * 2_000_000
    assert await wire.reader.readexactly(4_000_000) == expected[:4_000_000]
    await wire.end()


async def test_a_hang_lasts_until_it_is_released(server: FakeIndex) -> None:
    fault = server.fault("/simple/demo/", Hang())
    arrived = server.seen("/simple/demo/")
    asking = asyncio.ensure_future(ask(server, "/simple/demo/"))
    await arrived
    assert (await ask(server, "/simple/"))[0] == 200
    assert not asking.done()
    assert server.in_flight["metadata"] == 1
    fault.release()
    assert (await asking)[0] == 200
    assert (await ask(server, "/simple/demo/"))[0] == 200
    assert fault.fired == 2


async def test_a_hang_may_come_after_some_bytes(server: FakeIndex) -> None:
    fault = server.fault("/packages/*", Hang(after=100))
    wire = await connect(server, path_of(server))
    await wire.head()
    assert await wire.reader.readexactly(100) == DATA[:100]
    reading = asyncio.ensure_future(wire.reader.readexactly(900))
    assert (await ask(server, "/simple/"))[0] == 200
    assert not reading.done()
    fault.release()
    assert await reading == DATA[100:]
    await wire.end()


async def test_the_end_of_the_server_ends_what_hangs(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Hang())
    arrived = server.seen("/simple/demo/")
    wire = await connect(server, "/simple/demo/")
    await arrived
    await server.stop()
    assert await until_reset(wire, or_end=True) == b""
    assert server.in_flight["metadata"] == 0


async def test_a_drip_gives_one_step_for_each_grant(server: FakeIndex) -> None:
    fault = server.fault("/packages/*", Drip(step=10))
    wire = await connect(server, path_of(server))
    _, said = await wire.head()
    assert said["content-length"] == "1000"
    fault.grant(3)
    assert await wire.reader.readexactly(30) == DATA[:30]
    reading = asyncio.ensure_future(wire.reader.readexactly(1))
    assert (await ask(server, "/simple/"))[0] == 200
    assert not reading.done()
    fault.release()
    assert await reading + await wire.reader.readexactly(969) == DATA[30:]
    await wire.end()


async def test_a_drip_by_time_and_a_client_that_leaves(server: FakeIndex) -> None:
    server.fault("/packages/*", Drip(step=500, per_second=100_000))
    assert (await ask(server, path_of(server)))[2] == DATA
    fault = server.fault("/packages/*", Drip())
    wire = await connect(server, path_of(server))
    await wire.head()
    await wire.end()
    left = server.fault("/simple/", Hang())
    left.remove()
    while server.in_flight["files"]:
        assert (await ask(server, "/simple/demo/"))[0] == 200
    assert fault.fired == 1


# -- wrong content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "at"), [(None, 500), (3, 3)])
async def test_one_wrong_byte(server: FakeIndex, offset: int | None, at: int) -> None:
    server.fault("/packages/*", Wrong(offset))
    _, said, body = await ask(server, path_of(server))
    assert [position for position in range(1000) if body[position] != DATA[position]] == [at]
    assert said["etag"] == f'"{server.index.expected_files("demo")[0].file.content.digests.md5}"'
    assert (await ask(server, path_of(server), range=f"bytes={at + 1}-"))[2] == DATA[at + 1 :]


async def test_wrong_bytes_of_metadata_too(server: FakeIndex) -> None:
    honest = (await ask(server, "/simple/demo/"))[2]
    server.fault("/simple/demo/", Wrong(0))
    wrong = (await ask(server, "/simple/demo/"))[2]
    assert (wrong[1:], wrong[0] != honest[0]) == (honest[1:], True)


@pytest.mark.parametrize("extra", [5, -5])
async def test_a_wrong_length(server: FakeIndex, extra: int) -> None:
    server.fault("/packages/*", WrongLength(extra))
    _, said, body = await ask(server, path_of(server))
    assert said["content-length"] == str(1000 + extra)
    assert body == (DATA + bytes(5))[: 1000 + extra]


async def test_range_ignored(server: FakeIndex) -> None:
    server.fault("/packages/*", IgnoreRange())
    status, _, body = await ask(server, path_of(server), range="bytes=900-")
    assert (status, body) == (200, DATA)


@pytest.mark.parametrize("cut", [False, True])
async def test_gzip_that_is_none(server: FakeIndex, cut: bool) -> None:
    server.fault("/simple/demo/", GzipJunk(cut=cut))
    _, said, body = await ask(server, "/simple/demo/")
    assert said["content-encoding"] == "gzip"
    with pytest.raises((OSError, EOFError)):
        gzip.decompress(body)


async def test_a_gzip_bomb_is_a_valid_answer_of_the_promised_size(server: FakeIndex) -> None:
    honest = (await ask(server, "/simple/demo/", accept=JSON))[2]
    server.fault("/simple/demo/", GzipBomb(8 << 20))
    wire = await connect(server, "/simple/demo/", accept=JSON)
    _, said = await wire.head()
    assert said["content-encoding"] == "gzip"
    packed = await wire.reader.read()
    await wire.end()
    unpacked = gzip.decompress(packed)
    assert json.loads(unpacked) == json.loads(honest)
    assert len(unpacked) >= 8 << 20 > 100 * len(packed)
    assert zlib.decompressobj(31).decompress(packed[:2000]).startswith(honest)


async def test_any_body(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Body(b"[]"), times=1)
    status, said, body = await ask(server, "/simple/demo/", accept=JSON)
    assert (status, said["content-type"], body) == (200, JSON, b"[]")
    assert said["x-pypi-last-serial"] == str(server.index.serial)
    server.fault("/simple/demo/", Body(b"x", content_type="text/plain", status=418, headers={"X-Test": "1"}))
    status, said, body = await ask(server, "/simple/demo/")
    assert (status, said["content-type"], said["x-test"], body) == (418, "text/plain", "1", b"x")


async def test_a_rewritten_body(server: FakeIndex) -> None:
    honest = (await ask(server, "/pypi/demo/json"))[2]
    server.fault("/pypi/demo/json", Rewrite(lambda body: body.replace(b"demo", b"evil")))
    assert (await ask(server, "/pypi/demo/json"))[2] == honest.replace(b"demo", b"evil")


async def test_other_headers(server: FakeIndex) -> None:
    server.fault("/simple/demo/", Headers({"X-PyPI-Last-Serial": "3", "etag": None}))
    _, said, body = await ask(server, "/simple/demo/")
    assert said["x-pypi-last-serial"] == "3"
    assert "etag" not in said
    server.clear_faults()
    assert (await ask(server, "/simple/demo/"))[2] == body


async def test_redirects_also_to_other_hosts(server: FakeIndex) -> None:
    server.fault("/packages/*", Redirect("http://other.invalid/x{path}", status=307))
    status, said, _ = await ask(server, path_of(server))
    assert (status, said["location"]) == (307, f"http://other.invalid/x{path_of(server)}")


# -- XML-RPC -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code", "text"),
    [
        (XmlFault(), -32403, "server error; service unavailable"),
        (rate_limited(3), -32500, "Limit may reset in 3 seconds."),
        (rate_limited(), -32500, "too many requests by the client."),
        (method_removed(), -32500, "no longer supports"),
    ],
)
async def test_xml_faults(server: FakeIndex, action: Action, code: int, text: str) -> None:
    server.fault("/pypi", action, times=1)
    with pytest.raises(xmlrpc.client.Fault) as caught:
        xmlrpc.client.loads(await call(server, "changelog_last_serial"))
    assert caught.value.faultCode == code
    assert text in caught.value.faultString
    assert xmlrpc.client.loads(await call(server, "changelog_last_serial"))[0] == (server.index.serial,)


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("entities", b"<!ENTITY e11 "), ("external", b'SYSTEM "file:'), ("nesting", b"<array><data>" * 3)],
)
async def test_xml_bombs(server: FakeIndex, kind: str, sign: bytes) -> None:
    server.fault("/pypi", XmlBomb(kind))
    body = await call(server, "changelog_last_serial")
    if kind != "entities":
        assert sign in body.replace(b"<value>", b"")
    else:
        assert body.count(b"<!ENTITY") == 10
