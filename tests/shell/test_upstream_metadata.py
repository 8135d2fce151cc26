"""Pages, documents and the root list of a fake index, honest and not."""

import json
from typing import Any

import pytest

from heliostat.errors import Invalid, Missing, Refused, Unavailable, UpstreamError
from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import (
    Body,
    Cut,
    Endless,
    GzipBomb,
    GzipJunk,
    Hang,
    Headers,
    Redirect,
    Reset,
    Rewrite,
    Stale,
    Status,
)
from heliostat.fakeindex.options import Options
from heliostat.model import Listed
from heliostat.names import normalise
from heliostat.upstream.client import Upstream
from support.scripted import QuickClock, Scripted, reply
from support.upstreams import SHORT, upstream

DEMO = normalise("demo")
PAGE, DOCUMENT = "/simple/demo/", "/pypi/demo/json"


def demo_index() -> Index:
    index = Index()
    index.publish("Demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"one"))
    index.publish("Demo", "2.0", UploadedFile("demo-2.0.tar.gz", b"two"))
    index.create("other")
    return index


async def test_a_page_and_its_document() -> None:
    index = demo_index()
    async with FakeIndex(index) as server, upstream(server.url) as one:
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert page.page == index.expected_page("demo")
        assert page.serial == document.serial == index["demo"].last_serial
        assert document.body == index.document_bytes("demo")
        assert document.document.display_name == "Demo"
        assert [file.filename for file in document.document.files] == ["demo-1.0.tar.gz", "demo-2.0.tar.gz"]
        assert all(request.headers["accept-encoding"] == "gzip" for request in server.requests)


async def test_unchanged() -> None:
    async with FakeIndex(demo_index()) as server, upstream(server.url) as one:
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert await one.page(DEMO, etag=page.etag) is None
        assert await one.document(DEMO, etag=document.etag) is None
        server.index.touch("demo")
        assert await one.page(DEMO, etag=page.etag) is not None
        assert await one.document(DEMO, etag=document.etag) is not None


async def test_no_project_is_missing_and_asked_for_once() -> None:
    async with FakeIndex(demo_index()) as server, upstream(server.url) as one:
        for call in (one.page(normalise("nope")), one.document(normalise("nope"))):
            with pytest.raises(Missing):
                await call
        assert len(server.requests) == 2


async def test_what_passes_is_tried_again() -> None:
    actions = [Status(500), Status(503, retry_after=0), Cut(), Cut(-1), Reset(), GzipJunk(), GzipJunk(cut=True)]
    actions += [Body(b"<html>", "text/html"), Body(b"{"), Redirect("http://other.example/")]
    async with FakeIndex(demo_index()) as server, upstream(server.url) as one:
        for action in actions:
            server.fault(PAGE, action, times=1)
            server.fault(DOCUMENT, action, times=1)
            page, document = await one.page(DEMO), await one.document(DEMO)
            assert page is not None
            assert document is not None
            assert len(page.page.files) == len(document.document.files) == 2


@pytest.mark.parametrize(
    ("action", "error", "why"),
    [
        (Status(500), Unavailable, "status 500"),
        (Status(403), Unavailable, "status 403"),
        (Reset(), Unavailable, "cut short|lost"),
        (Cut(), Unavailable, "cut short"),
        (Hang(), Unavailable, "no byte for"),
        (Hang(0.5), Unavailable, "no byte for"),
        (GzipJunk(), Invalid, "not gzip"),
        (GzipBomb(1 << 30), Invalid, "larger than 200000 bytes"),
        (Endless(), Invalid, "larger than 200000 bytes"),
        (Body(b"x" * 200_001), Invalid, "larger than 200000 bytes"),
        (Body(b"", "text/html"), Invalid, "HTML where JSON was asked for"),
        (Body(b"{}", "image/png"), Invalid, "'image/png' where JSON was asked for"),
        (Body(b""), Invalid, "wrong content|JSON"),
        (Body(b"[" * 100_000), Invalid, "wrong content|JSON"),
        (Body(b'{"name": 5, "files": 7, "last_serial": {}, "urls": -1}'), Invalid, "wrong content|JSON"),
        (Headers({"Content-Encoding": "br"}), Invalid, "not asked for"),
        (Redirect("https://other.example/{path}"), Invalid, "redirected elsewhere"),
        (Redirect("{path}"), Invalid, "more than 5 redirects"),
    ],
)
async def test_what_goes_wrong(action: Status, error: type[UpstreamError], why: str) -> None:
    changes: dict[str, Any] = {"max_page": 200_000, "max_document": 200_000, "stall_timeout": SHORT, "retries": 2}
    async with FakeIndex(demo_index(), options=Options(gzip=False)) as server, upstream(server.url, **changes) as one:
        for path, call in ((PAGE, one.page(DEMO)), (DOCUMENT, one.document(DEMO))):
            server.fault(path, action)
            with pytest.raises(error, match=why) as caught:
                await call
            assert caught.value.url == server.url + path
        other = await one.page(normalise("other"))
        assert other is not None
        assert one.figures().metadata.in_flight == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
async def test_files_without_an_ending_are_served_under_such_types(kind: str) -> None:
    async with FakeIndex(demo_index()) as server, upstream(server.url) as one:
        server.fault("*", Headers({"Content-Type": kind}))
        assert await one.document(DEMO) is not None
        with pytest.raises(Invalid, match=f"'{kind}' where JSON was asked for"):
            await one.page(DEMO)


async def test_a_large_document() -> None:
    index = demo_index()
    async with FakeIndex(index) as server, upstream(server.url) as one:
        filler = json.dumps({"x": "y" * (1 << 20)}).encode()[:-1]
        server.fault(DOCUMENT, Rewrite(lambda body: filler + b", " + body[1:]))
        document = await one.document(DEMO)
        assert document is not None
        assert len(document.body) > 1 << 20
        assert len(document.document.files) == 2


@pytest.mark.parametrize(
    ("header", "serial"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("999999", None),
        ("0", None),
        ("-5", None),
        ("\u0665", None),
        ("9" * 30, None),
        (None, None),
    ],
)
async def test_the_lower_serial_counts(header: str | None, serial: int | None) -> None:
    index = demo_index()
    async with FakeIndex(index) as server, upstream(server.url) as one:
        server.fault("*", Headers({"X-PyPI-Last-Serial": header}))
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert page.serial == document.serial == (serial or index["demo"].last_serial)


async def test_a_stale_answer_shows_its_age() -> None:
    index = demo_index()
    old = index["demo"].last_serial
    index.touch("demo")
    async with FakeIndex(index) as server, upstream(server.url) as one:
        server.fault("*", Stale())
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert page.serial == document.serial == old
        assert page.page.serial == old


async def test_a_static_upstream_says_its_serial_in_the_body() -> None:
    index = demo_index()
    async with FakeIndex(index, options=Options.static()) as server, upstream(server.url) as one:
        page = await one.page(DEMO)
        assert page is not None
        assert page.serial == index["demo"].last_serial
        assert page.page.files[0].url.startswith(server.url)


async def test_html_only_is_said_plainly() -> None:
    async with FakeIndex(demo_index(), options=Options(simple_json=False)) as server, upstream(server.url) as one:
        with pytest.raises(Invalid, match="HTML where JSON was asked for; this server may have HTML pages only"):
            await one.page(DEMO)
        with pytest.raises(Invalid, match="HTML where JSON was asked for; this server may have HTML pages only"):
            async with one.root_list():
                pass


async def test_a_plain_file_server_is_asked_for_its_json_files() -> None:
    page = b'{"meta": {"api-version": "1.1", "_last-serial": 7}, "name": "demo", "files": []}'
    root = b'{"meta": {"api-version": "1.1", "_last-serial": 9}, "projects": [{"name": "demo", "_last-serial": 7}]}'
    async with Scripted() as server, upstream(server.url) as one:
        for path, body in (("/simple/demo/", page), ("/simple/", root)):
            server.on(path, reply(200, b"<html>", kind="text/html"))
            server.on(f"{path}index.v1_json", reply(200, body, kind="application/octet-stream"))
        for _ in range(2):
            answer = await one.page(DEMO)
            assert answer is not None
            assert answer.serial == 7
        async with one.root_list() as listed:
            assert listed is not None
            assert [entry async for entries in listed for entry in entries] == [Listed("demo", 7)]
            assert listed.serial == 9
        with pytest.raises(Missing):
            await one.page(normalise("nope"))
        explicit = [path for path in server.paths() if path.endswith("index.v1_json")]
        assert server.paths().count("/simple/demo/") == 1
        assert len(explicit) == 5


# The root list.


async def listed(one: Upstream) -> list[Listed]:
    async with one.root_list() as root:
        assert root is not None
        return [entry async for entries in root for entry in entries]


async def test_the_root_list() -> None:
    index = demo_index()
    async with FakeIndex(index) as server, upstream(server.url) as one:
        async with one.root_list() as root:
            assert root is not None
            assert root.serial is None
            listed = [entry async for entries in root for entry in entries]
            assert root.serial == index.serial
            etag = root.etag
        assert listed == [Listed("Demo", index["demo"].last_serial), Listed("other", index["other"].last_serial)]
        async with one.root_list(etag) as root:
            assert root is None
        index.touch("demo")
        async with one.root_list(etag) as root:
            assert root is not None
        assert one.figures().metadata.in_flight == 0


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (Cut(), Unavailable),
        (Reset(), Unavailable),
        (GzipJunk(), Invalid),
        (GzipBomb(1 << 30), Invalid),
        (Endless(), Invalid),
        (Endless(b'{"name":"x"},', honest=False), Invalid),
        (Body(b"{"), Invalid),
        (Body(b'{"meta": {"api-version": "1.1"}}'), Invalid),
    ],
)
async def test_a_root_list_that_breaks_off(action: Cut, error: type[UpstreamError]) -> None:
    async with FakeIndex(demo_index()) as server, upstream(server.url, max_root=1 << 20) as one:
        server.fault("/simple/", action)
        with pytest.raises(error):
            await listed(one)
        assert server.count("/simple/") == 1
        assert one.figures().metadata.in_flight == 0


