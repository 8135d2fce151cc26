"""Whatever one project's page and document say: nothing breaks, nothing is written elsewhere, the others are right."""

import asyncio
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Body
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.equality import differences
from support.mirrors import config_for, run_pass

SHA256 = hashlib.sha256(b"bytes").hexdigest()
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "demo", "alpha", "demo-1.0.tar.gz", "alpha-1.0-py3-none-any.whl", "..", ".", "../x", "/etc/passwd", "a\\b",
            "\x00", "\u202e", "x.metadata", "index.html", "json", "n" * 300, "1.0", "sha256", SHA256, SHA256.upper(),
            "2026-01-01T00:00:00Z", "quarantined", "archived", "file:///etc/passwd", "http://[", "https://elsewhere.invalid/x",
            "/packages/aa/bb/cc/x.whl", "../../packages/demo-1.0.tar.gz", "%2e%2e/x", "?", "#sha256=" + SHA256, "http://127.0.0.1:1/",
            f"/packages/{SHA256[:2]}/{SHA256[2:4]}/{SHA256[4:]}/demo-1.0.tar.gz", "/integrity/demo/../x/provenance", "/integrity/demo/%2e%2e/x/provenance",
        ]
    ),
)  # fmt: skip
numbers = st.one_of(st.integers(-5, 1100), st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30]), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
#: Well-typed files, good and bad: what gets past the parsers.
MD5 = hashlib.md5(b"bytes").hexdigest()
DIGITS = f"{SHA256[:2]}/{SHA256[2:4]}/{SHA256[4:]}"
filenames = (
    st.sampled_from(["demo-1.0.tar.gz", "demo-2.0.tar.gz", "alpha-1.0-py3-none-any.whl", "d;a%2f b+c.zip"]) | texts
)
urls = st.one_of(
    st.sampled_from(["/files/x", f"/packages/{DIGITS}/demo-1.0.tar.gz", f"../../packages/{DIGITS}/demo-2.0.tar.gz"]),
    texts,
)
hashes = st.sampled_from(
    [{"sha256": SHA256}, {"sha256": SHA256}, {"md5": MD5}, {}, {"sha256": "0" * 64}, {"blake2b": "0" * 128}]
)
typed = st.fixed_dictionaries(
    {
        "filename": filenames,
        "url": urls,
        "hashes": hashes,
        "size": st.sampled_from([5, 5, None, 0, 4, 2**50]),
        "upload-time": st.sampled_from(
            [None, "", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
        ),
        "requires-python": st.none() | texts,
        "yanked": st.booleans() | texts,
        "core-metadata": st.sampled_from(
            [None, False, True, {"sha256": hashlib.sha256(b"meta").hexdigest()}, {"sha256": "0" * 64}]
        ),
        "provenance": st.none()
        | st.sampled_from(["/integrity/demo/1.0/x/provenance", "/integrity/demo/json/x/provenance"])
        | texts,
    }
)


def page_of(files: list[dict[str, Any]], status: str, versions: list[str] | None, serial: Any) -> dict[str, Any]:
    page = {"name": "demo", "files": files, "meta": {"api-version": "1.4"}, "project-status": {"status": status}}
    return (
        page
        | ({} if versions is None else {"versions": versions})
        | ({"meta": {"_last-serial": serial}} if serial else {})
    )


def document_of(files: list[dict[str, Any]], name: Any, serial: Any) -> dict[str, Any]:
    entries = [
        {
            "filename": file["filename"], "url": file["url"], "digests": file["hashes"], "size": file["size"],
            "upload_time_iso_8601": file["upload-time"], "core-metadata": file["core-metadata"],
        }
        for file in files
    ]  # fmt: skip
    return {"info": {"name": name}, "releases": {"1.0": entries}, "urls": []} | (
        {"last_serial": serial} if serial else {}
    )


lists = st.lists(typed, max_size=3, unique_by=lambda file: str(file["filename"]))
statuses = st.sampled_from(["active", "active", "active", "archived", "quarantined", "new-one"])
serials = st.sampled_from([None, None, 1, 10**6, 2**62])
pages = st.builds(page_of, lists, statuses, st.none() | st.lists(texts, max_size=3), serials)
documents = st.builds(document_of, lists, texts, serials)
together = st.builds(
    lambda files, status, serial: (page_of(files, status, None, serial), document_of(files, "demo", serial)),
    lists,
    statuses,
    serials,
).map(lambda both: (json.dumps(both[0]).encode(), json.dumps(both[1]).encode()))
KEYS = [
    "filename",
    "url",
    "hashes",
    "size",
    "upload-time",
    "requires-python",
    "yanked",
    "core-metadata",
    "provenance",
    "gpg-sig",
]
#: Anything at all under the keys that count, and anything at all.
odd_files = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, values))
odd_pages = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("demo") | values, "files": st.lists(odd_files | typed, max_size=3) | values, "meta": values,
        "versions": values, "project-status": values, "releases": values, "urls": values,
    },
)  # fmt: skip
bodies = st.one_of(
    st.one_of(odd_pages, values).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.builds(lambda page, end: json.dumps(page).encode()[:end], pages, st.integers(0, 200)),
)
#: The victim's page and document, or None for the honest one.
answers = st.one_of(
    together,
    together,
    st.tuples(pages.map(lambda page: json.dumps(page).encode()), st.none()),
    st.tuples(st.none(), documents.map(lambda document: json.dumps(document).encode())),
    st.tuples(st.none() | bodies, st.none() | bodies),
)


