"""The scripts of docs/change-feed.md with the real rsync and curl: a region site gets exactly the differences."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from heliostat.fakeindex import Index
from heliostat.fakeindex.synthetic import small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from support.cli import SOURCE, environment
from support.equality import differences
from support.mirrors import Followed, following, listing
from support.verified import verify

pytestmark = pytest.mark.outside

DOCS = Path(__file__).parents[2] / "docs/change-feed.md"


def script(number: int) -> str:
    """One of those that the page shows."""
    found: list[str] = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return found[number]


class Region:
    """A mirror, a place for its copies, and a ``heliostat`` for scripts."""

    def __init__(self, mirror: Followed, home: Path) -> None:
        self.mirror, self.home = mirror, home
        self.site, self.state = home / "site", home / "state"
        for folder in (self.site, self.state, home / "bin"):
            folder.mkdir()
        (home / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "{mirror.directory}"\neverything = true\n'
            '[upstream]\nurl = "http://127.0.0.1:9"\nallow-http = true\n'
        )
        command = home / "bin/heliostat"
        command.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -m heliostat "$@"\n')
        command.chmod(0o755)
        #: What rsync said it did, path by path.
        self.log = home / "rsync.log"

    async def run(self, text: str, *, said: str = "", **more: str) -> None:
        variables = environment(
            self.home, DIRECTORY=str(self.mirror.directory), SITE=str(self.site), STATE=str(self.state)
        )
        variables |= {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}"} | more
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", text, cwd=self.home, env=variables,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert (process.returncode, output.decode()) == (0, said)

    async def copy(self, *, said: str = "") -> list[str]:
        """Run the documented script; the paths that rsync sent, and ``deleting PATH`` for those that went."""
        self.log.unlink(missing_ok=True)
        logged = script(0).replace("rsync -aH", f"rsync -aH --log-file={self.log} --log-file-format='%o %n'")
        await self.run(logged, said=said)
        lines = [line.split("] ", 1)[1] for line in self.log.read_text(errors="replace").splitlines()]
        return [line.removeprefix("send ") for line in lines if line.startswith(("send ", "del.")) and line[-1] != "/"]

    def same(self) -> None:
        """The copy is the tree, to the time of each file, and equal to the index."""
        assert differences(self.mirror.index, self.site) == []
        ours, copies = (
            {path: one.link or (one.mtime_ns, one.size) for path, one in listing(folder).items()}
            for folder in (self.mirror.web, self.site / "web")
        )
        assert copies == ours
        assert (self.site / "status").read_text() == (self.mirror.directory / "status").read_text()
        folders = [
            sorted(str(path.relative_to(root)) for path in root.rglob("*"))
            for root in (self.mirror.web, self.site / "web")
        ]
        assert folders[0] == folders[1]


def change(index: Index) -> None:
    index.publish("alpha", "7.0", uploaded(wheel("alpha", "7.0")))
    index.publish("Brand.New", "1.0", uploaded(wheel("Brand.New", "1.0")))
    index.remove_project("zeta")
    index.remove_release("Beta.Lib", "2.0rc1")
    index.quarantine("gamma-sdist")


async def test_a_region_site_is_fed_with_the_differences_alone(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as mirror:
        region = Region(mirror, tmp_path)
        await mirror.sync()
        await region.copy()
        region.same()
        mirror.index.touch("old")
        await mirror.sync()
        await region.copy()
        region.same()
        before = listing(region.site)

        change(mirror.index)
        await mirror.sync()
        sent = await region.copy()
        region.same()
        concerned = ("alpha", "brand", "Brand", "zeta", "beta", "gamma")
        about_all = ("web/simple/index.", "web/changes/", "web/last-modified", "status")
        strangers = [
            path for path in sent if not any(name in path for name in concerned) and not path.startswith(about_all)
        ]
        assert strangers == []
        untouched = {path for path, one in listing(region.site).items() if before.get(path) == one}
        assert len(untouched) > 100

        mirror.index.clear_quarantine("gamma-sdist")
        await mirror.sync()
        await region.copy()
        region.same()


async def test_a_repaired_file_is_copied_although_size_and_time_are_the_same(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as mirror:
        region = Region(mirror, tmp_path)
        await mirror.sync()
        file = mirror.files("alpha")["alpha-1.0.tar.gz"]
        good, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_bytes(bytes(len(good)))
        os.utime(file, ns=times)
        await region.copy()
        copy = region.site / file.relative_to(mirror.directory)
        assert copy.read_bytes() == bytes(len(good))
        (mirror.web / "simple/old/index.html").unlink()
        await verify(mirror.config, repair={"fix": True})
        assert file.read_bytes() == good
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (len(good), times[1])
        await mirror.sync()
        await region.copy()
        assert copy.read_bytes() == good
        region.same()


async def test_a_site_that_is_too_far_behind_gets_a_whole_copy(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as mirror:
        region = Region(mirror, tmp_path)
        await mirror.sync()
        await region.copy()
        (region.site / "web/simple/left-over").mkdir()
        (region.state / "position").write_text("0" * 32 + ":1")
        change(mirror.index)
        await mirror.sync()
        await region.copy(said="heliostat: the change feed began anew since then; make a whole copy\n")
        region.same()


@contextmanager
def cache() -> Iterator[tuple[str, list[str]]]:
    """A server that notes what is purged."""
    purged: list[str] = []

    class Purging(BaseHTTPRequestHandler):
        def do_PURGE(self) -> None:
            purged.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Purging)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", purged
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_cache_is_purged_of_what_changed(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as mirror:
        region = Region(mirror, tmp_path)
        await mirror.sync()
        with cache() as (base, purged):
            await region.run(script(1), BASE=base)
            assert purged == ["/*"]
            purged.clear()
            await region.run(script(1), BASE=base)
            assert purged == []
            gone = [f"/{path.relative_to(mirror.web).as_posix()}" for path in mirror.files("zeta").values()]
            mirror.index.remove_project("zeta")
            mirror.index.yank("alpha", "1.0")
            await mirror.sync()
            await region.run(script(1), BASE=base)
            assert {"/simple/alpha/", "/simple/alpha/index.v1_json", "/pypi/alpha/json", "/simple/zeta/"} <= set(purged)
            assert {
                "/simple/",
                "/changes/head",
                *(path.replace("!", "%21").replace("+", "%2B") for path in gone),
            } <= set(purged)
            assert not [path for path in purged if "old" in path]
