"""Removal needs two signs, and an implausible share of removals needs an operator.

The 404 that counts is the Simple page's.  The second sign is a removal event that is the project's last event, or
absence from a complete root list that is at least as new as what the row knows.  Where upstream has neither feed nor
list, two 404s count, far enough apart and in different passes, while another project answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import msgspec

from heliostat import names
from heliostat.errors import PageMissing
from heliostat.mirror import news
from heliostat.model import ProjectName
from heliostat.state.ledger import Ledger
from heliostat.state.rows import CLEARED_WITH_PROJECT, Failed, PathRow, Row, Tombstone
from heliostat.store.beats import got_on
from heliostat.store.tree import JSON_PAGE, Tree

if TYPE_CHECKING:
    from heliostat.mirror.doomed import Reaper

log = logging.getLogger(__name__)

_DAY = 86400.0
#: A sliding day may take this share of the projects and this many, whichever is more...
_SHARE, _COUNT = 0.01, 100
#: ...but never more than half of a mirror of four or more.
_SMALL = 4
#: Projects withdrawn in one step.
_AT_ONCE = 64


class Removal(msgspec.Struct, frozen=True):
    """One project that is to leave the mirror."""

    row: Row
    reason: str
    state: str = "gone"
    #: An operator asked for it: it needs no further approval, and does not count for the day.
    approved: bool = False


class Removals:
    """Collects what is to be removed during a pass; :func:`carry_out` acts at its end."""

    def __init__(
        self, *, pass_number: int, confirm_seconds: float, two_looks: bool, followed: AbstractSet[str] = frozenset()
    ) -> None:
        """``followed``: names that the configuration lists; they are owed also while upstream has no such project."""
        self.confirmed: list[Removal] = []
        #: Names that upstream does not have and we neither.
        self.unknown: list[str] = []
        #: Judged, and not carried out.
        self._waiting: set[str] = set()
        self.pass_number, self._confirm_seconds = pass_number, confirm_seconds
        self._two_looks, self._followed = two_looks, followed
        self._answered: set[str] = set()

    @property
    def waiting(self) -> frozenset[str]:
        """The projects that were judged, and what follows is not carried out yet."""
        return frozenset(self._waiting)

    def waits(self, name: str) -> bool:
        """Whether a project was judged, and what follows from it is not carried out yet."""
        return name in self._waiting

    def settled(self, names: AbstractSet[str]) -> None:
        """What follows for these projects is carried out, or is to be judged anew: they do not wait any more."""
        self.confirmed = [one for one in self.confirmed if one.row.name not in names]
        self.unknown = [name for name in self.unknown if name not in names]
        self._waiting -= names

    def next_round(self, *, two_looks: bool) -> None:
        """Another poll was answered: what answers from now on counts as another look."""
        self.pass_number += 1
        self._two_looks = two_looks
        self._answered.clear()

    def another_answered(self, name: str) -> None:
        """A project's page answered 200: upstream is not simply failing."""
        if len(self._answered) < 2:
            self._answered.add(name)

    def judge(self, row: Row, error: PageMissing, now: float, due_at: float) -> Failed | None:
        """None if the project is to be removed (or was never there); otherwise why its row stays owed."""
        reason = self._second_sign(row, now, stand_in=error.stand_in)
        known = row.published or row.wanted_serial > 0 or row.name in self._followed or error.stand_in
        if reason is None and not known:
            self.unknown.append(row.name)
            self._waiting.add(row.name)
            return None
        if reason is None:
            return self._unconfirmed(row, error, now, due_at)
        self.confirmed.append(Removal(row, reason))
        self._waiting.add(row.name)
        return None

    def confirm(self, row: Row, reason: str) -> None:
        """It is to go: that upstream removed it was found out before."""
        self.confirmed.append(Removal(row, reason))
        self._waiting.add(row.name)

    def reason_for(self, name: str) -> str | None:
        """Why a project is to go; None when it is not."""
        return next((one.reason for one in reversed(self.confirmed) if one.row.name == name), None)

    def _second_sign(self, row: Row, now: float, *, stand_in: bool) -> str | None:
        if row.hint == "removed" and (row.hint_serial or 0) >= row.wanted_serial:
            return f"removed upstream (serial {row.hint_serial})"
        if row.absent_serial is not None and row.absent_serial >= row.wanted_serial:
            return f"404, and absent from the root list of serial {row.absent_serial}"
        if (
            self._two_looks
            and not stand_in  # who stands in for the first source may just not have it yet
            and row.published
            and row.missing_at is not None
            and now - row.missing_at >= self._confirm_seconds
            and row.missing_pass != self.pass_number
            and self._answered - {row.name}
        ):
            return f"404 twice, {now - row.missing_at:.0f} s apart"
        return None

    def _unconfirmed(self, row: Row, error: PageMissing, now: float, due_at: float) -> Failed:
        if row.published:
            reason = f"{error} without a second sign of removal"
            log.warning("%s: %s; not removed on one sign, looking again", row.name, error)
        else:
            reason = f"{error.url}: upstream has no such project (404)"
            log.warning("%s: upstream has no such project (yet)", row.name)
        return Failed(
            name=row.name,
            wanted_serial=row.wanted_serial,
            state="failing",
            error=reason,
            due_at=min(due_at, now + self._confirm_seconds) if self._two_looks else due_at,
            missing_at=None if error.stand_in else now,
            missing_pass=None if error.stand_in else self.pass_number,
        )


