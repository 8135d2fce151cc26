"""Pages and documents that no index should send: told in one line, shown to nobody, or made harmless."""

import copy
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Body, GzipBomb
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.names import normalise
from heliostat.pages.parse_html import parse_project
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

Change = Callable[[Any], Any]


def put(key: str, value: Any) -> Change:
    """Put a value at a key; ``/`` goes deeper, numbers are places in a list."""

    def change(body: Any) -> None:
        *path, last = key.split("/")
        for step in path:
            body = body[int(step) if isinstance(body, list) else step]
        body[int(last) if isinstance(body, list) else last] = value

    return change


def drop(key: str) -> Change:
    def change(body: Any) -> None:
        *path, last = key.split("/")
        for step in path:
            body = body[int(step) if isinstance(body, list) else step]
        del body[int(last) if isinstance(body, list) else last]

    return change


WRONG_VALUES: list[Any] = [None, True, -1, 1.5, 10**30, "", "text", [], {}, [[]], [None], {"a": None}]

#: What of a page must be as it is: wrong types of it make the page useless.
PAGE_VALUES: dict[str, list[Any]] = {
    "files": [None, True, -1, "text", {}, [None], [1], ["x"], [[]], [{}]],
    "files/0/filename": [None, True, 7, [], {}, ""],
    "files/0/url": [None, True, 7, [], {}, ""],
    "files/0/hashes": [True, 7, "x", [], {"sha256": 7}, {"sha256": []}],
    "files/0/size": [-1, 1.5, 2**51, 10**30, "7", True, [], {}, -(10**30)],
    "files/0/upload-time": [7, [], {}, "yesterday", "9999-99-99T99:99:99Z", "2026-01-01"],
    "files/0/requires-python": [7, [], {}, True],
    "files/0/yanked": [7, [], {}, 1.5],
    "files/0/core-metadata": [7, [], "x", {"sha256": 7}, {"sha256": "x"}],
    "files/0/provenance": [7, [], {}, True],
    "meta": [True, 7, "x", []],
    "meta/api-version": [7, 1.0, [], "two", "2.0", "9" * 100],
    "meta/_last-serial": [-1, 1.5, 2**63, 10**40, "many", "-1", [], {}, True],
    "name": [None, 7, [], "", "alpha", "../demo", "d" * 300, "\u202edemo"],
    "versions": [True, 7, "1.0", {}, [1], [None], [[]]],
    "project-status": [7, [], True, {"status": 7}, {"status": "<script>"}],
}
PAGE: list[Change] = [
    *(put(key, value) for key, values in PAGE_VALUES.items() for value in values),
    drop("files"),
    drop("name"),
    drop("files/0/filename"),
    drop("files/0/url"),
    lambda body: [],
    lambda body: [body],
    lambda body: "text",
    lambda body: 7,
    lambda body: 0.0,
]
DOCUMENT_VALUES: dict[str, list[Any]] = {
    "releases": [True, -1, "text", [], {"1.0": 7}, {"1.0": {}}, {"1.0": [7]}, {"1.0": [{}]}],
    "urls": [True, -1, "text", {}, [7], [{}]],
    "last_serial": [-1, 1.5, 2**63, 10**40, "many", [], {}, True],
    "info": [True, 7, "text", []],
    "info/name": [7, [], {}, "alpha"],
    "releases/1.0/0/filename": [None, 7, [], ""],
    "releases/1.0/0/url": [None, 7, [], ""],
    "releases/1.0/0/digests": [7, [], "x", {"sha256": 7}],
    "releases/1.0/0/size": [-1, 1.5, 10**30, "7", []],
    "releases/1.0/0/upload_time_iso_8601": [7, []],
    "releases/1.0/0/yanked": [7, [], {}],
}
DOCUMENT: list[Change] = [
    *(put(key, value) for key, values in DOCUMENT_VALUES.items() for value in values),
    *(drop(f"releases/1.0/0/{key}") for key in ("filename", "url")),
    lambda body: [],
    lambda body: "text",
    lambda body: {},
]
BODIES = [
    b"",
    b" ",
    b"null",
    b"{",
    b'{"name":"demo","files":[]',
    b'{"name":"demo","files":[]}}',
    b'{"name":"demo","files":[]} trailing',
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b'{"name":"d\xe9mo","files":[]}',
    b'{"name":"demo","files":[],"more":"\xff"}',
    b'{"name":"demo","files":[{"filename":"\\ud800.whl","url":"x"}]}',
    b'{"name":"demo","files":[{"filename":"\\udc00\\ud800.whl","url":"x"}]}',
    b'{"name":"demo","files":[],"versions":["\\ud83d"]}',
    b'{"name":"demo","files":[' + b"[" * 1_000_000,
    b'{"name":"demo","files":[],"more":' + b'{"a":' * 500_000,
    b"[" * 3_000_000,
    b'{"name":"demo","files":[],"meta":{"_last-serial":' + b"9" * 1_000_000 + b"}}",
    b'{"name":"demo","files":[{"filename":"a","url":"b","size":1e999999}]}',
    b'{"name":"demo","files":[{"filename":"a","url":"b","size":NaN}]}',
    b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"\x00" * 100_000,
]


