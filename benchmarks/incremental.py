"""100 changed projects, of few and of very many: what a pass costs must not depend on how many there are.

    python benchmarks/incremental.py [--sizes 700 700000] [--changed 100] [--turns 7] [--directory /dev/shm]

The mirrors are prepared: their state knows all projects as published, but only those that will change (and the first
three) are mirrored for real.  Each change is a new release with one wheel.  "process" is ``heliostat mirror --once``,
which ends with rewriting the root index, as a daemon does every ten minutes; "held open" is a pass of a process that
holds the mirror open, as the daemon is.  bandersnatch and shadowmire meet the same changes, with the state that they
would have; both write their root index too, bandersnatch's from a listing of ``web/simple``, which here holds only the
projects that are there for real: a whole one would cost it more than the table shows.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from contest import contest_options
from contestants import TUNED, heliostat, heliostat_config
from harness import Run, mirror_directory, resident, settle, successful, timed, upstream
from held_open import held_open
from peers import SHADOWMIRE_ENV, bandersnatch, bandersnatch_run, shadowmire, shadowmire_run
from prepared import listed, prepared_bandersnatch, prepared_heliostat, prepared_shadowmire
from tables import machine, ratios, spread, table

from heliostat.fakeindex.control import Control

PROCESS, BANDERSNATCH, SHADOWMIRE = "heliostat process", "bandersnatch", "shadowmire"
_Runs = dict[tuple[str, int], list[Run]]
_Passes = dict[int, list[dict[str, Any]]]


def main() -> None:
    options = _options()
    versions: list[str] = []
    runs: _Runs = {}
    passes: _Passes = {}
    with contextlib.ExitStack() as stack:
        fields = [_Field(size, options, stack, versions) for size in options.sizes]
        for number in range(options.turns):
            for one in fields[:: -1 if number % 2 else 1]:
                one.change()
                for title, words, env in one.commands[:: -1 if number % 2 else 1]:
                    settle()
                    runs.setdefault((title, one.size), []).append(successful(timed(words, env=env), title))
        for one in fields:
            passes[one.size] = one.held_passes(options.turns)
    print(f"{options.changed} changed projects, {options.turns} turns; the mirrors are prepared, not synchronised")
    print(", ".join([machine(), *dict.fromkeys(versions)]) + "\n")
    print(_report(runs, passes, options.sizes))


def _options() -> argparse.Namespace:
    parser = contest_options(__doc__, ["bandersnatch"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[700, 700_000], help="known projects (%(default)s)")
    parser.add_argument("--changed", type=int, default=100, help="(%(default)s)")
    return parser.parse_args()


class _Field:
    """An upstream of ``size`` projects, and everybody's mirror of it."""

    def __init__(
        self, size: int, options: argparse.Namespace, stack: contextlib.ExitStack, versions: list[str]
    ) -> None:
        self.size = size
        self._url = stack.enter_context(upstream("--projects", str(size), warm=False))
        names = sorted(name for name, _ in listed(self._url)[1])
        step = max(1, size // options.changed)
        self._changing = names[: options.changed * step : step]
        real = sorted({*names[:3], *self._changing})
        self._release = 0
        self._place, one, two = (stack.enter_context(mirror_directory(options.directory)) for _ in range(3))
        self._config = heliostat_config(self._url, self._place, TUNED)
        prepared_heliostat(self._url, self._config, self._place, real)
        self.commands: list[tuple[str, Sequence[str], Mapping[str, str]]] = [(PROCESS, heliostat(self._config), {})]
        if "bandersnatch" not in options.without:
            peer, version = bandersnatch()
            versions.append(f"bandersnatch {version}")
            prepared_bandersnatch(peer, self._url, one, real)
            self.commands.append((BANDERSNATCH, bandersnatch_run(peer, self._url, one), {}))
        if options.shadowmire:
            python, version = shadowmire(options.shadowmire)
            versions.append(f"shadowmire {version}")
            prepared_shadowmire(python, self._url, two, real)
            self.commands.append((SHADOWMIRE, shadowmire_run(python, self._url, two), SHADOWMIRE_ENV))

    def change(self) -> None:
        """A new release of each project that changes."""
        self._release += 1
        control, version = Control(self._url), f"2.{self._release}"
        for number, name in enumerate(self._changing):
            filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
            seed = -(self._release * 1_000_000 + number)
            control.publish(name, version, files=[{"filename": filename, "size": 20_000, "seed": seed}])

    def held_passes(self, count: int) -> list[dict[str, Any]]:
        """Figures of passes that each find the same number of changes, by one process."""
        found = []
        with held_open(self._config) as mirror:
            mirror.run_pass()
            for _ in range(count):
                self.change()
                settle()
                one = mirror.run_pass()
                if not one["complete"] or one["updated"] != len(self._changing):
                    raise SystemExit(f"a pass did not find the changes: {one}")
                found.append({**one, "memory": resident(mirror.pid)})
        return found


def _report(runs: _Runs, passes: _Passes, sizes: Sequence[int]) -> str:
    few = sizes[0]
    rows = [["what", "known projects", "wall s", "CPU s", "memory MiB", f"wall / {few}", f"CPU / {few}"]]
    for title in dict.fromkeys(title for title, _ in runs):
        for size in sizes:
            mine, base = runs[title, size], runs[title, few]
            rows.append(
                [
                    title,
                    str(size),
                    spread([run.wall for run in mine]),
                    spread([run.cpu for run in mine]),
                    f"{statistics.median(run.memory for run in mine):.0f}",
                    ratios([run.wall for run in mine], [run.wall for run in base]),
                    ratios([run.cpu for run in mine], [run.cpu for run in base]),
                ]
            )
    for size, found in passes.items():
        wall, cpu = ([one[key] for one in found] for key in ("wall", "cpu"))
        base_wall, base_cpu = ([one[key] for one in passes[few]] for key in ("wall", "cpu"))
        memory = f"{found[-1]['memory']:.0f}"
        row = ["heliostat held open", str(size), spread(wall), spread(cpu), memory]
        rows.append([*row, ratios(wall, base_wall), ratios(cpu, base_cpu)])
    peers = [["ratio", "known projects", "wall", "CPU"]]
    for title in (BANDERSNATCH, SHADOWMIRE):
        for size in sizes:
            if found_runs := runs.get((title, size)):
                own = runs[PROCESS, size]
                wall_ratio = ratios([run.wall for run in found_runs], [run.wall for run in own])
                cpu_ratio = ratios([run.cpu for run in found_runs], [run.cpu for run in own])
                peers.append([f"{title} / {PROCESS}", str(size), wall_ratio, cpu_ratio])
    return table(rows) + ("\n\n" + table(peers) if len(peers) > 1 else "")


if __name__ == "__main__":
    main()
