"""What the fake index serves is real: pip downloads, builds and installs it, and finds nothing to complain about."""

from __future__ import annotations

import asyncio
import email
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from heliostat.fakeindex import FakeIndex
from heliostat.fakeindex.synthetic import small_index
from heliostat.fakeindex.wheels import Built, module_name, sdist, wheel
from support.installers import pip


@pytest.mark.parametrize("build", [wheel, sdist])
def test_the_same_bytes_at_every_call(build: Callable[..., Built]) -> None:
    assert build("Demo.X", "1.0", ["a"], extras={"more": ["b"]}) == build(
        "Demo.X", "1.0", ["a"], extras={"more": ["b"]}
    )


def test_a_wheel_is_a_wheel() -> None:
    built = wheel(
        "Demo.X", "1!1.0+l.1", ["a >=1"], requires_python=">=3.9", extras={"more": ["b"]}, tags="py2.py3-none-any"
    )
    name, version, _, tags = parse_wheel_filename(built.filename)
    assert (name, str(version), len(tags)) == ("demo-x", "1!1.0+l.1", 2)
    archive = zipfile.ZipFile(io.BytesIO(built.data))
    assert archive.testzip() is None
    info = next(member for member in archive.namelist() if member.endswith("/METADATA")).partition("/")[0]
    assert archive.read(f"{info}/METADATA") == built.metadata
    assert archive.read(f"{info}/WHEEL").count(b"Tag: ") == 2
    record = dict(line.split(",", 1) for line in archive.read(f"{info}/RECORD").decode().splitlines())
    assert set(record) == set(archive.namelist())
    for path, said in record.items():
        data = archive.read(path)
        digest = urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert said == ("," if path.endswith("RECORD") else f"sha256={digest},{len(data)}")
    headers = email.message_from_bytes(built.metadata)
    assert headers.get_all("Requires-Dist") == ["a >=1", 'b; extra == "more"']
    assert (headers["Requires-Python"], headers["Provides-Extra"]) == (">=3.9", "more")


def test_an_sdist_is_an_sdist() -> None:
    built = sdist("Demo.X", "1.0")
    assert parse_sdist_filename(built.filename)[0] == "demo-x"
    with tarfile.open(fileobj=io.BytesIO(built.data)) as archive:
        member = archive.extractfile("demo_x-1.0/PKG-INFO")
        assert member is not None
        assert member.read() == built.metadata
    zipped = sdist("Demo.X", "1.0", zipped=True)
    assert zipped.filename == "demo_x-1.0.zip"
    assert "demo_x-1.0/pyproject.toml" in zipfile.ZipFile(io.BytesIO(zipped.data)).namelist()


async def test_pip_installs_wheels_and_builds_sdists_with_their_dependencies(tmp_path: Path) -> None:
    target = tmp_path / "site"
    async with FakeIndex(small_index()) as server:
        done = await asyncio.to_thread(
            pip, "install", "--target", str(target), "alpha[more]", index=f"{server.url}/simple/", work=tmp_path
        )
        assert done.returncode == 0, done.stderr
        paths = [request.path for request in server.requests]
    names = "alpha, beta_lib, gamma_sdist, zeta"
    code = f"import {names}; print(alpha.__version__, beta_lib.__version__, gamma_sdist.__version__, zeta.__version__)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["1.1", "1.0", "1.0", "1!3.1"]
    assert any(path.endswith("alpha-1.1-py3-none-any.whl.metadata") for path in paths)
    assert any(path.endswith(("/gamma_sdist-1.0.tar.gz", "/gamma_sdist-1.0.zip")) for path in paths)


async def test_pip_obeys_yanks_and_hashes(tmp_path: Path) -> None:
    async with FakeIndex(small_index()) as server:
        arguments = ("download", "--no-deps", "--dest", str(tmp_path), "yanked-releases")
        done = await asyncio.to_thread(pip, *arguments, index=f"{server.url}/simple/", work=tmp_path)
        assert done.returncode == 0, done.stderr
    expected = wheel("yanked-releases", "1.0")
    assert (tmp_path / expected.filename).read_bytes() == expected.data
    assert not list(tmp_path.glob("*1.1*"))


def test_the_module_is_called_like_the_project() -> None:
    built: Built = wheel("Some.Odd-Name", "1.0")
    assert module_name("Some.Odd-Name") == "some_odd_name"
    assert "some_odd_name/__init__.py" in zipfile.ZipFile(io.BytesIO(built.data)).namelist()
