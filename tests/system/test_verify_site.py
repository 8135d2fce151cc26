"""``heliostat verify --site`` as a process: a report for each site, exit codes, interruption, messages."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from support.cli import arun, finish, run, start
from support.mirrors import Followed, following, listing, rewritten
from support.served import static_server
from support.verified import rich_index


def configure(one: Followed, folder: Path) -> None:
    (folder / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\n'
        f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\nretries = 1\nretry-delay = 0\n'
    )


async def test_a_report_for_each_site(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        shutil.copytree(one.web, tmp_path / "bad", symlinks=True)
        wheel = one.files("beta")["beta-1.0-py3-none-any.whl"].relative_to(one.web)
        (tmp_path / "bad" / wheel).unlink()
        before = listing(one.directory)
        with static_server(one.web) as good, static_server(tmp_path / "bad") as bad:
            done = await arun("verify", "--site", good.url, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[0] == f"site {good.url}"
            assert done.stdout.splitlines()[1].startswith("all is right: 6 projects")
            quiet = await arun("verify", "--site", good.url, "--quiet", cwd=tmp_path)
            assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
            both = ("verify", "--site", good.url, "--site", bad.url)
            done = await arun(*both, "--junit", "report.xml", cwd=tmp_path)
            assert done.returncode == 3
            assert f"{wheel.as_posix()} (beta): not there (status 404); copy it to the site" in done.stdout
            suites = list(ET.parse(tmp_path / "report.xml").getroot())
            assert [(suite.get("name"), suite.get("failures")) for suite in suites] == [
                (f"heliostat verify {good.url}", "0"), (f"heliostat verify {bad.url}", "1"),
            ]  # fmt: skip
            assert [suite.get("tests") for suite in suites] == [str(len(suite)) for suite in suites]
            dead = await arun(*both, "--site", "http://127.0.0.1:9", "--json", cwd=tmp_path)
            assert dead.returncode == 5
            told = json.loads(dead.stdout)
            assert told["exit_code"] == 5
            assert [(item["site"], item["kinds"]) for item in told["sites"]] == [
                (good.url, {}), (bad.url, {"missing": 1}), ("http://127.0.0.1:9", {}),
            ]  # fmt: skip
            assert told["sites"][1]["findings"][0]["advice"] == "copy it to the site"
            named = ("verify", "--site", good.url, "--projects", "beta", "nosuch", "--json")
            for how in ((), ("--against", "upstream"), ("--web-root", str(one.web))):
                told = json.loads((await arun(*named, *how, cwd=tmp_path)).stdout)
                assert (told["exit_code"], told["sites"][0]["unknown"]) == (3, ["nosuch"])
            bare = await arun("verify", "--web-root", str(one.web), "--site", bad.url, cwd=tmp_path)
            assert bare.returncode == 3
            assert (await arun("verify", "--site", good.url, "--against", "upstream", cwd=tmp_path)).returncode == 0
            some = await arun("verify", "--site", bad.url, "--projects", "alpha", "odd", cwd=tmp_path)
            assert some.returncode == 0
        broken = one.web / "simple/odd/index.v1_json"
        before.pop("web/simple/odd/index.v1_json")
        whole = broken.read_bytes()
        shutil.copytree(one.web, tmp_path / "good", symlinks=True)
        with static_server(tmp_path / "good") as good:
            broken.write_bytes(b"{")
            done = await arun("verify", "--site", good.url, cwd=tmp_path)
            broken.write_bytes(whole)
            assert done.returncode == 3
            assert "nothing wrong was found: 6 projects" in done.stdout
            assert "1 project was not compared: what is right cannot be read here" in done.stdout
        before["web/simple/odd/index.v1_json"] = listing(one.directory)["web/simple/odd/index.v1_json"]
        changed = {path for path in rewritten(before, listing(one.directory)) if not path.startswith("verify-site-")}
        assert changed == set(), "nothing of ours is touched"


async def test_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    index = Index()
    for number in range(400):
        index.publish(f"p{number:03}", "1", UploadedFile(f"p{number:03}-1.zip", b"%d" % number))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        configure(one, tmp_path)
        with static_server(one.web) as site:
            asked = ("verify", "--site", site.url, "--workers", "1", "--state", "desk", "--json")
            process = await start(*asked, cwd=tmp_path)
            async with asyncio.timeout(60):
                while not any("/simple/p005/" in line for line in site.requests()):
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            done = await finish(process)
            assert done.returncode == 143
            (told,) = json.loads(done.stdout)["sites"]
            assert told["interrupted"]
            assert 0 < told["projects"] < 400
            done = await arun(*asked, cwd=tmp_path)
            assert done.returncode == 0
            (told,) = json.loads(done.stdout)["sites"]
            assert (told["resumed"], told["projects"], told["files"]) == (True, 400, 400)
            assert list((tmp_path / "desk").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--site", "http://a.example", "--web-root", "."],
            "is not encrypted; use https, or allow it with --allow-http",
        ),
        (["--site", "ftp://a.example", "--web-root", "."], "not an http or https URL"),
        (["--site", "https://a.example", "--repair"], "--repair is for a tree on this machine"),
        (["--site", "https://a.example", "--sample", "3"], "--sample is for a tree on this machine"),
        (["--site", "https://a.example", "--web-root", ".", "--against", "upstream"], "--against needs the mirror's"),
        (["--site", "https://a.example"], "no configuration"),
        (["--digests", "all", "--web-root", "."], "--digests goes with --site"),
        (["--allow-http", "--web-root", "."], "--allow-http goes with --site"),
        (["--site", "https://a.example", "--digests", "some"], "neither a number of files nor a share"),
    ],
)
def test_what_is_wrong_is_one_line_and_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "simple").mkdir()
    done = run("verify", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
