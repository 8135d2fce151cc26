"""Trees of other mirrors are taken over in place: nothing that is right is fetched again, whatever form they have."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.errors import ConfigError, StateError, StoreError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.adopt.files import Check
from heliostat.mirror.adopt.layouts import recognise
from support import trees
from support.adopted import ALPHA, SDIST, WHEEL, adopt, complete, dry_run, fetched, old_index, path_of
from support.disks import BreakingDisk, Broken
from support.equality import differences
from support.mirrors import Followed, following, listing

Make = Callable[[Index, Path], None]

#: Beside ``web/``: our own, and links for web servers that still serve the top.
BESIDE = {"status", "simple", "packages", "json", "pypi"}


FORMS: dict[str, Make] = {
    "bandersnatch": trees.bandersnatch,
    "bandersnatch, interrupted": lambda index, where: trees.bandersnatch(index, where, unfinished=True),
    "bandersnatch, no JSON at all": lambda index, where: trees.bandersnatch(
        index, where, documents=False, json_pages=False
    ),
    "bandersnatch, HTML pages and documents": lambda index, where: trees.bandersnatch(index, where, json_pages=False),
    "bandersnatch, hashed": lambda index, where: trees.bandersnatch(index, where, hashed=True, unfinished=True),
    "bandersnatch, hashed HTML": lambda index, where: trees.bandersnatch(
        index, where, hashed=True, documents=False, json_pages=False
    ),
    "bandersnatch, old names": lambda index, where: trees.bandersnatch(index, where, raw_names=True),
    "bandersnatch, old names, hashed": lambda index, where: trees.bandersnatch(
        index, where, raw_names=True, hashed=True, documents=False
    ),
    "bandersnatch, kept versions": lambda index, where: trees.bandersnatch(index, where, versions=True),
    "bandersnatch, MD5": lambda index, where: trees.bandersnatch(index, where, algorithm="md5"),
    "bandersnatch, root_uri": lambda index, where: trees.bandersnatch(
        index, where, root_uri="https://mirror.example/base"
    ),
    "shadowmire": trees.shadowmire,
    "pep381client": trees.pep381client,
}


def beside_web(one: Followed) -> set[str]:
    return set(os.listdir(one.directory)) - {"web", "partial", "withheld", ".lock", "heliostat.db", "adoption.jsonl"}


@pytest.fixture(params=FORMS, ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> Make:
    return FORMS[request.param]


@pytest.mark.parametrize("check", ["size", "digest"])
async def test_no_release_file_is_fetched_again(form: Make, check: Check, tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        form(one.index, one.directory)
        before = listing(one.directory)
        planned, expected = dry_run(one, check)
        assert listing(one.directory) == before
        assert planned.dry_run

        result, found = await adopt(one, check)

        assert sorted(found, key=str) == sorted(expected, key=str)
        assert result.differences == 0, found
        assert result.projects == len(one.index)
        assert (result.kinds, result.files, result.bytes) == (planned.kinds, planned.files, planned.bytes)
        if check == "digest":
            assert result.hashed == result.files
        assert one.server.request_count == 0
        await complete(one)
        assert fetched(one) == []
        assert beside_web(one) <= BESIDE


async def test_what_is_served_stays_right_between_adoption_and_pass(form: Make, tmp_path: Path) -> None:
    """Every project has pages with all its files, and the links of the JSON pages lead to them."""
    async with following(old_index(), tmp_path / "mirror") as one:
        form(one.index, one.directory)
        await adopt(one)
        for name in one.index.projects():
            wanted = {each.file.filename: each.file.content for each in one.index.expected_files(name)}
            files = one.files(name)
            assert files.keys() == wanted.keys()
            for filename, path in files.items():
                assert path.read_bytes() == wanted[filename].read(0, wanted[filename].size)
            html = (one.web / "simple" / name / "index.html").read_text()
            assert all(f">{filename}</a>" in html for filename in wanted)
        assert set(one.root()) >= {name for name in one.index.projects() if name == one.index[name].display}


@pytest.mark.parametrize("tool", ["bandersnatch", "shadowmire"])
async def test_a_recorded_tree(tool: str, tmp_path: Path) -> None:
    archive = trees.recorded(tool)
    source = tmp_path / "source"
    source.mkdir()
    if archive is not None:
        trees.unpack(archive, source)
    else:
        (trees.bandersnatch if tool == "bandersnatch" else trees.shadowmire)(old_index(), source)
    index = trees.index_of(source if tool == "shadowmire" else source / "web")
    async with following(index, tmp_path / "mirror") as one:
        one.directory.rmdir()
        source.rename(one.directory)
        result, found = await adopt(one, "digest")
        assert result.differences == 0, found
        assert result.projects == len(index)
        assert {each.kind for each in found} <= {"moved", "removed"}
        await complete(one)
        assert fetched(one) == []


# -- what differs ----------------------------------------------------------------------------------------------------


async def test_what_is_missing_or_damaged_is_fetched_and_nothing_else(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        path_of(one, WHEEL).unlink()
        path_of(one, SDIST).write_bytes(b"short")
        same_size = path_of(one, ALPHA)
        same_size.write_bytes(b"x" * same_size.stat().st_size)
        sidecar = path_of(one, "r2_d2-1.0-py3-none-any.whl.metadata")
        sidecar.unlink()

        result, found = await adopt(one, "digest")

        assert {(each.kind, Path(each.path).name) for each in found if each.kind != "removed"} == {
            ("missing", WHEEL), ("size", SDIST), ("digest", ALPHA), ("missing", sidecar.name),
        }  # fmt: skip
        assert result.differences == 4
        assert one.files("beta") == {}
        assert len(one.files("alpha")) == 3
        kept = {path.name for path in (one.directory / "withheld/damaged").rglob("*") if path.is_file()}
        assert kept == {SDIST, ALPHA}
        await one.sync()
        assert fetched(one) == sorted([WHEEL, SDIST, ALPHA])
        for folder, _, _ in os.walk(one.directory / "withheld", topdown=False):
            for path in Path(folder).iterdir():
                path.unlink() if path.is_file() else path.rmdir()
        assert differences(one.index, one.directory, also=("local-stats/*",)) == []


@pytest.mark.parametrize(("check", "kinds"), [("none", set()), ("size", {"size"}), ("digest", {"size", "digest"})])
async def test_as_thoroughly_as_asked(check: Check, kinds: set[str], tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        path_of(one, SDIST).write_bytes(b"short")
        same_size = path_of(one, ALPHA)
        same_size.write_bytes(b"x" * same_size.stat().st_size)
        _, found = await adopt(one, check)
        assert {each.kind for each in found} - {"removed"} == kinds


async def test_sizes_come_from_the_document_where_the_page_has_none(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory, json_pages=False)
        path_of(one, SDIST).write_bytes(b"short")
        _, found = await adopt(one)
        assert [each.kind for each in found if each.kind != "removed"] == ["size"]


async def test_odd_things_where_files_and_pages_belong(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        wheel_path = path_of(one, WHEEL)
        wheel_path.unlink()
        os.mkfifo(wheel_path)
        for page in (one.web / "simple/r2-d2").iterdir():
            page.write_bytes(b"{")
        (one.web / "json/r2-d2").write_bytes(b"{")
        (one.web / "simple/!!!").mkdir()
        (one.web / "simple/packages/index.v1_json").unlink()
        (one.web / "simple/packages/index.v1_json").mkdir()
        os.chmod(path_of(one, SDIST), 0o600)
        _, found = await adopt(one)
        told = {(each.kind, each.path) for each in found}
        assert ("page", "web/simple/r2-d2/index.v1_json") in told
        assert ("page", "web/json/r2-d2") in told
        assert ("strange", "web/simple/!!!") in told
        assert ("obstacle", wheel_path.relative_to(one.directory).as_posix()) in told
        assert ("obstacle", "web/simple/packages") in told
        assert ("mode", path_of(one, SDIST).relative_to(one.directory).as_posix()) in told
        assert path_of(one, SDIST).stat().st_mode & 0o777 == 0o644
        (one.web / "simple/packages/index.v1_json").rmdir()
        (one.web / "simple/!!!").rmdir()
        wheel_path.unlink()
        await complete(one)
        assert fetched(one) == [WHEEL]


async def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """They are told in a form that can be read, and stay; old temporaries go, whatever they are called."""
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory, versions=True)
        web = os.fsencode(one.web)
        for folder in (b"simple", b"json", b"pypi"):
            os.mkdir(web + b"/" + folder + b"/\xff\xfe")
        for path in (b"simple/.\xff.k3x9z0a_", b"simple/beta/versions/index_\xff.html", b"simple/beta/\xff"):
            with open(web + b"/" + path, "wb") as file:
                file.write(b"old")
        _, planned = dry_run(one)
        result, found = await adopt(one)
        assert {each.path for each in found if each.kind == "strange"} == {
            "web/simple/\\xff\\xfe", "web/json/\\xff\\xfe", "web/pypi/\\xff\\xfe",
        }  # fmt: skip
        assert sorted(found, key=str) == sorted(planned, key=str)
        assert result.differences == 0, found
        assert not os.path.exists(web + b"/simple/.\xff.k3x9z0a_")
        again, said = await adopt(one)
        assert (again.already, said) == (True, found)
        await one.sync()
        assert fetched(one) == []


async def test_links_that_lead_out_of_the_tree_are_refused(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        page = one.web / "simple/beta/index.v1_json"
        page.write_text(page.read_text().replace("../../packages/", "../../packages/..%2f../"))
        for other in ("index.html", "index.v1_html"):
            (one.web / "simple/beta" / other).unlink()
        before = listing(one.web / "packages")
        _, found = await adopt(one)
        assert {each.kind for each in found} == {"name", "removed"}
        assert listing(one.web / "packages").keys() == before.keys()
        await complete(one)
        assert fetched(one) == []


async def test_a_link_out_of_the_tree_stays_until_the_file_is_there(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory, root_uri="https://mirror.example/base")
        path_of(one, WHEEL).unlink()
        _, found = await adopt(one)
        assert [(each.kind, Path(each.path).name) for each in found if each.kind != "removed"] == [("missing", WHEEL)]
        assert {each["filename"] for each in one.page("beta")["files"]} == {WHEEL, SDIST}
        await complete(one)
        assert fetched(one) == [WHEEL]


async def test_other_bytes_at_the_place_of_a_file_that_moves(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.pep381client(one.index, one.directory)
        (file,) = (each.file for each in one.index.expected_files("beta") if each.file.filename == WHEEL)
        digits = file.content.digests.sha256
        wrong = one.web / "packages" / digits[:2] / digits[2:4] / digits[4:] / WHEEL
        wrong.parent.mkdir(parents=True)
        wrong.write_bytes(b"x" * file.content.size)
        await adopt(one)
        assert one.files("beta")[WHEEL].read_bytes() == file.content.read(0, file.content.size)
        await one.sync()
        assert fetched(one) == []


async def test_projects_outside_the_scope_are_kept(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror", projects=("alpha", "beta")) as one:
        trees.bandersnatch(one.index, one.directory)
        result, _ = await adopt(one)
        assert result.outside == len(one.index) - 2
        await one.sync()
        assert set(one.root()) == {one.index[name].display for name in one.index.projects()}
        assert fetched(one) == []


async def test_a_mirror_without_files_keeps_links_that_lead_to_upstream(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror", files=False) as one:
        trees.bandersnatch(one.index, one.directory, root_uri=one.server.url)
        for path in sorted((one.web / "packages").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        result, found = await adopt(one)
        assert result.differences == 0, found
        assert one.page("beta")["files"][0]["url"].startswith(one.server.url)
        await one.sync()
        assert fetched(one) == []


# -- refusals --------------------------------------------------------------------------------------------------------


async def test_adopted_twice_is_adopted_once(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        first, found = await adopt(one)
        await complete(one)
        before = one.listing()
        again, said = await adopt(one)
        assert (again.already, again.projects, said) == (True, first.projects, found)
        assert {path for path, what in one.listing().items() if before.get(path) != what} <= {"heliostat.db-shm"}


async def test_a_mirror_of_our_own_is_refused(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        await one.sync()
        with pytest.raises(ConfigError, match="there is a ledger already"):
            await adopt(one)


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to adopt"):
        recognise(os.fspath(tmp_path), None)
    trees.bandersnatch(old_index(), tmp_path)
    with pytest.raises(ConfigError, match="the folder above 'web'"):
        recognise(os.fspath(tmp_path / "web"), None)


# -- interruptions ---------------------------------------------------------------------------------------------------


def small() -> Index:
    index = Index()
    for name in ("Foo.Bar", "r"):
        built, old = wheel(name, "1.0"), sdist(name, "0.9")
        index.publish(name, "1.0", UploadedFile(built.filename, built.data, sidecar=built.metadata))
        index.publish(name, "0.9", UploadedFile(old.filename, old.data))
    return index


KILLED: dict[str, Make] = {
    "interrupted, hashed, old names": lambda index, where: trees.bandersnatch(
        index, where, hashed=True, raw_names=True, unfinished=True, documents=False
    ),
    "versions": lambda index, where: trees.bandersnatch(index, where, versions=True),
    "shadowmire": trees.shadowmire,
    "pep381client": trees.pep381client,
}


@pytest.mark.parametrize("made", KILLED.values(), ids=list(KILLED))
async def test_killed_after_any_step(made: Make, tmp_path: Path) -> None:
    """The next adoption goes on; nothing is lost, nothing stays behind, no file is fetched, every finding is told."""
    cut, ended = 0, False
    while not ended:
        async with following(small(), tmp_path / f"mirror-{cut}") as one:
            made(one.index, one.directory)
            _, expected = dry_run(one)
            try:
                await adopt(one, disk=BreakingDisk(os.fspath(one.directory), cut))
                ended = True
            except Broken:
                pass
            result, found = await adopt(one)
            assert result.projects == len(one.index)
            assert sorted(found, key=str) == sorted(expected, key=str)
            await one.sync()
            assert fetched(one) == []
            assert differences(one.index, one.directory, also=("local-stats/*",)) == []
            assert beside_web(one) <= BESIDE
            cut += 1
    assert cut > 20


async def test_stopped_by_a_signal_it_goes_on(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        stop = asyncio.Event()
        stop.set()
        result, _ = await adopt(one, stop=stop)
        assert result.interrupted
        with pytest.raises(StateError, match="'heliostat adopt' goes on"):
            await one.attempt()
        result, found = await adopt(one, "digest")
        assert (result.interrupted, result.hashed) == (False, result.files)
        assert result.differences == 0, found
        await complete(one)
        assert fetched(one) == []


def a_socket(path: Path) -> None:
    """Bound under a short name: that of a socket has a limit."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{path.parent.parent.parent}/s")
    (path.parent.parent.parent / "s").rename(path)


@pytest.mark.parametrize("place", ["json/r2-d2", "simple/r2-d2/index.html", "simple/r2-d2/index.v1_json"])
@pytest.mark.parametrize("make", [os.mkfifo, a_socket, lambda path: path.symlink_to(path.name)])
async def test_what_is_no_page_or_document_concerns_its_project_alone(
    make: Callable[[Path], object], place: str, tmp_path: Path
) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        path = one.web / place
        path.unlink()
        make(path)
        _, planned = dry_run(one)
        _, found = await adopt(one)
        for each in (planned, found):
            assert ("obstacle", f"web/{place}", "r2-d2") in {(one.kind, one.path, one.project) for one in each}
        assert {each.project for each in found if each.kind == "obstacle"} == {"r2-d2"}


async def test_a_pipe_where_the_record_belongs_is_told(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        os.mkfifo(one.directory / "adoption.jsonl")
        with pytest.raises(StoreError, match=r"adoption\.jsonl: something that is no file lies there"):
            await adopt(one)
        (one.directory / "adoption.jsonl").unlink()
        await adopt(one)
        await complete(one)
