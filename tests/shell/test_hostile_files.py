"""Names, URLs and digests that an index has no business to give: refused, blocked, and never a path."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Body, Wrong
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.equality import differences
from support.mirrors import complete_pass, config_for, listing, run_pass

LONG = 255 - len(".metadata")
#: When shared files were uploaded, whoever shares them.
MOMENT = "2026-02-03T04:05:06.000000Z"

NAMES = [
    ("../../../../evil.py", "holds a path separator"),
    ("/etc/evil.py", "holds a path separator"),
    ("a/b.whl", "holds a path separator"),
    ("..\\..\\evil.py", "holds a path separator"),
    ("..", "not usable as a name on disk"),
    (".", "not usable as a name on disk"),
    ("evil\x00.whl", "holds a control character"),
    ("evil\n.whl", "holds a control character"),
    ("evil\x1b[2J.whl", "holds a control character"),
    ("evil\x7f.whl", "holds a control character"),
    ("evil\u202egpj.whl", "holds a control character"),
    ("evil\u2066.whl", "holds a control character"),
    ("evil\u2028.whl", "holds a control character"),
    ("evil\ufeff.whl", "holds a control character"),
    ("n" * (LONG + 1), "bytes, where a directory entry holds"),
    ("\u00e9" * 124, "bytes, where a directory entry holds"),
    ("n" * 100_000, "bytes, where a directory entry holds"),
    ("x.metadata", "looks like another file's metadata sidecar"),
    ("demo-1.0-py3-none-any.whl.metadata", "looks like another file's metadata sidecar"),
    ("index.html", "is the name of an index page"),
    ("INDEX.v1_json", "is the name of an index page"),
]


@pytest.mark.parametrize("update", [False, True], ids=["first-run", "update"])
@pytest.mark.parametrize(("filename", "says"), NAMES, ids=[ascii(name[:40]) for name, _ in NAMES])
async def test_file_names(filename: str, says: str, update: bool, tmp_path: Path) -> None:
    """Page and document give the name, and a URL that would be fetched."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        if update:
            await complete_pass(config)
        before = suffering.served(config)
        serial = index.serial
        index.publish("demo", "2.0", UploadedFile(filename, b"evil", path_form="/files/evil.whl"))
        index.publish("newcomer", "1.0", uploaded(wheel("newcomer", "1.0")))
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", says, f"{server.url}/simple/demo/")
        assert summary.cursor == summary.checkpoint == index.serial > serial
        assert summary.unreachable is None
        assert server.count("/files/evil.whl") == 0
        assert suffering.served(config) == before
        suffering.assert_others_equal(config, index)
        suffering.assert_nothing_left(config)
        assert os.listdir(tmp_path) == ["mirror"]

        index.remove_file("demo", "2.0", filename)
        await complete_pass(config)
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("options", [Options(), Options(xmlrpc=False)], ids=["feed", "list"])
@pytest.mark.parametrize("update", [False, True], ids=["first-run", "update"])
async def test_a_blocked_project_is_removed_upstream(update: bool, options: Options, tmp_path: Path) -> None:
    """Then it owes nobody anything, and its good copy goes like any other's."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=options) as server:
        config = config_for(tmp_path / "mirror", server)
        if update:
            await complete_pass(config)
        index.publish("demo", "2.0", UploadedFile("x.metadata", b"evil", path_form="/files/evil.whl"))
        for _ in range(2):
            suffering.assert_owed(await run_pass(config), "blocked", "x.metadata")
        index.remove_project("demo")
        await complete_pass(config)
        suffering.assert_equal(config, index)
        assert not (tmp_path / "mirror/web/simple/demo").exists()


URLS = [
    ("https://elsewhere.invalid/packages/{path}", "on a host that is neither upstream's own"),
    ("//elsewhere.invalid/packages/{path}", "on a host that is neither upstream's own"),
    ("http://127.0.0.1:1/packages/{path}", "on a host that is neither upstream's own"),
    ("http://169.254.169.254/latest/meta-data/{path}", "on a host that is neither upstream's own"),
    ("http://localhost:{port}/{path}", "on a host that is neither upstream's own"),
    ("{base}@elsewhere.invalid/{path}", "not an absolute http or https URL without credentials"),
    ("http://user:secret@127.0.0.1:{port}/{path}", "not an absolute http or https URL without credentials"),
    ("file:///etc/passwd", "not an absolute http or https URL"),
    ("FILE:///etc/passwd", "not an absolute http or https URL"),
    ("data:text/plain,evil", "not an absolute http or https URL"),
    ("ftp://127.0.0.1/{path}", "not an absolute http or https URL"),
    ("javascript:alert(1)", "not an absolute http or https URL"),
    ("gopher://127.0.0.1:{port}/{path}", "not an absolute http or https URL"),
    ("{base}/packages/../../../etc/{path}", "dot segments"),
    ("{base}/packages/%2e%2e/%2e%2e/{path}", "dot segments"),
    ("{base}/packages/.%2E/{path}", "dot segments"),
    ("{base}/packages%2f..%2f..%2f{path}", "dot segments"),
    ("{base}/packages/..\\{path}", "holds a backslash or a control character"),
    ("{base}/packages/%5c..%5c{path}", "encoded control characters"),
    ("{base}/packages/\x00{path}", "holds a backslash or a control character"),
    ("{base}/packages/%00{path}", "encoded control characters"),
    ("{base}/packages/%0d%0aHost:%20evil{path}", "encoded control characters"),
    ("{base}/packages/a\r\nHost: evil\r\n{path}", "holds a backslash or a control character"),
    ("{base}/packages/%zz/{path}", "encoded control characters"),
    ("{base}/" + "a" * 9000 + "/{path}", "longer than 8000 characters"),
    ("http://127.0.0.1:99999/{path}", "no such port"),
    ("http:///{path}", "not an absolute http or https URL"),
    ("http://[::1/{path}", "is not a URL"),
]


@pytest.mark.parametrize(("url", "says"), URLS, ids=[ascii(url[:40]) for url, _ in URLS])
async def test_file_urls(url: str, says: str, tmp_path: Path) -> None:
    """Only upstream's own host and configured file hosts are asked, by plain paths; nothing secret is repeated."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        before = suffering.served(config)
        port = server.url.rpartition(":")[2]
        url = url.format(base=server.url, port=port, path="demo-2.0.zip") if "{" in url else url
        index.publish("demo", "2.0", UploadedFile("demo-2.0.zip", b"evil", url=url, path_form="/demo-2.0.zip"))
        index.publish("newcomer", "1.0", uploaded(wheel("newcomer", "1.0")))
        server.reset_log()
        summary = await run_pass(config)
        state = "failing" if says == "is not a URL" else "blocked"
        reason = suffering.assert_owed(summary, state, says, f"{server.url}/simple/demo/")
        assert "secret" not in reason
        assert summary.cursor == index.serial
        assert server.count("*demo-2.0.zip*") == 0
        assert suffering.served(config) == before
        suffering.assert_others_equal(config, index)
        suffering.assert_nothing_left(config)
        assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    "form", ["packages/{digits}/%2e%2e%2fevil.whl", "packages/{digits}/..%5cevil.whl", "p/{name}?x=../../y"]
)
async def test_a_url_decides_nothing_but_where_bytes_come_from(form: str, tmp_path: Path) -> None:
    """A content-addressed URL with another name at its end: the page's own file name counts, or it is refused."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        file = UploadedFile("demo-2.0.zip", b"good")
        sha256 = file.content.digests.sha256
        digits = f"{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}"
        file.url = f"{server.url}/{form.format(digits=digits, name='demo-2.0.zip')}"
        index.publish("demo", "2.0", file)
        server.fault(lambda request: "evil" in request.path or request.path == "/p/demo-2.0.zip", Body(b"good", "x/y"))
        await run_pass(config)
        mirror = tmp_path / "mirror"
        found = [path for path in mirror.rglob("*") if "evil" in path.name or path.name == "y"]
        assert found == []
        for path in mirror.rglob("demo-2.0.zip"):
            assert path == mirror / "web/packages" / digits / "demo-2.0.zip"


async def test_a_secret_in_a_url_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Signed URLs are fetched, but their query is in no message."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        for number, data in enumerate((b"small", b"x" * (3 << 19))):
            file = UploadedFile(f"demo-2.{number}.zip", data, path_form=f"/files/demo-2.{number}.zip")
            file.url = f"{server.url}{file.path}?signature=SECRET"
            index.publish("demo", f"2.{number}", file)
        await complete_pass(config)
        assert server.count("/files/demo-2.*.zip") == 2
        index.publish(
            "demo", "3.0", UploadedFile("demo-3.0.zip", b"good", url=f"{server.url}/files/3.zip?signature=SECRET")
        )
        for action in (Body(b"evil", "x/y"), Body(b"evil", "x/y", status=500), Body(b"too long", "x/y")):
            fault = server.fault("/files/3.zip", action)
            suffering.assert_owed(await run_pass(config), "failing", f"{server.url}/files/3.zip")
            fault.remove()
        assert "SECRET" not in caplog.text
        assert "SECRET" not in (tmp_path / "mirror/web/simple/demo/index.html").read_text()


# Places.


def on_both(server: FakeIndex, project: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every file of the project's page and document."""

    def page(body: Any) -> None:
        for file in body["files"]:
            change(file)

    def document(body: Any) -> None:
        for file in [*body["urls"], *(file for files in body["releases"].values() for file in files)]:
            change(file)

    suffering.lie(server, page, project=project)
    suffering.lie(server, document, where="document", project=project)


