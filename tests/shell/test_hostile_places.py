"""One place, several claims: who has it keeps it, and what a page states is what its bytes are."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, UploadedFile, Virtual
from heliostat.fakeindex.faults import Body
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.mirrors import complete_pass, config_for, listing, run_pass

#: When shared files were uploaded, whoever shares them.
MOMENT = "2026-02-03T04:05:06.000000Z"


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


async def test_a_shared_file_whose_name_tells_no_owner(tmp_path: Path) -> None:
    """The bytes stay as long as any page has them, and no longer."""
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
            suffering.assert_equal(config, index)


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
