"""The daemon's HTTP endpoint: what it answers, where, and what a bad client can cost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from heliostat.config import ServiceConfig
from heliostat.errors import ConfigError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.mirror.status import read_status
from heliostat.service.connections import Bounds
from heliostat.service.daemon import Daemon
from heliostat.service.listening import listening
from heliostat.store.threads import in_thread
from support.daemons import idle_daemon, one_pass
from support.mirrors import Followed, following

#: Seconds that only a test that fails waits.
PATIENCE = 60.0


@dataclasses.dataclass
class Place:
    """A mirror, its daemon, and where the endpoint is."""

    one: Followed
    daemon: Daemon
    socket: str

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        return await ask(self.socket, f"{method} {path} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{h}\r\n" for h in headers))

    def configure(self, **service: Any) -> None:
        """As a reload would, without asking anybody."""
        config = self.daemon.config
        self.daemon.config = dataclasses.replace(config, service=dataclasses.replace(config.service, **service))


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def raw(path: str, request: bytes) -> bytes:
    """All that comes back until the other end closes; nothing when it closes at once."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


async def ask(path: str, head: str) -> Answer:
    """One request, to the end of its connection."""
    head_bytes, _, body = (await raw(path, head.encode() + b"\r\n")).partition(b"\r\n\r\n")
    first, *lines = head_bytes.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[tuple[Followed, Daemon]]:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"1"))
    async with following(index, tmp_path, retries=1) as one, idle_daemon(one.config) as daemon:
        yield one, daemon


