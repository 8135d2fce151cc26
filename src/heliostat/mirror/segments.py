"""The static change feed below ``web/changes/``, written from the ledger's changelog.

Rows are appended to the open segment and made durable; then the head, which says how many bytes count, is replaced.
What a kill or a power cut leaves behind those bytes is nobody's: the segment is then written anew up to there, under
another name first, before anything is appended.  A segment that is full is never written again, unless it is mended.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import msgspec

from heliostat.errors import Invalid
from heliostat.mirror.places import DAMAGED
from heliostat.pages.changes import (
    FOLDER,
    HEAD,
    KEPT,
    MOST_HEAD,
    SEGMENT_ROWS,
    Head,
    head_bytes,
    parse_head,
    row_bytes,
    segment_name,
    segment_start,
)
from heliostat.state.ledger import Ledger
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

#: Rows in memory at once.
_AT_ONCE = 500


def write_changes(tree: Tree, ledger: Ledger, *, anew: bool = False) -> bool:
    """Bring the feed up to the changelog and the checkpoint; True when something was written.

    All that the changelog tells must be durable in the tree already.  ``anew``: what is there is not to be trusted.
    Belongs to the keeper's thread.
    """
    head, last = read_head(tree), ledger.changelog.last
    mine = ledger.get("changes_id")
    known = (
        head is not None
        and not anew
        and head.mirror == mine
        and ledger.changelog.first - 1 <= head.number <= last
        and _is_whole(tree, head)
    )
    serial = _serial(ledger, head if known else None, last)
    if known and head is not None and (head.number, head.serial, head.listed) == (last, serial, _listed(ledger, last)):
        return False
    if head is None or not known:
        head = _begin(tree, ledger, serial)
    _remove_strays(tree, head)
    while True:
        # The checkpoint counts once the last row is there.
        head = _extend(tree, ledger, head, serial if last <= _end(head) else head.serial)
        if head.number >= last:
            break
    _forget_old(tree, ledger, head)
    return True


def read_head(tree: Tree) -> Head | None:
    """The head that is there, or None when there is none that makes sense."""
    found = tree.disk.stat(f"{FOLDER}/{HEAD}")
    if found is None or found.is_directory or not 0 < found.size <= MOST_HEAD:
        return None
    try:
        return parse_head(tree.disk.read(f"{FOLDER}/{HEAD}") or b"", url=f"{FOLDER}/{HEAD}")
    except Invalid as error:
        log.warning("%s; the change feed begins anew", error)
        return None


def _is_whole(tree: Tree, head: Head) -> bool:
    found = tree.disk.stat(f"{FOLDER}/{head.segment}")
    return not head.size or (found is not None and not found.is_directory and found.size >= head.size)


def _serial(ledger: Ledger, head: Head | None, last: int) -> int:
    """The root list's serial; where only pages tell one, they are asked when there are new rows alone."""
    if head is not None and head.number == last and not ledger.cursor:
        return head.serial
    return max(ledger.root_serial(), head.serial if head else 0)


def _listed(ledger: Ledger, number: int) -> int:
    """Up to which row, at most ``number``, the root list tells the same."""
    return min(number, int(ledger.get("root_number") or 0))


def _end(head: Head) -> int:
    """The last row that the next step can write: a step ends with its segment."""
    return segment_start(head.number + 1) + SEGMENT_ROWS - 1


def _begin(tree: Tree, ledger: Ledger, serial: int) -> Head:
    """A feed that has nothing to do with what was there: numbers go on, under another identity."""
    mirror = secrets.token_hex(16)
    ledger.put(changes_id=mirror)
    first = ledger.changelog.first
    head = Head(
        mirror=mirror, serial=serial, number=first - 1, first=first, listed=_listed(ledger, first - 1),
        segment=segment_name(first), size=0,
    )  # fmt: skip
    log.debug("changes: beginning anew at row %d", first)
    _show(tree, head)
    return head


