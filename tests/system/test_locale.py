"""File names outside ASCII are written as UTF-8, whatever the locale says: it is what URLs of them mean."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from support.cli import arun
from support.equality import differences

NAME = "ünïcode-1.0-日本語.tar.gz"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("unicode", "1.0", UploadedFile(NAME, b"any bytes"))
    async with FakeIndex(index) as server:
        yield server


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "nonsense"}],
    ids=["C", "ASCII", "unknown"],
)
async def test_any_locale(tmp_path: Path, upstream: FakeIndex, environment: dict[str, str]) -> None:
    (tmp_path / "pypi").mkdir()
    (tmp_path / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\neverything = true\n[upstream]\nurl = "{upstream.url}"\nallow-http = true\n'
    )
    done = await arun("mirror", "--once", "--verbose", cwd=tmp_path, env=environment)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert differences(upstream.index, tmp_path / "pypi") == []
    found = [name for _, _, files in os.walk(os.fsencode(tmp_path / "pypi/web/packages")) for name in files]
    assert found == [NAME.encode()]
    upstream.index.quarantine("unicode")
    for command in (
        ("mirror", "--once", "--log-format", "json"),
        ("mirror", "--once", "--log-format", "journal", "--full"),
        ("status",),
        ("status", "--json"),
        ("rebuild",),
    ):
        done = await arun(*command, cwd=tmp_path, env=environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    upstream.index.remove_project("unicode")
    upstream.index.publish("ascii", "1.0", UploadedFile("ascii-1.0.tar.gz", b"more"))
    done = await arun("mirror", "--once", cwd=tmp_path, env=environment)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert differences(upstream.index, tmp_path / "pypi") == []
