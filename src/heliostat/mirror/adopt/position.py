"""How far an adoption is, as the ledger remembers it."""

from __future__ import annotations

import os
from typing import cast

import msgspec

from heliostat.errors import ConfigError
from heliostat.mirror.adopt.layouts import Layout, Tool
from heliostat.mirror.adopt.plans import Plan
from heliostat.mirror.adopt.report import Record, Result
from heliostat.state.ledger import Ledger

#: What the ledger remembers while an adoption is under way, and for good.
UNDER_WAY, DONE = "adopting", "adopted"


class Intention(msgspec.Struct, kw_only=True):
    """What goes once a project's pages do not name it any more; afterwards nothing else would tell."""

    aside: list[str] = []
    leftovers: list[str] = []
    doomed: list[str] = []

    def also(self, plan: Plan) -> Intention:
        """This, and what ``plan`` says."""
        return Intention(
            aside=list(dict.fromkeys([*self.aside, *plan.aside])),
            leftovers=list(dict.fromkeys([*self.leftovers, *plan.leftovers])),
            doomed=list(dict.fromkeys([*self.doomed, *plan.doomed])),
        )


class Position(msgspec.Struct, kw_only=True):
    """How far an adoption is."""

    tool: str
    check: str
    top: bool
    #: The last project of the last batch.
    after: str = ""
    #: Bytes of the record that are about what is done.
    recorded: int = 0
    #: Of the projects of the batch under way.
    intentions: dict[str, Intention] = {}
    result: Result


def begun(ledger: Ledger) -> Layout | None:
    """The layout of an adoption that was interrupted: some of what it was recognised by may be gone."""
    before = ledger.get(UNDER_WAY)
    if before is None:
        return None
    position = msgspec.json.decode(before, type=Position)
    return Layout(cast(Tool, position.tool), position.top)


def earlier(ledger: Ledger, path: str) -> tuple[Result, Record] | None:
    """What an adoption that is finished came to; None when this ledger is still to be filled by one.

    Raises ConfigError for the ledger of a mirror that was never adopted.
    """
    if (done := ledger.get(DONE)) is not None:
        position = msgspec.json.decode(done, type=Position)
        position.result.already = True
        return position.result, Record(path if os.path.exists(path) else None, position.recorded, new=False)
    if ledger.get(UNDER_WAY) is None and not ledger.get("rebuilding"):
        problem = "there is a ledger already, so this is a heliostat mirror; to adopt the tree all the same"
        raise ConfigError([f"{ledger.path}: {problem}, move the ledger away first"])
    return None