def _extend(tree: Tree, ledger: Ledger, head: Head, serial: int) -> Head:
    """Append the rows of one segment, as far as there are any."""
    start = segment_start(head.number + 1)
    path = f"{FOLDER}/{segment_name(start)}"
    number, size = head.number, head.size if start == head.start else 0
    log.debug("changes: appending to %s", path)
    _cut(tree, path, size)
    file = None
    try:
        while rows := ledger.changelog.after(number, min(_AT_ONCE, start + SEGMENT_ROWS - 1 - number)):
            if file is None:
                rows[0] = msgspec.structs.replace(rows[0], complete=_before(ledger, head))
            body = b"".join(map(row_bytes, rows))
            file = file or tree.disk.append(path)
            file.write(body)
            number, size = rows[-1].number, size + len(body)
    finally:
        if file is not None:
            file.close()
    name = segment_name(max(number, head.first))
    head = msgspec.structs.replace(
        head, serial=serial, number=number, listed=_listed(ledger, number),
        segment=name, size=size if file else head.size,
    )  # fmt: skip
    _show(tree, head)
    return head


def _before(ledger: Ledger, head: Head) -> int:
    """What the mirror stated before the row that follows ``head``; nothing, if rows tell of all that it ever had."""
    return 0 if head.number == 0 and ledger.get("changes_whole") else head.serial


def _cut(tree: Tree, path: str, size: int) -> None:
    """Have exactly ``size`` bytes at ``path``: more of them were written when a kill came, and never counted."""
    found = tree.disk.stat(path)
    if found is None or (size and found.size == size):
        return
    if not size:
        clear_place(tree, path)
        tree.disk.unlink(path)
        return
    staged = tree.stage(_beginning(tree, path, size), path)
    tree.disk.sync()
    tree.show([staged])
    tree.disk.sync()


def _beginning(tree: Tree, path: str, size: int) -> Iterator[bytes]:
    file = tree.disk.append(path)
    try:
        for piece in file.read_all():
            yield piece[:size]
            size -= len(piece)
            if size <= 0:
                return
    finally:
        file.close()


def clear_place(tree: Tree, path: str) -> None:
    """A directory that lies where one of our files belongs is moved aside."""
    found = tree.disk.stat(path)
    if found is not None and found.is_directory and not tree.disk.remove_directory(path):
        aside = f"{DAMAGED}/{path.removeprefix('web/')}"
        log.warning("%s: a directory, where a file of ours belongs; moved to %s", path, aside)
        tree.disk.replace(path, aside)


def _show(tree: Tree, head: Head) -> None:
    clear_place(tree, f"{FOLDER}/{HEAD}")
    staged = tree.stage(head_bytes(head), f"{FOLDER}/{HEAD}")
    tree.disk.sync()
    log.debug("changes: showing the head")
    tree.show([staged])
    tree.disk.sync()


def _remove_strays(tree: Tree, head: Head) -> None:
    """Segments that the head does not account for: of a feed that was begun anew, or too old."""
    oldest, newest = segment_name(head.first), segment_name(head.number + 1)
    for name in tree.disk.names(FOLDER):
        path = f"{FOLDER}/{name}"
        found = tree.disk.stat(path)
        if name != HEAD and not oldest <= name <= newest and found is not None and not found.is_directory:
            tree.disk.unlink(path)


def _forget_old(tree: Tree, ledger: Ledger, head: Head) -> None:
    """Segments beyond those that are kept go, once no head names them; the ledger keeps the rows of one full one."""
    oldest = head.start - KEPT * SEGMENT_ROWS
    if oldest > head.first:
        _show(tree, msgspec.structs.replace(head, first=oldest))
        _remove_strays(tree, msgspec.structs.replace(head, first=oldest))
    if ledger.changelog.first <= head.start - SEGMENT_ROWS - 1:
        with ledger.transaction():
            ledger.changelog.prune(head.start - SEGMENT_ROWS - 1)
