"""The datacenter's nginx: the daemon's status behind it, the log for statistics, the precompressed root index."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex
from support.cli import arun
from support.nginx import nginx_server
from support.rawhttp import get
from support.small_index import mirror_home, serving
from support.supervisor import Service, supervised
from support.web_cases import STORE, write_small_tree

pytestmark = pytest.mark.outside

PLAIN = {"Accept-Encoding": "identity"}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "beta") as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    listen = f'[service]\nlisten = "unix:{tmp_path}/http.sock"'
    return mirror_home(tmp_path, upstream, mirror="gzip-root = true", more=listen)


@pytest.fixture
async def daemon(home: Path) -> AsyncIterator[Service]:
    async with supervised("mirror", cwd=home) as service:
        await service.until(lambda said: "0 behind" in said.get("STATUS", ""))
        yield service
        assert await service.stop() == 0


def through(home: Path, **more: str) -> dict[str, str]:
    """The replacements that lead nginx to the daemon's socket."""
    return {"proxy_pass http://127.0.0.1:9750;": f"proxy_pass http://unix:{home}/http.sock;"} | more


async def test_metrics_health_and_status_through_nginx(home: Path, upstream: FakeIndex, daemon: Service) -> None:
    def ask() -> dict[str, Any]:
        with nginx_server(home / "pypi/web", status=through(home)) as nginx:
            targets = ("/metrics", "/healthz", "/readyz", "/status.json", "/", "/ping", "/metrics/", "/web/simple/")
            found: dict[str, Any] = {target: get(nginx.status_url, target, PLAIN) for target in targets}
            found["POST"] = get(nginx.status_url, "/metrics", method="POST")
            # The server that serves packages shows none of it.
            found["packages"] = [get(nginx.url, target).status for target in targets[:4]]
            return found

    found = await asyncio.to_thread(ask)
    assert found["packages"] == [404, 404, 404, 404]
    assert [found[target].status for target in ("/metrics", "/healthz", "/readyz", "/status.json")] == [200] * 4
    assert b"heliostat_checkpoint_serial" in found["/metrics"].body
    assert json.loads(found["/status.json"].body)["checkpoint"] == upstream.index.serial
    assert [found[target].status for target in ("/", "/ping", "/metrics/", "/web/simple/")] == [404] * 4
    assert found["POST"].status == 403


async def test_others_may_not_ask(home: Path, daemon: Service) -> None:
    def ask() -> int:
        nobody = {"allow 127.0.0.1; ": "allow 192.0.2.0/24; "}
        with nginx_server(home / "pypi/web", status=through(home, **nobody)) as nginx:
            return get(nginx.status_url, "/metrics").status

    assert await asyncio.to_thread(ask) == 403


async def test_nothing_else_is_passed_on(home: Path) -> None:
    """Whatever the daemon would answer: this one says yes to everything."""
    asked: list[str] = []

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n")).decode().rpartition(" ")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    def ask() -> list[int]:
        with nginx_server(home / "pypi", status=through(home)) as nginx:
            found = [
                get(nginx.status_url, target, method=method).status
                for method in ("POST", "GET")
                for target in ("/ping", "/metrics/../ping", "/status.json/x", "//ping", "/metrics%0a", "/healthz")
            ]
            return [status for status in found if status < 400]

    server = await asyncio.start_unix_server(agree, home / "http.sock")
    try:
        assert await asyncio.to_thread(ask) == [200]
    finally:
        server.close()
    assert asked == ["GET /healthz"]


async def test_without_a_daemon_the_status_is_a_bad_gateway_and_packages_are_served(home: Path) -> None:
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0

    def ask() -> list[int]:
        with nginx_server(home / "pypi/web", status=through(home)) as nginx:
            return [get(nginx.status_url, "/metrics").status, get(nginx.url, "/simple/alpha/").status]

    assert await asyncio.to_thread(ask) == [502, 200]


@pytest.mark.parametrize(
    ("accept", "page"),
    [("text/html", "index.html"), ("application/vnd.pypi.simple.v1+json", "index.v1_json")],
)
async def test_the_root_index_goes_out_as_it_was_packed(home: Path, accept: str, page: str) -> None:
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    packed = home / "pypi/web/simple" / f"{page}.gz"

    def ask() -> tuple[Any, Any]:
        with nginx_server(home / "pypi/web") as nginx:
            wish = {"Accept": accept}
            return (
                get(nginx.url, "/simple/", wish | {"Accept-Encoding": "gzip"}),
                get(nginx.url, "/simple/", wish | PLAIN),
            )

    small, plain = await asyncio.to_thread(ask)
    assert small.headers["content-encoding"] == "gzip"
    assert small.body == packed.read_bytes()  # not compressed anew
    assert gzip.decompress(small.body) == plain.body == packed.with_suffix("").read_bytes()


def test_the_log_is_an_object_a_line(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    log = tmp_path / "log.json"
    switched_on = {
        "#access_log /var/log/nginx/heliostat.json heliostat_json buffer=64k flush=5s;": f"access_log {log} heliostat_json;"
    }
    agent = 'pip/25.0 {"ci":null,"cpu":"x86_64","python":"3.13"} \\ \x01 "quoted" \xfc'
    with nginx_server(tmp_path / "web", replace=switched_on) as nginx:
        get(nginx.url, "/simple/foo/?q=%22", {"User-Agent": agent, "Accept": "application/vnd.pypi.simple.v1+json"})
        get(nginx.url, STORE + "wheel", {"Range": "bytes=0-3"})
        get(nginx.url, '/nothing/"here"\\')
        get(nginx.url, "/simple/foo/", method="HEAD")
        get(nginx.url, "/last-modified")  # the lines before it are written then
        lines = [json.loads(line) for line in log.read_text(errors="replace").splitlines()[:4]]
    page, part, absent, head = lines
    assert (page["method"], page["target"], page["status"]) == ("GET", "/simple/foo/?q=%22", 200)
    assert page["type"] == "application/vnd.pypi.simple.v1+json"
    assert page["agent"].startswith('pip/25.0 {"ci":null,"cpu":"x86_64","python":"3.13"} \\ ')
    assert page["bytes"] == (tmp_path / "web/simple/foo/index.v1_json").stat().st_size
    assert page["complete"] == "OK"
    assert page["address"] == "127.0.0.1"
    assert isinstance(page["seconds"], float)
    assert (part["status"], part["range"], part["bytes"]) == (206, "bytes=0-3", 4)
    assert absent["status"] == 404
    assert (head["method"], head["bytes"]) == ("HEAD", 0)
