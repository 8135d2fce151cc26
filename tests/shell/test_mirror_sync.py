"""The first synchronisation, the poll after which nothing is written, and updates that write what changed and no more."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from itertools import pairwise
from pathlib import Path

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import many_projects, provenance_for, small_index, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from support.equality import differences
from support.mirrors import Followed, following, rewritten

_SECOND = 1_000_000_000


async def test_the_first_pass_makes_an_equal_mirror(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert summary.added == summary.projects > 20
        assert summary.checkpoint == summary.cursor == summary.upstream_serial == one.index.serial
        assert (tmp_path / "status").read_text() == f"{one.index.serial}\n"
        assert not list((tmp_path / "partial").iterdir())


async def test_files_on_another_host_that_is_configured(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, Options(files_host=True)) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_poll_without_news_is_one_request_and_writes_nothing(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        one.server.reset_log()
        summary = await one.sync()
        assert [(request.method, request.path) for request in one.server.requests] == [("POST", "/pypi")]
        assert rewritten(before, one.listing()) == set()
        assert (summary.added, summary.updated, summary.unchanged, summary.bytes_fetched) == (0, 0, 0, 0)
        assert summary.requests == 1


async def test_a_poll_of_a_list_without_news_is_one_request_and_writes_nothing(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, changes="list") as one:
        await one.sync()
        before = one.listing()
        one.server.reset_log()
        await one.sync()
        assert [(request.path, request.status) for request in one.server.requests] == [("/simple/", 304)]
        assert rewritten(before, one.listing()) == set()


async def test_last_modified_is_the_heart_beat(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, heartbeat=0.0) as one:
        await one.sync()
        stamp = tmp_path / "web" / "last-modified"
        stamp.write_text("20200101T00:00:00\n")
        await one.sync()
        written = dt.datetime.strptime(stamp.read_text(), "%Y%m%dT%H:%M:%S\n").replace(tzinfo=dt.UTC)
        assert abs(written - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)
        one.configure(heartbeat=3600.0)
        stamp.write_text("20200101T00:00:00\n")
        await one.sync()
        assert stamp.read_text() == "20200101T00:00:00\n"


async def test_an_update_rewrites_exactly_what_changed(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.touch("zeta")
        await one.sync()  # the first reading of the feed goes back a little, and finds what no list names
        before = one.listing()
        new = uploaded(wheel("alpha", "1.2", ["Beta.Lib"]))
        one.index.publish("alpha", "1.2", [new])
        one.server.reset_log()
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert (summary.added, summary.updated, summary.removed, summary.files_added) == (0, 1, 0, 2)
        package = f"web{new.path}"
        pages = {f"web/simple/alpha/{page}" for page in ("index.html", "index.v1_html", "index.v1_json")}
        small = {"heliostat.db", "status", "web/json/alpha", "web/simple/index.v1_json"}
        small |= {"web/changes/head", "web/changes/000000000001.jsonl"}
        # Only the set of names is in the HTML root, so that one stays; the heart-beat may fall into this second.
        touched = rewritten(before, one.listing()) - {"web/last-modified"}
        assert touched == pages | small | {package, f"{package}.metadata"}
        # One look at what changed, page and document, one file, and its sidecar is in it.
        fetched = [request.path for request in one.server.requests if request.method == "GET"]
        assert sorted(fetched) == sorted(["/simple/alpha/", "/pypi/alpha/json", new.path])


async def test_pages_that_change_within_one_second_get_later_whole_seconds(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        watched = [
            "web/simple/index.v1_json", "web/simple/zeta/index.html", "web/simple/zeta/index.v1_json", "web/json/zeta",
        ]  # fmt: skip
        seconds = []
        for _ in range(3):
            one.index.touch("zeta")
            await one.sync()
            seconds.append([one.listing()[path].mtime_ns // _SECOND for path in watched])
        for earlier, later in pairwise(seconds):
            assert all(two > first for first, two in zip(earlier, later, strict=True))


async def test_the_two_names_of_an_html_page_are_one_file(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.touch("zeta")
        one.index.publish("brand-new", "1.0", [uploaded(wheel("brand-new", "1.0"))])
        await one.sync()
        for folder in ("web/simple", "web/simple/zeta", "web/simple/brand-new"):
            names = [tmp_path / folder / name for name in ("index.html", "index.v1_html")]
            assert names[0].stat().st_ino == names[1].stat().st_ino


async def test_the_time_of_a_file_is_its_upload_time(tmp_path: Path) -> None:
    index = Index()
    stamp = "2019-02-03T04:05:06.123456Z"
    index.publish("timed", "1.0", [uploaded(wheel("timed", "1.0"), upload_time=stamp)])
    index.publish("timed", "1.0", [UploadedFile("timed-1.0.zip", Virtual(3 << 20, 1), upload_time=stamp)])
    async with following(index, tmp_path) as one:
        await one.sync()
        wanted = int(dt.datetime.fromisoformat(stamp).timestamp()) * _SECOND + 123_456_000
        small, large = one.files("timed")["timed-1.0-py3-none-any.whl"], one.files("timed")["timed-1.0.zip"]
        for path in (small, Path(f"{small}.metadata"), large):
            assert path.stat().st_mtime_ns == wanted


async def test_documents_are_the_bytes_that_upstream_sent(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        for name in one.index.projects():
            saved, link = tmp_path / "web/json" / name, tmp_path / "web/pypi" / name / "json"
            wanted = one.index.document_bytes(name)
            if wanted is None:
                assert not saved.exists()
                assert not link.is_symlink()
            else:
                assert saved.read_bytes() == wanted
                assert link.readlink() == Path(f"../../json/{name}")
                assert link.read_bytes() == wanted


async def test_files_that_two_projects_share_lie_there_once(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        twin = one.files("twin-a")["twin-1.0.zip"]
        assert one.files("twin-b")["twin-1.0.zip"] == twin
        assert one.server.count(one.index["twin-a"].releases["1.0"].files[0].path) == 1


async def test_provenance_objects_are_kept_as_they_are(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        file = one.index["signed"].releases["1.0"].files[0]
        kept = tmp_path / "web/integrity/signed/1.0" / file.filename / "provenance"
        assert json.loads(kept.read_bytes()) == provenance_for(file)


async def test_without_provenance_nothing_of_it_is_fetched_nor_counted(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, provenance=False) as one:
        await one.sync()
        one.index.touch("signed")
        summary = await one.sync()
        assert one.server.count("/integrity/*") == 0
        assert not (tmp_path / "web/integrity").exists()
        assert summary.files_removed == 0


async def test_a_project_with_very_many_files_is_placed_in_parts(tmp_path: Path) -> None:
    index = Index()
    index.publish("many", "1.0", [UploadedFile(f"many-{number}.zip", Virtual(100, number)) for number in range(300)])
    async with following(index, tmp_path) as one:
        summary = await one.sync()
        assert summary.files_added == 300
        assert differences(one.index, tmp_path) == []


async def test_many_projects_in_several_batches(tmp_path: Path) -> None:
    async with following(many_projects(150, 2, 1, 300), tmp_path, batch_projects=7, projects_at_once=5) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_new_file_of_the_same_name_gets_a_place_of_its_own(tmp_path: Path) -> None:
    """Some indexes allow it: the new bytes never overwrite the old ones, and those go when the page has changed."""
    index = Index()
    index.publish("again", "1.0", [UploadedFile("again-1.0.zip", b"first", path_form="sha256")])
    async with following(index, tmp_path) as one:
        await one.sync()
        old = one.files("again")["again-1.0.zip"]
        index.remove_file("again", "1.0", "again-1.0.zip")
        index.publish("again", "1.0", [UploadedFile("again-1.0.zip", b"second", path_form="sha256")])
        await one.sync()
        new = one.files("again")["again-1.0.zip"]
        assert new != old
        assert new.read_bytes() == b"second"
        assert not old.exists()
        assert differences(index, tmp_path) == []


async def test_a_mirror_is_equal_after_a_long_list_of_changes(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        _change_a_lot(one)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        digest = hashlib.sha256()
        for path in sorted(one.listing()):
            digest.update(path.encode())
        await one.sync(full=True)
        again = hashlib.sha256()
        for path in sorted(one.listing()):
            again.update(path.encode())
        assert digest.digest() == again.digest()


def _change_a_lot(one: Followed) -> None:
    index = one.index
    index.publish("alpha", "2.0", [uploaded(wheel("alpha", "2.0")), uploaded(sdist("alpha", "2.0"))])
    index.yank("alpha", "1.0", "a <reason>")
    index.unyank("yanked-releases", "1.1")
    index.remove_file("gamma_sdist", "1.0", "gamma_sdist-1.0.zip")
    index.remove_release("Beta.Lib", "2.0rc1")
    index.remove_project("came-back")
    index.publish("came.back", "3.0", [uploaded(wheel("came.back", "3.0"))])
    index.clear_quarantine("quarantined")
    index.quarantine("old")
    index.clear_release_quarantine("one-release-quarantined", "2.0")
    index.publish("no-release", "1.0", [uploaded(wheel("no-release", "1.0"))])
    index.publish("no-files", "1.0", [uploaded(sdist("no-files", "1.0"))])
    index.publish("VULNERABLE", "1.1", [uploaded(wheel("VULNERABLE", "1.1"))])
