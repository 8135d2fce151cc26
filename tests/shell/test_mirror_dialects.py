"""Upstreams that are not quite the public index: static mirrors, bare Simple APIs, odd hashes, paths and hosts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Rewrite, Status
from heliostat.fakeindex.http import Request
from heliostat.fakeindex.synthetic import many_projects, small_index, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from support.equality import differences, place
from support.mirrors import Followed, following, listing, rewritten


def changes(index: Index) -> None:
    """One of each kind of change that a list shows."""
    index.publish("alpha", "2.0", [uploaded(wheel("alpha", "2.0")), uploaded(sdist("alpha", "2.0"))])
    index.yank("alpha", "1.0", "why")
    index.remove_project("zeta")
    index.publish("brand.New", "1.0", [uploaded(wheel("brand.New", "1.0"))])
    index.remove_release("Beta.Lib", "2.0rc1")


def json_change(change: Any) -> Rewrite:
    """Edit a JSON answer."""

    def edit(body: bytes) -> bytes:
        said = json.loads(body)
        change(said)
        return json.dumps(said).encode()

    return Rewrite(edit)


def pages(request: Request) -> bool:
    """A request for a project's page."""
    return request.path.startswith("/simple/") and request.path != "/simple/"


async def follow_changes(one: Followed, **options: Any) -> None:
    """First synchronisation, changes, and an idle poll."""
    await one.sync()
    assert differences(one.index, one.directory, **options) == []
    changes(one.index)
    await one.sync()
    assert differences(one.index, one.directory, **options) == []
    (one.web / "last-modified").write_text(
        "20200101T00:00:00\n"
    )  # so that another one shows, in the same second as well
    before = one.listing()
    await one.sync()
    assert rewritten(before, one.listing()) <= {"heliostat.db"}


# -- static mirrors, bare indexes ------------------------------------------------------------------------------


async def test_a_static_mirror(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, Options.static()) as one:
        await follow_changes(one)


async def test_a_static_mirror_without_etags_and_gzip(tmp_path: Path) -> None:
    options = Options.static()
    options.etags = options.gzip = options.ranges = False
    async with following(small_index(), tmp_path, options) as one:
        await follow_changes(one)


async def test_serials_that_are_texts(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, Options(serial_as_string=True, serial_header=False)) as one:
        await follow_changes(one)


