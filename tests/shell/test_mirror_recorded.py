"""An index of what a real one answered is mirrored, and installers see in the mirror what they see upstream.

HELIOSTAT_FIXTURES points to the recordings; without it, look-alikes of what is odd in them.
"""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pip._internal.index.collector import IndexContent, parse_links
from pip._internal.models.link import Link

from heliostat.fakeindex import Index, UploadedFile, Virtual
from heliostat.fakeindex.recorded import from_recorded
from heliostat.fakeindex.synthetic import small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from support.equality import differences
from support.installers import uv
from support.mirrors import Followed, following
from support.served import static_server

RECORDINGS = os.environ.get("HELIOSTAT_FIXTURES")
#: Projects that have wheels with sidecars.
INSTALLABLE = ("wheel", "poetry-core", "setuptools") if RECORDINGS else ("alpha", "beta-lib", "zeta")

ODD = {
    "pyfurby": ["pyfurby-0.1 (1).tar.gz", "pyfurby-0.1.tar.gz"],
    "scikit-highs": ["scikit-highs-('0.6.0',).tar.gz"],
    "Blackboard-LMS-CLI": ["Blackboard LMS CLI-0.0.10.tar.gz"],
    "mkey": ["mkey.zip"],
    "aws-adfs-ebsco": ["aws-adfs-ebsco-0.3.6-2.tar.gz"],
    "M2Crypto": ["m2crypto-0.16.zip", "M2Crypto-0.17.win32-py2.5.exe", "M2Crypto-0.17.zip"],
    "cx-Oracle": ["cx_Oracle-5.1.2-11g.win-amd64-py3.2.msi", "cx_Oracle-5.1.3-10g-py27-1.x86_64.rpm"],
    "0-._.-._.-._.-._.-._.-._.-0x": ["0-0x-0.0.0.tar.gz"],
}


def look_alikes() -> Index:
    index = small_index()
    for number, (name, files) in enumerate(ODD.items()):
        for at, filename in enumerate(files):
            index.publish(name, ("0.1", "unknown", ".9")[at % 3], [UploadedFile(filename, Virtual(100 + at, number))])
        index.publish(name, "9.9")  # a release without files
    index.publish("PyYAML", "5.4b2", [uploaded(wheel("PyYAML", "5.4b2"))], requires_python=">=2.7, !=3.0.*, !=3.5.*")
    index.yank("PyYAML", "5.4b2", "<b>broken</b>")
    return index


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Followed]:
    """The mirror after its first pass."""
    index = from_recorded(RECORDINGS, most=5000) if RECORDINGS else look_alikes()
    async with following(index, tmp_path / "mirror") as made:
        await made.sync()
        yield made


async def test_it_is_mirrored_completely(one: Followed) -> None:
    assert differences(one.index, one.directory) == []
    assert len(one.root()) >= 34
    one.index.touch(next(iter(one.index.projects())))
    await one.sync()
    await one.sync(full=True)
    assert differences(one.index, one.directory) == []


async def test_pip_sees_what_it_sees_upstream(one: Followed) -> None:
    def compare() -> int:
        links = 0
        with static_server(one.web) as mirror:
            for name in sorted(path.name for path in (one.web / "simple").iterdir() if path.is_dir()):
                for accept in ("application/vnd.pypi.simple.v1+json", "text/html"):
                    seen = _links(mirror.url, name, accept)
                    assert seen == _links(one.server.url, name, accept), (name, accept)
                    links += len(seen)
        return links

    assert await asyncio.to_thread(compare) > 80


def _links(url: str, name: str, accept: str) -> list[tuple[Any, ...]]:
    """What pip makes of a project's page; of a file's URL only its name."""
    page = f"{url}/simple/{name}/"
    request = urllib.request.Request(page, headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        content = IndexContent(
            answer.read(), answer.headers["Content-Type"], encoding=None, url=page, cache_link_parsing=False
        )
    return [_seen(link) for link in parse_links(content)]


def _seen(link: Link) -> tuple[Any, ...]:
    return (
        link.filename, urlsplit(link.url_without_fragment).path.rpartition("/")[2], link._hashes, link.requires_python,
        link.yanked_reason, link.metadata_file_data, getattr(link, "upload_time", None),
    )  # fmt: skip


async def test_uv_sees_what_it_sees_upstream(one: Followed, tmp_path: Path) -> None:
    def resolved(url: str) -> str:
        (tmp_path / "wanted.in").write_text("\n".join(INSTALLABLE))
        done = uv(
            "pip", "compile", "--no-deps", "--generate-hashes", "--only-binary", ":all:", "--no-header",
            str(tmp_path / "wanted.in"), index=f"{url}/simple/", work=tmp_path / "work",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def both() -> tuple[str, str]:
        with static_server(one.web) as mirror:
            return resolved(mirror.url), resolved(one.server.url)

    ours, upstreams = await asyncio.to_thread(both)
    assert ours == upstreams
    assert all(f"{name}==" in ours for name in INSTALLABLE)
    assert "--hash=sha256:" in ours


async def test_what_changes_of_the_recordings_is_followed(one: Followed) -> None:
    index = one.index
    names = [name for name in index.projects() if index.expected_files(name)]
    for name in names[:6]:
        version = index.expected_files(name)[0].version
        index.yank(name, version, "for a test: <&>")
    index.remove_project(names[7])
    index.remove_release(names[8], index.expected_files(names[8])[-1].version)
    index.quarantine(names[9])
    await one.sync()
    assert differences(index, one.directory) == []
    index.clear_quarantine(names[9])
    for name in names[:6]:
        index.unyank(name, index.expected_files(name)[0].version)
    await one.sync()
    assert differences(index, one.directory) == []
