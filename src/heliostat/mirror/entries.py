"""What a batch, a removal or a repair writes into the changelog.

A row says at least what changed: after a kill nobody knows which of a project's pages had been replaced already, so
those are always named, and nothing is written only for a project that is surely as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from heliostat import names
from heliostat.model import ProjectName
from heliostat.state.changelog import Entry
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow, Published
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Publication, Tree

if TYPE_CHECKING:
    from heliostat.mirror.item import Item

_WEB = len("web/")


def below_web(paths: Iterable[str]) -> list[str]:
    """In the changelog paths are relative to the document root."""
    return [path[_WEB:] for path in sorted(paths)]


def page_paths(name: ProjectName) -> list[str]:
    directory = names.page_directory(name)[_WEB:]
    return [f"{directory}/{page}" for page in (*HTML_PAGES, JSON_PAGE)]


def document_paths(name: ProjectName) -> list[str]:
    return [names.document_path(name)[_WEB:], names.document_link(name)[_WEB:]]


def rewrites(publication: Publication) -> bool:
    """Whether anything that is served already is replaced or removed."""
    return not publication.fresh and bool(
        publication.json_page is not None
        or publication.html_page is not None
        or publication.document is not None
        or publication.staged_document is not None
        or publication.drop_document
        or publication.link_missing
        or publication.times
    )


def mark_changing(ledger: Ledger, publications: Iterable[Publication]) -> None:
    """What is served of these is about to be replaced: for a kill before :func:`note_repaired`."""
    changing = [publication.name for publication in publications if rewrites(publication)]
    if changing:
        with ledger.transaction():
            ledger.changelog.begin(changing)


def note_repaired(tree: Tree, ledger: Ledger, projects: Iterable[ProjectName]) -> None:
    """Those of ``projects`` that were marked have their pages made anew; joins the caller's transaction."""
    made = [name for name in projects if ledger.changelog.begun(name)]
    for name in made:
        row = ledger.row(name)
        changed = page_paths(name) + [path for path in document_paths(name) if tree.disk.stat(f"web/{path}")]
        entry = Entry(name, row.page_serial if row else None, "repaired", changed=changed)
        ledger.changelog.write([entry], time.time())
    ledger.changelog.end(made)


def entry_of(ledger: Ledger, item: Item) -> Entry | None:
    """What a batch did to one project; call it before the ledger records the outcome."""
    publication, outcome = item.publication, item.outcome
    name = ProjectName(item.name)
    if outcome is None:
        placed: list[str] = []
        if publication and item.shown:
            placed = below_web([*(one.target for one in publication.placements), *publication.placed])
        return Entry(name, None, "updated", changed=placed) if placed else None
    if not isinstance(outcome, Published) or publication is None:
        return None
    before = ledger.connection.execute(
        "SELECT published, page_serial, state FROM projects WHERE name = ?", (name,)
    ).fetchone()
    served = before is not None and bool(before[0])
    # What was placed ahead of this batch, also by a process that was killed, and with it.
    placed_now = ledger.paths.incoming(name).difference(row.path for row in item.doomed)
    replaced = placed_now & item.before
    changed = below_web(replaced | {path for path, _ in publication.times} - placed_now)
    begun = served and ledger.changelog.begun(name)
    if served and not placed_now and not changed and not begun and before[1] == outcome.page_serial:
        return None
    pages = page_paths(name) + (document_paths(name) if item.documented else [])
    added = below_web(placed_now - item.before)
    if not served:
        what = "quarantined" if outcome.state == "quarantined" else "added"
        return Entry(name, outcome.page_serial, what, added=pages + added, changed=changed)  # type: ignore[arg-type]
    removed = [] if item.documented else document_paths(name)
    if outcome.state == "quarantined":
        return Entry(name, outcome.page_serial, "quarantined", added, pages + changed, removed)
    if replaced and not begun and before[1] == outcome.page_serial:
        return Entry(name, outcome.page_serial, "repaired", added, pages + changed, removed)
    return Entry(name, outcome.page_serial, "updated", added, pages + changed, removed)


def entry_of_removal(name: ProjectName, serial: int | None) -> Entry:
    """A project's pages and documents went; its bytes follow."""
    return Entry(name, serial, "removed", removed=page_paths(name) + document_paths(name))


def entries_of_bytes(gone: Iterable[PathRow], kept: Iterable[PathRow]) -> list[Entry]:
    """By project: bytes that went or are out of reach, and those that another project keeps, with its time."""
    found: dict[str, tuple[list[PathRow], list[PathRow]]] = {}
    for number, rows in enumerate((gone, kept)):
        for row in rows:
            found.setdefault(row.project, ([], []))[number].append(row)
    entries: list[Entry] = []
    for project, (went, stayed) in sorted(found.items()):
        serial = max((row.serial or 0 for row in (*went, *stayed)), default=0) or None
        changed, removed = below_web(row.path for row in stayed), below_web(row.path for row in went)
        entries.append(Entry(project, serial, "dropped", changed=changed, removed=removed))
    return entries
