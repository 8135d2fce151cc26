"""``heliostat verify`` as a process: reports, exit codes, kills, and a mirror at work beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.mirror.verify.ground import bare_ground
from heliostat.mirror.verify.helpers import Helpers, JudgeThese
from heliostat.mirror.verify.reading import Budget, Stopping
from support.cli import arun, finish, run, start
from support.equality import differences
from support.mirrors import Followed, following, listing, rewritten
from support.verified import rich_index


def configure(one: Followed, folder: Path, more: str = "") -> None:
    (folder / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\nbatch-seconds = 0.02\n{more}\n'
        f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\nretries = 1\n'
    )


def break_wheel(one: Followed) -> Path:
    wheel = one.files("beta")["beta-1.0-py3-none-any.whl"]
    wheel.write_bytes(b"x" * wheel.stat().st_size)
    return wheel


async def test_a_whole_tree_ends_with_0_and_is_not_touched(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        before = listing(one.directory)
        done = await arun("verify", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("all is right: ")
        bare = await arun("verify", "--web-root", str(one.web), cwd=tmp_path)
        assert bare.returncode == 0
        assert rewritten(before, listing(one.directory)) == set()
        quiet = await arun("verify", "--quiet", cwd=tmp_path)
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


async def test_reports(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        wheel = break_wheel(one)
        (one.web / "packages/odd<&\n\x01.zip").write_bytes(b"")
        path = wheel.relative_to(one.directory).as_posix()
        words = await arun("verify", "--junit", "report.xml", cwd=tmp_path)
        assert words.returncode == 3
        line = next(line for line in words.stdout.splitlines() if line.startswith(path))
        assert "(beta)" in line
        assert "its sha256 is" in line
        assert "--repair" in line
        assert "2 findings (1 digest, 1 unreferenced)" in words.stdout
        root = ET.parse(tmp_path / "report.xml").getroot()
        (suite,) = root
        assert (suite.get("failures"), suite.get("tests")) == ("2", str(len(suite)))
        assert sum(case.find("failure") is not None for case in suite) == 2
        machine = await arun("verify", "--json", cwd=tmp_path)
        told = json.loads(machine.stdout)
        assert (told["exit_code"], told["kinds"]) == (3, {"digest": 1, "unreferenced": 1})
        found = {item["kind"]: item for item in told["findings"]}
        assert (found["digest"]["path"], found["digest"]["project"]) == (path, "beta")
        assert bytes.fromhex(found["unreferenced"]["path_hex"]) == b"web/packages/odd<&\n\x01.zip"


async def test_repair_and_removal(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        break_wheel(one)
        (one.web / "packages/stray.zip").write_bytes(b"")
        done = await arun("verify", "--repair", cwd=tmp_path)
        assert done.returncode == 3
        assert "[repaired]" in done.stdout
        done = await arun("verify", "--delete-unreferenced", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["repair"]["deleted"] == 1
        assert differences(one.index, one.directory) == []


async def test_upstream_that_is_down_leaves_the_damaged_file_aside(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        wheel = break_wheel(one)
    done = await arun("verify", "--repair", cwd=tmp_path)
    assert done.returncode == 5
    assert not wheel.exists()
    aside = tmp_path / "mirror/withheld/damaged" / wheel.relative_to(tmp_path / "mirror/web")
    assert set(aside.read_bytes()) == {ord("x")}
    async with following(rich_index(), tmp_path / "mirror") as one:
        configure(one, tmp_path)
        assert (await arun("mirror", "--once", "--full", cwd=tmp_path)).returncode == 0
        assert wheel.exists()
        assert aside.exists()
        (one.web / "pypi/alpha/json").unlink()
        assert (await arun("verify", "--repair", cwd=tmp_path)).returncode == 0
        assert differences(one.index, one.directory) == []


async def test_against_upstream(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        assert (await arun("verify", "--against", "upstream", cwd=tmp_path)).returncode == 0
        one.index.publish("beta", "2.0", UploadedFile("beta-2.0.zip", b"new"))
        one.index.remove_project("odd")
        done = await arun("verify", "--against", "upstream", "--json", cwd=tmp_path)
        told = json.loads(done.stdout)
        assert (done.returncode, told["kinds"].keys()) == (3, {"behind"})
        assert {item["project"] for item in told["findings"]} == {"beta", "odd"}
    done = await arun("verify", "--against", "upstream", cwd=tmp_path)
    assert done.returncode == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--web-root", "nowhere"], "nowhere"),
        (["--web-root", "."], "no simple/"),
        (["--web-root", ".", "--repair"], "--repair needs the mirror's configuration"),
        (["--sample", "x"], "neither a number"),
        (["--sample", "101%"], "at most 100%"),
        (["--since", "yesterday"], "neither a serial nor a date"),
        (["--bytes-per-second", "fast"], "not a size"),
        (["beta"], "--projects"),
        (["--projects", "../x", "--web-root", "."], "not a valid project name"),
        (["--junit", "no/such/file.xml", "--web-root", "."], "no/such/file.xml"),
        (["--delete-unreferenced", "--projects", "x"], "needs a look at everything"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_with_the_command_line_is_said(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectory = "mirror"\neverything = true\n')
    done = run("verify", *arguments, cwd=tmp_path)
    assert done.returncode in (2, 6)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def many(count: int, size: int) -> Index:
    index = Index()
    for number in range(count):
        name = f"project-{number}"
        index.publish(name, "1.0", UploadedFile(f"project_{number}-1.0.zip", os.urandom(size)))
    return index


def listens(process: int) -> bool:
    """Whether SIGTERM is caught: what it does is under way."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


