"""What a document says of files that its page does not list: it costs no other project its bytes or its sidecars."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Body, Hang
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.mirrors import Followed, complete_pass, config_for, following, rebuild, run_pass

#: What the liar's document lists as another release of it.
EVIL = b"bytes that only a document lists"


def animals(*more: str) -> Index:
    index = Index()
    for name in ("ant", "bee", "cat", "dog", *more):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", f"the bytes of {name}".encode()))
    return index


def victim() -> UploadedFile:
    built = wheel("victim", "1.0")
    return UploadedFile(built.filename, built.data, sidecar=built.metadata)


def listing_too(file: UploadedFile, data: bytes, **more: Any) -> Callable[[Any], None]:
    """A document that also lists ``data`` under another file's name and URL."""

    def change(document: Any) -> None:
        entry = dict(document["urls"][0])
        entry["filename"], entry["size"], entry["md5_digest"] = file.filename, len(data), ""
        entry["url"] = entry["url"].rpartition("/packages/")[0] + file.path
        entry["digests"] = {"sha256": hashlib.sha256(data).hexdigest()}
        document["releases"]["2.0"] = [entry | more]

    return change


def in_quarantine(page: Any) -> None:
    page["project-status"], page["files"] = {"status": "quarantined"}, []


@pytest.mark.parametrize("lost", [False, True], ids=["", "ledger-lost"])
async def test_bytes_of_a_file_that_only_the_document_lists_go_with_it(lost: bool, tmp_path: Path) -> None:
    """Its own, from where they really lie; what lies where the document said is another project's, and stays."""
    index, file = animals(), victim()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server)
        suffering.lie(server, listing_too(file, EVIL), where="document", project="ant")
        elsewhere = server.fault(file.path, Body(EVIL, "application/octet-stream"))
        await complete_pass(config)
        place = hashlib.sha256(EVIL).hexdigest()
        stored = tmp_path / f"web/packages/{place[:2]}/{place[2:4]}/{place[4:]}/{file.filename}"
        assert stored.read_bytes() == EVIL
        elsewhere.remove()
        index.publish("victim", "1.0", file)
        await complete_pass(config)
        if lost:
            lose_ledger(tmp_path)
        server.clear_faults()
        index.touch("ant")
        await complete_pass(config)
        suffering.assert_equal(config, index)


def lose_ledger(directory: Path) -> None:
    for path in directory.glob("heliostat.db*"):
        path.unlink()


async def test_bytes_of_a_file_that_only_the_document_lists_are_fetched_once(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        file = UploadedFile("ant-2.0.zip", EVIL)
        suffering.lie(one.server, listing_too(file, EVIL), where="document", project="ant")
        one.server.fault(file.path, Body(EVIL, "application/octet-stream"))
        await one.sync()
        one.server.reset_log()
        one.index.touch("ant")
        await one.sync()
        await rebuild(one.config)
        one.index.touch("ant")
        await one.sync()
        assert one.server.count("/simple/ant/") == 2
        assert one.server.count(file.path) == 0
        one.index.remove_project("ant")
        await one.sync()
        suffering.assert_equal(one.config, one.index)


async def test_a_page_that_is_made_from_a_document_lists_what_is_there(tmp_path: Path) -> None:
    """Also where our own page is lost a document's word is not enough for what a page states."""
    index, file = animals(), victim()
    index.publish("victim", "1.0", file)
    async with following(index, tmp_path) as one:
        lied = listing_too(file, EVIL)
        elsewhere = one.server.fault(file.path, Body(EVIL, "application/octet-stream"), times=1)
        suffering.lie(one.server, lied, where="document", project="ant")
        await one.sync("ant")
        elsewhere.remove()
        await one.sync()
        shutil.rmtree(tmp_path / "web/simple/ant")
        summary = await rebuild(one.config)
        assert [owed.project for owed in summary.owed] == ["ant"]
        assert_true(one, "ant")
        one.server.clear_faults()
        await one.sync()
        suffering.assert_equal(one.config, index)


async def test_a_quarantined_page_with_a_document_that_lists_another_projects_file(tmp_path: Path) -> None:
    """The document is kept, but nothing of what it lists was put in place by this project."""
    index, file = animals(), victim()
    index.publish("victim", "1.0", file)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server)
        suffering.lie(server, in_quarantine, project="ant")
        suffering.lie(
            server, listing_too(file, file.content.read(0, file.content.size)), where="document", project="ant"
        )
        await complete_pass(config)
        server.clear_faults()
        index.touch("ant")
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_a_quarantined_page_does_not_make_another_projects_sidecar_ours(tmp_path: Path) -> None:
    index, file = animals(), victim()
    index.publish("victim", "1.0", file)
    data = file.content.read(0, file.content.size)
    evil = b"Metadata-Version: 2.1\nName: victim\nVersion: 1.0\nRequires-Dist: evil\n"
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server)
        quarantine = server.fault("/simple/ant/", suffering.rewrite(in_quarantine))
        document = listing_too(file, data, **{"core-metadata": True, "core_metadata": True})
        suffering.lie(server, document, where="document", project="ant")
        await complete_pass(config)
        quarantine.remove()

        def page(body: Any) -> None:
            stated = {"sha256": hashlib.sha256(evil).hexdigest()}
            body["files"].append({
                **body["files"][0], "filename": file.filename, "size": len(data),
                "url": body["files"][0]["url"].rpartition("/packages/")[0] + file.path + "?evil",
                "hashes": {"sha256": file.content.digests.sha256}, "core-metadata": stated,
                "data-dist-info-metadata": stated,
            })  # fmt: skip

        suffering.lie(server, page, project="ant")
        server.fault(
            lambda request: request.path == file.path + ".metadata" and request.query == "evil",
            Body(evil, "application/octet-stream"),
        )
        index.touch("ant")
        suffering.assert_owed(await run_pass(config), "blocked", "other bytes lie at its place", project="ant")
        suffering.assert_others_equal(config, index, "ant")
        beside = tmp_path / "web" / (file.path.lstrip("/") + ".metadata")
        assert beside.read_bytes() == file.sidecar


