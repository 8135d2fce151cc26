"""What is remembered of a project's files that go, stay against upstream's will, or come back."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import msgspec

from heliostat import names
from heliostat.mirror.amend import entries_in
from heliostat.mirror.files import Ready
from heliostat.mirror.item import Item
from heliostat.mirror.metadata import Answers
from heliostat.mirror.quarantine import Quarantine
from heliostat.mirror.rules import Rules
from heliostat.mirror.standing import Standing
from heliostat.pages.links import package_of
from heliostat.state.rows import KeptFile, PathRow, Row, Tombstone

_GONE = "no longer listed upstream"


class Remnants:
    """Of one project that is about to be published."""

    def __init__(self, rules: Rules, row: Row, answers: Answers, standing: Standing) -> None:
        self._rules, self._row, self._answers, self._standing = rules, row, answers, standing

    def note(self, item: Item, quarantine: Quarantine, ready: Sequence[Ready], after: Collection[str]) -> None:
        """Complete what the batch records and writes; ``after`` are the paths that its new page puts in place."""
        item.tombstones = self._tombstones(item, quarantine)
        item.kept = self._kept(item, quarantine)
        item.unkept = [path for path in self._standing.open_paths.withheld if path in after]
        self._retained(item, ready)
        self._original(item)

    def _tombstones(self, item: Item, quarantine: Quarantine) -> list[Tombstone]:
        now, serial = time.time(), self._answers.serial
        found = []
        for one in item.doomed:
            if one.fate in ("unlink", "keep") and one.path in item.before:
                version = one.version or quarantine.version_of(one.path)
                reason = self._rules.why_denied(self._row.name, version) or _GONE
                found.append(
                    Tombstone(
                        now, self._row.name, one.path, serial, reason, version=version,
                        what="withheld" if one.fate == "keep" else "removed",
                    )
                )  # fmt: skip
        return found

    def _kept(self, item: Item, quarantine: Quarantine) -> list[KeptFile]:
        """What our page said of the files that are put out of reach for a while."""
        going = {one.path for one in item.doomed if one.fate == "keep"}
        page = self._standing.inventory.page
        if not going or page is None:
            return []
        files = [(file, path) for file in page.files if (path := package_of(file.url)) in going]
        entries = entries_in(self._standing.inventory, {file.filename for file, _ in files})
        return [
            KeptFile(
                self._row.name,
                path,
                quarantine.version_of(path),
                msgspec.json.encode(file).decode(),
                entries[file.filename].decode() if file.filename in entries else None,
            )
            for file, path in files
            if path is not None
        ]

    def _retained(self, item: Item, ready: Sequence[Ready]) -> None:
        """Rows for files that upstream does not list, so that they can be counted, and told once."""
        stay: set[str] = set()
        for one in ready:
            if one.want.file.filename in self._answers.retained:
                stay.add(one.path)
        before, now = self._standing.open_paths.retained, time.time()
        item.claims += [PathRow(path, self._row.name, "retained") for path in sorted(stay - before)]
        item.unclaimed += [PathRow(path, self._row.name, "retained") for path in sorted(before - stay)]
        if not self._answers.own:
            item.tombstones += [
                Tombstone(now, self._row.name, path, self._answers.serial, _GONE, what="retained")
                for path in sorted(stay - before)
            ]

    def _original(self, item: Item) -> None:
        """Upstream's own document is kept beside the published one as long as the two differ."""
        publication, known = item.publication, self._standing.open_paths.original
        assert publication is not None
        path = names.original_path(self._row.name)
        written = publication.document is not None or publication.staged_document is not None
        if self._answers.amended:
            kept = known and self._answers.original_kept
            if self._answers.original is not None and (written or publication.drop_document or not kept):
                publication.original = self._answers.original
                item.claims.append(PathRow(path, self._row.name, "original"))
        elif known and not self._answers.unchanged:
            publication.drop_original = True
            item.unclaimed.append(PathRow(path, self._row.name, "original"))
