"""The fake index over HTTP: URLs, statuses and headers of the public index."""

from __future__ import annotations

import asyncio
import gzip
import json
import urllib.parse
import xmlrpc.client
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import ODD_FILENAMES, many_projects, provenance_for, small_index

JSON = "application/vnd.pypi.simple.v1+json"
PIP = f"{JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(url: str, path: str, *, method: str = "GET", body: bytes = b"", **headers: Any) -> Got:
    """One request on a connection of its own, byte for byte; header names with underscores for dashes."""
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    return Got(int(first.split()[1]), {name.lower(): value for name, value in pairs}, rest)


async def call(url: str, method: str, *parameters: Any, path: str = "/pypi") -> object:
    request = xmlrpc.client.dumps(parameters, method).encode()
    got = await ask(url, path, method="POST", body=request, content_type="text/xml")
    assert got.status == 200
    assert got.headers["content-type"] == "text/xml; charset=UTF-8"
    return xmlrpc.client.loads(got.body)[0][0]


def sample() -> Index:
    index = Index()
    index.publish("Demo.X", "1.0", [UploadedFile("demo_x-1.0-py3-none-any.whl", bytes(range(200)), sidecar=b"META")])
    return index


@pytest.fixture
async def server() -> AsyncIterator[FakeIndex]:
    async with FakeIndex(sample()) as running:
        yield running


# -- the Simple API ------------------------------------------------------------------------------------------------


async def test_pages_say_their_serial_everywhere(server: FakeIndex) -> None:
    serial = server.index.serial
    root = await ask(server.url, "/simple/", accept=JSON)
    assert json.loads(root.body) == {
        "meta": {"_last-serial": serial, "api-version": "1.4"},
        "projects": [{"_last-serial": serial, "name": "Demo.X"}],
    }
    assert root.headers["content-type"] == JSON
    page = await ask(server.url, "/simple/demo-x/", accept=JSON)
    assert json.loads(page.body)["meta"] == {"_last-serial": serial, "api-version": "1.4"}
    document = await ask(server.url, "/pypi/demo-x/json")
    assert document.body == server.index.document_bytes("demo-x")
    for got in (root, page, document):
        assert got.headers["x-pypi-last-serial"] == str(serial)
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    assert (page.headers["cache-control"], document.headers["cache-control"]) == (
        "max-age=600, public",
        "max-age=900, public",
    )


async def test_html_pages_are_the_public_indexes_bytes(server: FakeIndex) -> None:
    server.index.archive("demo-x")
    page = await ask(server.url, "/simple/demo-x/")
    file = server.index.expected_files("demo-x")[0].file
    digest = file.content.digests.sha256
    assert page.body.decode() == (
        '<!DOCTYPE html>\n<html lang="en">\n  <head>\n    <meta name="pypi:repository-version" content="1.4">\n'
        '<meta name="pypi:project-status" content="archived">    <title>Links for demo-x</title>\n  </head>\n  <body>\n'
        "    <h1>Links for demo-x</h1>\n"
        f'<a href="{server.url}{file.path}#sha256={digest}" data-dist-info-metadata="sha256={file.sidecar_sha256}" '
        f'data-core-metadata="sha256={file.sidecar_sha256}">demo_x-1.0-py3-none-any.whl</a><br />\n'
        f"</body>\n</html>\n<!--SERIAL {server.index.serial}-->"
    )
    root = await ask(server.url, "/simple/")
    assert b'\n<a href="/simple/demo-x/">Demo.X</a>\n' in root.body


async def test_html_is_escaped_as_the_public_index_escapes_it() -> None:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("a'b&c\"d.zip", b"x"), requires_python=">=3, <4")
    index.yank("demo", "1.0", '<see> "it\'s" & go')
    async with FakeIndex(index) as server:
        page = (await ask(server.url, "/simple/demo/")).body.decode()
    assert 'data-requires-python="&gt;=3, &lt;4" ' in page
    assert 'data-yanked="&lt;see&gt; &#34;it&#39;s&#34; &amp; go" ' in page
    assert ">a&#39;b&amp;c&#34;d.zip</a><br />\n" in page
    assert "/a&#39;b&amp;c%22d.zip#sha256=" in page


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (JSON, JSON),
        (PIP, JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.v1+html"),
        ("text/html;q=0.5, application/vnd.pypi.simple.v1+json;q=0.4", "text/html"),
        ("application/vnd.pypi.simple.v1+json;q=0, text/html", "text/html"),
        (f"{JSON}, text/html", JSON),
        (f"text/html, {JSON}", "text/html"),
        ("*/*", "text/html"),
        ("image/png", "text/html"),
        ("", "text/html"),
    ],
)
async def test_negotiation_never_fails(server: FakeIndex, accept: str, kind: str) -> None:
    for path in ("/simple/", "/simple/demo-x/"):
        assert (await ask(server.url, path, accept=accept)).headers["content-type"] == kind