def ids(changes: list[Any]) -> list[str]:
    return [f"{number}" for number in range(len(changes))]


async def absurd(server: FakeIndex, index: Index, where: str, directory: Path) -> None:
    """The victim is owed with its page's or document's URL; all else is right; then it heals."""
    config = config_for(directory / "mirror", server, batch_seconds=0.0)
    summary = await run_pass(config)
    suffering.assert_owed(summary, "failing", server.url + suffering.PLACES[where])
    assert summary.cursor == index.serial
    assert suffering.served(config) == {}
    suffering.assert_others_equal(config, index)
    suffering.assert_nothing_left(config)


@pytest.mark.parametrize("change", PAGE, ids=ids(PAGE))
async def test_a_page_of_wrong_types(change: Change, tmp_path: Path) -> None:
    index = small()
    async with FakeIndex(index) as server:
        suffering.lie(server, change)
        await absurd(server, index, "page", tmp_path)


@pytest.mark.parametrize("change", DOCUMENT, ids=ids(DOCUMENT))
async def test_a_document_of_wrong_types(change: Change, tmp_path: Path) -> None:
    index = small()
    async with FakeIndex(index) as server:
        suffering.lie(server, change, where="document")
        await absurd(server, index, "document", tmp_path)


@pytest.mark.parametrize("where", ["page", "document"])
@pytest.mark.parametrize("body", BODIES, ids=ids(BODIES))
async def test_a_body_that_is_not_json(body: bytes, where: str, tmp_path: Path) -> None:
    index = small()
    async with FakeIndex(index) as server:
        server.fault(suffering.PLACES[where], Body(body))
        await absurd(server, index, where, tmp_path)


def small() -> Index:
    index = Index()
    index.publish("alpha", "1.0", uploaded(wheel("alpha", "1.0")))
    index.publish("demo", "1.0", [uploaded(wheel("demo", "1.0")), UploadedFile("demo-1.0.tar.gz", b"sdist")])
    return index


@pytest.mark.parametrize("where", ["page", "document"])
async def test_unknown_keys_and_newer_minor_versions_are_fine(where: str, tmp_path: Path) -> None:
    index = small()
    async with FakeIndex(index) as server:

        def change(body: Any) -> None:
            for place in (body, body.get("meta", {}), *body.get("files", []), *body.get("urls", [])):
                for number, value in enumerate(WRONG_VALUES):
                    place[f"new-{number}"] = copy.deepcopy(value)
            if where == "page":
                body["meta"]["api-version"] = "1.99"

        suffering.lie(server, change, where=where)
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        assert set(suffering.served(config)) == {
            *(f"simple/demo/{page}" for page in ("index.html", "index.v1_html", "index.v1_json")), "json/demo", "pypi/demo/json",
            *(one.file.path.lstrip("/") for one in index.expected_files("demo")),
        }  # fmt: skip


# Text that reaches our pages.

SCRIPT = "</a><script>alert('\"&1')</script>"
TEXTS = [
    SCRIPT,
    "\" onmouseover='alert(1)",
    "--><script>alert(1)</script><!--",
    "&lt;already escaped&gt;",
    "\u202eright to left\u2066",
    "\x1b[31mred\x07",
    "line\nbreak\r\n\ttab",
    "\x00nul",
    "]]>",
    "{{ 7 * 7 }}{% raw %}",
    "\U0001f40d" * 10,
    "x" * 100_000,
    " ",
]


