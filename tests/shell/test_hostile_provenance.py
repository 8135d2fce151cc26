"""Provenance objects that are not what they should be, and links to them that lead elsewhere."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex
from heliostat.fakeindex.faults import Body
from heliostat.fakeindex.synthetic import provenance_for
from support import suffering
from support.mirrors import config_for, run_pass


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("json", "fine"), ("1.0", "fine"), ("%2e%2e", "blocked"), ("..", "blocked"), ("%2e", "blocked"),
        ("a%2fb", "blocked"), ("%2e%2e%2f%2e%2e", "blocked"), ("a%5cb", "blocked"), ("%00", "blocked"),
        ("v" * 300, "blocked"), ("%0a", "blocked"),
    ],
)  # fmt: skip
async def test_the_version_in_a_provenance_url(version: str, state: str, tmp_path: Path) -> None:
    """It becomes a directory, or is refused."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        good = index.expected_files("demo")[0].file
        body = json.dumps(good.provenance).encode()
        link = f"{server.url}/integrity/demo/{version}/{good.filename}/provenance"

        def change(page: Any) -> None:
            for file in page["files"]:
                if file["provenance"]:
                    file["provenance"] = link

        suffering.lie(server, change)
        server.fault("/integrity/*", Body(body, "application/json"))
        summary = await run_pass(config)
        integrity = tmp_path / "mirror/web/integrity"
        found = sorted(str(path.relative_to(integrity)) for path in integrity.rglob("*") if path.is_file())
        if state == "fine":
            assert summary.complete, summary
            assert found == [f"demo/{version}/{good.filename}/provenance"]
        else:
            suffering.assert_owed(summary, state, "version", f"{server.url}/simple/demo/")
            assert found == []
            assert suffering.served(config) == {}
        assert os.listdir(tmp_path) == ["mirror"]
        suffering.assert_others_equal(config, index)


@pytest.mark.parametrize(
    "link",
    ["http://[::1", "http://elsewhere.invalid/x", "file:///etc/passwd", "x", "//", "\x00", "http://127.0.0.1:1/\u202e"],
)
async def test_provenance_links_elsewhere(link: str, tmp_path: Path) -> None:
    """No other host is asked; the object is looked for at upstream's own place, or the project is owed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)

        def change(page: Any) -> None:
            for file in page["files"]:
                file["provenance"] = link

        suffering.lie(server, change)
        summary = await run_pass(config)
        assert [one.project for one in summary.owed] == ["demo"]
        assert summary.owed[0].reason.isprintable()
        assert summary.unreachable is None
        suffering.assert_others_equal(config, index)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {},
        lambda body: [],
        lambda body: {"attestation_bundles": None},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "!!"}}]}]},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "e30="}}]}]},
        lambda body: {"attestation_bundles": [{"attestations": [{"envelope": {"statement": "W1tb"}}]}]},
    ],
)
async def test_provenance_of_something_else(change: Callable[[Any], Any], tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        server.fault("/integrity/demo/*", suffering.rewrite(change))
        suffering.assert_owed(await run_pass(config), "failing", "provenance", f"{server.url}/integrity/demo/")
        suffering.assert_others_equal(config, index)


async def test_provenance_of_another_file(tmp_path: Path) -> None:
    """A genuine object, of the wrong file."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        other = index.expected_files("alpha")[0].file
        server.fault("/integrity/demo/*", Body(json.dumps(provenance_for(other)).encode()))
        suffering.assert_owed(await run_pass(config), "failing", "is not about 'demo-1.0-py3-none-any.whl'")
