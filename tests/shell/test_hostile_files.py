"""Names, URLs and digests that an index has no business to give: refused, blocked, and never a path."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Body, Wrong
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.mirrors import changed, complete_pass, config_for, owed_names, run_pass

LONG = 255 - len(".metadata")

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
    (".htaccess", "begins with a dot"),
    (".demo-2.0.whl", "begins with a dot"),
    ("INDEX.v1_json", "is the name of an index page"),
]


async def test_what_a_setting_refused_is_taken_when_the_setting_changes(tmp_path: Path) -> None:
    """No more than that is needed; and nothing is asked for again while nothing changes."""
    index = Index()
    index.publish("bare", "1.0", UploadedFile("bare-1.0.zip", b"bare", hashes="none"))
    index.publish("big", "1.0", UploadedFile("big-1.0.zip", b"big" * 1000))
    index.publish("fine", "1.0", uploaded(wheel("fine", "1.0")))
    async with FakeIndex(index, options=Options(files_host=True)) as server:
        config = config_for(tmp_path / "mirror", server, max_file=2000, file_hosts=())
        assert owed_names(await run_pass(config)) == ["bare", "big", "fine"]
        server.reset_log()
        assert owed_names(await run_pass(config)) == ["bare", "big", "fine"]
        assert server.count("/simple/*/") == 0
        config = changed(config, file_hosts=(server.files_host,))
        assert owed_names(await run_pass(config)) == ["bare", "big"]
        config = changed(config, allow_unhashed=True)
        assert owed_names(await run_pass(config)) == ["big"]
        config = changed(config, max_file=None)
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_a_page_that_was_refused_for_a_moment_heals_within_a_day(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        suffering.lie(server, lambda page: [file.update(url="//127.0.0.2/x.zip") for file in page["files"]] and None)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", "127.0.0.2")
        due = summary.owed[0].due_at
        assert due is not None
        assert 0 < due - time.time() < 2 * 86400
        server.clear_faults()
        with contextlib.closing(sqlite3.connect(tmp_path / "mirror" / "heliostat.db")) as ledger, ledger:
            ledger.execute("UPDATE projects SET due_at = due_at - 2 * 86400 WHERE state = 'blocked'")
        await complete_pass(config)
        suffering.assert_equal(config, index)


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
