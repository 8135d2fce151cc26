"""What must stay cheap with very many known projects: polls, small changes, the root index, a whole list.

    python benchmarks/scale.py [--projects 700000] [--small 700] [--runs 7] [--directory /dev/shm]

Upstream is the fake index on loopback.  The mirror is not synced first: its ledger and root pages are made up (see
known.py).  Figures of processes are CPU and wall seconds of the whole process, medians with their range.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from harness import Run, heliostat, machine, mirror_directory, spread, table, timed, upstream

from heliostat.fakeindex.control import Control

_CHANGED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=700_000)
    parser.add_argument("--small", type=int, default=700)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    options = parser.parse_args()
    print(f"{options.runs} turns, in {options.directory or 'tmp'}; {machine()}\n")
    rows = [["what", "known projects", "wall s", "CPU s", "peak MiB"]]
    for projects in (options.small, options.projects):
        with mirror_directory(options.directory) as place, _upstream(projects) as url:
            heliostat(url, place)  # for its configuration
            _in_child(f"import known; known.prepare({place!r}, {url!r}, {projects})")
            rows += _measure(place, url, projects, options.runs)
            os.unlink(place + ".toml")
    print(table(rows))


def _upstream(projects: int) -> Any:
    return upstream("--projects", str(projects), "--files", "1", "--size", "2000")


def _measure(place: str, url: str, projects: int, turns: int) -> list[list[str]]:
    command, known = [*heliostat(url, place), "--quiet"], f"{projects:,}"
    polls, imports, changes = [], [], []
    control = Control(url)
    for turn in range(turns):
        before = control.state()
        polls.append(_complete(command))
        after = control.state()
        imports.append(_complete([sys.executable, "-c", "import aiohttp"]))
        _change(control, projects, turn)
        changes.append(_complete(command))
    part = _in_parts(place)
    root, taken, stays = part["root"], part["list"], part["polls"]
    ratios = [one.cpu / other.cpu for one, other in zip(polls, imports, strict=True)]
    asked = after["requests"] - before["requests"]
    return [
        _row("import aiohttp", known, imports),
        _row(f"poll, as a process ({asked} request)", known, polls),
        ["its CPU, times that of the import", known, "", spread(ratios), ""],
        ["poll, in a process that stays", known, "", spread(stays["spent"], 4), f"{stays['memory']:.0f}"],
        _row(f"{_CHANGED} changed projects", known, changes),
        _figures("root index, HTML and JSON, as a whole", known, root["plain"], root["memory"]),
        _figures("the same with gzipped copies", known, root["packed"], root["memory"]),
        _figures(f"list read and compared, {taken['owed']} changed", known, taken["spent"], taken["memory"]),
    ]


def _in_parts(place: str) -> dict[str, Any]:
    script = os.path.join(os.path.dirname(__file__), "known.py")
    return {name: json.loads(timed([sys.executable, script, name, place]).output) for name in ("polls", "root", "list")}


def _in_child(code: str) -> None:
    """What needs much memory must not be done here: a child's peak is never below what its parent had."""
    folder = os.path.dirname(os.path.abspath(__file__))
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def _change(control: Control, projects: int, turn: int) -> None:
    """One new file in each of so many projects, far apart from each other."""
    for number in range(_CHANGED):
        name = f"project-{(number * projects // _CHANGED + turn) % projects:07}"
        filename = f"{name.replace('-', '_')}-2.{turn}.tar.gz"
        control.publish(name, f"2.{turn}", files=[{"filename": filename, "size": 2000, "seed": turn * 1000 + number}])


def _complete(command: list[str]) -> Run:
    run = timed(command)
    if run.code:
        raise SystemExit(f"{command[0]} ended with {run.code}: {run.output[-2000:]}")
    return run


def _row(title: str, known: str, runs: list[Run]) -> list[str]:
    memory = statistics.median(run.memory for run in runs)
    return [title, known, spread([run.wall for run in runs]), spread([run.cpu for run in runs]), f"{memory:.0f}"]


def _figures(title: str, known: str, spent: tuple[float, float], memory: float) -> list[str]:
    return [title, known, f"{spent[0]:.2f}", f"{spent[1]:.2f}", f"{memory:.0f}"]


if __name__ == "__main__":
    main()
