"""Whatever happens upstream, in whatever order, with whatever passing faults: a pass without faults ends equal."""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from heliostat.errors import StateError
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.fakeindex.faults import (
    Action,
    Cut,
    Endless,
    GzipJunk,
    Redirect,
    Reset,
    Stale,
    Status,
    Wrong,
    WrongLength,
)
from heliostat.fakeindex.project import Project, Release
from heliostat.fakeindex.synthetic import provenance_for
from support.equality import differences
from support.mirrors import changed, config_for, run_pass

T = TypeVar("T")

#: All can share a file, whose name begins with those of the last two.
NAMES = ("ant", "Bee.Hive", "twin", "twin-1")
VERSIONS = ("1.0", "2.0", "3.0rc1")
SHARED = "twin-1-0.zip"
FAULTS: tuple[Action, ...] = (
    Status(503), Status(404), Status(429, retry_after=0), Reset(0.5), Reset(-1), Cut(0.5), Stale(), GzipJunk(),
    Wrong(), WrongLength(-1), Redirect("http://127.0.0.1:9/{path}"), Endless(),
)  # fmt: skip
#: Where those strike; the staleness of a list or feed is no fault of a moment.
PLACES = ("/simple/*/", "/pypi/*/json", "*.zip", "*.whl", "*.metadata", "*/provenance", "/pypi", "/simple/")
FOLLOWED = ("ant", "bee-hive", "twin", "twin-1")
UPSTREAMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auto": ({}, {}),
    "feed": ({}, {"changes": "feed"}),
    "list": ({}, {"changes": "list"}),
    "static": ({"xmlrpc": False, "serial_header": False, "relative_urls": True}, {}),
    "named": ({}, {"projects": FOLLOWED}),
    "small pages": ({"row_cap": 3}, {"batch_projects": 1, "projects_at_once": 2}),
}

names = st.sampled_from(NAMES)
versions = st.sampled_from(VERSIONS)


