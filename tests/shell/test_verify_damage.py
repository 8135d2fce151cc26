"""Each kind of damage is found, and repaired, and nothing else is touched."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.damages import DAMAGES, HTML, JSON, V1_HTML, Damage, flip, in_place, instead, wheel
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


#: What is done to the gzipped copy of the root list.
COPIES: dict[str, Callable[[Path], object]] = {
    "a bit is flipped": flip,
    "it is cut": lambda path: os.truncate(path, path.stat().st_size - 9),
    "it is of something else": lambda path: path.write_bytes(gzip.compress(b"{}")),
    "it is of more": lambda path: path.write_bytes(path.read_bytes() + gzip.compress(b" ")),
    "it is none": lambda path: path.write_bytes(b"{}"),
    "it is empty": lambda path: path.write_bytes(b""),
    "it is a link": lambda path: instead(path, lambda place: place.symlink_to(JSON)),
    "it is of long ago": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("damage", COPIES.values(), ids=COPIES.keys())
async def test_copies_of_root_pages_are_their_pages(damage: Callable[[Path], object], tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror", gzip_root=True) as one:
        await one.sync()
        assert (await verify(one.config))[0].findings == (await verify(one.web))[0].findings == []
        path = one.web / f"simple/{JSON}.gz"
        times = path.stat().st_mtime_ns
        damage(path)
        if damage is not COPIES["it is of long ago"]:
            os.utime(path, ns=(times, times), follow_symlinks=False)
            assert (await verify(one.web))[0].kinds == {("root", f"simple/{JSON}.gz")}
        seen, repaired = await verify(one.config, repair={"fix": True})
        assert seen.kinds == {("root", f"simple/{JSON}.gz")}
        assert repaired is not None
        assert repaired.left == 0
        assert (await verify(one.config))[0].findings == []
        assert gzip.decompress(path.read_bytes()) == (one.web / f"simple/{JSON}").read_bytes()