async def test_killed_at_any_time_it_goes_on(tmp_path: Path) -> None:
    async with following(many(100, 20_000), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        (file,) = one.files("project-7").values()
        file.write_bytes(b"x" * 20_000)
        state = tmp_path / "mirror/verify"
        resumed = False
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process = await start("verify", "--bytes-per-second", "300kB", cwd=tmp_path)
            while not (listens(process.pid) and (state / "position").exists()):
                await asyncio.sleep(0.02)
            process.send_signal(number)
            done = await finish(process)
            assert done.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
            assert (state / "position").exists()
            resumed |= "goes on from there" in done.stdout
        assert resumed
        done = await arun("verify", "--json", cwd=tmp_path)
        told = json.loads(done.stdout)
        assert (done.returncode, told["resumed"], told["projects"], told["files"]) == (3, True, 100, 100)
        assert [item["project"] for item in told["findings"]] == ["project-7"]
        assert not state.exists()


async def test_beside_a_mirror_at_work(tmp_path: Path) -> None:
    """Pages, documents and files come and go all the time; none of that is a finding."""
    index = many(40, 2000)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path, "interval = 1")
        mirror = await start("mirror", cwd=tmp_path)
        busy = True

        async def change() -> None:
            number = 0
            while busy:
                number += 1
                name = f"project-{number % 40}"
                index.publish(
                    name, f"2.{number}", UploadedFile(f"project_{number % 40}-2.{number}.zip", os.urandom(900))
                )
                if number % 3 == 0:
                    index.remove_release(name, f"2.{number}")
                await asyncio.sleep(0.01)

        changing = asyncio.create_task(change())
        try:
            while not (tmp_path / "mirror/.lock").read_text():
                await asyncio.sleep(0.02)
            for where in ([], ["--web-root", str(one.web)]) * 2:
                done = await arun("verify", "--json", *where, cwd=tmp_path)
                told = json.loads(done.stdout)
                assert told["findings"] == [], where
                assert done.returncode == 0
            whole = await arun("verify", "--repair", cwd=tmp_path)
            assert whole.returncode == 0, whole.stdout + whole.stderr
        finally:
            busy = False
            await changing
            mirror.send_signal(signal.SIGTERM)
            assert (await finish(mirror)).returncode == 0


async def test_a_user_who_may_not_read_everything_is_told_what(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        wheel = one.files("beta")["beta-1.0-py3-none-any.whl"]
        wheel.chmod(0o600)
        (one.web / "simple/alpha").chmod(0o700)
        done = await asyncio.to_thread(
            run, "verify", "--web-root", str(one.web), "--json", cwd=tmp_path, unprivileged=True
        )
        told = json.loads(done.stdout)
        assert done.returncode == 3
        assert ("unreadable", "beta") in {(item["kind"], item["project"]) for item in told["findings"]}
        assert "alpha" in {item["project"] for item in told["findings"]}
        assert "Traceback" not in done.stderr


def test_a_process_that_is_ended_ends_the_verify_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "web/simple").mkdir(parents=True)
    ground = bare_ground(str(tmp_path / "web"), Budget())
    helpers = Helpers(ground, 2, idle=True)
    try:
        assert helpers.do(JudgeThese(None, [], [])) == []
        helpers.stop()
        with pytest.raises(StoreError, match="was ended"):
            helpers.do(JudgeThese(None, [], []))
        ground.reader.budget.stop.set()
        with pytest.raises(Stopping):
            helpers.do(JudgeThese(None, [], []))
    finally:
        helpers.close()


async def test_no_process_is_left_when_the_verify_is_killed(tmp_path: Path) -> None:
    async with following(many(30, 20_000), tmp_path / "mirror") as one:
        await one.sync()
        process = await start("verify", "--web-root", str(one.web), "--bytes-per-second", "100kB", cwd=tmp_path)
        children: list[str] = []
        while len(children) < 2 or not listens(process.pid):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            await asyncio.sleep(0.02)
        process.kill()
        await finish(process)
        while any(is_running(child) for child in children):
            await asyncio.sleep(0.05)


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_name_that_nobody_knows_is_told(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        asked = ("verify", "--projects", "Beta", "nosuch", "other")
        done = await arun(*asked, "--junit", "report.xml", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (3, "")
        assert "no such project here: nosuch, other; look at the spelling" in done.stdout
        assert "all is right" not in done.stdout
        (suite,) = ET.parse(tmp_path / "report.xml").getroot()
        assert (suite.get("failures"), suite.get("tests")) == ("2", str(len(suite)))
        assert [case.get("name") for case in suite if case.find("failure") is not None] == ["nosuch", "other"]
        told = json.loads((await arun(*asked, "--json", "--web-root", str(one.web), cwd=tmp_path)).stdout)
        assert (told["exit_code"], told["unknown"], told["findings"]) == (3, ["nosuch", "other"], [])
        assert (await arun("verify", "--projects", "beta", cwd=tmp_path)).returncode == 0


async def test_what_a_repair_moved_aside_goes_once_a_pass_has_brought_it(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        wheel = break_wheel(one)
        aside = one.directory / "withheld/damaged" / wheel.relative_to(one.web)
        away = one.server.fault("*", Status(503))
        assert (await arun("verify", "--repair", cwd=tmp_path)).returncode == 5
        away.remove()
        assert aside.exists()
        kept = aside.with_name("kept.zip")
        kept.write_bytes(b"what nothing has replaced")
        await one.sync()
        assert wheel.exists()
        assert (await arun("verify", cwd=tmp_path)).returncode == 0
        assert aside.exists()
        done = await arun("verify", "--repair", cwd=tmp_path)
        assert done.returncode == 0
        assert "1 damaged copies went" in done.stdout
        assert not aside.exists()
        assert kept.exists()