@pytest.fixture
async def place(mirror: tuple[Followed, Daemon], sockets: Path) -> AsyncIterator[Place]:
    one, daemon = mirror
    place = Place(one, daemon, str(sockets / "http.sock"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(daemon):
        yield place


# --- what it answers ---------------------------------------------------------------------------------------------


async def test_metrics(place: Place) -> None:
    await one_pass(place.daemon)
    answer = await place.get("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = answer.body.decode().splitlines()
    assert 'heliostat_projects{state="current"} 1.0' in lines
    assert f"heliostat_checkpoint_serial {float(place.one.index.serial)}" in lines
    assert 'heliostat_upstream_requests_total{endpoint="page",status="200"} 1.0' in lines
    assert 'heliostat_projects_published_total{change="added"} 1.0' in lines
    assert 'heliostat_last_pass_result{result="complete"} 1.0' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    place.one.index.publish("more", "1.0", UploadedFile("more-1.0.tar.gz", b"2"))
    await one_pass(place.daemon)
    async with asyncio.timeout(PATIENCE):
        while b'heliostat_projects{state="current"} 2.0' not in (await place.get("/metrics")).body:
            await asyncio.sleep(0.01)


async def test_openmetrics_is_negotiated(place: Place) -> None:
    answer = await place.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


async def test_alive_until_nothing_moves(place: Place) -> None:
    assert (await place.get("/healthz")).status == 200
    place.daemon.health.progress = time.monotonic() - 301
    answer = await place.get("/healthz")
    assert (answer.status, answer.body) == (503, b"nothing moved for 301 s, more than the 300 s of alive-within\n")
    place.daemon.health.quiet_until = time.monotonic() + 50  # nothing is expected to
    assert (await place.get("/healthz")).status == 200
    place.daemon.health.quiet_until = 0
    place.configure(alive_within=1000.0)
    assert (await place.get("/healthz")).status == 200


async def test_ready_once_a_poll_ran_to_its_end(place: Place) -> None:
    answer = await place.get("/readyz")
    assert (answer.status, answer.body) == (503, b"not ready: no poll ran to its end yet\n")
    await one_pass(place.daemon)
    async with asyncio.timeout(PATIENCE):
        while (await place.get("/readyz")).status != 200:
            await asyncio.sleep(0.01)
    place.one.server.fault("/simple/demo/", Status(503))
    place.one.index.publish("demo", "2.0", UploadedFile("demo-2.0.tar.gz", b"2"))
    await one_pass(place.daemon)
    place.configure(ready_within=0.001)
    async with asyncio.timeout(PATIENCE):
        while b"serials behind" not in (answer := await place.get("/readyz")).body:
            await asyncio.sleep(0.01)
    assert answer.status == 503


async def test_status_is_that_of_the_command_and_more(place: Place) -> None:
    await one_pass(place.daemon)
    answer = await place.get("/status.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = json.loads(answer.body)
    live = found.pop("live")
    now = json.loads(msgspec.json.encode(read_status(place.daemon.config)))
    moving = [key for key in now if "free" in key]  # others use the disk, too
    assert {key: found.pop(key) is None for key in moving} == {key: now.pop(key) is None for key in moving}
    assert found == now
    assert live["phase"] == "starting"
    assert live["result"] == "complete"
    assert live["last"]["added"] == 1
    assert (live["lag_serials"], live["lag_seconds"]) == (0, 0)
    assert live["sources"] == [{"source": place.one.server.url, "in_use": True, "rests_because": None}]
    assert live["counters"]["projects_done"] == 0
    assert not {"progress", "quiet_until"} & set(live)


async def test_head_has_no_body(place: Place) -> None:
    for path in ("/metrics", "/healthz", "/status.json"):
        answer = await place.get(path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods(place: Place, method: str) -> None:
    answer = await place.get("/metrics", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/ping", "/../etc/passwd", "/%2e%2e/x", "//", "/status.json/x"])
async def test_other_paths(place: Place, path: str) -> None:
    assert (await place.get(path)).status == 404


async def test_nothing_is_cached_and_little_is_said(place: Place) -> None:
    for path in ("/metrics", "/healthz", "/readyz", "/status.json", "/nothing"):
        headers = (await place.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["server"] == "heliostat"


async def test_a_ledger_that_cannot_be_read(place: Place) -> None:
    """Then there are the other figures all the same."""
    os.rename(place.one.directory / "heliostat.db", place.one.directory / "away")
    try:
        metrics, status = await place.get("/metrics"), await place.get("/status.json")
        assert b"heliostat_disk_free_bytes" in metrics.body
        assert b"heliostat_checkpoint_serial" not in metrics.body
        assert status.status == 503
        assert "no ledger there" in json.loads(status.body)["error"]
        assert (await place.get("/readyz")).body == b"not ready: the ledger cannot be read\n"
    finally:
        os.rename(place.one.directory / "away", place.one.directory / "heliostat.db")


async def test_a_disk_that_does_not_answer(place: Place) -> None:
    """All threads wait for it: what is asked is answered all the same, and who asks again makes it no worse."""
    released = threading.Event()
    waiting = [asyncio.create_task(in_thread(released.wait, PATIENCE)) for _ in range(20)]
    try:
        asked = ("/readyz", "/status.json", "/metrics", "/readyz", "/status.json")
        answers = await asyncio.gather(*(place.get(path) for path in asked))
        assert [answer.status for answer in answers] == [503, 503, 200, 503, 503]
        assert answers[0].body == b"not ready: the ledger cannot be read\n"
        assert b"the disk does not answer" in answers[1].body
        assert b"heliostat_progress_age_seconds" in answers[2].body
    finally:
        released.set()
        await asyncio.gather(*waiting)
    assert (await place.get("/status.json")).status == 200


async def test_many_at_once_share_what_is_read(place: Place) -> None:
    await one_pass(place.daemon)
    answers = await asyncio.gather(*(place.get("/metrics") for _ in range(40)))
    assert {answer.status for answer in answers} == {200}


async def test_a_route_beside_its_own(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    async def ping(_: web.Request) -> web.Response:
        return web.Response(text="pong")

    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon, lambda: [web.post("/ping", ping)]):
        assert (await place.get("/ping", method="POST")).body == b"pong"
        assert (await place.get("/ping")).headers["allow"] == "POST"


# --- bad clients -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bounded(mirror: tuple[Followed, Daemon], sockets: Path, bounds: Bounds) -> AsyncIterator[Place]:
    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon, bounds=bounds):
        yield place


async def test_one_request_a_connection(place: Place) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    assert (await raw(place.socket, request * 3)).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
        b"\x00\x01\x02 nonsense\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
    ],
    ids=["header", "target", "headers", "nonsense", "version"],
)
async def test_heads_that_are_too_much(place: Place, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = await raw(place.socket, head)
    if answer:  # it may be cut off while it still sends
        told, _, body = answer.partition(b"\r\n\r\n")
        assert told.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), told
        assert b"\r\nServer: heliostat\r\n" in told + b"\r\n"
        assert b"\r\nCache-Control: no-store\r\n" in told + b"\r\n"
        assert body == b"Bad Request\n"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (await place.get("/healthz")).status == 200


async def test_what_is_malformed_is_not_repeated(place: Place) -> None:
    """Nor is it told what answers, beyond its name."""
    answer = await ask(place.socket, "GET /secret\x01word HTTP/1.1\r\nHost: x\r\n")
    assert (answer.status, answer.body) == (400, b"Bad Request\n")
    assert answer.headers["server"] == "heliostat"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert set(answer.headers) == {"server", "content-type", "content-length", "cache-control", "date"}


@pytest.mark.parametrize("path", ["/metrics", "/nothing"])
async def test_an_expectation_that_is_unknown_is_not_repeated(place: Place, path: str) -> None:
    answer = await place.get(path, "Expect: secretword")
    assert (answer.status, answer.body) == (417, b"Expectation Failed\n")
    assert answer.headers["server"] == "heliostat"


async def test_a_defect_is_logged_and_answered(
    mirror: tuple[Followed, Daemon], sockets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError

    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon, lambda: [web.get("/broken", broken)]):
        answer = await place.get("/broken")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == "GET /broken failed"
    assert record.exc_info is not None


async def test_a_body_that_is_too_large(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    async def ping(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon, lambda: [web.post("/ping", ping)]):
        size = 10 << 20
        head = f"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        answer = await raw(place.socket, head + b"x" * size)
        assert answer.startswith(b"HTTP/1.1 413"), answer[:100]


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: y"])
async def test_a_client_that_does_not_go_on(mirror: tuple[Followed, Daemon], sockets: Path, sent: bytes) -> None:
    async with bounded(mirror, sockets, Bounds(seconds=0.1)) as place:
        assert b"200" not in await raw(place.socket, sent)


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: y"])
async def test_a_head_that_does_not_come(mirror: tuple[Followed, Daemon], sockets: Path, sent: bytes) -> None:
    """Long before the time of a request is over."""
    async with bounded(mirror, sockets, Bounds(seconds=10 * PATIENCE, head=0.1)) as place:
        assert await raw(place.socket, sent) == b""


async def test_once_its_head_is_there_a_request_may_take_longer(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(0.3)
        return web.Response(body=body)

    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon, lambda: [web.post("/slow", slow)], Bounds(head=0.1)):
        head = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        assert (await raw(place.socket, head + b"body")).endswith(b"\r\n\r\nbody")


async def test_slow_clients_at_one_address_cost_another_nothing(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place, port = Place(*mirror, str(sockets / "s")), free_port()
    place.configure(listen=(f"127.0.0.1:{port}", f"unix:{place.socket}"))
    async with listening(place.daemon, bounds=Bounds(connections=3, seconds=10 * PATIENCE, head=10 * PATIENCE)):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            while await answers("127.0.0.1", port):
                await asyncio.sleep(0.01)  # the others have not arrived yet
        assert (await place.get("/healthz")).status == 200
        for _, writer in held:
            writer.close()


async def test_a_client_that_does_not_read(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    async def much(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * (32 << 20))

    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    loop = asyncio.get_running_loop()
    async with listening(place.daemon, lambda: [web.get("/much", much)], Bounds(connections=1, seconds=0.2)):
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)  # noqa: FBT003
            await loop.sock_connect(client, place.socket)
            await loop.sock_sendall(client, b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(PATIENCE):  # its place is free again, though it never reads
                while not (await raw(place.socket, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")):
                    await asyncio.sleep(0.01)


async def test_more_connections_than_are_served(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    async with bounded(mirror, sockets, Bounds(connections=3)) as place:
        held = [await asyncio.open_unix_connection(place.socket) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            while await raw(place.socket, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                await asyncio.sleep(0.01)  # the others have not arrived yet
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(PATIENCE):
            while not await raw(place.socket, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                await asyncio.sleep(0.01)


async def test_a_burst_of_connections(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    """They are accepted all at once, and still no more of them are served than may be."""
    async with bounded(mirror, sockets, Bounds(connections=3)) as place:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(50)]
        for client in clients:
            client.connect(place.socket)  # the loop does not run meanwhile
            client.settimeout(0)
        refused = 0
        async with asyncio.timeout(PATIENCE):
            while refused < 47:
                await asyncio.sleep(0.01)
                refused = sum(is_closed(client) for client in clients)
        assert [is_closed(client) for client in clients] == [False] * 3 + [True] * 47
        for client in clients:
            client.close()
        async with asyncio.timeout(PATIENCE):
            while not await raw(place.socket, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                await asyncio.sleep(0.01)


def is_closed(client: socket.socket) -> bool:
    """Whether the other end has closed the connection."""
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# --- where -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    with contextlib.suppress(OSError):
        found = await reader.read()
        writer.close()
        return b" 200 " in found
    return False


async def test_several_addresses(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place, port = Place(*mirror, str(sockets / "s")), free_port()
    place.configure(listen=(f"127.0.0.1:{port}", f"unix:{place.socket}"))
    async with listening(place.daemon):
        assert await answers("127.0.0.1", port)
        assert (await place.get("/healthz")).status == 200
        assert stat.S_IMODE(os.stat(place.socket).st_mode) == 0o660
    assert not await answers("127.0.0.1", port)
    assert os.listdir(sockets) == []


async def test_without_an_address_nothing_is_opened(mirror: tuple[Followed, Daemon]) -> None:
    _, daemon = mirror
    assert ServiceConfig().listen == ()
    async with listening(daemon, lambda: pytest.fail("nobody needs routes")):
        pass


async def test_a_taken_port(mirror: tuple[Followed, Daemon]) -> None:
    place = Place(*mirror, "")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        place.configure(listen=(address,))
        with pytest.raises(ConfigError) as caught:
            async with listening(place.daemon):
                pass
    assert caught.value.problems == (
        f"test: [service] listen: {address}: another process listens there already; end it, or choose another address",
    )


async def test_a_socket_that_is_left_over_is_replaced(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(place.socket)
        old.listen()
        with pytest.raises(ConfigError, match="another process listens there already"):
            async with listening(place.daemon):
                pass
    async with listening(place.daemon):
        assert (await place.get("/healthz")).status == 200


async def test_something_else_in_the_way_stays(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place = Place(*mirror, str(sockets / "s"))
    Path(place.socket).write_text("mine")
    place.configure(listen=(f"unix:{place.socket}",))
    with pytest.raises(ConfigError, match="something that is no socket is in the way"):
        async with listening(place.daemon):
            pass
    assert Path(place.socket).read_text() == "mine"


async def test_what_somebody_put_in_its_place_stays(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place = Place(*mirror, str(sockets / "s"))
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon):
        os.unlink(place.socket)
        Path(place.socket).write_text("mine")
    assert Path(place.socket).read_text() == "mine"


async def test_a_directory_that_is_not_there(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place = Place(*mirror, "")
    place.configure(listen=(f"unix:{sockets}/nowhere/s",))
    with pytest.raises(ConfigError, match="No such file or directory"):
        async with listening(place.daemon):
            pass


async def test_a_reload_opens_and_closes(mirror: tuple[Followed, Daemon], sockets: Path) -> None:
    place = Place(*mirror, str(sockets / "s"))
    port, taken = free_port(), socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    place.configure(listen=(f"unix:{place.socket}",))
    async with listening(place.daemon):
        inode = os.stat(place.socket).st_ino
        wait = asyncio.create_task(raw(place.socket, b"GET /healthz HTTP/1.1\r\n"))  # a connection that stays
        await follow(place.daemon, f"unix:{place.socket}", f"127.0.0.1:{port}")
        assert await answers("127.0.0.1", port)
        assert os.stat(place.socket).st_ino == inode
        assert not wait.done()
        with pytest.raises(ConfigError, match="another process listens there already"):
            await follow(place.daemon, f"unix:{place.socket}", f"127.0.0.1:{taken.getsockname()[1]}")
        assert not await answers("127.0.0.1", port)
        assert (await place.get("/healthz")).status == 200
        await follow(place.daemon)
        assert not os.path.exists(place.socket)
        wait.cancel()
    taken.close()
    assert place.daemon.after_reload == []


async def follow(daemon: Daemon, *addresses: str) -> None:
    """What a reload does with another ``listen``."""
    daemon.config = dataclasses.replace(
        daemon.config, service=dataclasses.replace(daemon.config.service, listen=addresses)
    )
    for listener in daemon.after_reload:
        await listener(daemon.config)


async def test_how_far_behind_is_said_of_one_reading(place: Place) -> None:
    await one_pass(place.daemon)
    await place.get("/metrics")  # reads figures, which are used again for a while
    place.daemon.mirror._ledger.put(upstream_serial=10**6)
    found = json.loads((await place.get("/status.json")).body)
    assert found["live"]["lag_serials"] == found["lag"] > 0
