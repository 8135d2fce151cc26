"""A heliostat that follows another one by its static change feed: what it asks, what it learns, what it does not believe."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import Config
from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import Index
from heliostat.fakeindex.synthetic import small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.state.ledger import Ledger
from support.equality import differences
from support.mirrors import Followed, complete_pass, config_for, following, run_pass
from support.served import Served, static_server


class Family:
    """An index, its mirror, and the mirror's child, which has found the parent's feed."""

    def __init__(self, parent: Followed, served: Served, directory: Path, **overrides: Any) -> None:
        self.parent, self.index, self.served = parent, parent.index, served
        self.child: Config = config_for(directory, served.url, **overrides)
        self.directory = directory
        self._asked = 0

    @property
    def changes(self) -> Path:
        return self.parent.web / "changes"

    async def both(self) -> None:
        """One pass of each, after which both are equal to the index."""
        await self.parent.sync()
        await complete_pass(self.child)
        assert differences(self.index, self.parent.directory) == []
        assert differences(self.index, self.directory) == []

    def asked(self) -> list[str]:
        """Requests since the last look, without versions of HTTP; those of files left out."""
        lines = self.served.requests()
        new, self._asked = lines[self._asked :], len(lines)
        return [line for line in new if "/packages/" not in line]

    def head(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.changes / "head").read_bytes())
        return found

    def put_head(self, **fields: Any) -> None:
        (self.changes / "head").write_text(json.dumps(self.head() | fields) + "\n")

    def ledger(self) -> Ledger:
        return Ledger(str(self.directory / "heliostat.db"), create=False)


@asynccontextmanager
async def family(directory: Path, **overrides: Any) -> AsyncIterator[Family]:
    async with following(small_index(), directory / "parent") as parent:
        await parent.sync()
        parent.index.touch("zeta")
        await parent.sync()  # when something moved, its feed tells of more than its first list
        with static_server(parent.web) as served:
            made = Family(parent, served, directory / "child", **overrides)
            await complete_pass(made.child)
            await complete_pass(made.child)
            made.asked()
            yield made


def publish(index: Index, name: str, version: str) -> None:
    index.publish(name, version, uploaded(wheel(name, version)))


async def test_changes_cost_the_head_and_a_range_and_no_list(tmp_path: Path) -> None:
    async with family(tmp_path) as home:
        publish(home.index, "alpha", "7.0")
        publish(home.index, "Brand.New", "1.0")
        home.index.remove_project("zeta")
        await home.both()
        asked = home.asked()
        assert asked[:2] == ["GET /changes/head 200", "GET /changes/000000000001.jsonl 206"]
        assert {line.split("/")[2].split()[0] for line in asked[2:]} == {"alpha", "brand-new", "zeta"}
        assert not (home.directory / "web/simple/zeta").exists()
        assert json.loads((home.directory / "web/simple/index.v1_json").read_bytes())["projects"][0]
        await complete_pass(home.child)
        assert home.asked() == ["GET /changes/head 304"]


async def test_a_project_that_goes_and_comes_back_under_the_same_serial(tmp_path: Path) -> None:
    """The parent's scope loses it and has it again: its page is what it was, to the serial."""
    async with family(tmp_path) as home:
        names = tuple(home.index.projects())
        home.parent.configure(everything=False, projects=tuple(name for name in names if name != "alpha"))
        await home.parent.sync()
        await complete_pass(home.child)
        assert not (home.directory / "web/simple/alpha").exists()
        home.parent.configure(everything=True, projects=())
        await home.parent.sync()
        await complete_pass(home.child)
        assert (home.directory / "web/simple/alpha").exists()
        assert differences(home.index, home.directory) == []


async def test_a_removal_row_is_a_sign_and_a_404_is_the_other(tmp_path: Path) -> None:
    """The row alone removes nothing."""
    async with family(tmp_path) as home:
        held = (home.parent.web / "simple/zeta/index.v1_json").read_bytes()
        home.index.remove_project("zeta")
        await home.parent.sync()
        (home.parent.web / "simple/zeta").mkdir()
        (home.parent.web / "simple/zeta/index.v1_json").write_bytes(held)
        await run_pass(home.child)
        assert (home.directory / "web/simple/zeta/index.v1_json").exists()


async def test_quarantine_and_its_end_reach_the_child(tmp_path: Path) -> None:
    async with family(tmp_path) as home:
        home.index.quarantine("alpha")
        await home.both()
        home.index.clear_quarantine("alpha")
        await home.both()


async def test_a_child_of_named_projects_follows_them_alone(tmp_path: Path) -> None:
    async with family(tmp_path, everything=False, projects=("alpha", "zeta")) as home:
        publish(home.index, "alpha", "7.0")
        publish(home.index, "old", "7.0")
        await home.parent.sync()
        await complete_pass(home.child)
        assert {line.split()[1] for line in home.asked() if "old" in line} == set()
        assert differences(home.index, home.directory, only=["alpha", "zeta"]) == []
        home.index.remove_project("zeta")
        await home.parent.sync()
        await complete_pass(home.child)
        assert not (home.directory / "web/simple/zeta").exists()


