"""Statistics of what the real nginx logs, of real installers, rotated as logrotate does."""

from __future__ import annotations

import bz2
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from heliostat.stats.database import opened
from heliostat.stats.days import publish_days
from heliostat.stats.reading import Reading, read_logs
from heliostat.stats.summary import Period, Summary, summarise
from heliostat.store.disk import Disk
from support.installers import pip, uv
from support.mirrored import mirror_of, sample_index
from support.nginx import Nginx, nginx_server
from support.places import open_directory
from support.rawhttp import get

pytestmark = pytest.mark.outside

COMMENTED = "#access_log /var/log/nginx/heliostat.json heliostat_json buffer=64k flush=5s;"
SWITCHED_ON = {
    "json": "access_log heliostat.log heliostat_json;",
    "combined": "access_log heliostat.log combined;",
}
WHEEL = "alpha-1.1-py3-none-any.whl"


@pytest.fixture(scope="module")
def web() -> Iterator[Path]:
    with open_directory() as directory:
        yield Path(mirror_of(sample_index(), directory))


@pytest.fixture(params=sorted(SWITCHED_ON))
def site(request: pytest.FixtureRequest, web: Path) -> Iterator[Nginx]:
    with nginx_server(web, unprivileged=True, replace={COMMENTED: SWITCHED_ON[request.param]}) as server:
        yield server


def log_of(site: Nginx) -> Path:
    return site.access_log.with_name("heliostat.log")


def target_of(web: Path, filename: str) -> str:
    (path,) = (web / "packages").rglob(filename)
    return f"/{path.relative_to(web).as_posix()}"


def count(site: Nginx, web: Path, database: Path) -> tuple[Reading, Summary]:
    """Of all that was answered before."""
    get(site.url, "/last-modified")
    with opened(str(database)) as connection:
        patterns = [f"{log_of(site)}*"]
        today = int(time.time() // 86400)
        reading = read_logs(connection, patterns, today=today, directory=str(web.parent))
        assert reading.unreadable == []
        return reading, summarise(connection, Period(), 1000)


def downloads(summary: Summary) -> dict[str, int]:
    return {row.name[0]: row.downloads for row in summary.files}


def test_what_installers_fetch(site: Nginx, web: Path, tmp_path: Path) -> None:
    index = f"{site.url}/simple/"
    done = pip("install", "--target", str(tmp_path / "one"), "alpha", index=index, work=tmp_path / "pip")
    assert done.returncode == 0, done.stderr
    done = uv("pip", "install", "--target", str(tmp_path / "two"), "alpha", index=index, work=tmp_path / "uv")
    assert done.returncode == 0, done.stderr
    reading, summary = count(site, web, tmp_path / "statistics.db")
    assert reading.odd == 0
    assert downloads(summary) == {WHEEL: 2, "beta-1.0-py3-none-any.whl": 2}
    assert {row.name[0]: row.downloads for row in summary.installers} == {"pip": 2, "uv": 2}
    assert all(row.name[1] for row in summary.installers)
    assert {row.name[0] for row in summary.pythons} == {f"{sys.version_info.major}.{sys.version_info.minor}"}
    assert {row.name[0] for row in summary.projects} == {"alpha", "beta"}
    assert {row.name[0]: row.requests for row in summary.projects}["alpha"] > 2  # pages and sidecars
    assert {day.clients for day in summary.days} == {1}


def test_parts_heads_and_what_the_client_has(site: Nginx, web: Path, tmp_path: Path) -> None:
    database, target = tmp_path / "statistics.db", target_of(web, WHEEL)
    size = (web / target[1:]).stat().st_size
    agent = {"User-Agent": "curl/8.0"}
    whole = get(site.url, target, agent)
    assert get(site.url, target, {**agent, "If-None-Match": whole.headers["etag"]}).status == 304
    assert get(site.url, target, agent, method="HEAD").status == 200
    for _ in range(3):
        assert get(site.url, target, {**agent, "Range": f"bytes={size - 20}-"}).status == 206
    _, summary = count(site, web, database)
    assert downloads(summary) == {WHEEL: 1}
    assert get(site.url, target, {**agent, "Range": f"bytes=0-{size - 21}"}).status == 206
    assert get(site.url, target, {**agent, "Range": f"bytes={size * 2}-"}).status == 416
    _, summary = count(site, web, database)
    assert downloads(summary) == {WHEEL: 2}
    (alpha,) = summary.projects
    assert (alpha.requests, alpha.bytes) == (3, size + 60 + size - 20)
    with opened(str(database)) as connection:
        publish_days(connection, Disk(str(web.parent)))
    day = max((web / "local-stats/days").iterdir())
    served = get(site.url, f"/local-stats/days/{day.name}")
    assert served.status == 200
    assert bz2.decompress(served.body).decode().splitlines()[-1] == f"alpha,{WHEEL},curl/8.0,2"


def test_rotation_while_nginx_writes(site: Nginx, web: Path, tmp_path: Path) -> None:
    database, target = tmp_path / "statistics.db", target_of(web, WHEEL)
    log, pid = log_of(site), site.access_log.with_name("nginx.pid")
    while not pid.exists() or not pid.read_text().strip():
        time.sleep(0.01)
    master = int(pid.read_text())
    for turn in range(1, 4):
        # Each differs: two logs that begin alike within a second would be taken for one and its copy.
        get(site.url, f"{target}?{turn}1")
        count(site, web, database)
        get(site.url, f"{target}?{turn}2")
        log.rename(f"{log}.{turn}")
        get(site.url, f"{target}?{turn}3")  # nginx still writes to the file that was renamed
        os.kill(master, signal.SIGUSR1)
        while not log.exists():
            time.sleep(0.01)
        get(site.url, f"{target}?{turn}4")
        _, summary = count(site, web, database)
        assert downloads(summary) == {WHEEL: 4 * turn}


def test_what_strangers_send(site: Nginx, web: Path, tmp_path: Path) -> None:
    target = target_of(web, WHEEL)
    for agent in (
        '"',
        "\\",
        '\\" 200 1 "',
        "\x7f\xe9\xff",
        '"} {"time":"2020-01-01T00:00:00+00:00"',
        "x" * 6000,
        "pip/24.0 {",
    ):
        assert get(site.url, target, {"User-Agent": agent}).status == 200
    for odd in (f"{target}?%22%0a", "/%22%5c%0a", "/packages/%2e%2e/x", "/simple/%ff/", f"{target}/../x"):
        get(site.url, odd)
    reading, summary = count(site, web, tmp_path / "statistics.db")
    assert reading.odd == 0
    assert downloads(summary) == {WHEEL: 8}
    assert {(row.name[0], row.downloads) for row in summary.installers} == {("other", 7), ("pip", 1)}


def test_a_download_that_is_broken_off(web: Path, site: Nginx, tmp_path: Path) -> None:
    """In JSON it does not count; the combined format does not tell."""

    big = "big-1.0.zip"
    place = web / "packages/cc/cc" / ("c" * 60) / big
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.parent.chmod(0o755)
    with place.open("wb") as file:
        file.truncate(64 << 20)
    target = f"/{place.relative_to(web).as_posix()}"
    where = urlsplit(site.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.recv(1000)
    while big not in log_of(site).read_text():
        time.sleep(0.01)
    _, summary = count(site, web, tmp_path / "statistics.db")
    told = log_of(site).read_text().startswith("{")
    assert downloads(summary) == ({} if told else {big: 1})
    place.unlink()
