"""``heliostat verify --site`` and ``lag`` against the real nginx over a copy of a mirror."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.cli import arun
from support.mirrors import following
from support.nginx import nginx_server
from support.places import open_directory
from support.verified import rich_index

pytestmark = pytest.mark.outside


async def test_a_region_served_by_nginx(tmp_path: Path) -> None:
    with open_directory() as folder:
        async with following(rich_index(), tmp_path / "mirror") as one:
            await one.sync()
            (tmp_path / "heliostat.toml").write_text(
                f'[mirror]\ndirectory = "{one.directory}"\neverything = true\nmin-free = "0%"\n'
                f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
            )
            web = folder / "site"
            shutil.copytree(one.web, web, symlinks=True)
            with nginx_server(web, unprivileged=True) as site:
                asked = ("verify", "--site", site.url, "--digests", "all")
                done = await arun(*asked, cwd=tmp_path)
                assert (done.returncode, done.stderr) == (0, "")
                assert "all is right: 6 projects" in done.stdout
                done = await arun("lag", site.url, "--projects", "alpha beta", cwd=tmp_path)
                assert (done.returncode, done.stderr) == (0, "")
                wheel = web / one.files("beta")["beta-1.0-py3-none-any.whl"].relative_to(one.web)
                wheel.write_bytes(b"y" * wheel.stat().st_size)
                done = await arun(*asked, "--json", cwd=tmp_path)
                assert done.returncode == 3
                (told,) = json.loads(done.stdout)["sites"]
                assert told["site"] == site.url
                assert [item["kind"] for item in told["findings"]] == ["digest"]
                heads = await arun("verify", "--site", site.url, cwd=tmp_path)
                assert heads.returncode == 0, "HEAD cannot tell"