async def test_the_format_in_the_query_wins(server: FakeIndex) -> None:
    got = await ask(server.url, f"/simple/demo-x/?format={JSON}", accept="text/html")
    assert got.headers["content-type"] == JSON
    got = await ask(server.url, f"/simple/demo-x/?format={urllib.parse.quote(JSON)}", accept="text/html")
    assert got.headers["content-type"] == JSON


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/simple", "/simple/"),
        ("/simple/demo-x", "/simple/demo-x/"),
        ("/simple/Demo.X/", "/simple/demo-x/"),
        ("/simple/Demo__X", "/simple/demo-x/"),
        ("/pypi/demo-x/json/", "/pypi/demo-x/json"),
    ],
)
async def test_other_spellings_redirect(server: FakeIndex, path: str, target: str) -> None:
    got = await ask(server.url, path)
    assert (got.status, got.headers["location"]) == (301, target)


async def test_what_is_not_there_is_404_in_the_public_indexes_words(server: FakeIndex) -> None:
    page = await ask(server.url, "/simple/other/")
    assert (page.status, page.body, page.headers["content-type"]) == (
        404,
        b"404 Not Found",
        "text/plain; charset=UTF-8",
    )
    document = await ask(server.url, "/pypi/other/json")
    assert (document.status, document.body) == (404, b'{"message": "Not Found"}')
    assert (await ask(server.url, "/packages/aa/bb/cc/x.zip")).status == 404
    assert (await ask(server.url, "/simple/", method="DELETE")).status == 405


async def test_documents_of_one_version_have_no_releases(server: FakeIndex) -> None:
    document = json.loads((await ask(server.url, "/pypi/Demo.X/1.0/json")).body)
    assert "releases" not in document
    assert document["info"]["version"] == "1.0"
    assert (await ask(server.url, "/pypi/demo-x/2.0/json")).status == 404


async def test_a_project_without_release_and_a_quarantined_one(server: FakeIndex) -> None:
    server.index.create("empty")
    assert json.loads((await ask(server.url, "/simple/empty/", accept=JSON)).body)["files"] == []
    assert (await ask(server.url, "/pypi/empty/json")).status == 404
    server.index.quarantine("demo-x")
    page = json.loads((await ask(server.url, "/simple/demo-x/", accept=JSON)).body)
    assert (page["files"], page["project-status"]) == ([], {"status": "quarantined"})
    assert (await ask(server.url, "/pypi/demo-x/json")).status == 404
    assert [one["name"] for one in json.loads((await ask(server.url, "/simple/", accept=JSON)).body)["projects"]] == [
        "empty"
    ]
    assert set(await call(server.url, "list_packages_with_serial")) == {"Demo.X", "empty"}  # type: ignore[call-overload]


async def test_answers_follow_every_change_also_those_without_serial(server: FakeIndex) -> None:
    async def bodies() -> list[bytes]:
        paths = ("/simple/demo-x/", "/pypi/demo-x/json")
        return [(await ask(server.url, path, accept=JSON)).body for path in paths]

    before = await bodies()
    server.index.set_vulnerabilities("demo-x", "1.0", [{"id": "X-1"}])
    after = await bodies()
    assert before[0] == after[0]
    assert before[1] != after[1]
    server.index.archive("demo-x")
    assert json.loads((await bodies())[0])["project-status"] == {"status": "archived"}
    server.index.remove_project("demo-x")
    server.index.publish("demo-x", "1.0", [UploadedFile("demo_x-1.0.zip", b"other")])
    assert json.loads((await bodies())[0])["files"][0]["filename"] == "demo_x-1.0.zip"


