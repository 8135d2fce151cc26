"""A heliostat that follows another one's tree holds the same, byte for byte, and stays so, whatever serves that tree.

The module of a subclass gives the fixture ``serving``: starts a server over a web root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.wheels import wheel
from support.install_scenarios import Site
from support.mirrored import mirror_once, sample_index, upload
from support.web_cases import ODD_NAMES

Serving = Callable[[Path], AbstractContextManager[Site]]

PROVENANCE = {"version": 1, "attestation_bundles": []}


def busy_index() -> Index:
    """The sample index, and what is odd: names, states, projects without files or without releases.

    Nothing is in quarantine from the start: a root list does not name such projects, so that whoever has only the list
    cannot learn of them.
    """
    index = sample_index()
    index.publish("strange", "1.0", [UploadedFile(name, name.encode()) for name in ODD_NAMES])
    index.publish("Filled.Later", "1.0")
    index.create("Just_A-Name")
    index.publish("locked", "1.0", upload(wheel("locked", "1.0"), day=9))
    index.publish("old", "0.1", upload(wheel("old", "0.1"), day=10))
    index.archive("old")
    index.publish("signed", "1.0", upload(wheel("signed", "1.0"), day=11))
    index.set_provenance("signed", "1.0", "signed-1.0-py3-none-any.whl", PROVENANCE)
    index.publish("plain", "1.0", UploadedFile("plain-1.0.zip", b"only md5 is known", hashes="md5"))
    return index


Change = Callable[[Index], None]
CHANGES: dict[str, Change] = {
    "a release": lambda index: _discard(index.publish("beta", "1.1", upload(wheel("beta", "1.1"), day=20))),
    "a new project": lambda index: _discard(index.publish("New", "1", upload(wheel("New", "1"), day=21))),
    "yanked": lambda index: index.yank("beta", "1.0", "no reason & <none>"),
    "no longer yanked": lambda index: index.unyank("alpha", "2.0"),
    "a file gone": lambda index: index.remove_file("beta", "1.0", "beta-1.0.tar.gz"),
    "a release gone": lambda index: index.remove_release("alpha", "1.0"),
    "a project gone": lambda index: index.remove_project("odd"),
    "quarantined": lambda index: index.quarantine("locked"),
    "free again": lambda index: index.clear_quarantine("locked"),
    "another spelling": lambda index: _discard(index.publish("BETA", "1.2", upload(wheel("beta", "1.2"), day=22))),
    "another name": lambda index: index.rename("plain", "Plainer.Still"),
}


def _discard(_: object) -> None:
    """For a change whose result nobody needs."""


def tree_of(web: Path) -> dict[str, object]:
    """Everything below a web root by relative path: bytes, targets of links; for what never changes also the mtime.

    Not the change feed, in which each mirror tells of itself.
    """
    found: dict[str, object] = {}
    for directory, _, names in os.walk(web):
        for name in names:
            path = os.path.join(directory, name)
            status, relative = os.lstat(path), os.path.relpath(path, web)
            if stat.S_ISLNK(status.st_mode):
                found[relative] = os.readlink(path)
            elif relative != "last-modified" and not relative.startswith("changes/"):
                content = Path(path).read_bytes()
                found[relative] = (content, status.st_mtime if relative.startswith("packages/") else None)
    return found


def _compare(parent: dict[str, object], child: dict[str, object], what: str) -> None:
    assert child.keys() - parent.keys() == set(), f"only in the child after {what}"
    assert parent.keys() - child.keys() == set(), f"not in the child after {what}"
    for path, content in parent.items():
        assert child[path] == content, f"{path} differs after {what}"


def _inodes(web: Path) -> dict[str, int]:
    paths = [path for path in web.rglob("*") if path.name != "last-modified"]
    return {str(path): path.lstat().st_ino for path in paths}


class MirrorOfMirror:
    """Scenarios as test methods."""

    async def test_holds_the_same_and_follows_every_change(self, tmp_path: Path, serving: Serving) -> None:
        index = busy_index()
        parent, child = tmp_path / "parent", tmp_path / "child"
        (parent / "web").mkdir(parents=True)
        before: dict[str, object] = {}
        with serving(parent / "web") as site:
            async with FakeIndex(index) as upstream:
                for what, change in {"the first pass": _discard, **CHANGES, "no change": _discard}.items():
                    change(index)
                    for summary in (await mirror_once(upstream.url, parent), await mirror_once(site.url, child)):
                        assert summary.complete, f"after {what}: {summary}"
                    now = tree_of(parent / "web")
                    _compare(now, tree_of(child / "web"), what)
                    assert (now == before) is (what == "no change")
                    before = now

    async def test_an_idle_pass_downloads_nothing_and_leaves_every_file_alone(
        self, tmp_path: Path, serving: Serving
    ) -> None:
        parent, child = tmp_path / "parent", tmp_path / "child"
        async with FakeIndex(busy_index()) as upstream:
            await mirror_once(upstream.url, parent)
        with serving(parent / "web") as site:
            await mirror_once(site.url, child)
            before, inodes = len(site.requests()), _inodes(child / "web")
            assert (await mirror_once(site.url, child)).complete
            asked = site.requests()[before:]
            assert not any("/packages/" in line or "/simple/a" in line for line in asked), asked
            assert _inodes(child / "web") == inodes