async def test_two_files_of_one_name(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        suffering.lie(server, lambda body: body["files"].append({**body["files"][0], "url": body["files"][1]["url"]}))
        suffering.assert_owed(await run_pass(config), "failing", "is files[", f"{server.url}/simple/demo/")
        assert suffering.served(config) == {}
        suffering.assert_others_equal(config, index)


def claimant(name: str, data: bytes, stolen: UploadedFile) -> Callable[[dict[str, Any]], None]:
    """Lies that give ``data`` the content-addressed URL of another file, and its BLAKE2b where there is room for it."""
    sha256 = hashlib.sha256(data).hexdigest()

    def change(file: dict[str, Any]) -> None:
        file["url"] = file["url"].rpartition("/packages/")[0] + stolen.path
        file["filename"] = stolen.filename
        file["size"] = len(data)
        if "digests" in file:
            file["digests"] = {"sha256": sha256, "blake2b_256": stolen.content.digests.blake2b_256}
            file["md5_digest"] = ""
        else:
            file["hashes"] = {"sha256": sha256}

    return change


@pytest.mark.parametrize("liar_first", [False, True], ids=["owner-first", "liar-first"])
@pytest.mark.parametrize("together", [False, True], ids=["two-passes", "one-pass"])
@pytest.mark.parametrize("same_size", [False, True], ids=["other-size", "same-size"])
async def test_two_projects_claim_one_place(liar_first: bool, together: bool, same_size: bool, tmp_path: Path) -> None:
    """The first one keeps it, byte for byte; the second is blocked; no page ever says what its bytes are not."""
    good = UploadedFile("shared-1.0.zip", b"the good bytes!")
    evil = b"the evil bytes!" if same_size else b"evil"
    index = suffering.suffering_index()
    if together:
        index.publish("owner", "1.0", good)
    index.publish("liar", "1.0", UploadedFile("liar-1.0.zip", evil))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects_at_once=1 if together else 64)
        on_both(server, "liar", claimant("liar", evil, good))
        honest = server.fault(good.path, Body(evil, "application/octet-stream"))
        if together and not liar_first:
            honest.remove()  # then the owner's bytes come from there, and the liar's digest is never met
        if not together:
            if not liar_first:
                honest.remove()
                index.remove_project("liar")
                index.publish("owner", "1.0", good)
                await complete_pass(config)
                index.publish("liar", "1.0", UploadedFile("liar-1.0.zip", evil))
            else:
                await complete_pass(config)
                index.publish("owner", "1.0", good)
                honest.remove()
        summary = await run_pass(config)
        for _ in range(2):
            assert len(summary.owed) == 1, summary
            first, second = ("owner", "liar") if summary.owed[0].project == "liar" else ("liar", "owner")
            assert summary.owed[0].project == second
            assert_true_pages(tmp_path / "mirror/web")
            assert suffering.served(config, second) == {}
            assert len(suffering.served(config, first)) == 6
            summary = await run_pass(config, full=True)
        if not together:
            assert first == ("liar" if liar_first else "owner")
            assert summary.owed[0].state == "blocked"
            assert "other bytes lie at its place" in summary.owed[0].reason