def plausible(candidates: int, recent: int, published: int) -> bool:
    """Whether ``candidates`` removals, after ``recent`` ones within a day, may go on without approval.

    ``published`` counts the projects served before any of the candidates goes.
    """
    total = published + recent
    removed = candidates + recent
    if total >= _SMALL and removed * 2 > total:
        return False
    return removed <= _COUNT or removed <= total * _SHARE


def split_by_guard(
    confirmed: list[Removal], *, recent: int, published: int, allowed: int
) -> tuple[list[Removal], list[Removal], frozenset[str]]:
    """(to carry out, to hold, the names of those to carry out that were approved).

    An approval is for those first that waited for it.  Projects that were never published do not count: nothing of
    theirs is served; nor do those that an operator deleted.
    """
    counted = [removal for removal in confirmed if removal.row.published and not removal.approved]
    counted.sort(key=lambda removal: removal.row.state != "held")
    free = [removal for removal in confirmed if not removal.row.published or removal.approved]
    covered = counted[:allowed]
    if plausible(len(counted), recent, published):  # approved all the same, if they were held when they were more
        return confirmed, [], frozenset(one.row.name for one in covered if one.row.state == "held")
    return free + covered, counted[allowed:], frozenset(one.row.name for one in covered)


def begun(tree: Tree, ledger: Ledger, name: str) -> bool:
    """Whether the tree has anything of a project, published or left by a pass that broke off."""
    if name.startswith("!"):  # refused, and never a path
        return False
    shown = (names.page_directory(ProjectName(name)), names.document_path(ProjectName(name)))
    return bool(ledger.paths.incoming(name)) or any(tree.disk.stat(path) for path in shown)


def hold(removals: list[Removal], ledger: Ledger) -> list[Failed]:
    """Ledger outcomes for removals that wait for approval, but for those of which ``ledger`` says so already."""
    outcomes = (
        Failed(
            name=removal.row.name,
            wanted_serial=removal.row.wanted_serial,
            state="held",
            error=f"removal waits for approval: {removal.reason}",
            due_at=None,
        )
        for removal in removals
    )
    return [one for one in outcomes if not _says(ledger.row(one.name), one)]


def _says(row: Row | None, one: Failed) -> bool:
    if row is None:
        return False
    return (row.state, row.error, row.wanted_serial, row.due_at) == (one.state, one.error, one.wanted_serial, None)


def paths_of(tree: Tree, ledger: Ledger, name: ProjectName) -> set[str]:
    """All that goes with a project, unless another one claims it."""
    return {row.path for row in _doomed_of(tree, ledger, name, serial=None, keep=False)}


def _doomed_of(tree: Tree, ledger: Ledger, name: ProjectName, *, serial: int | None, keep: bool) -> list[PathRow]:
    """What goes with a project; ``keep``: what it shows, and what is withheld of it, is only put out of reach."""
    from heliostat.mirror.traces import traces_of

    known = {row.path: row for row in ledger.paths.all_of_project(name) if row.kind in ("doomed", "withheld")}
    shown = traces_of(tree, ledger, name)
    found = []
    for path in sorted(shown | ledger.paths.incoming(name) | known.keys()):
        row = known.get(path)
        if row is not None and path.startswith(PAGES):
            if not keep:  # else newer ones take their place
                found.append(PathRow(path, name, "doomed", "restored", serial))
            continue
        kept = keep and (path in shown or (row is not None and row.fate in ("withhold", "keep")))
        since, version = (row.at, row.version) if row is not None else (None, None)
        found.append(PathRow(path, name, "doomed", "keep" if kept else "unlink", serial, version, since))
    return found


