"""The fake index's model: projects, files, and the journal of all that ever changed.  No I/O, and its own clock.

Every operation writes the journal rows that the public index writes for it, and gives the projects concerned the new
serials; the few that have no serial there have none here either, and say so.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import merge
from typing import Any

from heliostat.fakeindex import render
from heliostat.fakeindex.bulk import Blocks, Bulk
from heliostat.fakeindex.journal import Journal
from heliostat.fakeindex.project import Project, Release, UploadedFile, decoded, normal_form
from heliostat.fakeindex.render import Bases
from heliostat.model import Event, ProjectPage


@dataclass(frozen=True, slots=True)
class Expected:
    """What an honest mirror holds of one file, and under which version."""

    version: str
    file: UploadedFile


class Index:
    """A package index in memory.

    ``serial`` is where the journal starts, ``now`` the first moment of its clock (seconds since the epoch, UTC),
    which goes one second further with every row.  Names are accepted in any spelling; unknown ones raise KeyError.
    """

    def __init__(self, *, serial: int = 1000, now: int = 1_790_000_000) -> None:
        self.now = now
        #: Where the index and its files are; a server sets it when it starts.
        self.bases = Bases("http://127.0.0.1:1", "http://127.0.0.1:1")
        #: Normalised names in the order in which their projects changed; only ever appended to.
        self.changes: list[str] = []
        self._journal = Journal(serial)
        self._projects: dict[str, Project] = {}
        self._sorted: list[str] = []
        #: The projects that are made up when they are asked for.
        self.bulks = Blocks()
        self._previous: dict[str, Project] = {}
        self._paths: dict[str, UploadedFile] = {}

    # -- asking ------------------------------------------------------------------------------------------------

    @property
    def serial(self) -> int:
        """The highest serial in the whole journal."""
        return self._journal.serial

    def rows(self, since: int = 0, limit: int | None = None) -> list[Event]:
        """The journal's rows with a serial greater than ``since``."""
        return self._journal.since(since, limit)

    def get(self, name: str) -> Project | None:
        """The project, to look at (changes go through the methods), or None."""
        normal = normal_form(name)
        found = self._projects.get(normal)
        return found if found is not None else self.bulks.get(normal)

    def __getitem__(self, name: str) -> Project:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __len__(self) -> int:
        return len(self._projects) + self.bulks.projects

    def projects(self) -> Iterator[str]:
        """Normalised names of all projects, quarantined ones too, in order."""
        return (name for name, _, _, _ in self.entries())

    def entries(self, low: str = "", high: str | None = None) -> Iterator[tuple[str, str, int, bool]]:
        """(normalised name, name as displayed, serial, quarantined) in order, from ``low`` up to before ``high``."""
        own = self._own_entries(low, high)
        if not self.bulks:
            return own
        return merge(own, *(block.entries(low, high) for block in self.bulks), key=lambda one: one[0])

    def previous(self, name: str) -> Project | None:
        """The project as it was before its last change (None: it did not exist)."""
        return self._previous.get(normal_form(name))

    def file_at(self, path: str) -> UploadedFile | None:
        """The file at a URL path, also one that was removed: deleted files stay where they are, as upstream's do."""
        plain = decoded(path)
        return self._paths.get(plain) or self.bulks.file_at(plain)

    def expected_page(self, name: str) -> ProjectPage | None:
        """The Simple page as upstream serves it, with upstream's URLs; None if there is no such project."""
        project = self.get(name)
        return render.page(project, self.bases) if project else None

    def expected_files(self, name: str) -> list[Expected]:
        """All files that an honest mirror offers for the project, in the order of the page."""
        return [Expected(release.version, file) for release, file in self[name].offered()]

    def document_bytes(self, name: str) -> bytes | None:
        """The JSON document exactly as upstream serves it; None where it answers 404."""
        project = self.get(name)
        return render.document(project, self.bases) if project else None

    # -- publishing --------------------------------------------------------------------------------------------

    def create(self, name: str, *, user: str = "alice") -> Project:
        """Register a project without any release."""
        if name in self:
            raise ValueError(f"{name} exists")
        project = Project(display=name, name=normal_form(name), roles=[("Owner", user)], revision=len(self.changes))
        self._previous.pop(project.name, None)
        self._projects[project.name] = project
        insort(self._sorted, project.name)
        self._row(project, None, "create")
        self._row(project, None, f"add Owner {user}")
        return project

    def publish(
        self,
        name: str,
        version: str,
        files: Iterable[UploadedFile] | UploadedFile = (),
        *,
        requires_python: str | None = None,
        info: dict[str, Any] | None = None,
    ) -> Project:
        """Upload files to a release; project and release are made when they are new.

        ``info`` are keys of the document's ``info``, ``requires_python`` is given to every file that has none.
        No files: a release without files.
        """
        project = self._change(name) if name in self else self.create(name)
        project.display = name
        release = project.releases.get(version)
        if release is None:
            release = project.releases[version] = Release(version)
            self._row(project, version, "new release")
        release.info.update(info or {})
        for file in (files,) if isinstance(files, UploadedFile) else files:
            file.requires_python = file.requires_python or requires_python
            self._add_file(project, release, file)
        return project

    def add_bulk(self, bulk: Bulk) -> None:
        """Very many projects at once, made up when they are asked for; their names must be new."""
        block = self._journal.append_block(bulk)
        self.bulks.add(block)
        self.now = max([self.now, *(row.time for row in self._journal.since(block.last - 1))])

    def release_files(self, name: str, version: str) -> None:
        """All files of a release go, the release stays."""
        for file in list(self[name].releases[version].files):
            self.remove_file(name, version, file.filename)

    # -- taking away -------------------------------------------------------------------------------------------

    def remove_project(self, name: str) -> None:
        project = self._change(name)
        self._row(project, None, "remove project")
        del self._projects[project.name]
        del self._sorted[bisect_left(self._sorted, project.name)]

    def remove_release(self, name: str, version: str) -> None:
        project = self._change(name)
        del project.releases[version]
        self._row(project, version, "remove release")

    def remove_file(self, name: str, version: str, filename: str) -> None:
        project = self._change(name)
        project.releases[version].files.remove(_known(project, version, filename))
        self._row(project, version, f"remove file {filename}")

    def yank(self, name: str, version: str, reason: str | None = None) -> None:
        project = self._change(name)
        release = project.releases[version]
        release.yanked, release.yanked_reason = True, reason or None
        self._row(project, version, "yank release")

    def unyank(self, name: str, version: str) -> None:
        project = self._change(name)
        release = project.releases[version]
        release.yanked, release.yanked_reason = False, None
        self._row(project, version, "unyank release")

    def quarantine(self, name: str) -> None:
        project = self._change(name)
        project.status = "quarantined"
        self._row(project, None, "project quarantined")

    def clear_quarantine(self, name: str) -> None:
        project = self._change(name)
        project.status = "active"
        self._row(project, None, "project quarantine cleared")

    def quarantine_release(self, name: str, version: str) -> None:
        project = self._change(name)
        project.releases[version].quarantined = True
        self._row(project, version, "release quarantined")

    def clear_release_quarantine(self, name: str, version: str) -> None:
        project = self._change(name)
        project.releases[version].quarantined = False
        self._row(project, version, "release quarantine cleared")

    # -- other changes -----------------------------------------------------------------------------------------

    def touch(self, name: str, action: str = "add Maintainer bob") -> int:
        """A row that changes nothing on pages, only the project's serial; gives the new serial."""
        project = self._change(name)
        return self._row(project, None, action)

    def journal_row(self, display: str, version: str | None, action: str) -> int:
        """Any row, also about no project (an empty name) or one that is gone; gives its serial."""
        project = self.get(display)
        if project is not None and project.display == display:
            return self._row(self._change(display), version, action)
        return self._journal.append(display, version, self._tick(), action)

    def skip_serials(self, count: int) -> None:
        """A gap in the journal."""
        self._journal.serial += count

    def hold_serial(self, name: str, held: bool = True) -> None:
        """From now on (or no longer) the project's own serial stays below its rows'."""
        project = self._change(name)
        project.stuck = held
        if not held:
            project.last_serial = max(
                (row.serial for row in self._journal.since(0) if row.display == project.display),
                default=project.last_serial,
            )

    def rename(self, old: str, new: str) -> None:
        """A legacy renaming: one row, and the old rows get the new name."""
        if new in self and normal_form(new) != normal_form(old):
            raise ValueError(f"{new} exists")
        project = self._change(old)
        was = project.display
        self._journal.rename(was, new)
        del self._projects[project.name]
        del self._sorted[bisect_left(self._sorted, project.name)]
        project.display, project.name = new, normal_form(new)
        self._projects[project.name] = project
        insort(self._sorted, project.name)
        self._row(project, None, f"rename from {was}")

    # -- changes that have no serial ---------------------------------------------------------------------------

    def recase(self, name: str, display: str) -> None:
        """Another spelling of the same normalised name.  No serial."""
        if normal_form(display) != normal_form(name):
            raise ValueError(f"{display} is another project than {name}")
        self._change(name).display = display

    def archive(self, name: str) -> None:
        """No serial."""
        self._change(name).status = "archived"

    def unarchive(self, name: str) -> None:
        """No serial."""
        self._change(name).status = "active"

    def set_provenance(self, name: str, version: str, filename: str, provenance: dict[str, Any] | None) -> None:
        """A new PEP 740 object, or none.  No serial."""
        self._replace_file(name, version, filename, provenance=provenance)

    def add_late_sidecar(self, name: str, version: str, filename: str, sidecar: bytes) -> None:
        """A ``.metadata`` for an old wheel.  No serial."""
        self._replace_file(name, version, filename, sidecar=sidecar)

    def set_vulnerabilities(self, name: str, version: str, vulnerabilities: list[dict[str, Any]]) -> None:
        """What the document says of them.  No serial."""
        self._change(name).vulnerabilities[version] = vulnerabilities

    # -- inside ------------------------------------------------------------------------------------------------

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def _row(self, project: Project, version: str | None, action: str) -> int:
        """Write a row; unless it is held, the project's serial follows.  The change was announced before."""
        serial = self._journal.append(project.display, version, self._tick(), action)
        if not project.stuck:
            project.last_serial = serial
        project.revision += 1
        self.changes.append(project.name)
        return serial

    def _change(self, name: str) -> Project:
        """The project, about to be changed: what it was is kept, and a bulk gives it up."""
        normal = normal_form(name)
        project = self._projects.get(normal)
        if project is None:
            project = self.bulks.get(normal)
            if project is None:
                raise KeyError(name)
            self._adopt(project)
        self._previous[normal] = project.copy()
        project.revision += 1
        self.changes.append(normal)
        return project

    def _adopt(self, project: Project) -> None:
        self.bulks.take(project.name)
        self._projects[project.name] = project
        insort(self._sorted, project.name)
        for _, file in project.offered():
            self._paths[decoded(file.path)] = file

    def _add_file(self, project: Project, release: Release, file: UploadedFile) -> None:
        self._row(project, release.version, f"add {file.python_version} file {file.filename}")
        if not file.upload_time:
            moment = datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            file.upload_time = f"{moment}.{self.serial * 7919 % 1_000_000:06}Z"
        release.files.append(file)
        self._paths[decoded(file.path)] = file

    def _replace_file(self, name: str, version: str, filename: str, **changes: Any) -> None:
        project = self._change(name)
        old = _known(project, version, filename)
        new = replace(old, data=old.content, **changes)
        files = project.releases[version].files
        files[files.index(old)] = new
        self._paths[decoded(new.path)] = new

    def _own_entries(self, low: str, high: str | None) -> Iterator[tuple[str, str, int, bool]]:
        start = bisect_left(self._sorted, low)
        stop = len(self._sorted) if high is None else bisect_left(self._sorted, high)
        for name in self._sorted[start:stop]:
            project = self._projects[name]
            yield name, project.display, project.last_serial, project.quarantined


def _known(project: Project, version: str, filename: str) -> UploadedFile:
    file = project.find(version, filename)
    if file is None:
        raise KeyError(filename)
    return file
