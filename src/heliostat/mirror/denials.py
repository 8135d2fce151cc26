"""The deny-list takes effect: what is denied goes, what is not any more is looked for.

What the configuration says is copied into the ledger, where all can read it; what ``heliostat delete`` adds stands in
the ledger, and in the file ``denied`` as well, so that it outlives a lost ledger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time

from heliostat.config import Config
from heliostat.errors import Refused
from heliostat.mirror.places import DATABASE, state_directory
from heliostat.mirror.removals import Removal
from heliostat.mirror.rules import DENIED, Rules, configured_denials
from heliostat.model import ProjectName
from heliostat.policy.denials import Entry, parse_entry
from heliostat.state.database import explained, open_readonly
from heliostat.state.ledger import Ledger
from heliostat.state.queries import Queries
from heliostat.state.rows import Denied
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

FILE = "denied"


def take_denials(ledger: Ledger, config: Config, rules: Rules, now: float) -> None:
    """Make the ledger follow ``[mirror] deny`` and ``[removal]``, if they changed; belongs to the keeper's thread."""
    known = {Entry(ProjectName(row.project), row.version): row for row in ledger.denied() if row.origin != "operator"}
    wanted = set(configured_denials(config))
    added, gone = wanted - known.keys(), known.keys() - wanted
    if added or gone:
        with ledger.transaction():
            ledger.denials.deny(
                Denied(entry.project, entry.version, "configuration", now, DENIED) for entry in sorted(added)
            )
            ledger.denials.allow(known[entry] for entry in gone)
            for entry in sorted(added):
                denied(ledger, entry, now)
            for entry in sorted(gone):
                allowed(ledger, rules, entry, now)
    if ledger.get("removal") != rules.removal.fingerprint:
        with ledger.transaction():
            if ledger.get("removal") is not None:
                ledger.schedule.doubt_retained(now)
            ledger.put(removal=rules.removal.fingerprint)


def denied(ledger: Ledger, entry: Entry, now: float) -> None:
    """What is in the ledger of it is followed no more, or is to be shown without that release."""
    if not entry.version:
        ledger.unname(entry.project)
        return
    row = ledger.row(entry.project)
    if row is not None and row.published:
        ledger.intake.want(row.display, row.name, now, named=row.named, why="policy")


def allowed(ledger: Ledger, rules: Rules, entry: Entry, now: float) -> None:
    """It is wanted again, as far as the scope goes."""
    name = entry.project
    row = ledger.row(name)
    if entry.version:
        if row is not None and row.published:
            ledger.intake.want(row.display, name, now, named=row.named, why="policy")
    elif name in rules.scope:
        ledger.intake.want(row.display if row else name, name, now, named=False, why="new")


def leaving_denied(ledger: Ledger, rules: Rules) -> list[Removal]:
    """The removals of denied projects that the tree still shows; what an operator deleted needs no approval."""
    found = []
    for row in ledger.denied_projects():
        reason = rules.why_denied(row.name, None)
        if reason is not None:
            found.append(Removal(row, reason, "excluded", approved=Entry(row.name) in rules.reasons))
    return found


def refuse_denied(rules: Rules, name: ProjectName, raw: str) -> None:
    """Raises Refused for a project that is denied."""
    reason = rules.why_denied(name, None)
    if reason is not None:
        way = f"heliostat restore {name}" if Entry(name) in rules.reasons else "take it out of [mirror] deny"
        raise Refused("project", raw, f"it is on the deny-list ({reason}); to have it again: {way}")


def read_denied(config: Config) -> list[Denied]:
    """What is denied, as the configuration says now, and as the ledger says; takes no lock.  Raises StateError."""
    now = time.time()
    rows = [Denied(one.project, one.version, "configuration", now, DENIED) for one in configured_denials(config)]
    path = f"{state_directory(config)}/{DATABASE}"
    if os.path.exists(path):
        with explained(path), contextlib.closing(open_readonly(path)) as connection:
            rows += [row for row in Queries(connection).denied() if row.origin == "operator"]
    return sorted(rows, key=lambda row: (row.project, row.version, row.origin))


# -- the file --------------------------------------------------------------------------------------------------


def note_denied(tree: Tree, ledger: Ledger) -> None:
    """Write the file anew, durably, if it is not what the ledger says."""
    rows = [row for row in ledger.denied() if row.origin == "operator"]
    body = "".join(_line(row) for row in rows).encode("ascii")
    if (tree.disk.read(FILE) or b"") == body:
        return
    if body:
        staged = tree.stage([body], FILE)
        tree.disk.sync()
        tree.show([staged])
    else:
        tree.disk.unlink(FILE)
    tree.disk.sync()


def recall_denied(tree: Tree, ledger: Ledger) -> None:
    """A new ledger learns from the file what was denied; a line that cannot be read is left out, with a warning."""
    rows = []
    for number, line in enumerate((tree.disk.read(FILE) or b"").splitlines(), 1):
        try:
            said = json.loads(line)
            entry = parse_entry(said["entry"])
            at, reason, purge = float(said["at"]), str(said["reason"]), bool(said.get("purge"))
            rows.append(Denied(entry.project, entry.version, "operator", at, reason, purge))
        except (ValueError, KeyError, TypeError, Refused) as error:
            log.warning("%s/%s:%d: left out: %s", tree.disk.root, FILE, number, error)
    if rows:
        with ledger.transaction():
            ledger.denials.deny(rows)


def _line(row: Denied) -> str:
    said = {"entry": row.entry, "at": row.at, "reason": row.reason}
    return json.dumps(said | ({"purge": True} if row.purge else {})) + "\n"
