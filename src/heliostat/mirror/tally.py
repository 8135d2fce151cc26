"""What a pass did, counted once where it is decided, for the summary."""

from __future__ import annotations

import msgspec

from heliostat.state.rows import Row
from heliostat.store.tree import Publication


class Tally(msgspec.Struct):
    """Counts of one pass; bytes are those of verified files, sidecars and provenance objects."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    files_added: int = 0
    files_removed: int = 0
    bytes_fetched: int = 0
    stuck: list[str] = []
    unknown: list[str] = []

    def published(self, row: Row, publication: Publication, *, files_removed: int) -> None:
        """Count one project that was brought up to date."""
        self.files_removed += files_removed
        changed = (
            publication.json_page is not None
            or publication.html_page is not None
            or publication.document is not None
            or publication.staged_document is not None
            or publication.drop_document
            or publication.placements
        )
        if not row.published:
            self.added += 1
        elif changed:
            self.updated += 1
        else:
            self.unchanged += 1
