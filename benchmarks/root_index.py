"""The root index of 700,000 projects, written from the ledger, HTML and JSON; then once more with nothing changed.

    python benchmarks/root_index.py [--projects 700000] [--turns 7] [--directory /dev/shm] [--packed]

Each turn is a fresh process that opens a ledger with so many rows and writes the index as a pass does.  "MiB before" is
the process with the ledger open.  The second writing must leave inode, time and size of every page as they are.
"""

from __future__ import annotations

import argparse
import os

from footprint import changed_paths, snapshot, usage
from fresh import Stages, in_fresh_processes, stage_table
from harness import mirror_directory
from prepared import fill_ledger, made_up
from tables import machine

from heliostat.mirror.places import DATABASE
from heliostat.mirror.root import write_root
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=700_000, help="(%(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--directory", help="where the mirror is written (default: the temporary folder)")
    parser.add_argument("--packed", action="store_true", help="gzip beside the pages, as [mirror] gzip-root has it")
    parser.add_argument("--child", metavar="MIRROR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        write(options.child, packed=options.packed)
        return
    with mirror_directory(options.directory) as place:
        ledger = Ledger(os.path.join(place, DATABASE))
        projects = made_up(options.projects)
        fill_ledger(ledger, projects, projects[-1][1])
        ledger.close()
        found = in_fresh_processes(__file__, [place, *(["--packed"] if options.packed else [])], options.turns)
        _, size = usage(os.path.join(place, "web", "simple"))
    where = options.directory or "the temporary folder"
    print(f"root index of {options.projects} projects, {size / 1e6:.1f} MB on disk, {options.turns} turns, in {where}")
    print(machine() + "\n")
    print(stage_table(found))


def write(place: str, *, packed: bool) -> None:
    """One turn, in a process of its own."""
    stages = Stages()
    ledger = Ledger(os.path.join(place, DATABASE), create=False)
    tree = Tree(Disk(place))
    tree.prepare()
    ledger.mark_root(html=True, json=True)
    stages("write", lambda: write_root(tree, ledger, packed=packed))
    before = snapshot(os.path.join(place, "web"))
    again = stages("nothing changed", lambda: write_root(tree, ledger, packed=packed))
    rewritten = len(changed_paths(before, snapshot(os.path.join(place, "web"))))
    ledger.close()
    stages.report(**{"written again": float(again), "files changed by it": float(rewritten)})


if __name__ == "__main__":
    main()