async def test_etags_give_304_on_metadata_and_never_on_files(server: FakeIndex) -> None:
    for path in ("/simple/", "/simple/demo-x/", "/pypi/demo-x/json"):
        etag = (await ask(server.url, path, accept=JSON)).headers["etag"]
        for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await ask(server.url, path, accept=JSON, if_none_match=condition)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert (await ask(server.url, path, accept=JSON, if_none_match='"other"')).status == 200
        server.index.touch("demo-x")
        assert (await ask(server.url, path, accept=JSON, if_none_match=etag)).status == 200
    path = server.index.expected_files("demo-x")[0].file.path
    assert (await ask(server.url, path, if_none_match="*")).status == 200


async def test_gzip_is_given_to_those_who_ask_and_never_for_files(server: FakeIndex) -> None:
    plain = await ask(server.url, "/pypi/demo-x/json")
    packed = await ask(server.url, "/pypi/demo-x/json", accept_encoding="gzip, deflate")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    path = server.index.expected_files("demo-x")[0].file.path
    assert "content-encoding" not in (await ask(server.url, path, accept_encoding="gzip")).headers


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "part", "said"),
    [
        (None, 200, slice(0, 200), None),
        ("bytes=10-19", 206, slice(10, 20), "bytes 10-19/200"),
        ("bytes=190-", 206, slice(190, 200), "bytes 190-199/200"),
        ("bytes=190-900", 206, slice(190, 200), "bytes 190-199/200"),
        ("bytes=-5", 206, slice(195, 200), "bytes 195-199/200"),
        ("bytes=200-", 416, slice(0, 0), "bytes */200"),
        ("bytes=0-1,5-6", 200, slice(0, 200), None),
        ("lines=1-2", 200, slice(0, 200), None),
    ],
)
async def test_ranges(server: FakeIndex, asked: str | None, status: int, part: slice, said: str | None) -> None:
    file = server.index.expected_files("demo-x")[0].file
    options: dict[str, Any] = {"range": asked} if asked else {}
    got = await ask(server.url, file.path, **options)
    assert (got.status, got.body) == (status, bytes(range(200))[part])
    assert got.headers.get("content-range") == said
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["etag"] == f'"{file.content.digests.md5}"'


async def test_if_range_with_another_etag_gives_everything(server: FakeIndex) -> None:
    file = server.index.expected_files("demo-x")[0].file
    same = await ask(server.url, file.path, range="bytes=5-", if_range=f'"{file.content.digests.md5}"')
    other = await ask(server.url, file.path, range="bytes=5-", if_range='"other"')
    assert (same.status, other.status) == (206, 200)


async def test_head_has_the_headers_and_no_body(server: FakeIndex) -> None:
    file = server.index.expected_files("demo-x")[0].file
    got = await ask(server.url, file.path, method="HEAD")
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "200")


async def test_sidecars_and_provenance(server: FakeIndex) -> None:
    file = server.index.expected_files("demo-x")[0].file
    assert (await ask(server.url, f"{file.path}.metadata")).body == b"META"
    where = f"/integrity/demo-x/1.0/{file.filename}/provenance"
    missing = await ask(server.url, where)
    assert (missing.status, b"No provenance available" in missing.body) == (404, True)
    server.index.set_provenance("demo-x", "1.0", file.filename, provenance_for(file))
    page = json.loads((await ask(server.url, "/simple/demo-x/", accept=JSON)).body)
    assert page["files"][0]["provenance"] == server.url + where
    got = await ask(server.url, where)
    assert json.loads(got.body) == provenance_for(file)
    assert got.headers["content-type"] == "application/vnd.pypi.integrity.v1+json"


async def test_a_large_file_comes_whole_and_is_never_in_memory() -> None:
    index = Index()
    index.publish("big", "1", UploadedFile("big-1.zip", Virtual(20_000_000, 3)))
    file = index.expected_files("big")[0].file
    async with FakeIndex(index) as server:
        got = await ask(server.url, file.path)
        assert got.body == file.content.read(0, file.size)
        assert server.bytes_sent[file.path] == server.total_bytes == 20_000_000