class Tags:
    """All tags and attributes of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        from html.parser import HTMLParser

        found: list[tuple[str, dict[str, str | None]]] = []

        class Parser(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                found.append((tag, dict(attrs)))

        parser = Parser()
        parser.feed(text)
        parser.close()
        self.found = found

    def names(self) -> set[str]:
        return {tag for tag, _ in self.found}

    def attributes(self) -> set[str]:
        return {name for _, attributes in self.found for name in attributes}

    def values(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.found if attribute in attributes]


@pytest.mark.parametrize("text", TEXTS, ids=ids(TEXTS))
async def test_text_is_text_on_our_pages(text: str, tmp_path: Path) -> None:
    """In yank reasons and requires-python: escaped in HTML, the same in JSON, and no tag or attribute of its own."""
    index = small()
    index.yank("demo", "1.0", text)
    for one in index.expected_files("demo"):
        one.file.requires_python = text
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        web = tmp_path / "mirror/web"
        page = json.loads((web / "simple/demo/index.v1_json").read_bytes())
        assert [file["yanked"] for file in page["files"]] == [text, text]
        assert [file["requires-python"] for file in page["files"]] == [text, text]
        raw = (web / "simple/demo/index.html").read_bytes()
        shown = Tags(raw.decode())
        assert shown.names() == {"html", "head", "meta", "title", "body", "h1", "a", "br"}
        assert shown.attributes() == {
            "lang", "name", "content", "href", "data-yanked", "data-requires-python", "data-dist-info-metadata",
            "data-core-metadata",
        }  # fmt: skip
        assert shown.values("data-yanked") == [text, text]
        assert text.translate(_ESCAPED) in raw.decode()
        again = parse_project(raw, url="http://127.0.0.1/simple/demo/", name=normalise("demo"))
        assert [file.yanked for file in again.files] == [text, text]
        suffering.assert_others_equal(config, index)


_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


@pytest.mark.parametrize(
    "filename", ["a<script>alert(1)<b>.whl", "a'\"&amp;.whl", "a -->.whl", "a b+c%41#d?e.whl", "%2e%2e%2fx.whl"]
)
async def test_file_names_of_markup(filename: str, tmp_path: Path) -> None:
    """Odd, but names of files: kept as they are, escaped in pages, quoted in links, and what the link leads to is right."""
    index = small()
    index.publish("demo", "2.0", UploadedFile(filename, b"odd"))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.assert_equal(config, index)
        text = (tmp_path / "mirror/web/simple/demo/index.html").read_text()
        assert Tags(text).names() == {"html", "head", "meta", "title", "body", "h1", "a", "br"}


@pytest.mark.parametrize("reason", [SCRIPT, "\u202e", "x" * 10_000])
async def test_a_status_with_a_reason(reason: str, tmp_path: Path) -> None:
    index = small()
    index["demo"].status_reason = reason
    index.quarantine("demo")
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config, "demo")
        text = (tmp_path / "mirror/web/simple/demo/index.html").read_text()
        assert Tags(text).names() <= {"html", "head", "meta", "title", "body", "h1", "p"}
        assert reason in [html.unescape(value or "") for value in Tags(text).values("content")]


@pytest.mark.parametrize("name", [SCRIPT, "../demo", "\x00", "DEMO", "demo\n", "", None])
async def test_what_a_document_calls_the_project(name: str | None, tmp_path: Path) -> None:
    """What is no name, or none at all, is not what the root list shows."""
    index = small()
    async with FakeIndex(index) as server:
        suffering.lie(server, put("info/name", name), where="document")
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        root = json.loads((tmp_path / "mirror/web/simple/index.v1_json").read_bytes())
        assert [one["name"] for one in root["projects"]] == ["alpha", "DEMO" if name == "DEMO" else "demo"]


@pytest.mark.parametrize("name", ["alpha", "D-E-M-O"])
async def test_another_projects_document(name: str, tmp_path: Path) -> None:
    """It is no document of this one: what is there stays, and the project is owed."""
    index = small()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        good = suffering.served(config)
        index.touch("demo")
        suffering.lie(server, put("info/name", name), where="document")
        summary = await run_pass(config)
        suffering.assert_owed(summary, "failing", "/pypi/demo/json", f"the document of '{name}'")
        assert suffering.served(config) == good
        server.clear_faults()
        await complete_pass(config)
        suffering.assert_equal(config, index)


# Many of them.


async def test_one_good_project_among_hostile_ones(tmp_path: Path) -> None:
    """Each of the hostile ones is told, by its own name and reason; the good ones do not notice."""
    index = small()
    changes = [*PAGE[::7], put("files/0/url", "file:///etc/passwd"), put("files/0/filename", "../x")]
    for number in range(len(changes) + 2):
        name = f"hostile-{number}"
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", f"{number}".encode()))
    async with FakeIndex(index) as server:
        for number, change in enumerate(changes):
            suffering.lie(server, change, project=f"hostile-{number}")
        last = len(changes)
        server.fault(f"/simple/hostile-{last}/", GzipBomb(1 << 30))
        server.fault(f"/pypi/hostile-{last + 1}/json", Body(b"[" * 1_000_000))
        config = config_for(tmp_path / "mirror", server, max_page=1 << 20)
        summary = await run_pass(config)
        hostile = {f"hostile-{number}" for number in range(last + 2)}
        assert {one.project for one in summary.owed} == hostile
        assert set(summary.owed_by_state) == {"failing", "blocked"}
        for one in summary.owed:
            assert f"{server.url}/" in one.reason
            assert one.project in one.reason
            assert one.reason.isprintable()
            assert len(one.reason) < 500
        assert summary.unreachable is None
        suffering.assert_others_equal(config, index, *hostile)
        suffering.assert_nothing_left(config)
