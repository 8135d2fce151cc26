"""Contestants that take turns over the same upstream, each in a fresh directory, and the tables of their figures."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness import Run, mirror_directory, settle, successful, timed
from tables import ratios, spread, table

from heliostat.fakeindex.control import Control


@dataclass(frozen=True)
class Contestant:
    """One row of the table."""

    title: str
    #: The command, given a fresh directory; what it writes beside the directory is removed with it.
    command: Callable[[str], Sequence[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    #: Options of the fake index that hold during its turn.
    conditions: Mapping[str, float] = field(default_factory=dict)
    #: Another exit code than 0 is shown beside the title instead of ending everything.
    may_fail: bool = False


@dataclass(frozen=True)
class Turn:
    """One contestant's run, and what upstream saw of it."""

    run: Run
    requests: int
    #: Of bodies.
    bytes: int
    #: Distribution files that it kept, as far as their names tell.
    files: int


Results = dict[str, list[Turn]]


def take_turns(
    contestants: Sequence[Contestant], url: str, *, turns: int, parent: str | None, keep: bool = False
) -> Results:
    """Everybody once a turn, every other turn in the opposite order; trees are removed outside the timed part.

    ``keep``: at the end only.  ext4 gives no inode away that was freed within the last minutes, and looks at each of
    those whenever it makes a file: whoever comes after a large tree was removed pays for that.
    """
    control = Control(url)
    ordinary = dict.fromkeys((key for one in contestants for key in one.conditions), 0.0)
    results: Results = {one.title: [] for one in contestants}
    with contextlib.ExitStack() as kept:
        for number in range(turns):
            for one in contestants[:: -1 if number % 2 else 1]:
                if ordinary:
                    control.options(**{**ordinary, **one.conditions})
                with contextlib.ExitStack() as own:
                    place = (kept if keep else own).enter_context(mirror_directory(parent))
                    command = one.command(place)
                    settle()
                    before = control.state()
                    run = timed(command, env=one.env)
                    after = control.state()
                    files = kept_files(place)
                if not one.may_fail:
                    successful(run, one.title)
                seen = {key: after[key] - before[key] for key in ("requests", "bytes")}
                results[one.title].append(Turn(run, seen["requests"], seen["bytes"], files))
    if ordinary:
        control.options(**ordinary)
    return results


def kept_files(directory: str) -> int:
    """How many distribution files lie below a ``packages`` folder of ``directory``, sidecars not counted."""
    found = 0
    for folder, _, names in os.walk(directory):
        if f"{os.sep}packages{os.sep}" in f"{folder}{os.sep}":
            found += sum(not name.endswith(".metadata") for name in names)
    return found


def figures(results: Results, megabytes: float | None = None) -> str:
    """A row for each contestant; with ``megabytes``, which everybody had to fetch, also the rate."""
    rows = [["what", "wall s", "CPU s", "kernel s", "peak MiB", "requests", "files"]]
    if megabytes is not None:
        rows[0].append("MB/s")
    for title, turns in results.items():
        runs = [turn.run for turn in turns]
        counts = [turn.files for turn in turns]
        codes = sorted({run.code for run in runs} - {0})
        row = [
            title + (f" (ended with {', '.join(map(str, codes))})" if codes else ""),
            spread([run.wall for run in runs]),
            spread([run.cpu for run in runs]),
            f"{statistics.median(run.system for run in runs):.2f}",
            spread([run.memory for run in runs], 0),
            str(int(statistics.median(turn.requests for turn in turns))),
            "-".join(str(count) for count in sorted({min(counts), max(counts)})),
        ]
        rows.append(row + ([] if megabytes is None else [spread([megabytes / run.wall for run in runs], 0)]))
    return table(rows)


def ratio_table(results: Results, pairs: Sequence[tuple[str, str]]) -> str:
    """Wall and CPU time of one contestant divided by another's; pairs that did not run are left out."""
    rows = [["ratio", "wall", "CPU", "peak memory"]]
    for above, below in pairs:
        if above not in results or below not in results:
            continue
        one, other = ([turn.run for turn in results[title]] for title in (above, below))
        rows.append(
            [
                f"{above} / {below}",
                ratios([run.wall for run in one], [run.wall for run in other]),
                ratios([run.cpu for run in one], [run.cpu for run in other]),
                ratios([run.memory for run in one], [run.memory for run in other]),
            ]
        )
    return table(rows)


def contest_options(description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """What every contest can be told; ``names`` are those of its contestants."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    parser.add_argument("--shadowmire", metavar="CHECKOUT", help="measure shadowmire too, installed from this folder")
    parser.add_argument("--without", nargs="+", default=[], choices=names, help="contestants that stay away")
    return parser