# Two projects in one batch.


def steal(server: FakeIndex, file: UploadedFile, data: bytes, *, project: str) -> None:
    """The project's only file gets the name and the place of another one, and other bytes."""
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "blake2b_256": file.content.digests.blake2b_256}

    def change(entry: dict[str, Any]) -> None:
        entry["url"] = entry["url"].rpartition("/packages/")[0] + file.path + "?evil"
        entry["filename"], entry["size"] = file.filename, len(data)
        if "digests" in entry:
            entry["digests"], entry["md5_digest"] = digests, ""
        else:
            entry["hashes"] = {"sha256": digests["sha256"]}

    suffering.lie(server, lambda body: on_page(body, change), project=project)
    suffering.lie(server, lambda body: on_document(body, change), where="document", project=project)
    server.fault(
        lambda request: request.path == file.path and request.query == "evil", Body(data, "application/octet-stream")
    )


def on_page(body: Any, change: Callable[[dict[str, Any]], object]) -> None:
    for file in body["files"]:
        change(file)


def on_document(body: Any, change: Callable[[dict[str, Any]], object]) -> None:
    for entry in [*body["urls"], *(one for files in body["releases"].values() for one in files)]:
        change(entry)


def without_blake2b(entry: dict[str, Any]) -> None:
    entry["digests"].pop("blake2b_256", None)


def assert_true(one: Followed, name: str) -> None:
    """What the page of ``name``, if there is one, states of its bytes is what they are."""
    if (one.web / "simple" / name).exists():
        stated = {file["filename"]: file["hashes"]["sha256"] for file in one.page(name)["files"]}
        real = {file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in one.files(name).items()}
        assert stated == real


@pytest.mark.parametrize("order", [("good", "liar"), ("liar", "good")], ids=["good-first", "liar-first"])
async def test_two_that_come_to_one_place_by_different_ways(order: tuple[str, str], tmp_path: Path) -> None:
    """One is told its place by its document, the other one by its bytes: the second sees what the first has put there."""
    good, evil = UploadedFile("x-1.0.zip", b"the good bytes!"), b"the evil bytes!"
    index = Index()
    for name in order:
        index.publish(name, "1.0", good if name == "good" else UploadedFile("liar-1.0.zip", evil))
    async with following(index, tmp_path, batch_seconds=0.3) as one:
        suffering.lie(one.server, lambda body: on_document(body, without_blake2b), where="document", project="good")
        steal(one.server, good, evil, project="liar")
        summary = await one.attempt()
        assert len(summary.owed) == 1, summary
        for name in order:
            assert_true(one, name)