class Mirrored(RuleBasedStateMachine):
    """An index that changes, and a mirror that follows it in passes of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("heliostat").setLevel(logging.CRITICAL)
        self.loop = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name, "mirror")
        self.index = Index()
        self.numbers = itertools.count()
        #: The mirror is complete and nothing has happened since.
        self.whole = False
        #: Something changed that neither feed nor list tells.
        self.silent = False

    def teardown(self) -> None:
        self.run(self.server.stop())
        self.loop.close()
        self.folder.cleanup()
        logging.getLogger("heliostat").setLevel(logging.NOTSET)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    @initialize(kind=st.sampled_from(sorted(UPSTREAMS)))
    def start(self, kind: str) -> None:
        options, overrides = UPSTREAMS[kind]
        self.kind = kind
        self.server = FakeIndex(self.index, options=Options(**options))
        self.run(self.server.start())
        self.config = config_for(
            self.directory, self.server, **overrides, retries=2, stale_tries=2, stuck_after=1000, heartbeat=0.0,
            max_page=1 << 20, max_document=1 << 20, max_root=1 << 20, max_sidecar=1 << 16,
        )  # fmt: skip
        self.publish("ant", "1.0", "wheel")
        self.publish("twin", "1.0", "shared")
        self.equal()

    # -- upstream ----------------------------------------------------------------------------------------------

    def project(self, name: str, *, silent: bool = False) -> Project | None:
        """The project, about to be changed; ``silent``: in a way that has no serial."""
        self.whole = False
        self.silent |= silent
        return self.index.get(name)

    def release(self, name: str, version: str) -> Release | None:
        project = self.project(name)
        return project.releases.get(version) if project else None

    @rule(name=names, version=versions, kind=st.sampled_from(["wheel", "sdist", "signed", "shared", "none"]))
    def publish(self, name: str, version: str, kind: str) -> None:
        release = self.release(name, version)
        stem = f"{name.replace('-', '_').lower()}-{version}"
        number = next(self.numbers)
        data = f"{name} {version} {number}".encode()
        filename = {"wheel": f"{stem}-py3-none-any.whl", "shared": SHARED}.get(kind, f"{stem}.{kind}.zip")
        if release and any(file.filename == filename for file in release.files):
            return
        if kind == "shared":
            everywhere = self.index[name].releases.values() if name in self.index else ()
            if any(f.filename == SHARED for r in everywhere for f in r.files):
                return
            made = UploadedFile(SHARED, b"the same bytes", upload_time="2024-05-06T07:08:09Z")
        else:
            made = UploadedFile(filename, data, sidecar=b"Name: " + data if kind == "wheel" else None)
        if kind == "signed":
            made.provenance = provenance_for(made)
        self.index.publish(name, version, [] if kind == "none" else [made])

    @rule(name=names)
    def create(self, name: str) -> None:
        if self.project(name) is None:
            self.index.create(name)

    @rule(name=names, version=versions, why=st.sampled_from([None, "a <reason>"]))
    def yank(self, name: str, version: str, why: str | None) -> None:
        release = self.release(name, version)
        if release and release.yanked:
            self.index.unyank(name, version)
        elif release:
            self.index.yank(name, version, why)

    @rule(name=names, version=versions)
    def remove_file(self, name: str, version: str) -> None:
        release = self.release(name, version)
        if release and release.files:
            self.index.remove_file(name, version, release.files[0].filename)

    @rule(name=names, version=versions)
    def remove_release(self, name: str, version: str) -> None:
        if self.release(name, version):
            self.index.remove_release(name, version)

    @rule(name=names)
    def remove_project(self, name: str) -> None:
        if self.project(name):
            self.index.remove_project(name)

    @rule(name=names)
    def quarantine(self, name: str) -> None:
        project = self.project(name)
        if project and project.quarantined:
            self.index.clear_quarantine(name)
        elif project:
            self.index.quarantine(name)

    @rule(name=names, version=versions)
    def quarantine_release(self, name: str, version: str) -> None:
        release = self.release(name, version)
        if release and release.quarantined:
            self.index.clear_release_quarantine(name, version)
        elif release:
            self.index.quarantine_release(name, version)

    @rule(name=names)
    def archive(self, name: str) -> None:
        project = self.project(name, silent=True)
        if project and not project.quarantined:
            (self.index.archive if project.status == "active" else self.index.unarchive)(name)

    @rule(name=names)
    def recase(self, name: str) -> None:
        project = self.project(name, silent=True)
        if project and self.index.document_bytes(name):  # where else would one see it
            self.index.recase(name, project.display.swapcase().replace(".", "_"))

    @rule(name=names, version=versions)
    def change_beside(self, name: str, version: str) -> None:
        """A vulnerability, a sidecar that comes late, a provenance object: none has a serial."""
        project = self.project(name, silent=True)
        release = project.releases.get(version) if project else None
        if not release:
            return
        number = next(self.numbers)
        self.index.set_vulnerabilities(name, version, [{"id": f"X-{number}"}])
        for file in release.files:
            if file.filename == SHARED:
                continue
            if file.sidecar is None and number % 2:
                self.index.add_late_sidecar(name, version, file.filename, b"late")
            else:
                self.index.set_provenance(name, version, file.filename, provenance_for(file, repository=f"r/{number}"))
            return

    @rule(name=names)
    def touch(self, name: str) -> None:
        if self.project(name):
            self.index.touch(name)

    def anything_in_quarantine(self) -> bool:
        projects = [self.index[name] for name in self.index.projects()]
        return any(one.quarantined or any(release.quarantined for release in one.releases.values()) for one in projects)

    # -- the mirror --------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from(PLACES), fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def break_something(self, place: str, fault: Action, times: int) -> None:
        if place in ("/pypi", "/simple/") and isinstance(fault, Stale):
            return
        self.server.fault(place, fault, times=times)

    @rule(full=st.booleans(), names_only=st.booleans(), name=names)
    def try_pass(self, full: bool, names_only: bool, name: str) -> None:
        self.whole = False
        chosen = [name] if names_only else []
        self.run(run_pass(self.config, *chosen, full=full and not names_only))

    @rule(requests=st.integers(1, 12))
    def interrupted_pass(self, requests: int) -> None:
        self.whole = False

        async def interrupted() -> None:
            stop = asyncio.Event()
            enough = asyncio.ensure_future(self.server.seen("*", requests))
            enough.add_done_callback(lambda _: stop.set())
            try:
                await run_pass(self.config, stop=stop)
            finally:
                enough.cancel()

        self.run(interrupted())

    @rule()
    def equal(self) -> None:
        self.server.clear_faults()
        passes = [self.config]
        if self.silent or self.kind in ("list", "static"):  # what is not announced is found by the slow sweep
            passes += [changed(self.config, sweep_days=1e-12)] * 2
        for config in passes:
            summary = self.run(run_pass(config, allow_removals=100))
        if self.kind == "named":
            only = list(FOLLOWED)
            assert {owed.project for owed in summary.owed} <= {name for name in only if name not in self.index}
        else:
            only = None
            assert summary.complete, summary
        found = differences(self.index, self.directory, only=only)
        # Without a feed nobody sees which files go in quarantine: their bytes are kept until it is lifted.
        if self.kind in ("list", "static") and self.anything_in_quarantine():
            found = [line for line in found if not line.startswith("withheld/")]
        assert found == []
        assert summary.checkpoint == summary.cursor <= self.index.serial
        self.whole, self.silent = True, False

    @precondition(lambda self: self.whole)
    @rule()
    def lose_the_ledger(self) -> None:
        for path in self.directory.glob("heliostat.db*"):
            path.unlink()

    @precondition(lambda self: self.whole)
    @rule()
    def damage_the_ledger(self) -> None:
        (self.directory / "heliostat.db").write_bytes(b"rubbish" * 5000)
        try:
            self.run(run_pass(self.config))
        except StateError:
            (self.directory / "heliostat.db").unlink()
        else:
            raise AssertionError("a damaged ledger went unnoticed")


Mirrored.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMirrored = Mirrored.TestCase
