"""A mirror that keeps what indexes say, and no files: its links lead to upstream."""

from pathlib import Path

from heliostat.cli import status_words
from heliostat.fakeindex import Index, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import many_projects, small_index
from heliostat.mirror.status import read_status
from support.equality import differences
from support.mirrors import Followed, following, rebuild, rewritten


def links(page: dict[str, object]) -> dict[str, str]:
    files = page["files"]
    assert isinstance(files, list)
    return {file["filename"]: file["url"] for file in files}


def holds(one: Followed) -> str:
    """What ``status`` says of it."""
    return status_words.holds(read_status(one.config))


async def test_pages_and_documents_and_nothing_else(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, files=False) as one:
        summary = await one.sync()
        assert summary.files_added == summary.bytes_fetched == 0
        assert not any((tmp_path / "web" / "packages").iterdir())
        assert not (tmp_path / "web" / "integrity").exists()
        assert {request.path.split("/")[1] for request in one.server.requests} <= {"simple", "pypi"}
        found = links(one.page("alpha"))
        assert found
        assert all(url.startswith(f"{one.server.url}/packages/") for url in found.values())
        html = (tmp_path / "web" / "simple" / "alpha" / "index.html").read_text()
        assert all(f'href="{url}#sha256=' in html for url in found.values())
        before = one.listing()
        await one.sync()
        assert rewritten(before, one.listing()) == set()
        assert "none of which is held" in holds(one)


async def test_files_that_are_there_stay_and_new_ones_are_upstream(tmp_path: Path) -> None:
    async with following(many_projects(2, 2, 1), tmp_path) as one:
        await one.sync()
        kept = links(one.page("project-0000000"))
        one.configure(files=False)
        one.index.publish("project-0000000", "9.0", [UploadedFile("project_0000000-9.0.tar.gz", Virtual(1000, 7))])
        summary = await one.sync()
        assert (summary.files_added, summary.files_removed) == (0, 0)
        found = links(one.page("project-0000000"))
        assert found.pop("project_0000000-9.0.tar.gz").startswith(f"{one.server.url}/packages/")
        assert found == kept
        assert "are held from before" in holds(one)
        there = one.files("project-0000000")
        assert all(there[filename].exists() for filename in kept)
        await rebuild(one.config)
        assert links(one.page("project-0000000")).keys() == {*kept, "project_0000000-9.0.tar.gz"}
        one.index.remove_release("project-0000000", "1.0")
        summary = await one.sync()
        assert summary.files_removed > 0


async def test_files_are_fetched_when_they_are_wanted_after_all(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, files=False) as one:
        await one.sync()
        one.configure(files=True)
        await one.sync()
        assert "[mirror] files" not in holds(one)
        assert differences(one.index, tmp_path) == []


async def test_a_link_that_would_not_be_fetched_is_not_shown(tmp_path: Path) -> None:
    index = Index()
    index.publish("good", "1.0", [UploadedFile("good-1.0.tar.gz", Virtual(100, 1))])
    index.publish("bad", "1.0", [UploadedFile("bad-1.0.tar.gz", Virtual(100, 2), url="javascript:alert(1)//x")])
    async with following(index, tmp_path, files=False) as one:
        summary = await one.attempt()
        assert [(owed.project, owed.state) for owed in summary.owed] == [("bad", "blocked")]
        assert not (tmp_path / "web" / "simple" / "bad").exists()
        assert links(one.page("good"))
