"""Whether a project's JSON document is the one that was published, and still upstream's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.damages import change_json
from support.equality import differences
from support.mirrors import Followed, following
from support.verified import rich_index, verify


def _forget(one: Followed) -> None:
    """As after an adoption, or with the ledger of an earlier version: nobody knows which document was published."""
    with sqlite3.connect(one.directory / "heliostat.db") as connection:
        connection.execute("UPDATE projects SET document_digest = NULL")
    connection.close()


def _other_summary(document: dict[str, Any]) -> None:
    document["info"]["summary"] = "something else"


def _earlier(document: dict[str, Any]) -> None:
    document["last_serial"] -= 1


def _other_python(document: dict[str, Any]) -> None:
    for file in document["releases"]["1.0"]:
        file["requires_python"] = ">=3.99"


@pytest.mark.parametrize("change", [_other_python, _earlier])
async def test_upstream_tells_what_nobody_here_knows(change: Callable[[Any], None], tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        _forget(one)
        change_json(one.web / "json/beta", change)
        seen, _ = await verify(one.config)
        assert seen.findings == []
        seen, repaired = await verify(one.config, against_upstream=True, repair={"fix": True})
        assert seen.kinds == {("behind", "json/beta")}
        assert repaired is not None
        assert repaired.left == 0
        assert differences(one.index, one.directory) == []
        seen, _ = await verify(one.config)
        assert seen.findings == []


async def test_what_upstream_changed_without_a_serial_is_no_finding(tmp_path: Path) -> None:
    """Names in another case, vulnerabilities, and the like: no event tells of them, so only the sweep takes them over."""
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        one.index.recase("beta", "BETA")
        for forgotten in (False, True):
            if forgotten:
                _forget(one)
            seen, _ = await verify(one.config, against_upstream=True)
            assert seen.findings == []


async def test_a_document_that_is_known_is_not_read_from_upstream_again(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        one.server.reset_log()
        seen, _ = await verify(one.config, against_upstream=True)
        assert seen.findings == []
        asked = [request for request in one.server.requests if request.path.startswith("/pypi/")]
        assert asked
        assert {request.status for request in asked} <= {304, 404}


async def test_what_upstream_changed_since_is_told_of_the_document_too(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        one.index.yank("beta", "1.0", "bad")
        seen, _ = await verify(one.config, against_upstream=True)
        assert ("behind", "json/beta") in seen.kinds
        assert {path.split("/")[1] for _, path in seen.kinds} == {"beta"}


async def test_a_document_that_is_to_differ_from_upstream_s_is_right(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        await one.delete("alpha==1.1")
        for forgotten in (False, True):
            if forgotten:
                _forget(one)
            for against in (False, True):
                seen, _ = await verify(one.config, against_upstream=against)
                assert seen.findings == []
        released = json.loads((one.web / "json/alpha").read_bytes())["releases"]
        assert not released.get("1.1")


async def test_an_earlier_ledger_learns_of_a_document_when_it_is_published_next(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        _forget(one)
        one.index.yank("beta", "1.0", "bad")
        await one.sync()
        seen, _ = await verify(one.config)
        assert seen.findings == []
        change_json(one.web / "json/beta", _other_summary)
        seen, _ = await verify(one.config)
        assert seen.kinds == {("document", "json/beta")}