async def test_odd_file_names_are_reached_by_the_urls_that_pages_give() -> None:
    async with FakeIndex(small_index()) as server:
        page = json.loads((await ask(server.url, "/simple/odd-files/", accept=JSON)).body)
        assert {file["filename"] for file in page["files"]} == set(ODD_FILENAMES)
        for file in page["files"]:
            assert urllib.parse.unquote(urlsplit(file["url"]).path.rpartition("/")[2]) == file["filename"]
            got = await ask(server.url, file["url"].removeprefix(server.url))
            assert (got.status, len(got.body)) == (200, file["size"])


async def test_deleted_files_stay_downloadable(server: FakeIndex) -> None:
    path = server.index.expected_files("demo-x")[0].file.path
    server.index.remove_project("demo-x")
    assert (await ask(server.url, path)).status == 200


# -- XML-RPC -------------------------------------------------------------------------------------------------------


async def test_the_change_feed(server: FakeIndex) -> None:
    serial = await call(server.url, "changelog_last_serial")
    assert serial == server.index.serial
    server.index.yank("demo-x", "1.0")
    rows = await call(server.url, "changelog_since_serial", serial, path="/RPC2")
    assert rows == [["Demo.X", "1.0", server.index.now, "yank release", server.index.serial]]
    assert await call(server.url, "changelog_since_serial", server.index.serial, path="/pypi/") == []


async def test_the_row_cap_is_a_limit_and_not_the_end() -> None:
    index = many_projects(10, 2, 1, 10)
    async with FakeIndex(index, options=Options(row_cap=7)) as server:
        cursor, seen = 0, []
        while rows := await call(server.url, "changelog_since_serial", cursor):
            assert len(rows) <= 7  # type: ignore[arg-type]
            seen += [row[4] for row in rows]  # type: ignore[attr-defined]
            cursor = seen[-1]
        assert seen == [row.serial for row in index.rows()]


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("changelog_since_serial", ("5",), -32602),
        ("changelog_since_serial", (True,), -32602),
        ("search", ({"name": "x"},), -32500),
        ("release_urls", ("x", "1"), -32500),
        ("no_such_method", (), -32601),
    ],
)
async def test_faults_come_with_200(server: FakeIndex, method: str, parameters: tuple[object, ...], code: int) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        await call(server.url, method, *parameters)
    assert caught.value.faultCode == code


async def test_without_the_content_type_there_is_a_web_page(server: FakeIndex) -> None:
    request = xmlrpc.client.dumps((), "changelog_last_serial").encode()
    got = await ask(server.url, "/pypi", method="POST", body=request)
    assert (got.status, got.headers["content-type"]) == (200, "text/html")
    broken = await ask(server.url, "/pypi", method="POST", body=b"<nonsense", content_type="text/xml")
    with pytest.raises(xmlrpc.client.Fault):
        xmlrpc.client.loads(broken.body)


# -- other upstreams -----------------------------------------------------------------------------------------------


async def test_a_static_mirror_has_serials_in_bodies_only() -> None:
    async with FakeIndex(sample(), options=Options.static()) as server:
        page = await ask(server.url, "/simple/demo-x/", accept=JSON)
        assert "x-pypi-last-serial" not in page.headers
        said = json.loads(page.body)
        assert said["meta"]["_last-serial"] == server.index.serial
        assert said["files"][0]["url"].startswith("../../packages/")
        reached = urllib.parse.urljoin("/simple/demo-x/", said["files"][0]["url"])
        assert (await ask(server.url, reached)).status == 200
        posted = await ask(server.url, "/pypi", method="POST", body=b"x", content_type="text/xml")
        assert posted.status == 404


async def test_options_model_other_servers() -> None:
    options = Options(documents=False, serial_as_string=True, simple_html=False, etags=False, ranges=False, gzip=False)
    async with FakeIndex(sample(), options=options) as server:
        page = await ask(server.url, "/simple/demo-x/", accept="text/html", accept_encoding="gzip")
        assert json.loads(page.body)["meta"]["_last-serial"] == str(server.index.serial)
        assert not {"etag", "content-encoding"} & set(page.headers)
        root = await ask(server.url, "/simple/", accept=JSON)
        assert json.loads(root.body)["meta"]["_last-serial"] == str(server.index.serial)
        assert (await ask(server.url, "/pypi/demo-x/json")).status == 404
        path = server.index.expected_files("demo-x")[0].file.path
        whole = await ask(server.url, path, range="bytes=5-")
        assert (whole.status, len(whole.body)) == (200, 200)
        server.options.simple_html, server.options.simple_json = True, False
        assert (await ask(server.url, "/simple/demo-x/", accept=JSON)).headers["content-type"] == "text/html"


