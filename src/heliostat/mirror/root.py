"""The root index and the small files about the whole mirror, written from the ledger, streamed, only when changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from heliostat.pages.render import root_html, root_json
from heliostat.state.ledger import Ledger
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Placement, Tree

log = logging.getLogger(__name__)

_ROOT = "web/simple"


def entries(ledger: Ledger) -> Iterator[tuple[str, str, int | None]]:
    """(display name, normal name, page serial) of every project served, in the order of names; a page at a time."""
    after = ""
    while rows := ledger.published_names(after):
        yield from rows
        after = rows[-1][1]


def write_root(tree: Tree, ledger: Ledger, *, force: bool = False) -> bool:
    """Rewrite what changed of the root index; True when something was written.

    The HTML form changes with the set of names only, the JSON form with any serial, its own included.
    Belongs to the keeper's thread.
    """
    html = force or bool(ledger.get("root_html_dirty")) or tree.disk.stat(f"{_ROOT}/{HTML_PAGES[0]}") is None
    serial = ledger.root_serial()
    json = force or bool(ledger.get("root_json_dirty")) or serial != ledger.get("root_serial")
    json = json or tree.disk.stat(f"{_ROOT}/{JSON_PAGE}") is None
    if not html and not json:
        return False
    log.debug("root: writing")
    staged: list[Placement] = []
    if html:
        staged += tree.stage_html(root_html(entries(ledger)), _ROOT)
    if json:
        staged.append(tree.stage(root_json(entries(ledger), serial), f"{_ROOT}/{JSON_PAGE}"))
    tree.disk.sync()
    log.debug("root: showing")
    tree.show(staged)
    tree.disk.sync()
    ledger.put(
        root_html_dirty=None if html else ledger.get("root_html_dirty"),
        root_json_dirty=None,
        root_serial=serial,
        root_written=time.time(),
    )
    log.debug("root: written")
    return True


def write_small(tree: Tree, path: str, text: str) -> bool:
    """Replace a small text file, durably, if it differs; True when it did."""
    body = text.encode("ascii")
    if tree.disk.read(path) == body:
        return False
    staged = tree.stage([body], path)
    tree.disk.sync()
    tree.show([staged])
    return True


def write_status(tree: Tree, checkpoint: int) -> bool:
    """The checkpoint serial as text, for scripts and other tools."""
    return write_small(tree, "status", f"{checkpoint}\n")


def write_last_modified(tree: Tree, started: float) -> bool:
    """PEP 381: the start of the last complete poll, UTC."""
    return write_small(tree, "web/last-modified", time.strftime("%Y%m%dT%H:%M:%S\n", time.gmtime(started)))
