"""What is slow holds back nobody: shown by the order of things, not by their time."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, UploadedFile, Virtual, made_up_digests
from heliostat.fakeindex.faults import Drip, Hang
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from support import suffering
from support.mirrors import complete_pass, config_for, owed_names, run_pass

#: A file so large that nobody waits for its end; its digests are made up, and it is never read whole.
HUGE = 2 << 30


async def until(true: Callable[[], bool]) -> None:
    """Return when it is; fails after a time in which everything here happens many times over."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def published(config: Config) -> int:
    """Projects whose pages are there."""
    return sum(1 for _ in Path(config.mirror.directory, "web/simple").glob("project-*/index.html"))


def kept(config: Config) -> list[int]:
    """Sizes of the downloads that can be resumed."""
    return [path.stat().st_size for path in Path(config.mirror.directory, "partial").glob("*.part")]


async def test_a_dripping_file_and_a_hanging_project_delay_nobody(tmp_path: Path) -> None:
    """A thousand small projects are published while 2 GB drip and a page does not come; both heal later."""
    index = many_projects(1000, files_per_project=2, sidecars=1, size=300)
    index.publish("aardvark", "1.0", UploadedFile("aardvark-1.0.zip", Virtual(HUGE, 1, digests=made_up_digests(1))))
    suffering.publish_victim(index, "1.0")
    async with FakeIndex(index) as server:
        # Neither is given up, however long the others take.
        config = config_for(tmp_path / "mirror", server, stall_timeout=600.0, metadata_timeout=600.0)
        dripping = server.fault("/packages/*/aardvark-1.0.zip", Drip(step=1 << 20))
        hanging = server.fault("/simple/demo/", Hang())
        stop, counters = asyncio.Event(), Counters()
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=counters, stop=stop))
            await until(lambda: published(config) == counters.projects_done == 1000)
            assert not running.done()
            assert not dripping.released
            assert not hanging.released
            assert (dripping.fired, hanging.fired) == (1, 1)

            hanging.release()
            await until(lambda: Path(config.mirror.directory, "web/simple/demo/index.html").exists())
            dripping.grant(3)
            await until(lambda: sum(kept(config)) >= 2 << 20)
            stop.set()
            summary = await running
        assert summary.interrupted
        assert owed_names(summary) == ["aardvark"]
        suffering.assert_nothing_left(config)
        assert sum(kept(config)) >= 2 << 20


@pytest.mark.parametrize("at_once", [64, 4], ids=["fewer-than-projects-at-once", "more-than-projects-at-once"])
async def test_a_dozen_dripping_files_delay_nobody(at_once: int, tmp_path: Path) -> None:
    """More large files than may be fetched at once: the small ones still have their turn."""
    index = many_projects(200, files_per_project=2, sidecars=1, size=300)
    for number in range(12):
        name = f"aardvark-{number}"
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", Virtual(33 << 20, number)))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, files_at_once=8, projects_at_once=at_once)
        dripping = server.fault("/packages/*/aardvark-*.zip", Drip(step=1 << 20))
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=Counters(), stop=asyncio.Event()))
            await until(lambda: published(config) == 200)
            assert not running.done()
            assert not dripping.released
            assert dripping.fired > 0
            assert server.in_flight["files"] < 8
            dripping.release()
            summary: Summary = await running
        assert summary.complete, summary
        assert server.most_in_flight["files"] <= 8
        suffering.assert_equal(config, index)


async def test_many_dripping_files_of_one_project(tmp_path: Path) -> None:
    """The same within one project: its other files come, and the others' too."""
    index = many_projects(50, files_per_project=2, sidecars=1, size=300)
    files = [UploadedFile(f"aardvark-1.{number}.zip", Virtual(33 << 20, number)) for number in range(4)]
    small = [UploadedFile(f"aardvark-1.{number}.tar.gz", Virtual(100, number)) for number in range(20)]
    index.publish("aardvark", "1.0", [*files, *small])
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        dripping = server.fault("/packages/*/aardvark-*.zip", Drip(step=1 << 20))
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=Counters(), stop=asyncio.Event()))
            await until(lambda: published(config) == 50 and server.count("/packages/*/aardvark-*.tar.gz") == 20)
            assert not dripping.released
            dripping.release()
            summary = await running
        assert summary.complete, summary
        suffering.assert_equal(config, index)