async def test_what_a_project_that_fails_had_put_in_place(tmp_path: Path) -> None:
    """It goes ahead of its pages, in the batch of the project that waited for the same place: that sees it there."""
    good, evil = UploadedFile("x-1.0.zip", Virtual(2 << 20, 3)), b"the evil bytes!"
    index = Index()
    index.publish("aa-liar", "1.0", UploadedFile("liar-1.0.zip", evil))
    index.publish("good", "1.0", good)
    async with following(index, tmp_path, batch_seconds=0.3) as one:
        steal(one.server, good, evil, project="aa-liar")

        def one_more(body: Any) -> None:
            more = {**body["files"][0], "filename": "y-1.0.zip", "hashes": {"sha256": "ab" * 32}}
            body["files"].append({**more, "url": more["url"].rpartition("/packages/")[0] + "/f/y-1.0.zip"})

        suffering.lie(one.server, one_more, project="aa-liar")
        later = one.server.fault("/simple/good/", Hang())
        failing = one.server.fault("/f/y-1.0.zip", Hang())
        first = [one.server.seen(good.path), one.server.seen("/f/y-1.0.zip")]
        attempt = asyncio.create_task(one.attempt())
        await asyncio.gather(*first)
        later.release()
        failing.release()
        summary = await attempt
        assert {owed.project: owed.state for owed in summary.owed} == {"aa-liar": "failing", "good": "blocked"}
        assert_true(one, "good")
        one.server.clear_faults()
        await one.attempt()
        await one.sync()
        suffering.assert_equal(one.config, index)


@pytest.mark.parametrize("first", ["ant", "bee"])
async def test_twins_that_come_to_one_place_by_different_ways(first: str, tmp_path: Path) -> None:
    index = Index()
    for number in range(6):
        index.publish(f"n{number}", "1.0", UploadedFile(f"n{number}-1.0.zip", b"%d" % number))
    for name in ("ant", "bee"):
        index.publish(name, "1.0", UploadedFile("x-1.0.zip", b"twin", upload_time="2026-02-03T04:05:06.000000Z"))
    async with following(index, tmp_path, batch_seconds=0.3) as one:
        suffering.lie(one.server, lambda body: on_document(body, without_blake2b), where="document", project="bee")
        await one.sync()
        one.server.clear_faults()
        index.touch("bee")
        index.remove_project(first)
        await one.sync()
        suffering.assert_equal(one.config, index)
        index.remove_project("bee" if first == "ant" else "ant")
        await one.sync()
        suffering.assert_equal(one.config, index)


# A place that is taken, and free again.


async def test_the_owner_of_a_stolen_place_gets_it_when_the_thief_is_gone(tmp_path: Path) -> None:
    good, evil = UploadedFile("shared-1.0.zip", b"the good bytes!"), b"the evil bytes!"
    index = animals("liar")
    async with following(index, tmp_path) as one:
        steal(one.server, good, evil, project="liar")
        await one.sync()
        index.publish("owner", "1.0", good)
        suffering.assert_owed(await one.attempt(), "blocked", "other bytes lie at its place", project="owner")
        one.server.reset_log()
        await one.attempt()
        assert one.server.count("/simple/owner/") == 0  # nothing has changed for it
        one.server.clear_faults()
        index.remove_project("liar")
        await one.attempt()
        await one.sync()
        suffering.assert_equal(one.config, index)


async def test_a_place_that_is_freed_by_hand_is_found_at_the_next_reconcile(tmp_path: Path) -> None:
    good, evil = UploadedFile("shared-1.0.zip", b"the good bytes!"), b"the evil bytes!"
    index = animals("liar")
    async with following(index, tmp_path) as one:
        steal(one.server, good, evil, project="liar")
        await one.sync()
        index.publish("owner", "1.0", good)
        await one.attempt()
        await one.attempt()
        shutil.rmtree((tmp_path / "web" / good.path.lstrip("/")).parent)
        one.server.reset_log()
        await one.attempt()
        assert one.server.count("/simple/owner/") == 0
        one.configure(reconcile_hours=1e-9)
        await one.sync()
        assert_true(one, "owner")


# Bytes out of reach.


async def test_bytes_out_of_reach_come_back_only_under_their_own_digest(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.quarantine("ant")
        await one.sync()
        one.index.clear_quarantine("ant")

        def change(entry: dict[str, Any]) -> None:
            entry["digests" if "digests" in entry else "hashes"]["sha256"] = "ab" * 32

        suffering.lie(one.server, lambda body: on_page(body, change), project="ant")
        suffering.lie(one.server, lambda body: on_document(body, change), where="document", project="ant")
        suffering.assert_owed(await one.attempt(), "failing", "sha256 is ", project="ant")
        assert json.loads((one.web / "simple/ant/index.v1_json").read_bytes())["files"] == []
        one.server.clear_faults()
        one.server.reset_log()
        await one.sync()
        suffering.assert_equal(one.config, one.index)
        assert one.server.count("/packages/*") == 0