async def test_without_documents_each_is_asked_for_and_then_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "heliostat.mirror")
    async with following(small_index(), tmp_path, Options(documents=False), projects_at_once=4) as one:
        for number in range(30):
            name = f"plain-{number:02}"
            one.index.publish(name, "1.0", [uploaded(wheel(name, "1.0"))])
        await one.sync()
        assert differences(one.index, tmp_path, documents=False) == []
        assert len([record for record in caplog.records if "no JSON documents" in record.message]) == 1
        changes(one.index)
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/pypi/*") == 0
        assert differences(one.index, tmp_path, documents=False) == []
        assert list((tmp_path / "web/json").iterdir()) == []


async def test_a_few_projects_without_documents(tmp_path: Path) -> None:
    index = Index()
    index.publish("one", "1.0", [uploaded(wheel("one", "1.0"))])
    async with following(index, tmp_path, Options(documents=False)) as one:
        await one.sync()
        one.index.yank("one", "1.0")
        await one.sync()
        assert differences(index, tmp_path, documents=False) == []


async def test_documents_that_come_later_are_found_by_a_full_pass(tmp_path: Path) -> None:
    async with following(many_projects(30, 1, 1, 50), tmp_path, Options(documents=False)) as one:
        await one.sync()
        one.server.options.documents = True
        one.index.yank("project-0000003", "1.0")
        await one.sync(full=True)
        assert (tmp_path / "web/json/project-0000003").exists()


async def test_a_document_that_is_missing_for_now_is_waited_for(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        one.server.fault("/pypi/alpha/json", Status(404), times=1)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.index.touch("zeta")
        one.server.fault("/pypi/zeta/json", Status(404), times=4)
        document = (tmp_path / "web/json/zeta").read_bytes()
        summary = await one.attempt()
        assert [owed.project for owed in summary.owed] == ["zeta"]
        assert (tmp_path / "web/json/zeta").read_bytes() == document  # the good copy stays
        await one.attempt()
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_first_document_that_is_missing_is_not_taken_for_an_index_without(tmp_path: Path) -> None:
    index = Index()
    for name in ("ant", "bee", "cat"):
        index.publish(name, "1.0", [uploaded(wheel(name, "1.0"))])
    async with following(index, tmp_path, projects_at_once=1) as one:
        missing = one.server.fault("/pypi/ant/json", Status(404))
        assert not (await one.attempt()).complete
        missing.remove()
        await one.sync()
        assert differences(index, tmp_path) == []


# -- hashes ----------------------------------------------------------------------------------------------------


def hashed(hashes: Any, path_form: str = "blake2b") -> Index:
    index = Index()
    files = [
        UploadedFile(f"odd-1.{number}.tar.gz", Virtual(size, number), hashes=hashes, path_form=path_form)
        for number, size in enumerate((10, 5000, 2 << 20))
    ]
    index.publish("odd", "1.0", files)
    return index


@pytest.mark.parametrize("path_form", ["blake2b", "sha256"])
@pytest.mark.parametrize("hashes", ["all", "sha256", "md5"])
async def test_hashes_and_paths(tmp_path: Path, hashes: str, path_form: str) -> None:
    """Upstream's digits are kept where they are a digest of the bytes, also when only the bytes can tell."""
    async with following(hashed(hashes, path_form), tmp_path) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
        before = {path: found for path, found in one.listing().items() if path.startswith("web/packages")}
        one.server.reset_log()
        one.index.yank("odd", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert before.items() <= one.listing().items()
        assert one.server.count("/packages/*") == 0


@pytest.mark.parametrize("hashes", ["all", "sha256", "md5"])
async def test_paths_that_say_nothing_become_ours(tmp_path: Path, hashes: Any) -> None:
    index = Index()
    for number in range(3):
        path = f"/files/{number}/odd-1.{number}.zip"
        index.publish(
            "odd", "1.0", [UploadedFile(f"odd-1.{number}.zip", Virtual(99, number), hashes=hashes, path_form=path)]
        )
    async with following(index, tmp_path) as one:
        await one.sync()
        assert differences(index, tmp_path) == []
        index.touch("odd")
        one.server.reset_log()
        await one.sync()
        assert differences(index, tmp_path) == []
        assert one.server.count("/files/*") == 0


async def test_digits_in_a_path_that_are_no_digest_of_the_bytes_are_not_kept(tmp_path: Path) -> None:
    index = Index()
    path = f"/packages/aa/bb/{'c' * 60}/lie-1.0.zip"
    index.publish("lie", "1.0", [UploadedFile("lie-1.0.zip", b"bytes", path_form=path)])
    async with following(index, tmp_path) as one:
        await one.sync()
        assert "aa/bb" not in str(one.files("lie")["lie-1.0.zip"])
        assert differences(index, tmp_path) == []


async def test_files_without_hashes_are_blocked(tmp_path: Path) -> None:
    index = hashed("none")
    index.publish("even", "1.0", [uploaded(wheel("even", "1.0"))])
    async with following(index, tmp_path) as one:
        summary = await one.attempt()
        assert [(owed.project, owed.state) for owed in summary.owed] == [("odd", "blocked")]
        assert "allow-unhashed" in summary.owed[0].reason
        assert summary.checkpoint == index.serial  # trying again cannot help, so it holds nobody up
        assert differences(index, tmp_path, owed=["odd"]) == []
        one.configure(allow_unhashed=True)
        await one.sync()
        assert differences(index, tmp_path) == []


async def test_files_without_hashes_are_taken_where_that_is_allowed(tmp_path: Path) -> None:
    async with following(hashed("none"), tmp_path, allow_unhashed=True) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
        for file in one.page("odd")["files"]:
            assert file["hashes"].keys() == {"sha256"}
        one.index.touch("odd")
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/packages/*") == 0
        assert differences(one.index, tmp_path) == []


async def test_a_changed_file_that_has_only_an_md5_is_noticed(tmp_path: Path) -> None:
    index = Index()
    index.publish("odd", "1", [UploadedFile("odd-1.zip", b"old bytes", hashes="md5", path_form="/f/odd-1.zip")])
    async with following(index, tmp_path) as one:
        await one.sync()
        old = one.files("odd")["odd-1.zip"]
        index.remove_file("odd", "1", "odd-1.zip")
        index.publish("odd", "1", [UploadedFile("odd-1.zip", b"new bytes", hashes="md5", path_form="/f/odd-1.zip")])
        await one.sync()
        assert differences(index, tmp_path) == []
        assert not old.exists()


# -- hosts -----------------------------------------------------------------------------------------------------


async def test_files_on_a_host_that_is_not_configured_are_refused(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, Options(files_host=True), file_hosts=()) as one:
        summary = await one.attempt()
        with_files = {name for name in one.index.projects() if one.index.expected_files(name)}
        assert {owed.project for owed in summary.owed} == with_files
        assert {owed.state for owed in summary.owed} == {"blocked"}
        assert all("file-hosts" in owed.reason for owed in summary.owed)
        assert one.server.count("/packages/*") == 0
        assert differences(one.index, tmp_path, owed=with_files) == []
        one.configure(file_hosts=(one.server.files_host,))
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []


# -- the Simple API of 2022 ------------------------------------------------------------------------------------


def _as_in_2022(page: dict[str, Any]) -> None:
    page["meta"] = {"api-version": "1.0"}
    page.pop("versions")
    page.pop("project-status")
    for file in page["files"]:
        for key in ("size", "upload-time", "provenance", "core-metadata"):
            file.pop(key)
        file["dist-info-metadata"] = file.pop("data-dist-info-metadata")


async def test_pages_without_sizes_times_versions_and_serials(tmp_path: Path) -> None:
    index = Index()
    index.publish("plain", "1.0", [uploaded(wheel("plain", "1.0")), uploaded(sdist("plain", "1.0"))])
    index.publish("plain", "1.1", [UploadedFile("plain-1.1.zip", Virtual(3 << 20, 3))])
    index.publish("other", "1.0", [uploaded(wheel("other", "1.0"))])
    async with following(index, tmp_path, Options(xmlrpc=False, documents=False, serial_header=False)) as one:
        one.server.fault(pages, json_change(_as_in_2022))
        one.server.fault(
            "/simple/", json_change(lambda root: [entry.pop("_last-serial") for entry in root["projects"]])
        )
        await one.sync()
        for name in ("plain", "other"):
            page = one.page(name)
            assert page["meta"] == {"api-version": "1.0"}
            wanted = [(one.file.filename, one.file.content.digests.sha256) for one in index.expected_files(name)]
            assert [(file["filename"], file["hashes"]["sha256"]) for file in page["files"]] == wanted
            for expected in index.expected_files(name):
                data = (one.web / place(expected)).read_bytes()
                assert data == expected.file.content.read(0, expected.file.content.size)
                if expected.file.sidecar:
                    assert (one.web / f"{place(expected)}.metadata").read_bytes() == expected.file.sidecar
        before = listing(one.web)
        one.server.reset_log()
        await one.sync()
        assert rewritten(before, listing(one.web)) <= {"last-modified"}
        assert one.server.count("*.whl") == one.server.count("*.zip") == 0


async def test_newer_versions_and_unknown_keys_are_taken(tmp_path: Path) -> None:
    def from_the_future(page: dict[str, Any]) -> None:
        page["meta"]["api-version"] = "1.99"
        page["namespaces"] = [{"name": "x", "owned": False}]
        page["alternate-locations"] = ["https://elsewhere.example/simple/x/"]
        for file in page["files"]:
            file["variants"] = {"a": [1, None, {}]}

    async with following(small_index(), tmp_path) as one:
        one.server.fault(pages, json_change(from_the_future))
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_page_of_the_next_major_version_is_refused_and_the_good_copy_stays(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.yank("zeta", "1!3.1")
        one.server.fault("/simple/zeta/", json_change(lambda page: page["meta"].update({"api-version": "2.0"})))
        summary = await one.attempt()
        assert [owed.project for owed in summary.owed] == ["zeta"]
        assert "2.0" in summary.owed[0].reason
        assert one.page("zeta")["files"][0]["yanked"] is False
