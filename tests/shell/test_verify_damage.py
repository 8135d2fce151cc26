"""Each kind of damage is found, and repaired, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.damages import DAMAGES, HTML, JSON, V1_HTML, Damage, in_place, wheel
from support.equality import differences
from support.mirrors import following, listing, rewritten
from support.verified import rich_index, verify


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_found_and_repaired_and_nothing_else_touched(damage: Damage, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        place = wheel(one).relative_to(one.web).as_posix()
        good = listing(one.web)
        damage.do(one)
        damaged = rewritten(good, listing(one.web))
        expected = {(kind, in_place(path, place)) for kind, path in damage.found}
        bare = {(kind, in_place(path, place)) for kind, path in damage.bare or damage.found if kind != "ledger"}

        if not damage.ledger:
            seen, _ = await verify(one.web)
            assert seen.kinds == bare
        seen, _ = await verify(one.config)
        assert seen.kinds == expected
        assert rewritten(good, listing(one.web)) == damaged, "a look changed something"

        seen, repaired = await verify(one.config, repair={"fix": True})
        assert repaired is not None
        assert (repaired.left, repaired.notes) == (0, []), seen.findings
        assert differences(one.index, one.directory) == []
        seen, _ = await verify(one.config)
        assert seen.findings == []
        # What was not damaged is what it was: the same inode, time, size.
        after = {path for path in rewritten(good, listing(one.web)) if not path.startswith("changes/")}
        about = {path for _, path in expected} | damaged
        pages = {f"simple/beta/{name}" for name in (HTML, V1_HTML, JSON)} | {"json/beta", "pypi/beta/json"}
        roots = (
            {f"simple/{name}" for name in (HTML, V1_HTML, JSON)}
            if any(k in ("root", "ledger") for k, _ in expected)
            else set()
        )
        assert after <= about | (pages if damaged & pages or about & pages else set()) | roots
        assert not [path for path in listing(one.directory) if path.startswith(("withheld/", "partial/"))]


@pytest.mark.parametrize("kind", ["a file is gone", "an HTML page is cut", "a link is gone", "a bit is flipped"])
async def test_who_follows_this_mirror_learns_what_was_repaired(kind: str, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        before = json.loads((one.web / "changes/head").read_bytes())["number"]
        DAMAGES[kind].do(one)
        await verify(one.config, repair={"fix": True})
        rows = [json.loads(line) for line in (one.web / "changes/000000000001.jsonl").read_bytes().splitlines()]
        assert [(row["project"], row["what"]) for row in rows[before:]] == [("beta", "repaired")]