#: Where the victim's pages lead, and "bytes" are to be had.
ELSEWHERE = ("/files/", f"/packages/{DIGITS}")


def three_projects() -> Index:
    index = Index()
    for name in ("alpha", "beta", "demo"):
        file = uploaded(wheel(name, "1.0"))
        file.provenance = provenance_for(file)
        index.publish(name, "1.0", file)
    index.publish("demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"bytes"))
    return index


async def play(directory: str, rounds: list[tuple[bytes | None, bytes | None]]) -> None:
    """Each round the victim says something else; honest rounds may come between."""
    index = three_projects()
    async with FakeIndex(index) as server:
        config = config_for(
            f"{directory}/mirror", server, batch_seconds=0.0, retries=2, stale_tries=1, max_page=1 << 20,
            max_document=1 << 20, max_file=1 << 20, allow_unhashed=True,
        )  # fmt: skip
        for page, document in rounds:
            server.clear_faults()
            server.fault(lambda request: request.path.startswith(ELSEWHERE), Body(b"bytes", "x/y"))
            server.fault("/files/*.metadata", Body(b"meta", "x/y"))
            if page is not None:
                server.fault("/simple/demo/", Body(page))
            if document is not None:
                server.fault("/pypi/demo/json", Body(document))
            index.touch("demo")
            summary = await run_pass(config)
            assert {one.project for one in summary.owed} <= {"demo"}
            assert (summary.unreachable, summary.store_error) == (None, None)
            assert all(one.reason.isprintable() and server.url in one.reason for one in summary.owed)
            assert os.listdir(directory) == ["mirror"]
            found = differences(index, config.mirror.directory, owed=["demo"], also=["packages/*", "integrity/demo/*"])
            assert [line for line in found if not line.startswith("withheld/")] == []
            suffering.assert_nothing_left(config)
            true_page(Path(directory, "mirror/web"))
            if not summary.owed:
                nothing_unreferenced(Path(directory, "mirror/web"))
        server.clear_faults()
        index.publish("demo", "9.0", UploadedFile("demo-9.0.tar.gz", b"nine"))
        summary = await run_pass(config, full=True)
        assert summary.complete, summary
        suffering.assert_equal(config, index)


def true_page(web: Path) -> None:
    """What the victim's page offers is there, and is what it says."""
    page = web / "simple/demo/index.v1_json"
    for file in json.loads(page.read_bytes())["files"] if page.exists() else ():
        path = Path(os.path.normpath(page.parent / unquote(file["url"])))
        assert path.is_relative_to(web / "packages")
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["hashes"]["sha256"]
        assert file.get("size") in (None, len(data))
        assert not file["provenance"] or list((web / "integrity/demo").rglob("provenance"))


def nothing_unreferenced(web: Path) -> None:
    """Every file in the store is on a page, or in a document."""
    known: set[str] = set()
    for page in web.glob("simple/*/index.v1_json"):
        for file in json.loads(page.read_bytes())["files"]:
            known.add(os.path.normpath(page.parent / unquote(file["url"])))
    document = web / "json/demo"
    releases = (json.loads(document.read_bytes()).get("releases") or {}) if document.exists() else {}
    names = {file["filename"] for files in releases.values() for file in files or ()}
    for path in web.glob("packages/**/*"):
        if path.is_file():
            name = str(path).removesuffix(".metadata")
            assert name in known or os.path.basename(name) in names, path


@settings(max_examples=60)
@given(st.lists(answers, min_size=1, max_size=3))
def test_arbitrary_pages_and_documents(rounds: list[tuple[bytes | None, bytes | None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(directory, rounds))


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, st.integers(0, 2000) | numbers), max_size=4), st.lists(values, max_size=2))
def test_arbitrary_root_lists(entries: list[tuple[str, Any]], odd: list[Any]) -> None:
    """More entries than there are, of any name and serial: the true projects are right whatever else is listed."""

    async def run(directory: str) -> None:
        index = three_projects()
        async with FakeIndex(index) as server:
            config = config_for(
                f"{directory}/mirror", server, batch_seconds=0.0, retries=2, stale_tries=1, changes="list"
            )

            def more(body: Any) -> None:
                body["projects"] += [{"name": name, "_last-serial": serial} for name, serial in entries] + odd

            server.fault("/simple/", suffering.rewrite(more))
            summary = await run_pass(config)
            assert summary.store_error is None
            assert summary.unreachable is None or summary.projects == 0
            assert os.listdir(directory) == ["mirror"]
            server.clear_faults()
            index.touch("demo")
            summary = await run_pass(config)
            assert {one.project for one in summary.owed} <= {"alpha", "beta", "demo"}
            assert summary.store_error is None

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))
