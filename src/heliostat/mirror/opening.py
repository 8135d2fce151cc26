"""What is made sure of before a mirror is used: its directories, its ledger, and what an earlier process left.

Everything here blocks, and belongs to the keeper's thread once that is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

from heliostat.errors import StateError, StoreError
from heliostat.mirror import denials
from heliostat.model import ProjectName
from heliostat.names import page_directory
from heliostat.state.database import owner_of
from heliostat.state.ledger import Ledger
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)


def refuse_missing_tree(tree: Tree, ledger: Ledger) -> None:
    """A ledger that knows projects over a tree that has none of them: most likely a disk is not mounted."""
    known = [ProjectName(name) for _, name, _ in ledger.published_names(limit=3)]
    if known and not any(tree.disk.names(page_directory(name)) for name in known):
        raise StoreError(
            "find the mirror in",
            tree.disk.root,
            f"the ledger knows {ledger.published_count()} projects, but not one page is there; is the disk mounted? "
            "If they are lost, 'heliostat rebuild' starts over from what is there",
        )


def agree_on_denied(tree: Tree, ledger: Ledger) -> None:
    """A new ledger learns what was denied; otherwise it is the ledger that counts."""
    if ledger.get("rebuilding"):
        denials.recall_denied(tree, ledger)
    denials.note_denied(tree, ledger)


def refuse_half_adopted(ledger: Ledger) -> None:
    """Raises StateError while an adoption is under way."""
    if ledger.get("adopting") is not None:
        raise StateError(f"{ledger.path}: an adoption was begun and is not finished; 'heliostat adopt' goes on with it")


def reap_leftovers(tree: Tree, ledger: Ledger) -> None:
    """Carry out what an earlier process had still to remove."""
    if ledger.paths.of_kind("doomed", limit=1):
        from heliostat.mirror.doomed import Reaper

        Reaper(tree, ledger).reap_leftovers()


def open_ledger(path: str, *, salvage: bool) -> Ledger:
    """The ledger; with ``salvage`` one that cannot be used is moved aside, and a new one begun.  Raises StateError."""
    try:
        ledger = Ledger(path)
        if salvage:
            ledger.check()
        return ledger
    except StateError as error:
        if not salvage or not os.path.exists(path):
            raise
        aside = f"{path}.unusable-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        log.warning("%s; moving it aside to %s", error, aside)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path + suffix, aside + suffix)
        return Ledger(path)


def begin_ledger(tree: Tree, ledger: Ledger) -> None:
    """A ledger over a tree without pages: it tells everything, also of the files, unless somebody has brought some."""
    ledger.put(rebuilding=None, changes_whole=1, tree_began_empty=None if tree.disk.names("web/packages") else 1)


def check_directory(path: str) -> None:
    """Raises StoreError for a mirror's directory that is not there, or not to be entered."""
    try:
        os.stat(f"{path}/.")
    except FileNotFoundError:
        raise StoreError("open", path, "no such directory; make it, writable for this user") from None
    except PermissionError as error:
        raise StoreError("open", path, f"{error.strerror}; run this as {owner_of(path)}") from error
    except OSError as error:
        raise StoreError("open", path, error.strerror or str(error)) from error


def make_state_directory(state: str) -> None:
    """Raises StoreError."""
    try:
        os.makedirs(state, exist_ok=True)
    except OSError as error:
        raise StoreError("make directory", state, error.strerror or str(error)) from error


def is_populated(tree: Tree) -> bool:
    """Whether there is anything that a ledger should know."""
    return bool(tree.disk.names("web/simple") or tree.disk.names("web/json"))