def assert_true_pages(web: Path) -> None:
    """Every digest that a page states is that of the bytes it leads to."""
    for page in web.glob("simple/*/index.v1_json"):
        for file in json.loads(page.read_bytes())["files"]:
            path = page.parent / file["url"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file["hashes"]["sha256"], path
            if file.get("core-metadata"):
                sidecar = path.with_name(path.name + ".metadata")
                assert hashlib.sha256(sidecar.read_bytes()).hexdigest() == file["core-metadata"]["sha256"], sidecar


@pytest.mark.parametrize("same_size", [False, True], ids=["other-size", "same-size"])
@pytest.mark.parametrize("form", ["blake2b", "sha256"])
async def test_a_project_changes_the_bytes_of_a_file(form: str, same_size: bool, tmp_path: Path) -> None:
    """The URL stays and the digest does not: what lies there is not overwritten, and the page never lies."""
    data = b"other bytes, ok" if same_size else b"other"
    index = suffering.suffering_index()
    file = UploadedFile("demo-2.0.zip", b"the first bytes", path_form=form)
    index.publish("demo", "2.0", file)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        before = suffering.served(config)
        index.touch("demo")
        change = claimant("demo", data, file)
        on_both(server, "demo", lambda one: change(one) if one["filename"] == file.filename else None)
        server.fault(file.path, Body(data, "application/octet-stream"))
        summary = await run_pass(config)
        assert_true_pages(tmp_path / "mirror/web")
        if form == "sha256":  # the place is not that of these bytes, and what is said of them contradicts itself
            suffering.assert_owed(summary, "failing", "blake2b_256 is ", "upstream declares")
        else:
            suffering.assert_owed(summary, "blocked", "other bytes lie at its place", f"{server.url}/simple/demo/")
        assert suffering.served(config) == before


async def test_a_file_of_several_projects_stays_while_one_has_it(tmp_path: Path) -> None:
    """The same bytes under the same name: one file, which goes with its last page."""
    index = suffering.suffering_index()
    for name in ("common", "common-lib", "other"):
        index.publish(
            name,
            "1.0",
            UploadedFile("common-lib-1.0.zip", Virtual(1000, 7), sidecar=b"Name: common\n", upload_time=MOMENT),
        )
        index.publish(name, "1.0", uploaded(wheel(name, "1.0")))
    path = index.expected_files("other")[0].file.path.removeprefix("/packages/")
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.assert_equal(config, index)
        before = listing(tmp_path / "mirror/web/packages")

        index.remove_project("common-lib")
        await complete_pass(config)
        suffering.assert_equal(config, index)
        index.remove_file("common", "1.0", "common-lib-1.0.zip")
        await complete_pass(config)
        suffering.assert_equal(config, index)
        after = listing(tmp_path / "mirror/web/packages")
        for shared in (path, path + ".metadata"):
            assert before[shared] == after[shared]

        index.remove_project("other")
        await complete_pass(config)
        suffering.assert_equal(config, index)
        assert path not in listing(tmp_path / "mirror/web/packages")


async def test_a_shared_file_whose_first_owner_cannot_be_found(tmp_path: Path) -> None:
    """A file name that says nothing of its project: the bytes stay as long as any page has them, and longer."""
    index = suffering.suffering_index()
    for name in ("one", "two"):
        index.publish(name, "1.0", UploadedFile("odd.zip", Virtual(1000, 7), upload_time=MOMENT))
        index.publish(name, "1.0", uploaded(wheel(name, "1.0")))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.assert_equal(config, index)
        for name in ("two", "one"):
            index.remove_project(name)
            await complete_pass(config)
            assert differences(index, config.mirror.directory, also=["packages/*/odd.zip"]) == []


@pytest.mark.parametrize("owner", [True, False], ids=["owner-first", "liar-first"])
async def test_two_projects_give_one_file_different_sidecars(owner: bool, tmp_path: Path) -> None:
    """There is one place for it: the first keeps it, the second is blocked, and no page says what it is not."""
    index = suffering.suffering_index()
    good = UploadedFile("common-1.0.zip", b"the same", sidecar=b"Name: common\n")
    evil = UploadedFile("common-1.0.zip", b"the same", sidecar=b"Name: evil\n")
    index.publish("common", "1.0", good if owner else evil)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        index.publish("other", "1.0", evil if owner else good)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", "other bytes lie at its place", project="other")
        assert_true_pages(tmp_path / "mirror/web")
        assert suffering.served(config, "other") == {}


async def test_a_corrected_sidecar_replaces_ours(tmp_path: Path) -> None:
    """A sidecar may be made anew upstream; the only one who has it gets the new one."""
    index = suffering.suffering_index()
    index.publish("demo", "2.0", UploadedFile("demo-2.0.zip", b"bytes", sidecar=b"first\n"))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        index.add_late_sidecar("demo", "2.0", "demo-2.0.zip", b"second\n")
        index.touch("demo")
        await complete_pass(config)
        assert_true_pages(tmp_path / "mirror/web")
        suffering.assert_equal(config, index)


async def test_a_file_claimed_anew_while_its_project_is_removed(tmp_path: Path) -> None:
    """In one pass one project takes up a file and its only owner goes."""
    index = suffering.suffering_index()
    index.publish("common", "1.0", UploadedFile("common-1.0.zip", Virtual(1000, 7), upload_time=MOMENT))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        index.remove_project("common")
        index.publish("two", "1.0", UploadedFile("common-1.0.zip", Virtual(1000, 7), upload_time=MOMENT))
        await complete_pass(config)
        suffering.assert_equal(config, index)


# Digests.


@pytest.mark.parametrize(
    ("digests", "state", "says"),
    [
        ({}, "blocked", "upstream gives no hash"),
        ({"sha256": None}, "blocked", "upstream gives no hash"),
        ({"sha256": ""}, "failing", "no digest of a known form"),
        ({"sha256": "../../../../etc/passwd"}, "failing", "no digest of a known form"),
        ({"sha256": "g" * 64}, "failing", "no digest of a known form"),
        ({"sha256": "a" * 63}, "failing", "no digest of a known form"),
        ({"../../evil": "a" * 64}, "failing", "no digest of a known form"),
        ({"sha256": "a" * 64, "SHA256": "b" * 64}, "failing", "two different sha256"),
        ({"sha256": "a" * 64}, "failing", "upstream declares " + "a" * 64),
        ({"md5": "a" * 32}, "failing", "upstream declares " + "a" * 32),
        ({"blake2b": "a" * 128}, "failing", "upstream declares " + "a" * 128),
        ({"sha3_256": "a" * 64}, "failing", "upstream declares " + "a" * 64),
        ({"sha512": "a" * 128}, "failing", "upstream declares " + "a" * 128),
    ],
)
async def test_digests(digests: dict[str, Any], state: str, says: str, tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)

        def change(file: dict[str, Any]) -> None:
            file["hashes" if "hashes" in file else "digests"] = digests
            file.pop("md5_digest", None)

        on_both(server, "demo", change)
        suffering.assert_owed(await run_pass(config), state, says, f"{server.url}/")
        assert suffering.served(config) == {}
        suffering.assert_others_equal(config, index)


async def test_page_and_document_give_different_digests(tmp_path: Path) -> None:
    """The page's counts: it is what installers see."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)

        def change(body: Any) -> None:
            for files in body["releases"].values():
                for file in files:
                    file["digests"]["sha256"] = "a" * 64

        suffering.lie(server, change, where="document")
        await complete_pass(config)
        assert_true_pages(tmp_path / "mirror/web")
        suffering.assert_others_equal(config, index)


# Provenance.


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("json", "fine"), ("1.0", "fine"), ("%2e%2e", "blocked"), ("..", "blocked"), ("%2e", "blocked"),
        ("a%2fb", "blocked"), ("%2e%2e%2f%2e%2e", "blocked"), ("a%5cb", "blocked"), ("%00", "blocked"),
        ("v" * 300, "blocked"), ("%0a", "blocked"),
    ],
)  # fmt: skip
async def test_the_version_in_a_provenance_url(version: str, state: str, tmp_path: Path) -> None:
    """It becomes a directory, or is refused."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        good = index.expected_files("demo")[0].file
        body = json.dumps(good.provenance).encode()
        link = f"{server.url}/integrity/demo/{version}/{good.filename}/provenance"

        def change(page: Any) -> None:
            for file in page["files"]:
                if file["provenance"]:
                    file["provenance"] = link

        suffering.lie(server, change)
        server.fault("/integrity/*", Body(body, "application/json"))
        summary = await run_pass(config)
        integrity = tmp_path / "mirror/web/integrity"
        found = sorted(str(path.relative_to(integrity)) for path in integrity.rglob("*") if path.is_file())
        if state == "fine":
            assert summary.complete, summary
            assert found == [f"demo/{version}/{good.filename}/provenance"]
        else:
            suffering.assert_owed(summary, state, "version", f"{server.url}/simple/demo/")
            assert found == []
            assert suffering.served(config) == {}
        assert os.listdir(tmp_path) == ["mirror"]
        suffering.assert_others_equal(config, index)


@pytest.mark.parametrize(
    "link",
    ["http://[::1", "http://elsewhere.invalid/x", "file:///etc/passwd", "x", "//", "\x00", "http://127.0.0.1:1/\u202e"],
)
async def test_provenance_links_elsewhere(link: str, tmp_path: Path) -> None:
    """No other host is asked; the object is looked for at upstream's own place, or the project is owed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)

        def change(page: Any) -> None:
            for file in page["files"]:
                file["provenance"] = link

        suffering.lie(server, change)
        summary = await run_pass(config)
        assert [one.project for one in summary.owed] == ["demo"]
        assert summary.owed[0].reason.isprintable()
        assert summary.unreachable is None
        suffering.assert_others_equal(config, index)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {},
        lambda body: [],
        lambda body: {"attestation_bundles": None},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "!!"}}]}]},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "e30="}}]}]},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "W1tb"}}]}]},
    ],
)
async def test_provenance_of_something_else(change: Callable[[Any], Any], tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        server.fault("/integrity/demo/*", suffering.rewrite(change))
        suffering.assert_owed(await run_pass(config), "failing", "provenance", f"{server.url}/integrity/demo/")
        suffering.assert_others_equal(config, index)


async def test_provenance_of_another_file(tmp_path: Path) -> None:
    """A genuine object, of the wrong file."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        other = index.expected_files("alpha")[0].file
        server.fault("/integrity/demo/*", Body(json.dumps(provenance_for(other)).encode()))
        suffering.assert_owed(await run_pass(config), "failing", "is not about 'demo-1.0-py3-none-any.whl'")


# A host of its own for files.


async def test_files_of_another_host_need_to_be_allowed(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(files_host=True)) as server:
        config = config_for(tmp_path / "mirror", server, file_hosts=())
        summary = await run_pass(config)
        assert summary.owed_by_state == {"blocked": 4}
        assert all("[upstream] file-hosts" in one.reason for one in summary.owed)
        assert server.in_flight["files"] == server.most_in_flight["files"] == 0
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config, full=True)
        suffering.assert_equal(config, index)


async def test_wrong_bytes_are_seen_by_nobody(tmp_path: Path) -> None:
    """While they come, and after, nothing of them is below web/."""
    index = Index()
    index.publish(
        "demo", "1.0", [UploadedFile("demo-1.0.zip", Virtual(3 << 20, 1)), UploadedFile("demo-1.0.tar.gz", b"x")]
    )
    async with FakeIndex(index) as server:
        server.fault("/packages/*", Wrong())
        config = config_for(tmp_path / "mirror", server)
        suffering.assert_owed(await run_pass(config), "failing", "upstream declares")
        packages = tmp_path / "mirror/web/packages"
        assert [path for path in packages.rglob("*") if path.is_file()] == []
