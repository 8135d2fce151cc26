"""The ledger at 700,000 rows: opened, compared with a new root list of which 10,000 changed, and updated.

    python benchmarks/ledger.py [--projects 700000] [--changed 10000] [--turns 7] [--directory /dev/shm]

Each turn is a fresh process that goes through a pass's own steps: the questions at its beginning, the list read from
its JSON bytes in pieces as they come from a socket, the comparison, the todo list read in pages, and the outcomes
recorded in batches.  No network, no tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator

from fresh import Stages, in_fresh_processes, stage_table
from harness import mirror_directory
from prepared import fill_ledger, made_up, published
from tables import machine

from heliostat.mirror.places import DATABASE
from heliostat.pages.render import root_json
from heliostat.pages.root_list import RootListParser
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Row

#: Bytes that arrive at once, projects in a page of the todo list, and in one batch of the publisher.
_PIECE, _PAGE, _BATCH = 1 << 16, 256, 64
_LIST = "list.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=700_000, help="(%(default)s)")
    parser.add_argument("--changed", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--directory", help="where the ledger lies (default: the temporary folder)")
    parser.add_argument("--child", metavar="MIRROR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        follow_list(options.child)
        return
    with mirror_directory(options.directory) as place:
        prepare(place, options.projects, options.changed)
        found = in_fresh_processes(__file__, [place], options.turns)
        size = os.path.getsize(os.path.join(place, DATABASE))
    for one in found:
        one["sum s"] = sum(value for name, value in one.items() if name.endswith(" s"))
    where = options.directory or "the temporary folder"
    print(f"ledger of {options.projects} rows, {size / 1e6:.0f} MB, {options.turns} turns, in {where}")
    print(machine() + "\n")
    print(stage_table(found))


def prepare(place: str, projects: int, changed: int) -> None:
    """The ledger as it was, and the new list."""
    path = os.path.join(place, DATABASE)
    known = made_up(projects)
    ledger = Ledger(path)
    fill_ledger(ledger, known, known[-1][1])
    ledger.close()
    os.replace(path, f"{path}.before")
    head, step = known[-1][1], max(1, projects // changed)
    newer = set(range(0, step * changed, step))
    entries = (
        (name, name, serial + head if number in newer else serial) for number, (name, serial) in enumerate(known)
    )
    with open(os.path.join(place, _LIST), "wb") as file:
        file.writelines(root_json(entries, 2 * head))


def follow_list(place: str) -> None:
    """One turn, in a process of its own."""
    path = os.path.join(place, DATABASE)
    shutil.copyfile(f"{path}.before", path)
    stages, scope, now = Stages(), Scope(everything=True, names=frozenset()), time.time()
    ledger = stages("open", lambda: Ledger(path, create=False))
    stages("ask", lambda: (ledger.facts(), ledger.states(), ledger.published_count(), ledger.checkpoint()))
    serial = stages("read list", lambda: _read_list(ledger, os.path.join(place, _LIST), scope))
    difference = stages("compare", lambda: ledger.root_list.finish(serial, now, everything=False))
    rows = stages("todo list", lambda: list(_due(ledger, now)))
    stages("record", lambda: _record(ledger, rows))
    stages("close", ledger.close)
    stages.report(listed=difference.listed, changed=difference.changed, recorded=len(rows))


def _read_list(ledger: Ledger, path: str, scope: Scope) -> int:
    parser = RootListParser(path)
    ledger.root_list.begin()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            ledger.root_list.add(parser.feed(piece), scope.__contains__)
    return parser.close() or 0


def _due(ledger: Ledger, now: float) -> Iterator[Row]:
    after = (-1.0, "")
    while rows := ledger.due(now, after, _PAGE):
        yield from rows
        after = (rows[-1].due_at or 0.0, rows[-1].name)


def _record(ledger: Ledger, rows: list[Row]) -> None:
    now = time.time()
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        ledger.record([published(row.name, row.display, row.wanted_serial, now) for row in batch])


if __name__ == "__main__":
    main()
