"""Trees that somebody else filled: nothing is followed, nothing blocks, everything is told."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from support.mirrors import following
from support.verified import rich_index, verify

FOLDER = "packages/aa/bb/" + "c" * 60


@pytest.mark.parametrize("bare", [True, False])
async def test_a_tree_full_of_traps(bare: bool, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file.zip").write_bytes(b"outside")
        folder = one.web / FOLDER
        folder.mkdir(parents=True)
        (folder / "loop").symlink_to(".")
        (folder / "dangling").symlink_to("nowhere")
        (one.web / "packages/ff").symlink_to(outside) if not (one.web / "packages/ff").exists() else None
        os.mkfifo(folder / "pipe.zip")
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(folder)  # a socket's path has to be short
            try:
                server.bind("socket.zip")
            finally:
                os.chdir(here)
        odd = [b"line\nbreak.zip", b"not\xffutf8.zip", "mark\u202e.zip".encode(), b"tab\t.zip", b"back\\slash.zip"]
        for name in odd:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
        deep = "packages/" + "/".join(["d"] * 60)
        (one.web / deep).mkdir(parents=True)
        (one.web / "simple/beta/index.v1_html").unlink()
        (one.web / "simple/beta/index.v1_html").symlink_to("index.html")
        os.mkfifo(one.web / "simple/pipe")
        os.mkfifo(one.web / "json/pipe")
        (one.web / "simple/ring").symlink_to("ring")
        where = one.web if bare else one.config
        seen, _ = await verify(where)
        raw = {
            bytes.fromhex(found.raw).removeprefix(b"web/" + FOLDER.encode() + b"/")
            for found in seen.findings
            if found.raw
        }
        assert raw >= {name for name in odd if name != b"back\\slash.zip"}
        assert all(found.path.isprintable() and found.problem.isprintable() for found in seen.findings)
        paths = {path for kind, path in seen.kinds if kind in ("unreferenced", "obstacle")}
        assert {f"{FOLDER}/{name}" for name in ("loop", "dangling", "pipe.zip", "socket.zip")} <= paths
        assert ("obstacle", "json/pipe") in seen.kinds or ("unreferenced", "json/pipe") in seen.kinds
        assert ("obstacle", "simple/ring") in seen.kinds
        assert any(kind == "unreadable" and path.startswith("packages/d/d/") for kind, path in seen.kinds)
        assert not any("outside" in path for _, path in seen.kinds)


async def test_a_page_of_five_megabytes_and_json_without_end(tmp_path: Path) -> None:
    index = Index()
    for name in ("beta", "gamma"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", b"one"))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        (one.web / "simple/beta/index.v1_json").write_bytes(b"[" * (5 << 20))
        (one.web / "json/beta").write_bytes(b'{"releases":' * 100_000)
        (one.web / "simple/gamma/index.html").write_bytes(b"<a href=" * 700_000)
        (one.web / "simple/index.v1_json").write_bytes(b'{"projects":[' + b"[" * (5 << 20))
        (one.web / "simple/index.html").write_bytes(b"x" * (5 << 20))
        for where in (one.web, one.config):
            seen, _ = await verify(where)
            assert seen.kinds == {
                ("page", "simple/beta/index.v1_json"),
                ("document", "json/beta"),
                ("html", "simple/gamma/index.html"),
                ("root", "simple/index.v1_json"),
                ("root", "simple/index.html"),
            }


async def test_pages_whose_links_lead_out_of_the_tree(tmp_path: Path) -> None:
    index = Index()
    index.publish("beta", "1.0", UploadedFile("beta-1.0.zip", b"one"))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        page = one.web / "simple/beta/index.v1_json"
        body = one.page("beta")
        body["files"][0]["url"] = "../../../../../../etc/passwd"
        page.write_text(json.dumps(body))
        seen, _ = await verify(one.web)
        assert ("page", "simple/beta/index.v1_json") in seen.kinds
        assert not any("passwd" in path for _, path in seen.kinds)


async def test_an_empty_web_root_is_whole(tmp_path: Path) -> None:
    async with following(Index(), tmp_path / "mirror") as one:
        await one.sync()
        for where in (one.web, one.config):
            seen, _ = await verify(where)
            assert seen.findings == []
