"""What one project hands over to be published, and what it holds in memory until then."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from heliostat.state.rows import Failed, KeptFile, PathRow, Published, Tombstone
from heliostat.store.tree import Publication


class Memory:
    """How many bytes of files wait in memory."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, count: int) -> bool:
        """So many more, if they fit; otherwise they must wait on the disk."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give(self, publication: Publication | None) -> None:
        """The bytes of ``publication`` are not wanted any more."""
        self.give_back(bytes_in(publication))

    def give_back(self, count: int) -> None:
        """So many bytes are written."""
        self._left += count


class Item(msgspec.Struct, kw_only=True):
    """One project's share of a batch."""

    name: str
    publication: Publication | None = None
    #: Recorded with the batch; None for files that are placed ahead of their project's pages.
    outcome: Published | Failed | None = None
    doomed: list[PathRow] = []
    #: Rows that say what the project claims where its page does not tell, or what it waits for.
    claims: list[PathRow] = []
    #: Such rows that are right no more once the project is recorded.
    unclaimed: list[PathRow] = []
    #: ``withheld`` rows that end because their bytes are offered again.
    restored: list[PathRow] = []
    tombstones: list[Tombstone] = []
    #: What our page says of files whose bytes are kept for a while, and paths of which that is known no more.
    kept: list[KeptFile] = []
    unkept: list[str] = []
    #: The paths that the project's page and ledger put in place before.
    before: set[str] = set()
    #: The project has a JSON document.
    documented: bool = False
    #: Without an outcome: what is placed is shown already, and so changes; else it is placed ahead of its page.
    shown: bool = False
    #: Called on the event loop once the batch is durable.
    done: Callable[[], None] | None = None
    #: Bytes that it holds in memory, from the time when it is handed over, and how many of them are of small files.
    weight: int = 0
    in_bodies: int = 0
    #: Nothing was known of it: it is still to be looked whether anything lies in its places; that there is something
    #: was met with then, and it is to be planned anew.
    unlooked: bool = False
    met: bool = False
    #: How many of the files that it places were fetched for it.
    fetched: int = 0

    @property
    def given_up(self) -> bool:
        """It was to be published, and could not be put in place: its outcome says why."""
        return self.publication is None and isinstance(self.outcome, Failed)


def targets_of(publication: Publication | None) -> list[str]:
    """Where its files belong."""
    if publication is None:
        return []
    return [one.target for one in publication.placements] + [one.target for one in publication.bodies]


def bytes_in(publication: Publication | None) -> int:
    """Bytes of small files that wait in memory."""
    return sum(len(body.data) for body in publication.bodies) if publication is not None else 0


def weight_of(item: Item) -> int:
    """Bytes that the item holds in memory."""
    publication = item.publication
    if publication is None:
        return 0
    weight = item.in_bodies
    for part in (publication.document, publication.json_page, publication.html_page, publication.original):
        if part is not None:
            weight += len(part)
    return weight


def restored_rows(item: Item) -> list[PathRow]:
    """Rows for what may be left in ``withheld/`` of bytes that are offered again: fetched anew, or made by a kill."""
    return [PathRow(row.path, row.project, "doomed", "restored") for row in item.restored]
