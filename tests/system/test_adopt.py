"""``heliostat adopt`` as a process: what it says, exit codes, and that a dry run changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from support import trees
from support.cli import arun, run
from support.equality import differences
from support.mirrored import sample_index
from support.mirrors import Followed, following, listing


def configure(one: Followed, folder: Path) -> None:
    (folder / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\nbatch-seconds = 0.02\n'
        f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\nretries = 1\n'
    )


async def test_a_tree_that_is_right(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        trees.shadowmire(one.index, one.directory)
        configure(one, tmp_path)
        before = listing(one.directory)
        planned = await arun("adopt", "--dry-run", cwd=tmp_path)
        assert (planned.returncode, planned.stderr) == (0, "")
        assert "would be adopted" in planned.stdout
        assert "moved: simple: to web/simple" in planned.stdout
        assert listing(one.directory) == before

        done = await arun("adopt", "--from", "shadowmire", "--check", "digest", "--json", cwd=tmp_path)
        told = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert (told["tool"], told["check"], told["projects"], told["differences"]) == ("shadowmire", "digest", 5, 0)
        assert {each["path"] for each in told["findings"] if each["kind"] == "moved"} == {"simple", "packages", "json"}

        again = await arun("adopt", cwd=tmp_path)
        assert again.returncode == 0
        assert "were adopted before" in again.stdout
        assert "moved: simple" not in again.stdout
        assert "adoption.jsonl" in again.stdout
        quiet = await arun("adopt", "--quiet", cwd=tmp_path)
        assert (quiet.returncode, quiet.stdout) == (0, "")
        refused = await arun("adopt", "--dry-run", cwd=tmp_path)
        assert refused.returncode == 2

        passed = await arun("mirror", "--once", "--json", cwd=tmp_path)
        assert passed.returncode == 0
        assert json.loads(passed.stdout)["files_added"] == 0
        assert one.server.count("/packages/*") == 0
        assert differences(one.index, one.directory) == []


async def test_a_tree_that_is_not_right(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        configure(one, tmp_path)
        (wheel,) = one.web.glob("packages/*/*/*/beta-1.0-py3-none-any.whl")
        wheel.write_bytes(b"")
        done = await arun("adopt", "--quiet", cwd=tmp_path)
        assert done.returncode == 3
        path = wheel.relative_to(one.directory)
        assert f"size: {path} (beta): 0 bytes instead of" in done.stdout
        assert "next: heliostat mirror --once" in done.stdout
        passed = await arun("mirror", "--once", "--json", cwd=tmp_path)
        assert json.loads(passed.stdout)["complete"]
        assert one.server.count("/packages/*") == 1


def test_nothing_to_adopt(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectory = "mirror"\neverything = true\n')
    for arguments in (["adopt"], ["adopt", "--dry-run"]):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "nothing to adopt" in done.stderr
        assert list((tmp_path / "mirror").iterdir()) == []
