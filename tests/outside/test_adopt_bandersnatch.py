"""Trees made by the real bandersnatch, of the index on loopback: adopted, and completed without a release file."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.wheels import sdist, wheel
from support.cli import arun
from support.equality import differences
from support.mirrored import sample_index
from support.mirrors import Followed, following

pytestmark = pytest.mark.outside

#: The command; .ci/run installs it into an environment of its own.
BANDERSNATCH = os.environ.get("HELIOSTAT_BANDERSNATCH") or shutil.which("bandersnatch")

SETTINGS = {
    "everything": {"json": "true", "simple-format": "ALL", "core-metadata": "true"},
    "HTML alone": {"json": "false", "simple-format": "HTML", "core-metadata": "false"},
    "hashed": {"json": "true", "simple-format": "ALL", "hash-index": "true", "core-metadata": "false"},
    "versions kept": {"json": "true", "simple-format": "ALL", "keep-index-versions": "2", "keep_index_versions": "2"},
    "MD5": {"json": "false", "simple-format": "ALL", "digest_name": "md5"},
}


def an_index() -> Index:
    index = sample_index()
    for name in ("Foo.Bar_Baz", "r", "versions"):
        built, old = wheel(name, "1.0"), sdist(name, "0.9")
        index.publish(name, "1.0", UploadedFile(built.filename, built.data, sidecar=built.metadata))
        index.publish(name, "0.9", UploadedFile(old.filename, old.data))
    return index


async def bandersnatch(one: Followed, home: Path, settings: dict[str, str]) -> None:
    assert BANDERSNATCH, "needs bandersnatch: pip install it into an environment, and name it in HELIOSTAT_BANDERSNATCH"
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    (home / "bandersnatch.conf").write_text(
        f"[mirror]\ndirectory = {one.directory}\nmaster = {one.server.url}\nallow-non-https = true\n"
        "release-files = true\nworkers = 2\ntimeout = 60\nglobal-timeout = 600\nstop-on-error = false\n"
        f"compare-method = hash\nstorage-backend = filesystem\n{lines}[plugins]\nenabled =\n"
    )
    process = await asyncio.create_subprocess_exec(
        BANDERSNATCH, "--config", "bandersnatch.conf", "mirror",
        cwd=home, env={"PATH": os.environ["PATH"], "HOME": os.fspath(home)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


#: What each of them makes of a project's folder.
SHAPES = {
    "everything": {"json"},
    "HTML alone": set(),
    "hashed": {"json", "hashed"},
    "versions kept": {"json", "versions"},
    "MD5": {"json", "md5"},
}


def form_of(web: Path) -> set[str]:
    hashed = (web / "simple/f/foo-bar-baz").is_dir()
    pages = web / "simple" / ("f" if hashed else "") / "foo-bar-baz"
    found = {
        "hashed": hashed, "json": (pages / "index.v1_json").exists(), "versions": (pages / "versions").is_dir(),
        "md5": "#md5=" in (pages / "index.html").read_text(),
    }  # fmt: skip
    return {name for name, so in found.items() if so}


@pytest.mark.parametrize("shape", SETTINGS)
async def test_no_release_file_is_fetched_again(shape: str, tmp_path: Path) -> None:
    async with following(an_index(), tmp_path / "mirror") as one:
        await bandersnatch(one, tmp_path, SETTINGS[shape])
        assert one.server.count("/packages/*") >= sum(
            len(one.index.expected_files(name)) for name in one.index.projects()
        )
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\n'
            f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
        )
        assert form_of(one.web) == SHAPES[shape]
        one.server.reset_log()
        done = await arun("adopt", "--check", "digest", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        passed = await arun("mirror", "--once", cwd=tmp_path)
        assert passed.returncode == 0, passed.stdout + passed.stderr
        files = [request.path for request in one.server.requests if request.path.startswith("/packages/")]
        assert [path for path in files if not path.endswith(".metadata")] == []
        assert differences(one.index, one.directory, also=("local-stats/*",)) == []
        assert {entry.name for entry in one.directory.iterdir()} == {
            "web", "partial", "status", ".lock", "heliostat.db", "adoption.jsonl",
        }  # fmt: skip
