"""Which files that a page lists no more are kept out of reach, and which of those kept come back or go for good.

A quarantine is no removal: it is often lifted.  Of a project in quarantine everything is kept; of one release, the
files that our own document lists under it, as long as the feed says that it is in quarantine.  What the feed says was
removed meanwhile is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from heliostat.mirror.inventory import Inventory
from heliostat.model import ProjectPage
from heliostat.names import METADATA_SUFFIX
from heliostat.state.rows import Fate, PathRow, Row

_PROVENANCE = re.compile(r"web/integrity/[^/]+/([^/]+)/([^/]+)/provenance")


class Quarantine:
    """Decides for one project that is about to be published; pure."""

    def __init__(
        self,
        row: Row,
        page: ProjectPage,
        inventory: Inventory,
        withheld: list[PathRow],
        *,
        keeps: Callable[[str, str], bool] = lambda _name, _version: False,
    ) -> None:
        """``keeps`` says of a name and a version whether the bytes of what is removed are kept for a while."""
        self._row, self._whole, self._keeps = row, page.quarantined, keeps
        self._withheld = [one for one in withheld if one.fate != "keep"]
        self._releases, self._removed = row.releases_in_quarantine, row.removed_since
        self._versions = (
            {entry.filename: entry.version for entry in inventory.document.files} if inventory.document else {}
        )

    def doom(self, path: str, serial: int | None) -> PathRow:
        """What becomes of a path that the new page does not account for."""
        version = self.version_of(path)
        withheld = (self._whole or version in self._releases) and not self._was_removed(path, version)
        fate: Fate = "withhold" if withheld else "keep" if self._keeps(self._row.name, version or "") else "unlink"
        return PathRow(path, self._row.name, "doomed", fate, serial, version)

    def ended(self, serial: int | None) -> list[PathRow]:
        """What becomes of what was withheld and whose quarantine is over, or that was removed in it."""
        return [
            self._after_quarantine(row, serial)
            for row in self._withheld
            if self._was_removed(row.path, row.version) or not (self._whole or row.version in self._releases)
        ]

    def _after_quarantine(self, row: PathRow, serial: int | None) -> PathRow:
        fate: Fate = "keep" if self._keeps(self._row.name, row.version or "") else "unlink"
        return PathRow(row.path, self._row.name, "doomed", fate, serial, row.version)

    def _was_removed(self, path: str, version: str | None) -> bool:
        return version in self._removed or _filename(path) in self._removed

    def version_of(self, path: str) -> str | None:
        """The release of the file that a path is of, as far as our document, or the path, tells it."""
        if found := _PROVENANCE.fullmatch(path):
            return found[1]
        filename = _filename(path)
        if filename in self._versions:
            return self._versions[filename]
        return next((version for version in self._releases if _names_version(filename, version)), None)


def _filename(path: str) -> str:
    """The distribution file that a path is of."""
    found = _PROVENANCE.fullmatch(path)
    return found[2] if found else path.rpartition("/")[2].removesuffix(METADATA_SUFFIX)


def _names_version(filename: str, version: str) -> bool:
    """Whether a file's name says that it is of ``version``: for an upstream without documents."""
    spelling = re.escape(version).replace(r"\-", "[-_]")
    return re.search(rf"-{spelling}(?:-|\.(?![0-9]))", filename) is not None
