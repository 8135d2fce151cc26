"""A project whose own pages are damaged goes as any other, and is nobody else's trouble."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.fakeindex import Index
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.report import Counters, Deletion
from heliostat.mirror.run import Mirror
from support.equality import differences
from support.mirrors import Followed, following
from support.verified import findings

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def animals() -> Index:
    index = Index()
    for name in NAMES:
        built = wheel(name, "1.0")
        index.publish(name, "1.0", [uploaded(built), uploaded(sdist(name, "1.0"))])
    return index


def cut(*paths: str) -> Callable[[Path], None]:
    def do(web: Path) -> None:
        for path in paths:
            found = web / path
            found.write_bytes(found.read_bytes()[:40])

    return do


def without(*paths: str) -> Callable[[Path], None]:
    def do(web: Path) -> None:
        for path in paths:
            (web / path).unlink()

    return do


def folder_for(path: str) -> Callable[[Path], None]:
    def do(web: Path) -> None:
        (web / path).unlink()
        (web / path / "deep").mkdir(parents=True)

    return do


def pipe_for(path: str) -> Callable[[Path], None]:
    def do(web: Path) -> None:
        (web / path).unlink()
        os.mkfifo(web / path)

    return do


def circle_for(path: str) -> Callable[[Path], None]:
    def do(web: Path) -> None:
        (web / path).unlink()
        (web / path).symlink_to(Path(path).name)

    return do


def leading_away(web: Path) -> None:
    page = web / JSON
    page.write_bytes(page.read_bytes().replace(b"../../packages/", b"../../../../etc/packages/"))


def less(web: Path) -> None:
    """A page without the files of the first release."""
    page = json.loads((web / JSON).read_bytes())
    page["files"] = [file for file in page["files"] if "-1.0" not in file["filename"]]
    (web / JSON).write_text(json.dumps(page))


JSON, HTML, OTHER, DOCUMENT = (
    "simple/bee/index.v1_json", "simple/bee/index.html", "simple/bee/index.v1_html", "json/bee",
)  # fmt: skip

#: What was done to ``bee``, and whether something still says which files are its own.
DAMAGES: dict[str, tuple[list[Callable[[Path], None]], bool]] = {
    "JSON page": ([cut(JSON)], True),
    "HTML page": ([cut(HTML)], True),
    "all pages, not the document": ([cut(JSON), without(HTML, OTHER)], True),
    "everything": ([cut(JSON, DOCUMENT), without(HTML, OTHER)], False),
    "a folder for the JSON page": ([folder_for(JSON)], True),
    "pipes for page and document": ([pipe_for(JSON), pipe_for(DOCUMENT)], True),
    "pipes for all": ([pipe_for(one) for one in (JSON, HTML, OTHER, DOCUMENT)], False),
    "a link in a circle for the JSON page": ([circle_for(JSON)], True),
    "links in circles for all": ([circle_for(one) for one in (JSON, HTML, OTHER, DOCUMENT)], False),
    "links that lead away": ([leading_away], True),
    "a page that lists less": ([less], True),
    "a page that lists less, which only the document tells": ([less, without(HTML, OTHER)], True),
    "folders for all": ([folder_for(one) for one in (JSON, HTML, OTHER, DOCUMENT)], False),
}


@pytest.fixture(params=DAMAGES, ids=list(DAMAGES))
def damage(request: pytest.FixtureRequest) -> tuple[Callable[[Followed], None], bool]:
    steps, told = DAMAGES[request.param]

    def do(one: Followed) -> None:
        for step in steps:
            step(one.web)

    return do, told


def served(one: Followed, name: str) -> set[str]:
    """Distribution files of a project that still lie in ``packages/``."""
    return {path.name for path in (one.web / "packages").rglob(f"{name}-1.0*")}


async def test_removed_upstream(damage: tuple[Callable[[Followed], None], bool], tmp_path: Path) -> None:
    do, told = damage
    async with following(animals(), tmp_path) as one:
        await one.sync()
        do(one)
        one.index.remove_project("bee")
        one.index.remove_project("cat")
        await one.sync()
        assert set(one.root()) == set(NAMES) - {"bee", "cat"}
        assert served(one, "cat") == set()
        assert bool(served(one, "bee")) is not told
        await one.sync()


async def delete(one: Followed, *entries: str) -> Deletion:
    async with Mirror.open(one.config) as mirror:
        return await mirror.delete(entries, reason="malware", purge=True, counters=Counters(), stop=asyncio.Event())


async def test_deleted(damage: tuple[Callable[[Followed], None], bool], tmp_path: Path) -> None:
    do, told = damage
    async with following(animals(), tmp_path) as one:
        await one.sync()
        do(one)
        report = await delete(one, "bee", "cat")
        assert report.complete, report
        assert served(one, "cat") == set()
        assert bool(served(one, "bee")) is not told
        await one.sync()
        assert set(one.root()) == set(NAMES) - {"bee", "cat"}
        assert not any(path.is_file() for path in (one.web / "simple/bee").rglob("*"))


async def test_put_out_of_reach_and_brought_back(
    damage: tuple[Callable[[Followed], None], bool], tmp_path: Path
) -> None:
    do, told = damage
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        do(one)
        async with Mirror.open(one.config) as mirror:
            await mirror.delete(["bee"], reason="", purge=False, counters=Counters(), stop=asyncio.Event())
            assert bool(served(one, "bee")) is not told
            for folder in sorted((one.web / "simple/bee").rglob("*"), reverse=True):
                folder.rmdir()
            if (one.web / "json/bee").is_dir():
                (one.web / "json/bee/deep").rmdir()
                (one.web / "json/bee").rmdir()
            report = await mirror.restore(["bee"], counters=Counters(), stop=asyncio.Event())
        assert report.complete, report
        assert set(one.root()) == set(NAMES)
        assert differences(one.index, one.directory) == []


async def test_what_nothing_names_any_more_can_be_removed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for step in DAMAGES["everything"][0]:
            step(one.web)
        await delete(one, "bee")
        left = await findings(one.config)
        assert {each.kind for each in left} == {"unreferenced"}
        assert {Path(each.path).name for each in left} == served(one, "bee")


async def test_a_release_of_it_is_gone_after_the_next_pass(
    damage: tuple[Callable[[Followed], None], bool], tmp_path: Path
) -> None:
    """What its pages are now nobody knows; that the release is denied stays, and so do bytes that nothing tells."""
    do, told = damage
    async with following(animals(), tmp_path) as one:
        one.index.publish("bee", "2.0", uploaded(wheel("bee", "2.0")))
        await one.sync()
        do(one)
        report = await delete(one, "bee==1.0", "cat")
        assert report.store_error is None
        assert served(one, "cat") == set()
        await one.attempt()
        for folder in sorted((one.web / "simple/bee").rglob("*"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        if (one.web / "json/bee").is_dir():
            (one.web / "json/bee/deep").rmdir()
            (one.web / "json/bee").rmdir()
        await one.sync(full=True)
        assert {each["filename"] for each in one.page("bee")["files"]} == {"bee-2.0-py3-none-any.whl"}
        assert bool(served(one, "bee")) is not told
        assert bool(await findings(one.config)) is not told


async def test_a_file_that_upstream_removed(damage: tuple[Callable[[Followed], None], bool], tmp_path: Path) -> None:
    """The page is written anew, and what only the old one named goes."""
    do, told = damage
    async with following(animals(), tmp_path, policy="withhold") as one:
        one.index.publish("bee", "2.0", uploaded(wheel("bee", "2.0")))
        await one.sync()
        do(one)
        one.index.remove_release("bee", "1.0")
        await one.attempt()
        for folder in sorted((one.web / "simple/bee").rglob("deep"), reverse=True):
            folder.rmdir()
            folder.parent.rmdir()
        if (one.web / "json/bee").is_dir():
            (one.web / "json/bee/deep").rmdir()
            (one.web / "json/bee").rmdir()
        await one.sync(full=True)
        assert bool(await findings(one.config)) is not told
        assert bool(served(one, "bee")) is not told
        kept = {path.name for path in (one.directory / "withheld/packages").rglob("*") if path.is_file()}
        assert kept == (
            {"bee-1.0-py3-none-any.whl", "bee-1.0-py3-none-any.whl.metadata", "bee-1.0.tar.gz"} if told else set()
        )


async def test_a_pipe_in_the_place_of_a_page_is_replaced(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for step in DAMAGES["pipes for all"][0]:
            step(one.web)
        one.index.publish("bee", "2.0", uploaded(wheel("bee", "2.0")))
        await one.sync()
        assert differences(one.index, one.directory) == []


async def test_a_folder_that_is_nobodys(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        (one.web / "simple/zzz").mkdir()
        (one.web / "simple/zzz/index.html").write_bytes(b"junk")
        summary = await one.attempt("zzz")
        assert (summary.unknown, summary.unreachable) == (["zzz"], None)
        one.index.remove_project("cat")
        await one.sync()
        assert "cat" not in one.root()


async def test_a_repair_leaves_out_what_is_to_go(tmp_path: Path) -> None:
    """It is denied since the last pass, and the next one removes it: no reason not to repair another project."""
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for name in ("bee", "cat"):
            one.files(name)[f"{name}-1.0.tar.gz"].unlink()
        one.configure(deny=("bee",))
        found = await findings(one.config)
        async with Mirror.open(one.config) as mirror:
            await mirror.repair(lambda: iter(found), counters=Counters(), stop=asyncio.Event())
        assert one.files("cat")["cat-1.0.tar.gz"].exists()
        await one.sync()
        assert await findings(one.config) == []


async def test_a_project_whose_folder_is_a_link(tmp_path: Path) -> None:
    """The link goes, not what it leads to."""
    async with following(animals(), tmp_path / "mirror") as one:
        await one.sync()
        outside = tmp_path / "outside"
        (one.web / "simple/bee").rename(outside)
        (one.web / "simple/bee").symlink_to(outside)
        before = sorted(path.name for path in outside.iterdir())
        report = await delete(one, "bee", "cat")
        assert report.complete
        assert not os.path.lexists(one.web / "simple/bee")
        assert sorted(path.name for path in outside.iterdir()) == before
        await one.sync()
        assert set(one.root()) == set(NAMES) - {"bee", "cat"}


@pytest.mark.parametrize("where", ["packages", "simple", "the place of a file"])
async def test_something_in_the_way_out_of_reach(where: str, tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        one.index.publish("dog", "2.0", uploaded(wheel("dog", "2.0")))
        await one.sync()
        withheld = tmp_path / "withheld"
        if where == "the place of a file":
            for path in [*one.files("bee").values(), *one.files("dog").values()]:
                (withheld / path.relative_to(one.web) / "deep").mkdir(parents=True)
        else:
            withheld.mkdir(exist_ok=True)
            (withheld / where).write_bytes(b"what is this")
        one.index.remove_project("cat")
        report = await one.delete("bee", "dog==1.0")
        assert (report.complete, report.store_error) == (True, None)
        assert served(one, "bee") == served(one, "dog") == set()
        await one.sync()
        assert served(one, "cat") == set()
        report = await one.restore("bee", "dog==1.0")
        assert report.entries == {"bee": "restored", "dog==1.0": "restored"}
        aside = withheld / "damaged/in-the-way"
        assert len(list(aside.iterdir())) == (1 if where != "the place of a file" else 4)


@pytest.mark.parametrize("policy", ["propagate", "withhold"])
async def test_files_behind_linked_directories_stay(policy: str, tmp_path: Path) -> None:
    """A file's own directory, as a link, goes; one that others lie behind as well stays, which is told."""
    async with following(animals(), tmp_path / "mirror", policy=policy) as one:
        await one.sync()
        outside = tmp_path / "outside"
        outside.mkdir()
        own, shared = one.files("bee")["bee-1.0.tar.gz"].parent, one.files("cat")["cat-1.0.tar.gz"].parents[2]
        for number, folder in enumerate((own, shared)):
            folder.rename(outside / str(number))
            folder.symlink_to(outside / str(number))
        before = sorted(path for path in outside.rglob("*") if path.is_file())
        report = await one.delete("bee", "cat")
        assert sorted(path for path in outside.rglob("*") if path.is_file()) == before
        assert set(report.failed) == {"cat"}
        assert str(shared.relative_to(one.directory)) in report.failed["cat"]
        assert not os.path.lexists(own)
        assert served(one, "bee") == set()
        await one.attempt()
        assert sorted(path for path in outside.rglob("*") if path.is_file()) == before
        shared.unlink()
        (outside / "1").rename(shared)
        await one.sync()
        assert served(one, "cat") == set()