async def test_files_may_be_on_another_host() -> None:
    async with FakeIndex(sample(), options=Options(files_host=True)) as server:
        assert server.files_url != server.url
        page = json.loads((await ask(server.url, "/simple/demo-x/", accept=JSON)).body)
        assert page["files"][0]["url"].startswith(server.files_url)
        path = page["files"][0]["url"].removeprefix(server.files_url)
        assert (await ask(server.files_url, path)).status == 200


async def test_errors_are_drawn_from_the_seed() -> None:
    async def statuses() -> list[int]:
        async with FakeIndex(sample(), options=Options(error_rate=0.5, seed=7)) as server:
            return [(await ask(server.url, "/simple/")).status for _ in range(20)]

    first = await statuses()
    assert set(first) == {200, 503}
    assert first == await statuses()


# -- the server itself ---------------------------------------------------------------------------------------------


async def test_requests_are_logged_in_order_with_what_was_sent(server: FakeIndex) -> None:
    path = server.index.expected_files("demo-x")[0].file.path
    await ask(server.url, "/simple/", user_agent="tester/1")
    await ask(server.url, path, range="bytes=0-9")
    assert [(one.method, one.path, one.status, one.range, one.sent) for one in server.requests][1:] == [
        ("GET", path, 206, "bytes=0-9", 10)
    ]
    assert server.requests[0].headers["user-agent"] == "tester/1"
    assert (server.count("/packages/*"), server.bytes_sent[path], server.request_count) == (1, 10, 2)
    server.reset_log()
    assert (len(server.requests), server.total_bytes, server.request_count) == (0, 0, 0)


async def test_the_log_can_be_switched_off() -> None:
    async with FakeIndex(sample(), options=Options(log=False)) as server:
        got = await ask(server.url, "/simple/")
        assert len(server.requests) == 0
        assert (server.request_count, server.total_bytes) == (1, len(got.body))


async def test_a_connection_serves_many_requests_also_when_they_come_together(server: FakeIndex) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(server.url).hostname, urlsplit(server.url).port)
    writer.write(b"GET /simple/ HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /simple/other/ HTTP/1.1\r\nHost: x\r\nConn")
    await writer.drain()
    writer.write(b"ection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"404"]


@pytest.mark.parametrize(
    "nonsense", [b"GET\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"x" * 200_000]
)
async def test_nonsense_is_refused(server: FakeIndex, nonsense: bytes) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(server.url).hostname, urlsplit(server.url).port)
    writer.write(nonsense)
    assert (await reader.read(12)) == b"HTTP/1.1 400"
    writer.close()


async def test_requests_in_flight_are_counted(server: FakeIndex) -> None:
    server.options.latency = 0.02
    await asyncio.gather(*(ask(server.url, "/simple/") for _ in range(5)))
    assert server.most_in_flight == {"metadata": 5}
    assert server.in_flight["metadata"] == 0


async def test_a_server_that_was_stopped_starts_again_on_the_same_port(server: FakeIndex) -> None:
    url = server.url
    await server.refuse_connections()
    with pytest.raises(OSError, match="Connect call failed"):
        await ask(url, "/simple/")
    await server.start()
    assert server.url == url
    assert (await ask(url, "/simple/")).status == 200


async def test_what_was_served_can_be_asked_after_the_end() -> None:
    index = sample()
    async with FakeIndex(index) as server:
        body = (await ask(server.url, "/pypi/demo-x/json")).body
    assert index.document_bytes("demo-x") == body
    page = index.expected_page("demo-x")
    assert page is not None
    assert page.files[0].url.startswith(server.url)


async def test_warming_changes_nothing_but_the_work_left() -> None:
    index = many_projects(5, 2, 1, 50)
    async with FakeIndex(index) as server:
        server.warm()
        assert (await ask(server.url, "/pypi/project-0000004/json")).body == index.document_bytes("project-0000004")
        assert len(server.requests) == 1
