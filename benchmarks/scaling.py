"""First syncs of 1,000, 10,000 and 100,000 projects with one file each: the cost per project must stay the same.

    python benchmarks/scaling.py [--sizes 1000 10000 100000] [--turns 7] [--directory /dev/shm]

Ratios are to the smallest size of the same turn.  System calls are counted by strace in a run of its own, up to
``--strace-up-to`` projects, since it slows everything down many times over.  The files are small, because their bytes
cost the same everywhere; upstream renders its pages as they are asked for, so wall time is partly its own.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

from contest import Contestant, Turn, take_turns
from contestants import TUNED, heliostat, heliostat_config
from harness import mirror_directory, upstream
from syscalls import system_calls
from tables import machine, ratios, spread, table

_SHOWN = 12


def main() -> None:
    options = _options()
    results: dict[int, list[Turn]] = {size: [] for size in options.sizes}
    calls: dict[int, dict[str, int] | None] = {}
    for turn in range(options.turns):
        for size in options.sizes[:: -1 if turn % 2 else 1]:
            with upstream(*_index(options, size), warm=False) as url:
                one = Contestant("heliostat", partial(_command, url))
                results[size] += take_turns([one], url, turns=1, parent=options.directory)[one.title]
    for size in options.sizes:
        if size <= options.strace_up_to:
            with upstream(*_index(options, size), warm=False) as url, mirror_directory(options.directory) as place:
                calls[size] = system_calls(_command(url, place))
    where = options.directory or "the temporary folder"
    print(f"one file of {options.size} bytes each, {options.turns} turns, in {where}; bounds: {TUNED}")
    print(machine() + "\n")
    print(_report(results, calls) + "\n")
    print(_calls({size: found for size, found in calls.items() if found}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="(%(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=2_000, help="average bytes of a file (%(default)s)")
    parser.add_argument("--sidecars", type=int, default=0, help="of each project's one file (%(default)s)")
    parser.add_argument("--strace-up-to", type=int, default=10_000, metavar="N", help="projects (%(default)s)")
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    return parser.parse_args()


def _index(options: argparse.Namespace, size: int) -> list[str]:
    found = {"projects": size, "files": 1, "sidecars": options.sidecars, "size": options.size}
    return [word for key, value in found.items() for word in (f"--{key}", str(value))]


def _command(url: str, place: str) -> Sequence[str]:
    return heliostat(heliostat_config(url, place, TUNED))


def _report(results: dict[int, list[Turn]], calls: dict[int, dict[str, int] | None]) -> str:
    smallest = min(results)
    head = ["projects", "wall s", "CPU ms / project", "kernel ms / project", "peak MiB"]
    rows = [[*head, f"CPU per project / at {smallest}", "system calls / project"]]
    costs = {size: [turn.run.cpu / size for turn in found] for size, found in results.items()}
    for size, found in results.items():
        runs = [turn.run for turn in found]
        counted = calls.get(size)
        rows.append(
            [
                str(size),
                spread([run.wall for run in runs]),
                spread([1000 * cost for cost in costs[size]]),
                f"{statistics.median(1000 * run.system / size for run in runs):.2f}",
                spread([run.memory for run in runs], 0),
                ratios(costs[size], costs[smallest]),
                f"{sum(counted.values()) / size:.1f}" if counted else "not counted",
            ]
        )
    return table(rows)


def _calls(calls: dict[int, dict[str, int]]) -> str:
    """The most frequent system calls, per project."""
    if not calls:
        return "System calls were not counted."
    largest = calls[max(calls)]
    rows = [["system call, per project", *(f"of {size}" for size in calls)]]
    rows += [
        [name, *(f"{found.get(name, 0) / size:.2f}" for size, found in calls.items())]
        for name in list(largest)[:_SHOWN]
    ]
    return table(rows)


if __name__ == "__main__":
    main()
