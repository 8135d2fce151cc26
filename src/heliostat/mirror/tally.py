"""What a pass did, counted once where it is decided, for the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from heliostat.state.rows import Row

if TYPE_CHECKING:
    from heliostat.mirror.item import Item


#: The fields that are counts.
COUNTS = ("added", "updated", "unchanged", "removed", "files_added", "files_removed", "bytes_fetched")


class Tally(msgspec.Struct):
    """Counts of one pass; bytes are those of verified files, sidecars and provenance objects."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    files_added: int = 0
    files_removed: int = 0
    bytes_fetched: int = 0
    unknown: list[str] = []
    #: Why a file was not fetched that does not fit on the disk.
    no_room: str | None = None

    def plus(self, other: Tally) -> Tally:
        """The counts of both; what is listed is left out."""
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in COUNTS})

    def published(self, row: Row, item: Item) -> bool:
        """Count one project whose batch is in the tree and in the ledger; whether that made a difference."""
        publication = item.publication
        assert publication is not None
        self.files_removed += sum(one.what in ("removed", "withheld") for one in item.tombstones)
        changed = (
            publication.json_page is not None
            or publication.html_page is not None
            or publication.document is not None
            or publication.staged_document is not None
            or publication.drop_document
            or publication.placements
            or publication.bodies
            or publication.placed
        )
        if not row.published:
            self.added += 1
        elif changed:
            self.updated += 1
        else:
            self.unchanged += 1
        return bool(changed or not row.published)
