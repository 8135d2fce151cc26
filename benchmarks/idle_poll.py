"""A poll that finds nothing new: as a process, in a process that holds the mirror open, on the wire and on the disk.

    python benchmarks/idle_poll.py [--projects 2000] [--turns 7] [--directory /dev/shm]
    python benchmarks/idle_poll.py --projects 200000 --shadowmire CHECKOUT

The mirror is prepared: its ledger knows all projects as published, three of them are mirrored for real.  As a process
it is ``heliostat mirror --once`` beside what an interpreter needs to import its HTTP library; ``--version`` and
``status`` stand beside an interpreter that does nothing.  bandersnatch and shadowmire poll the same upstream with the
state that they would have; both read the list of all projects.  Bytes on the wire are of both directions, headers
included, counted by a forwarder in runs of their own.  The real daemon, with its endpoint, polls each second for a
while: a request of it is a poll.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contest import contest_options
from contestants import heliostat, heliostat_config
from following import following
from footprint import changed_paths, snapshot
from harness import Run, mirror_directory, resident, settle, successful, timed, upstream
from held_open import held_open
from peers import SHADOWMIRE_ENV, bandersnatch, bandersnatch_run, shadowmire, shadowmire_run
from prepared import first_names, follow, prepared_bandersnatch, prepared_heliostat, prepared_shadowmire
from syscalls import system_calls
from tables import machine, ratios, spread, table
from wire import Wire, counted

from heliostat.fakeindex.control import Control

_WRITES = "write,pwrite64,rename,renameat,renameat2,fsync,fdatasync,syncfs,mkdir,unlink,unlinkat,utimensat,ftruncate"
_POLL = "heliostat mirror --once"
_DAEMON = "heliostat mirror, as a daemon"
#: Scrapes whose CPU time is measured together, since a clock tick is more than one takes.
_SCRAPES = 200


@dataclass(frozen=True)
class _Command:
    title: str
    #: Its words, given the URL of upstream.
    words: Callable[[str], Sequence[str]]
    #: The row that it is compared with.
    beside: str = ""
    polls: bool = False
    env: dict[str, str] = field(default_factory=dict)


def main() -> None:
    options = _options()
    versions: list[str] = []
    with upstream("--projects", str(options.projects), warm=False) as url, mirror_directory(options.directory) as place:
        config = heliostat_config(url, place)
        prepared_heliostat(url, config, place, first_names(url, 3))
        with mirror_directory(options.directory) as one, mirror_directory(options.directory) as two:
            commands = [*_own(place), *_peers(options, url, one, two, versions)]
            runs = _alternate(commands, url, options.turns)
            with counted(url) as wire:
                follow(place, wire.url)
                seen = {one.title: _on_the_wire(one, url, wire) for one in commands if one.polls}
                follow(place, url)
        config = heliostat_config(url, place)
        successful(timed(heliostat(config)), _POLL)  # the ledger was just told another address
        calls = system_calls(heliostat(config), only=_WRITES)
        before = snapshot(place)
        successful(timed(heliostat(config)), _POLL)
        written = _files(changed_paths(before, snapshot(place)))
        held, held_written = _held(config, place, options.polls)
        daemon, daemon_written = _daemon(url, place, options.daemon_seconds)
    print(f"{options.projects} projects, nothing changed, {options.turns} turns")
    print(", ".join([machine(), *versions]) + "\n")
    print(_processes(commands, runs, seen) + "\n")
    print(held + "\n")
    print(daemon + "\n")
    listed = ", ".join(f"{count} {name}" for name, count in (calls or {}).items()) if calls is not None else "no strace"
    print(
        table(
            [
                ["", "files changed by polls"],
                [_POLL, written],
                ["mirror held open", held_written],
                [_DAEMON, daemon_written],
            ]
        )
    )
    print(f"\nSystem calls that may write, of the process with its ledger, lock and output: {listed or 'none'}")


def _options() -> argparse.Namespace:
    parser = contest_options(__doc__, ["bandersnatch"])
    parser.add_argument("--projects", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--daemon-seconds", type=float, default=60, help="of the daemon (%(default)s)")
    parser.add_argument("--polls", type=int, default=200, help="while the mirror is held open (%(default)s)")
    return parser.parse_args()


def _own(place: str) -> list[_Command]:
    python = sys.executable
    nothing, http = "python -c pass", "python -c 'import aiohttp'"
    return [
        _Command(nothing, lambda _: [python, "-c", "pass"]),
        _Command("heliostat --version", lambda _: [python, "-m", "heliostat", "--version"], nothing),
        _Command("heliostat status", lambda url: heliostat(heliostat_config(url, place), "status"), nothing),
        _Command(http, lambda _: [python, "-c", "import aiohttp"]),
        _Command(_POLL, lambda url: heliostat(heliostat_config(url, place)), http, polls=True),
    ]


def _peers(options: argparse.Namespace, url: str, one: str, two: str, versions: list[str]) -> list[_Command]:
    found, names = [], first_names(url, 3)
    if "bandersnatch" not in options.without:
        peer, version = bandersnatch()
        versions.append(f"bandersnatch {version}")
        prepared_bandersnatch(peer, url, one, names)
        found.append(_Command("bandersnatch mirror", lambda url: bandersnatch_run(peer, url, one), _POLL, polls=True))
    if options.shadowmire:
        python, version = shadowmire(options.shadowmire)
        versions.append(f"shadowmire {version}")
        prepared_shadowmire(python, url, two, names)
        words = lambda url: shadowmire_run(python, url, two)  # noqa: E731
        found.append(_Command("shadowmire sync", words, _POLL, polls=True, env=SHADOWMIRE_ENV))
    return found


def _alternate(commands: Sequence[_Command], url: str, turns: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {one.title: [] for one in commands}
    for number in range(-1, turns):  # the first turn only fills caches
        for one in commands[:: -1 if number % 2 else 1]:
            words = one.words(url)
            settle()
            run = successful(timed(words, env=one.env), one.title)
            if number >= 0:
                runs[one.title].append(run)
    return runs


def _on_the_wire(command: _Command, url: str, wire: Wire) -> tuple[int, int]:
    """Requests of one poll, and bytes of both directions."""
    control = Control(url)
    before = control.state()["requests"]
    wire.reset()
    successful(timed(command.words(wire.url), env=command.env), command.title)
    return control.state()["requests"] - before, wire.sent + wire.received


def _processes(commands: Sequence[_Command], runs: dict[str, list[Run]], seen: dict[str, tuple[int, int]]) -> str:
    rows = [["process", "wall s", "CPU s", "peak MiB", "wall ratio", "CPU ratio", "to", "requests", "wire bytes"]]
    for one in commands:
        mine, beside = runs[one.title], runs.get(one.beside)
        requests, size = seen.get(one.title, ("", ""))
        rows.append(
            [
                one.title,
                spread([run.wall for run in mine], 3),
                spread([run.cpu for run in mine], 3),
                spread([run.memory for run in mine], 0),
                ratios([run.wall for run in mine], [run.wall for run in beside]) if beside else "",
                ratios([run.cpu for run in mine], [run.cpu for run in beside]) if beside else "",
                one.beside,
                str(requests),
                str(size),
            ]
        )
    return table(rows)


def _held(config: str, place: str, polls: int) -> tuple[str, str]:
    """A table of what a poll costs while the mirror is held open, and the files that polls changed."""
    with held_open(config) as mirror:
        mirror.run_pass()
        before = snapshot(place)
        found = [mirror.run_pass() for _ in range(polls)]
        changed = changed_paths(before, snapshot(place))
        memory = resident(mirror.pid)
    rows = [
        ["mirror held open", "CPU ms", "wall ms", "requests", "bytes to storage", "resident MiB"],
        [
            f"poll, {polls} times",
            spread([1000 * one["cpu"] for one in found]),
            spread([1000 * one["wall"] for one in found]),
            f"{statistics.mean(one['requests'] for one in found):.2f}",
            str(sum(one["written"] for one in found)),
            f"{memory:.0f}",
        ],
    ]
    return table(rows), _files(changed)


def _daemon(url: str, place: str, seconds: float) -> tuple[str, str]:
    """A table of what the real daemon costs while it polls each second, through the counting forwarder."""
    address = f"{place}.sock"
    with counted(url) as wire:
        follow(place, wire.url)
        config = heliostat_config(
            wire.url, place, mirror={"interval": 1}, service={"listen": f"unix:{address}", "jitter": "0%"}
        )
        with following(config, address) as daemon:
            time.sleep(3)
            before, control = snapshot(place), Control(url)
            wire.reset()
            requests, cpu, begun = control.state()["requests"], daemon.cpu(), time.monotonic()
            time.sleep(seconds)
            spent, took = daemon.cpu() - cpu, time.monotonic() - begun
            polls = max(1, control.state()["requests"] - requests)
            size = (wire.sent + wire.received) / polls
            changed = changed_paths(before, snapshot(place))
            cpu = daemon.cpu()
            for _ in range(_SCRAPES):
                daemon.ask("/metrics")
            scrape = (daemon.cpu() - cpu) / _SCRAPES
            memory = resident(daemon.pid)
        follow(place, url)
    rows = [
        [_DAEMON, "requests", "CPU ms a request", "wire bytes a request", "CPU at a poll a minute", "CPU ms a scrape"],
        [
            f"{took:.0f} s, a poll each second; {memory:.0f} MiB resident",
            str(polls),
            f"{1000 * spent / polls:.2f}",
            f"{size:.0f}",
            f"{100 * spent / polls / 60:.4f}%",
            f"{1000 * scrape:.2f}",
        ],
    ]
    return table(rows), _files(changed)


def _files(paths: Sequence[str]) -> str:
    return ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "") or "none"


if __name__ == "__main__":
    main()
