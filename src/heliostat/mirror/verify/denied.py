"""Upstream's pages as a mirror is to show them: without what is denied there."""

from __future__ import annotations

from functools import cached_property

import msgspec

from heliostat.mirror.verify.ground import Ground
from heliostat.model import ProjectName, ProjectPage
from heliostat.policy.denials import Denials, Entry, Versions
from heliostat.state.queries import Queries


class Denied:
    """What the ledger beside ``ground`` denies; nothing where there is none.  Raises StateError."""

    def __init__(self, ground: Ground | None) -> None:
        self._ground = ground

    def has_project(self, name: str) -> bool:
        """Whether all of it is denied."""
        return name in self._denials.projects

    def has_releases(self, name: ProjectName) -> bool:
        """Whether some releases of it are."""
        return name in self._denials.releases

    def without(self, page: ProjectPage) -> ProjectPage:
        """The page without the files of denied releases."""
        denied = Versions(self._denials.releases.get(page.name, ()))
        if not denied:
            return page
        files = tuple(file for file in page.files if not denied.has_file(file.filename, None))
        return msgspec.structs.replace(page, files=files)

    @cached_property
    def _denials(self) -> Denials:
        books = self._ground.books if self._ground is not None else None
        rows = books.read(lambda connection: Queries(connection).denied()) if books is not None else []
        return Denials.of(Entry(ProjectName(row.project), row.version) for row in rows)
