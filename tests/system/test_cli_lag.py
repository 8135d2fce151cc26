"""``heliostat lag`` as a process: reports, exit codes, lists of mirrors, settings for installers, the daemon's list."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, UploadedFile
from support.cli import arun, finish, run, start
from support.mirrored import sample_index
from support.mirrors import Followed, config_for, following
from support.served import static_server


def configure(one: Followed, folder: Path, more: str = "", service: str = "") -> None:
    (folder / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\n[service]\n{service}\n'
        f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\nretries = 1\n{more}\n'
    )


async def test_words_and_exit_codes(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "m") as one:
        await one.sync()
        with static_server(one.web) as site:
            (tmp_path / "req.txt").write_text("alpha>=1\nbeta\n-e .\n")
            asked = ("lag", site.url, "--upstream", one.server.url, "-r", "req.txt")
            done = await arun(*asked, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert f"{site.url}: current: serial " in done.stdout
            assert "2 of 2 projects current" in done.stdout
            assert "left out: req.txt:3: an editable project comes from no index" in done.stdout
            quiet = await arun(*asked, "--quiet", cwd=tmp_path)
            assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
            one.index.publish("beta", "2.0", UploadedFile("beta-2.0.zip", b"n"))
            done = await arun(*asked, cwd=tmp_path)
            assert done.returncode == 3
            assert f"{site.url}: behind: serial " in done.stdout
            assert "1 file missing (beta-2.0.zip); without version 2.0" in done.stdout
            assert (await arun(*asked, "--max-behind", "100", cwd=tmp_path)).returncode == 0
            told = json.loads((await arun(*asked, "--json", cwd=tmp_path)).stdout)
            assert told["exit_code"] == 3
            (shown,) = told["sites"]
            assert (shown["state"], shown["serials_behind"] > 0) == ("behind", True)
            beta = next(item for item in shown["projects"] if item["project"] == "beta")
            assert (beta["state"], beta["missing_files"], beta["missing_versions"]) == (
                "behind", ["beta-2.0.zip"], ["2.0"],
            )  # fmt: skip
    done = await arun(*asked, cwd=tmp_path)
    assert done.returncode == 5
    assert "no usable answer" in done.stdout


async def test_several_names_and_the_sites_in_any_order(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "m") as one:
        await one.sync()
        with static_server(one.web) as site:
            configure(one, tmp_path, f'[mirrors]\nhere = "{site.url}"\n')
            for asked in (
                (site.url, "--upstream", one.server.url, "--projects", "alpha", "Sdist.Only", "odd"),
                ("--projects", "alpha", "sdist-only", site.url, "odd", "--upstream", one.server.url),
                ("--projects", "alpha,sdist-only", "odd"),
                ("--projects", "alpha", "--projects", "sdist-only odd", site.url),
            ):
                done = await arun("lag", *asked, cwd=tmp_path)
                assert (done.returncode, done.stderr) == (0, "")
                assert "3 of 3 projects current" in done.stdout
            done = await arun("lag", site.url, "odd", cwd=tmp_path)
            assert done.returncode == 2
            assert "'odd' is not an http or https URL" in done.stderr


async def test_the_list_of_mirrors_is_written_and_used(tmp_path: Path) -> None:
    """One mirror is current, one is behind, one is down: the first list that answers tells of them."""
    index = sample_index()
    with ExitStack() as stack:
        async with following(index, tmp_path / "new") as new:
            old = Followed(index, new.server, config_for(tmp_path / "old", new.server))
            await old.sync()
            index.publish("beta", "2.0", UploadedFile("beta-2.0.zip", b"n"))
            await new.sync()
            sites = [stack.enter_context(static_server(one.web)).url for one in (old, new)]
            configure(
                new, tmp_path, f'[mirrors]\nold = "{sites[0]}"\nnew = "{sites[1]}"\ndown = "http://127.0.0.1:9"\n'
            )
            done = await arun("lag", "--write", cwd=tmp_path)
            assert done.returncode == 5
            assert "down (http://127.0.0.1:9): unreachable: " in done.stdout
            told = {item["name"]: item for item in json.loads((new.web / "mirrors.json").read_bytes())["mirrors"]}
            assert told["new"]["serial"] == index.serial > told["old"]["serial"]
            assert told["down"]["error"]
            assert told["down"]["last-checked"]
            client = tmp_path / "client"
            client.mkdir()
            lists = ("lag", "--mirrors", "http://127.0.0.1:9/", sites[1])
            done = await arun(*lists, "--projects", "alpha beta", cwd=client)
            assert done.returncode == 5
            ranked = [line.split(" ")[0] for line in done.stdout.splitlines() if line[:3] in ("new", "old", "dow")]
            assert ranked == ["new", "old", "down"]
            assert "left out: http://127.0.0.1:9/mirrors.json: " in done.stdout
            picked = await arun(*lists, "--projects", "beta", "--pick", "pip", cwd=client)
            assert (picked.returncode, picked.stdout) == (0, f"PIP_INDEX_URL={sites[1]}/simple/\n")
            picked = await arun(*lists, "--pick", "uv", "--quiet", cwd=client)
            assert (picked.returncode, picked.stdout) == (0, f"UV_DEFAULT_INDEX={sites[1]}/simple/\n")
            index.publish("beta", "3.0", UploadedFile("beta-3.0.zip", b"n"))
            picked = await arun(*lists, "--projects", "beta", "--pick", "pip", cwd=client)
            assert (picked.returncode, picked.stdout) == (3, f"PIP_INDEX_URL={sites[1]}/simple/\n")
            assert "the best of them is behind" in picked.stderr
        done = await arun("lag", "--mirrors", "http://127.0.0.1:9/", "--pick", "pip", cwd=client)
        assert (done.returncode, done.stdout) == (5, "")
        assert "no list of mirrors there" in done.stderr


async def test_the_daemon_keeps_the_list(tmp_path: Path) -> None:
    index = sample_index()
    async with following(index, tmp_path / "m") as one, FakeIndex(sample_index()) as other:
        configure(one, tmp_path, f'[mirrors]\nother = "{other.url}"\n', service="check-mirrors = 1")
        asked = other.seen("/last-modified")
        daemon = await start("mirror", cwd=tmp_path)
        async with asyncio.timeout(60):
            await asked
            while True:
                await asyncio.sleep(0.05)
                path = one.web / "mirrors.json"
                told = json.loads(path.read_bytes())["mirrors"][0] if path.exists() else {"last-checked": None}
                if told["last-checked"]:
                    break
        daemon.terminate()
        done = await finish(daemon)
    assert done.returncode == 0
    assert (told["name"], told["url"], told["serial"]) == ("other", other.url, index.serial)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no site is named"),
        (["https://a.example"], "no index to compare with; write --upstream URL"),
        (["http://a.example", "--upstream", "https://b.example"], "not encrypted; use https, or allow it with"),
        (["https://a.example", "--upstream", "ftp://b.example"], "not an http or https URL"),
        (["https://a.example", "-r", "gone.txt"], "gone.txt: cannot be read: No such file"),
        (["https://a.example", "--lock", "gone.lock"], "gone.lock: cannot be read: No such file"),
        (["https://a.example", "--projects", "../x"], "not a valid project name"),
        (["https://a.example", "--max-behind", "soon"], "neither a time like 900s"),
        (["https://a.example", "--write"], "--write is for the sites of [mirrors]"),
    ],
)
def test_what_is_wrong_is_one_line_and_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run("lag", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
