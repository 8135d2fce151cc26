"""What tree and ledger hold of a project before it is changed, and which rows it leaves beside its page."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import msgspec

from heliostat import names
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.owners import held_paths, tells_owner
from heliostat.mirror.survey import OpenPaths
from heliostat.mirror.wanted import Held, held_files
from heliostat.model import ProjectName
from heliostat.state.rows import Kind, PathRow


class Place(NamedTuple):
    """A file of the project's new page, or one that only its document lists."""

    path: str
    listed: bool
    sidecar: bool


class Standing(msgspec.Struct, frozen=True, dict=True):
    """A project as it is."""

    name: ProjectName
    inventory: Inventory = Inventory(None, None, None)
    open_paths: OpenPaths = OpenPaths()

    @cached_property
    def held(self) -> dict[str, Held]:
        """The files that it has in place, by name."""
        return held_files(self.inventory.page, self.open_paths.extra)

    @cached_property
    def before(self) -> set[str]:
        """The paths that it puts in place: what its page says, or what is left of that, and what is recorded."""
        return held_paths(self.name, held_files(self.inventory.page)) | self.open_paths.extra | self.inventory.traces

    @cached_property
    def ours(self) -> set[str]:
        """All paths that it put in place, whether a page shows them or not."""
        return self.before | self.open_paths.incoming | self.open_paths.doomed

    def rows(self, places: Iterable[Place]) -> tuple[list[PathRow], list[PathRow]]:
        """New rows for the files whose owner nobody would find without, and those that are right no more."""
        right: set[tuple[str, Kind]] = set()
        for place in places:
            if not place.listed:
                right.add((place.path, "extra"))
                if place.sidecar:
                    right.add((names.sidecar_path(place.path), "extra"))
            elif not tells_owner(place.path, self.name):
                right.add((place.path, "claimed"))
        known: set[tuple[str, Kind]] = {(path, "claimed") for path in self.open_paths.claimed}
        known |= {(path, "extra") for path in self.open_paths.extra}
        waiting: set[tuple[str, Kind]] = {(path, "waiting") for path in self.open_paths.waiting}
        return self._as_rows(right - known), self._as_rows((known - right) | waiting)

    def _as_rows(self, paths: Iterable[tuple[str, Kind]]) -> list[PathRow]:
        return [PathRow(path, self.name, kind) for path, kind in sorted(paths)]