async def test_opening_the_root_list_is_tried_again() -> None:
    async with FakeIndex(demo_index()) as server, upstream(server.url, clock=QuickClock()) as one:
        server.fault("/simple/", Status(503, retry_after=3), times=2)
        async with one.root_list() as root:
            assert root is not None
        server.fault("/simple/", Status(500))
        with pytest.raises(Unavailable):
            await listed(one)
        assert server.count("/simple/") == 6


# Small objects.


async def test_small_objects() -> None:
    index = Index()
    wheel = UploadedFile("demo-1.0-py3-none-any.whl", b"one", sidecar=b"Metadata-Version: 2.1\n")
    index.publish("demo", "1.0", wheel)
    path = index.expected_files("demo")[0].file.path
    async with FakeIndex(index) as server, upstream(server.url) as one:
        url = server.url + path + ".metadata"
        assert await one.fetch(url, limit=100) == b"Metadata-Version: 2.1\n"
        assert server.requests[-1].headers["accept-encoding"] == "identity"
        with pytest.raises(Invalid, match="larger than 10 bytes"):
            await one.fetch(url, limit=10)
        with pytest.raises(Missing):
            await one.fetch(server.url + "/nothing", limit=10)
        with pytest.raises(Refused):
            await one.fetch("http://other.example/x.metadata", limit=10)
        server.fault("*.metadata", Status(503), times=2)
        assert await one.fetch(url, limit=100) == b"Metadata-Version: 2.1\n"