async def test_where_only_static_is_allowed_nothing_else_is_asked(tmp_path: Path) -> None:
    async with family(tmp_path, changes="static") as home:
        publish(home.index, "alpha", "7.0")
        await home.both()
        assert not [line for line in home.served.requests() if line.startswith("POST")]


async def test_a_grandchild_follows_the_child(tmp_path: Path) -> None:
    async with family(tmp_path) as home:
        with static_server(home.directory / "web") as served:
            grandchild = config_for(tmp_path / "grandchild", served.url)
            await complete_pass(grandchild)
            await complete_pass(grandchild)
            publish(home.index, "alpha", "7.0")
            home.index.remove_project("zeta")
            await home.both()
            await complete_pass(grandchild)
            assert differences(home.index, tmp_path / "grandchild") == []


def other_identity(home: Family) -> None:
    home.put_head(mirror="0" * 32)


def too_far(home: Family) -> None:
    number = home.head()["number"]
    home.put_head(first=number + 5, number=number + 4, listed=number + 4)


def went_back(home: Family) -> None:
    home.put_head(number=1, listed=1)


@pytest.mark.parametrize(
    ("what", "said"),
    [(other_identity, "another one than before"), (too_far, "begins at row"), (went_back, "went back: to row 1")],
)
async def test_a_feed_that_cannot_be_read_on_is_begun_from_the_root_list_with_one_line(
    tmp_path: Path, what: Callable[[Family], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with family(tmp_path) as home:
        publish(home.index, "alpha", "7.0")
        await home.parent.sync()
        what(home)
        caplog.set_level(logging.WARNING, logger="heliostat")
        await complete_pass(home.child)
        assert differences(home.index, home.directory) == []
        (line,) = [record.getMessage() for record in caplog.records if "change feed" in record.getMessage()]
        assert said in line
        assert "reading the root list once" in line
        caplog.clear()
        await complete_pass(home.child)
        assert [record for record in caplog.records if "root list once" in record.getMessage()] == []


async def test_a_child_that_is_many_rows_behind_reads_the_root_list(tmp_path: Path) -> None:
    async with family(tmp_path, far_behind=3) as home:
        for version in range(5):
            publish(home.index, "alpha", f"7.{version}")
            await home.parent.sync()
        await complete_pass(home.child)
        assert "GET /simple/ 200" in home.asked()
        assert differences(home.index, home.directory) == []


async def test_what_was_published_between_root_list_and_head_is_not_missed(tmp_path: Path) -> None:
    """A parent's root list is older than its head, and the child begins just then."""
    async with following(small_index(), tmp_path / "parent", root_interval=3600.0) as parent:
        await parent.sync()
        publish(parent.index, "alpha", "7.0")
        await parent.sync(patient=True)
        with static_server(parent.web) as served:
            child = config_for(tmp_path / "child", served.url)
            await complete_pass(child)
            publish(parent.index, "beta-lib", "7.0")
            publish(parent.index, "later", "1.0")
            await parent.sync(patient=True)
            root = (parent.web / "simple/index.v1_json").read_text()
            assert "later" not in root, "the scenario needs an old root list"
            await complete_pass(child)
            assert differences(parent.index, tmp_path / "child") == []


async def test_an_upstream_that_is_another_one_has_to_be_confirmed(tmp_path: Path) -> None:
    async with family(tmp_path) as home:
        home.put_head(mirror="0" * 32, serial=1)
        with pytest.raises(UpstreamChanged, match="went back"):
            await run_pass(home.child)


async def test_a_feed_that_begins_behind_its_root_list_is_not_begun(tmp_path: Path) -> None:
    """Rows in between are in neither."""
    async with family(tmp_path) as home:
        publish(home.index, "alpha", "7.0")
        await home.parent.sync()
        head = home.head()
        home.put_head(mirror="0" * 32, first=head["number"], listed=1)
        for _ in range(2):
            await complete_pass(home.child)
            assert not [line for line in home.asked() if ".jsonl" in line]
        assert differences(home.index, home.directory) == []


async def test_of_two_parents_the_other_one_is_followed_when_the_first_is_away(tmp_path: Path) -> None:
    """Each has a feed of its own, and the same serials."""
    index = small_index()
    async with following(index, tmp_path / "one") as one:
        other = Followed(index, one.server, config_for(tmp_path / "other", one.server))
        for parent in (one, other):
            await parent.sync()
        with static_server(other.web) as second:
            with static_server(one.web) as first:
                child = config_for(tmp_path / "child", first.url, url=(first.url, second.url), retries=1)
                for _ in range(2):
                    await complete_pass(child)
                publish(index, "alpha", "7.0")
                await one.sync()
                await complete_pass(child)
                assert differences(index, tmp_path / "child") == []
            publish(index, "alpha", "8.0")
            index.remove_project("zeta")
            await other.sync()
            await complete_pass(child)
            await complete_pass(child)
            assert differences(index, tmp_path / "child", owed=["quarantined"]) == []
            assert [line for line in second.requests() if "/changes/head" in line]


ROW = {"number": 0, "at": 1.5, "serial": 10**6, "project": "alpha", "what": "updated"}


def rows(home: Family, *lines: str) -> None:
    """Append these to the parent's feed, as rows that count."""
    path = home.changes / home.head()["segment"]
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    home.put_head(number=home.head()["number"] + len(lines), size=path.stat().st_size)


def row(home: Family, **fields: Any) -> str:
    return json.dumps(ROW | {"number": home.head()["number"] + 1} | fields)


HOSTILE: dict[str, Callable[[Family], None]] = {
    "head is not JSON": lambda home: void((home.changes / "head").write_bytes(b"<html>")),
    "head of another format": lambda home: home.put_head(format=2),
    "head without end": lambda home: void((home.changes / "head").write_bytes(b"{" * 5_000_000)),
    "head with text for numbers": lambda home: home.put_head(number="7"),
    "head with a number below zero": lambda home: home.put_head(number=-1),
    "head with a path": lambda home: home.put_head(segment="../../status"),
    "head with a long identity": lambda home: home.put_head(mirror="a" * 33),
    "row is not JSON": lambda home: rows(home, "nonsense"),
    "row with a wrong type": lambda home: rows(home, row(home, project=["alpha"])),
    "row with another number": lambda home: rows(home, row(home, number=1)),
    "row without end": lambda home: rows(home, row(home, added=["x" * 3_000_000])),
    "row nested deeply": lambda home: rows(home, "[" * 100_000),
    "numbers out of range": lambda home: rows(home, row(home, serial=2**70)),
}


def void(_: object) -> None:
    """For what is written and forgotten."""


@pytest.mark.parametrize("what", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_content_gets_a_clear_line_and_the_root_list_is_read(
    tmp_path: Path, what: Callable[[Family], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with family(tmp_path) as home:
        publish(home.index, "alpha", "7.0")
        home.index.remove_project("zeta")
        await home.parent.sync()
        what(home)
        caplog.set_level(logging.WARNING, logger="heliostat")
        await complete_pass(home.child)
        assert differences(home.index, home.directory) == []
        (line,) = [one.getMessage() for one in caplog.records if "cannot be had" in one.getMessage()]
        assert f"{home.served.url}/changes/" in line
        assert len(line) < 600


@pytest.mark.parametrize("project", ["../../etc", "a/b", "", "x" * 5000, "nul\x00", "-", "\u202e"])
async def test_names_with_path_tricks_are_blocked_or_ignored_and_the_rest_goes_on(tmp_path: Path, project: str) -> None:
    async with family(tmp_path) as home:
        rows(home, row(home, project=project, display="../x", added=["../../../etc/passwd"]))
        publish(home.index, "alpha", "7.0")
        before = {path for path in tmp_path.rglob("*") if "child" not in path.parts}
        await run_pass(home.child)
        assert {path for path in tmp_path.rglob("*") if "child" not in path.parts} == before
        assert sorted(path.name for path in (home.directory / "web").iterdir()) == sorted(
            ["changes", "integrity", "json", "last-modified", "packages", "pypi", "simple"]
        )


async def test_rows_that_are_not_there_yet_are_read_at_the_next_poll(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind rsync in the middle of a copy, or a cache: the head came first."""
    async with family(tmp_path) as home:
        segment = home.changes / "000000000001.jsonl"
        publish(home.index, "alpha", "7.0")
        await home.parent.sync()
        middle = segment.read_bytes()
        publish(home.index, "alpha", "8.0")
        home.index.remove_project("zeta")
        await home.parent.sync()
        whole = segment.read_bytes()
        for some in (middle[:-5], middle, middle + b'{"number"'):
            segment.write_bytes(some)
            caplog.clear()
            await complete_pass(home.child)
            assert "not there yet" in caplog.text
        segment.write_bytes(whole)
        await complete_pass(home.child)
        assert differences(home.index, home.directory) == []
        assert not [line for line in home.asked() if line.startswith("GET /simple/ ")]


async def test_a_parent_whose_feed_went_away_is_followed_by_its_root_list(tmp_path: Path) -> None:
    async with family(tmp_path) as home:
        publish(home.index, "alpha", "7.0")
        await home.parent.sync()
        for path in home.changes.iterdir():
            path.unlink()
        await complete_pass(home.child)
        assert differences(home.index, home.directory) == []
        asked = home.asked()
        assert asked[0] == "GET /changes/head 404"
        assert "GET /simple/ 200" in asked


async def test_a_full_pass_finds_the_feed_of_a_parent_that_had_none(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "parent") as parent:
        await parent.sync()
        with static_server(parent.web) as served:
            (parent.web / "changes").rename(tmp_path / "aside")
            home = Family(parent, served, tmp_path / "child")
            await complete_pass(home.child)
            await complete_pass(home.child)
            (tmp_path / "aside").rename(parent.web / "changes")
            await complete_pass(home.child, full=True)
            publish(parent.index, "alpha", "7.0")
            await parent.sync()
            await complete_pass(home.child)
            home.asked()
            publish(parent.index, "alpha", "8.0")
            await parent.sync()
            await complete_pass(home.child)
            assert home.asked()[:2] == ["GET /changes/head 200", "GET /changes/000000000001.jsonl 206"]
