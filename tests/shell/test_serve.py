"""The static server over real HTTP: the table that every server must pass, and what is its own."""

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.errors import ConfigError
from heliostat.names import quote_filename
from heliostat.service.serve import run_static_server
from support.places import not_root, open_directory
from support.rawhttp import Client, get
from support.served import static_server
from support.web_cases import CASES, FORMATS, NEGOTIATION, ODD_NAMES, PIP, STORE, Case, write_small_tree


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("served")
    write_small_tree(root)
    with static_server(root / "web") as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers(client: Client, case: Case) -> None:
    case.check(client)


@pytest.mark.parametrize("page", ["/simple/", "/simple/foo/"])
@pytest.mark.parametrize(("accept", "media_type"), NEGOTIATION)
def test_negotiates(client: Client, page: str, accept: str | None, media_type: str) -> None:
    answer = client.get(page, {} if accept is None else {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert "accept" in answer.vary


@pytest.mark.parametrize(("query", "media_type"), FORMATS)
def test_format_in_the_query_wins(client: Client, query: str, media_type: str) -> None:
    answer = client.get("/simple/foo/?" + query, {"Accept": "text/html"})
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)


def test_several_accept_headers_are_one_list(url: str) -> None:
    with Client(url) as client:
        connection = client._connection
        connection.putrequest("GET", "/simple/foo/")
        connection.putheader("Accept", "text/html;q=0.1")
        connection.putheader("Accept", PIP)
        connection.endheaders()
        response = connection.getresponse()
        response.read()
    assert response.headers["Content-Type"] == "application/vnd.pypi.simple.v1+json"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names(client: Client, name: str) -> None:
    answer = client.get(STORE + quote_filename(name))
    assert (answer.status, answer.body) == (200, (STORE + name).encode())
    assert answer.headers["content-type"] == "application/octet-stream"


def test_what_may_not_be_read_is_absent() -> None:
    with open_directory() as root:
        write_small_tree(root)
        (root / "web" / "json" / "foo").chmod(0)
        (root / "web" / "changes").chmod(0)
        with static_server(root / "web") as server, not_root():
            asked = [get(server.url, target).status for target in ("/json/foo", "/changes/head", "/last-modified")]
    assert asked == [404, 404, 200]


def test_pages_are_read_afresh_for_each_request(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    with static_server(tmp_path / "web") as server:
        before = get(server.url, "/json/foo")
        (tmp_path / "new").write_text("replaced")
        (tmp_path / "new").replace(tmp_path / "web" / "json" / "foo")
        after = get(server.url, "/json/foo", {"If-None-Match": before.headers["etag"]})
    assert (after.status, after.body) == (200, b"replaced")


def test_a_large_file_arrives_whole(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    content = os.urandom(3_000_001)
    (tmp_path / "web" / STORE[1:] / "large").write_bytes(content)
    with static_server(tmp_path / "web") as server:
        assert get(server.url, STORE + "large").body == content
        assert get(server.url, STORE + "large", {"Range": "bytes=1000000-"}).body == content[1_000_000:]


async def test_says_where_it_is_and_that_nginx_is_for_production(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop, urls = asyncio.Event(), list[str]()

    def started(url: str) -> None:
        urls.append(url)
        stop.set()

    await run_static_server(str(tmp_path), host="127.0.0.1", port=0, stop=stop, started=started)
    assert urls[0].startswith("http://127.0.0.1:")
    assert any(urls[0] in line and "nginx is for production" in line for line in caplog.messages)


async def test_an_address_in_use_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with static_server(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: .*in use"):
            await run_static_server(str(tmp_path), host="127.0.0.1", port=port, stop=asyncio.Event())


async def test_a_web_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        await run_static_server(str(tmp_path / "web"), host="127.0.0.1", port=0, stop=asyncio.Event())