async def test_hanging_projects_delay_nobody(tmp_path: Path) -> None:
    """Some pages and documents that never come leave permits for the others."""
    index = many_projects(200, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, metadata_at_once=8)
        pages = server.fault("/simple/project-0000000/", Hang())
        documents = server.fault("/pypi/project-0000001/json", Hang(after=0.5))
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=Counters(), stop=asyncio.Event()))
            await until(lambda: published(config) == 198)
            assert not pages.released
            assert not documents.released
            assert not running.done()
            pages.release()
            documents.release()
            summary = await running
        assert summary.complete, summary
        suffering.assert_equal(config, index)


async def test_what_drips_for_good_is_the_only_thing_owed(tmp_path: Path) -> None:
    """Given up once it is too slow, and resumed where it stopped."""
    index = many_projects(100, files_per_project=1, sidecars=0, size=100)
    index.publish("aardvark", "1.0", UploadedFile("aardvark-1.0.zip", Virtual(8 << 20, 1)))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stall_timeout=0.6)
        path = index.expected_files("aardvark")[0].file.path
        server.fault(path, Hang(after=0))
        server.fault(path, Hang(after=4 << 20), times=1)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "failing", "no byte for", path, project="aardvark")
        suffering.assert_others_equal(config, index, "aardvark")
        assert kept(config) == [4 << 20]

        server.clear_faults()
        await complete_pass(config)
        assert server.bytes_sent[path] == 8 << 20
        suffering.assert_equal(config, index)


def with_large_page(name: str, size: int, files: Sequence[UploadedFile] = ()) -> list[UploadedFile]:
    """Files whose page and document have some ``size`` bytes together, and ``files``."""
    versions = ">=3.6" + ",!=3.5.*" * (size // 2 // 8 // 8)
    return [*files, *(UploadedFile(f"{name}-1.{n}.zip", b"%d" % n, requires_python=versions) for n in range(8))]


async def test_large_pages_whose_files_drip_delay_no_other_large_pages(tmp_path: Path) -> None:
    """Together they would be more than may be held; what waits for its files does not count."""
    index = many_projects(5, files_per_project=1, sidecars=0, size=100)
    for number in range(2):
        large = UploadedFile(f"aardvark-{number}-1.0.tar.gz", Virtual(3 << 20, number), sidecar=b"Name: aardvark\n")
        odd = UploadedFile("odd.zip", b"the same in both")
        name = f"aardvark-{number}"
        index.publish(name, "1.0", with_large_page(name, 40 << 20, [large, odd]))
    for number in range(3):
        index.publish(f"whale-{number}", "1.0", with_large_page(f"whale-{number}", 4 << 20))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        dripping = server.fault("/packages/*/aardvark-0-1.0.tar.gz", Drip(step=1 << 20))
        waiting = server.fault("/simple/whale-*/", Hang())
        counters = Counters()
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=counters, stop=asyncio.Event()))
            await until(lambda: dripping.fired == 1)
            waiting.release()
            web = Path(config.mirror.directory, "web/simple")
            await until(lambda: len(list(web.glob("whale-*/index.html"))) == 3 and published(config) == 5)
            assert not dripping.released
            # The other one waits for its turn with odd.zip, if it did not come first.
            assert not (web / "aardvark-0/index.html").exists()
            assert not running.done()
            dripping.release()
            summary = await running
        assert summary.complete, summary
        assert (counters.files_done, counters.bytes_done) == (counters.files_total, counters.bytes_total)
        assert server.count("/simple/aardvark-*/") == 4  # found to be large, and read: never again for its files
        suffering.assert_equal(config, index)
