"""The root index and the small files about the whole mirror, written from the ledger, streamed, only when changed.

A root page is rendered as a whole only when it has to be; otherwise what changed is put into the one that is there.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from heliostat.pages.render import (
    root_html,
    root_html_entry,
    root_html_head,
    root_json,
    root_json_entry,
    root_json_head,
)
from heliostat.pages.root_splice import HTML, JSON, Form, Unspliceable, splice
from heliostat.state.ledger import Ledger
from heliostat.store.beats import got_on
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Placement, Tree

log = logging.getLogger(__name__)

_ROOT = "web/simple"
#: Up to this share of the entries, or this many, it is cheaper to put them into the old page than to render all.
_FEW_SHARE, _FEW = 1 / 32, 64
_PACKING = 6

Entry = tuple[str, str, int | None]


class _Page(NamedTuple):
    """One of the two root pages, as it has to become."""

    form: str
    #: Under these names, which are one file.
    names: tuple[str, ...]
    splicing: Form
    head: bytes
    entry: Callable[[Entry], bytes]
    whole: Callable[[], Iterator[bytes]]

    @property
    def path(self) -> str:
        return f"{_ROOT}/{self.names[0]}"


def entries(ledger: Ledger) -> Iterator[Entry]:
    """(display name, normal name, page serial) of every project served, in the order of names; a page at a time."""
    after = ""
    while rows := ledger.published_names(after):
        got_on()
        yield from rows
        after = rows[-1][1]


def write_root(tree: Tree, ledger: Ledger, *, force: bool = False, packed: bool = False) -> bool:
    """Rewrite what changed of the root index; True when something was written.

    The HTML form changes with the set of names only, the JSON form with any serial, its own included.  ``packed``
    keeps a gzipped copy beside each; otherwise there is none.  Belongs to the keeper's thread.
    """
    serial = ledger.root_serial()
    pages = _pages(ledger, serial)
    few = max(_FEW, int(ledger.published_count() * _FEW_SHARE))
    changed = ledger.root_changed(few + 1)
    due = {"json": bool(changed) or serial != ledger.get("root_serial"), "html": any(html for _, html in changed)}
    if not packed:
        _unpack(tree)
    staged: list[Placement] = []
    copies: list[Placement] = []
    written: list[_Page] = []
    for page in pages:
        whole = force or bool(ledger.get(f"root_{page.form}_dirty")) or tree.disk.stat(page.path) is None
        if whole or due[page.form]:
            log.debug("root: writing %s", page.form)
            written.append(page)
            staged += _stage(tree, ledger, page, None if whole or len(changed) > few else changed)
        if packed:
            copies += _pack(tree, page, staged[-len(page.names)].staged if page in written else None)
    if not staged and not copies:
        return False
    tree.disk.sync()
    log.debug("root: showing")
    tree.show(copies)  # first, so that none is ever older than its page
    tree.show(staged)
    tree.disk.sync()
    if written:
        ledger.root_written(serial, time.time(), {page.form: _identity(tree, page) or "" for page in written})
    log.debug("root: written")
    return True


def _pages(ledger: Ledger, serial: int) -> tuple[_Page, _Page]:
    return (
        _Page(
            "html", HTML_PAGES, HTML, root_html_head(),
            lambda entry: root_html_entry(entry[0], entry[1]), lambda: root_html(entries(ledger)),
        ),
        _Page(
            "json", (JSON_PAGE,), JSON, root_json_head(serial),
            lambda entry: root_json_entry(entry[0], entry[2]), lambda: root_json(entries(ledger), serial),
        ),
    )  # fmt: skip


def _stage(tree: Tree, ledger: Ledger, page: _Page, changed: list[tuple[str, bool]] | None) -> list[Placement]:
    """The page as a whole, or with what ``changed`` put into the one that is there, if that is the one we wrote."""
    if changed is not None and _identity(tree, page) == ledger.get(f"root_{page.form}_file"):
        shown = ledger.root_entries(name for name, _ in changed)
        changes = [(name, page.entry(shown[name]) if name in shown else None) for name, _ in changed]
        try:
            return _stage_as(tree, page, splice(_read(tree, page.path), page.splicing, page.head, changes))
        except Unspliceable as error:
            log.debug("root: %s is rendered as a whole: %s", page.form, error)
    return _stage_as(tree, page, page.whole())


def _stage_as(tree: Tree, page: _Page, body: Iterable[bytes]) -> list[Placement]:
    return tree.stage_html(body, _ROOT) if page.form == "html" else [tree.stage(body, page.path)]


def _read(tree: Tree, path: str) -> Iterator[bytes]:
    file = tree.disk.append(path)
    try:
        yield from file.read_all()
    finally:
        file.close()


def _identity(tree: Tree, page: _Page) -> str | None:
    """Tells whether the page is still the very file that was written."""
    found = tree.disk.stat(page.path)
    return f"{found.inode}:{found.size}:{found.mtime_ns}" if found else None


def _pack(tree: Tree, page: _Page, staged: str | None) -> list[Placement]:
    """A copy, gzipped, of a page that is ``staged`` or in place, unless it is there already.

    It has the time of its page, which so tells whether it is its copy, and the same bytes whenever it is made.
    """
    source = tree.disk.stat(staged or page.path)
    known = tree.disk.stat(f"{page.path}.gz")
    if source is None or (staged is None and known is not None and known.mtime_ns == source.mtime_ns):
        return []
    first = tree.stage(_gzipped(_read(tree, staged or page.path)), f"{page.path}.gz")
    tree.disk.set_mtime(first.staged, source.mtime_ns)
    placements = [first]
    for name in page.names[1:]:
        tree.disk.link(first.staged, f"{first.staged}-{name}")
        placements.append(Placement(f"{first.staged}-{name}", f"{_ROOT}/{name}.gz"))
    return placements


def _gzipped(body: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_PACKING, wbits=16 + zlib.MAX_WBITS)
    for piece in body:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _unpack(tree: Tree) -> None:
    """Copies that are not wanted any more would soon be older than their pages."""
    for name in (*HTML_PAGES, JSON_PAGE):
        if tree.disk.stat(f"{_ROOT}/{name}.gz"):
            tree.disk.unlink(f"{_ROOT}/{name}.gz")


def write_small(tree: Tree, path: str, text: str) -> bool:
    """Replace a small text file, durably, if it differs; True when it did."""
    body = text.encode("ascii")
    if b"".join(tree.disk.pieces(path)) == body:
        return False
    if tree.disk.stat(path) is not None and not tree.has_file(path):
        from heliostat.mirror.segments import clear_place

        clear_place(tree, path)
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