def carry_out(
    tree: Tree,
    ledger: Ledger,
    removals: list[Removal],
    *,
    approved: AbstractSet[str] = frozenset(),
    keeps: Callable[[str], bool] = lambda _name: False,
) -> int:
    """Withdraw projects: pages first, bytes last, a tombstone each; returns how many files went.

    ``approved``: the names of those that do not count for the day.  ``keeps`` says of a name whether its pages and
    bytes are put out of reach instead of being removed.

    Belongs to the keeper's thread.  A kill at any point leaves doomed rows, and the project owed or gone.
    """
    if not removals:
        return 0
    from heliostat.mirror.doomed import Reaper

    files = 0
    reaper = Reaper(tree, ledger)
    for start in range(0, len(removals), _AT_ONCE):
        got_on()
        some = removals[start : start + _AT_ONCE]
        files += _carry_out_some(tree, ledger, reaper, some, approved=approved, keeps=keeps)
    return files


def _carry_out_some(
    tree: Tree,
    ledger: Ledger,
    reaper: Reaper,
    removals: list[Removal],
    *,
    approved: AbstractSet[str],
    keeps: Callable[[str], bool],
) -> int:
    from heliostat.mirror.entries import entry_of_removal

    doomed: list[PathRow] = []
    kept = {one.row.name for one in removals if keeps(one.row.name) and _may_return(ledger, one.row)}
    for removal in removals:
        name = removal.row.name
        doomed += _doomed_of(tree, ledger, name, serial=removal.row.wanted_serial, keep=name in kept)
    pages = [row for one in removals if one.row.name in kept for row in _pages_of(tree, one.row, time.time())]
    with ledger.transaction():
        ledger.paths.add(doomed)
        ledger.paths.add(pages)
    served = {one.row.name for one in removals if one.row.published or begun(tree, ledger, one.row.name)}
    for removal in removals:
        log.debug("removal: withdrawing %s", removal.row.name)
        if removal.row.name in kept:
            _put_aside(tree, removal.row.name)
        tree.withdraw(removal.row.name)
    tree.disk.sync()
    with ledger.transaction():
        for removal in removals:
            row, now = removal.row, time.time()
            serial = max(row.wanted_serial, row.absent_serial or 0)
            stone = Tombstone(
                now, row.name, None, serial, removal.reason, row.name in approved or removal.approved,
                what="withheld" if row.name in kept else "removed",
            )  # fmt: skip
            ledger.forget(row.name, state=removal.state, serial=serial, tombstones=[stone] if row.published else [])
            ledger.paths.arrived([row.name])
            if row.name in served:
                ledger.changelog.write([entry_of_removal(row.name, serial or None)], stone.at)
            ledger.changelog.end([row.name])
            for kind in CLEARED_WITH_PROJECT:
                ledger.paths.clear_project(row.name, kind)
            news.removed(row.name, removal.reason)
        ledger.paths.add(pages)
    log.debug("removal: removing bytes")
    reaper.reap(doomed)
    return len(doomed)


def _may_return(ledger: Ledger, row: Row) -> bool:
    """Whether it was served, or could be again: a restore that failed leaves what it could not show."""
    return row.published or any(one.fate == "keep" for one in ledger.paths.of_project(row.name, "withheld"))


#: Below these lie no files that pages name; what is kept of a removed project lies there as well.
PAGES = ("web/simple/", "web/json/")


def kept_pages(name: ProjectName) -> tuple[str, str]:
    """The page and the document of a project that are kept when it is removed."""
    return f"{names.page_directory(name)}/{JSON_PAGE}", names.document_path(name)


def _pages_of(tree: Tree, row: Row, now: float) -> list[PathRow]:
    """Rows for page and document, wherever they lie now: a kill may have come after they were put aside."""
    return [
        PathRow(path, row.name, "withheld", "keep", row.wanted_serial, None, now)
        for path in kept_pages(row.name)
        if tree.has_file(path) or tree.disk.stat(names.withheld_path(path)) is not None
    ]


def _put_aside(tree: Tree, name: ProjectName) -> None:
    """Move page and document out of reach."""
    for path in kept_pages(name):
        if tree.has_file(path):
            tree.put_away(path, names.withheld_path(path))
