"""A soak: one process keeps a mirror open and follows an index that changes all the time; does its memory grow?

    python benchmarks/soak.py [--minutes 60] [--changes 2] [--interval 10] [--projects 2000] [--directory /dev/shm]
                              [--daemon [--faults]]

The index is served by this process and changed through its control interface: new releases, yanks, files that go, new
projects.  The resident size is read every ten seconds from ``/proc``; the answer is the size at the end beside the
size after a third.  At the end the mirror must be what upstream is, down to the last byte, which the tests' own
comparison tells (it needs the source tree's ``tests``).

With ``--daemon`` it is the real daemon that follows, poked every ``--interval`` seconds; with ``--faults`` (which needs
``--daemon``) the index often fails as well: it asks for less, breaks off, cuts short, lags, or does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from contestants import TUNED, heliostat, heliostat_config
from following import Following, following
from harness import mirror_directory, resident, successful, timed
from held_open import HeldOpen, held_open
from tables import machine, spread, table

from heliostat.fakeindex import FakeIndex, Index, Options
from heliostat.fakeindex.control import Control
from heliostat.fakeindex.synthetic import many_projects
from heliostat.fakeindex.troubles import TROUBLES

_TESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
_SAMPLE_EVERY = 10.0
#: With ``--faults``: after how many changes something goes wrong.
_FAIL_EVERY = 7


def main() -> None:
    options = _options()
    index = many_projects(options.projects, 2, 1, 20_000)
    with served(index) as url, mirror_directory(options.directory) as place:
        address = f"{place}.sock"
        more = {"stall-timeout": 2, "retry-delay": 0.1} if options.faults else {}
        config = heliostat_config(
            url, place, {**TUNED, **more}, {"interval": 86400}, {"listen": [f"unix:{address}"], "grace": 1}
        )
        successful(timed(heliostat(config)), "the first synchronisation")
        changer, sizes = Changer(Control(url), options.projects, options.seed), Sizes()
        if options.daemon:
            with following(config, address) as daemon:
                passes = _soak_daemon(options, config, daemon, changer, sizes)
        else:
            with held_open(config) as mirror:
                passes = _soak(options, mirror, changer, sizes)
        unequal = _differences(index, place)
    _report(options, changer, sizes, passes, unequal)
    if unequal:
        raise SystemExit("\n".join(["the mirror is not what upstream is:", *unequal[:20]]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="(%(default)s)")
    parser.add_argument("--changes", type=float, default=2, help="each second (%(default)s)")
    parser.add_argument("--interval", type=float, default=10, help="seconds between two passes (%(default)s)")
    parser.add_argument("--projects", type=int, default=2000, help="at the beginning (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what changes (%(default)s)")
    parser.add_argument("--directory", help="where the mirror is written (default: the temporary folder)")
    parser.add_argument("--daemon", action="store_true", help="the real daemon follows")
    parser.add_argument("--faults", action="store_true", help="the index often fails")
    options = parser.parse_args()
    if options.faults and not options.daemon:
        parser.error("--faults needs --daemon")
    return options


class Changer:
    """Changes an index, a little of everything that does not take projects away."""

    def __init__(self, control: Control, projects: int, seed: int) -> None:
        self._control, self._random = control, random.Random(seed)
        self._names = [f"project-{number:07}" for number in range(projects)]
        #: (name, version, file name) of what may be yanked or removed.
        self._releases: list[tuple[str, str, str]] = []
        self.done: Counter[str] = Counter()

    def fail(self) -> None:
        """The next few requests of some kind are answered badly."""
        path, action = self._random.choice(TROUBLES)
        self._control.fault(path, action, times=self._random.randrange(1, 4))

    def recover(self) -> None:
        self._control.clear_faults()

    def change(self) -> None:
        kinds = ["release", "release", "yank", "file removed", "file removed", "new project"]
        kind = self._random.choice(kinds if self._releases else ["release"])
        self.done[kind] += 1
        if kind == "yank":
            name, version, _ = self._random.choice(self._releases)
            self._control("yank", name, version, "a reason")
        elif kind == "file removed":
            at = self._random.randrange(len(self._releases))
            self._control("remove_file", *self._releases.pop(at))
        else:
            self._publish(new=kind == "new project")

    def _publish(self, *, new: bool) -> None:
        number = sum(self.done.values())
        name = f"soaked-{number:07}" if new else self._random.choice(self._names)
        version, stem = f"9.{number}", name.replace("-", "_")
        filename = f"{stem}-{version}-py3-none-any.whl"
        sidecar = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        file = {"filename": filename, "size": 20_000, "seed": -number, "sidecar": sidecar}
        self._control.publish(name, version, files=[file])
        self._releases.append((name, version, filename))
        if new:
            self._names.append(name)


class Sizes:
    """Resident sizes, every so often."""

    def __init__(self) -> None:
        self._started = self._next = 0.0
        self.found: list[tuple[float, float]] = []

    def sample(self, pid: int) -> None:
        now = time.monotonic()
        self._started = self._started or now
        if now >= self._next:
            self.found.append((now - self._started, resident(pid)))
            self._next = now + _SAMPLE_EVERY

    def after(self, share: float) -> float:
        """The size when this share of the time had passed."""
        moment = self.found[-1][0] * share
        return next(size for at, size in self.found if at >= moment)


def _soak(options: argparse.Namespace, mirror: HeldOpen, changer: Changer, sizes: Sizes) -> list[dict[str, float]]:
    """Passes until the time is over, and a last one that also writes the root index."""
    passes = [mirror.run_pass()]
    started = time.monotonic()
    end, next_pass, changed = started + options.minutes * 60, started + options.interval, 0
    while (now := time.monotonic()) < end:
        while changed < (now - started) * options.changes:
            changer.change()
            changed += 1
        if now >= next_pass:
            passes.append(mirror.run_pass())
            next_pass = time.monotonic() + options.interval
        sizes.sample(mirror.pid)
        time.sleep(min(0.5, 1 / options.changes))
    passes.append(mirror.run_pass("final"))
    sizes.found.append((end - started, resident(mirror.pid)))
    return passes


def _soak_daemon(
    options: argparse.Namespace, config: str, daemon: Following, changer: Changer, sizes: Sizes
) -> list[dict[str, float]]:
    """Changes until the time is over, and a last pass, without faults, that tries all that is owed; that pass alone."""
    started = time.monotonic()
    end, next_poke, changed = started + options.minutes * 60, started + options.interval, 0
    while (now := time.monotonic()) < end:
        while changed < (now - started) * options.changes:
            if options.faults and changed % _FAIL_EVERY == 0:
                changer.fail()
            changer.change()
            changed += 1
        if now >= next_poke:
            daemon.poke()
            next_poke = now + options.interval
        sizes.sample(daemon.pid)
        time.sleep(min(0.5, 1 / options.changes))
    changer.recover()
    last = successful(timed(heliostat(config)), "the last pass")
    sizes.found.append((end - started, resident(daemon.pid)))
    summary = json.loads(last.output)
    return [{name: summary[name] for name in ("updated", "added", "complete")} | {"cpu": daemon.cpu()}]


@contextmanager
def served(index: Index) -> Iterator[str]:
    """``index`` on loopback, by a thread of this process, so that it can be looked at afterwards; its URL."""
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    server = FakeIndex(index, options=Options(control=True, log=False))

    async def serve() -> None:
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield server.url
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def _differences(index: Index, place: str) -> list[str]:
    sys.path.insert(0, _TESTS)
    from support.equality import differences

    return differences(index, place)


def _report(
    options: argparse.Namespace, changer: Changer, sizes: Sizes, passes: list[dict[str, float]], unequal: list[str]
) -> None:
    third, last = sizes.after(1 / 3), sizes.found[-1][1]
    print(
        f"{options.minutes:g} minutes, {options.projects} projects, {options.changes:g} changes a second; {machine()}\n"
    )
    rows = [
        ["what", "figure"],
        ["passes (with --daemon: the last one, and CPU of all)", str(len(passes))],
        ["changes", ", ".join(f"{count} {kind}" for kind, count in sorted(changer.done.items()))],
        ["projects updated or added", f"{sum(one['updated'] + one['added'] for one in passes):.0f}"],
        ["passes that left something owed", str(sum(not one["complete"] for one in passes))],
        ["CPU s of a pass", spread([one["cpu"] for one in passes], 3)],
        ["resident MiB", spread([size for _, size in sizes.found], 1)],
        ["resident MiB after a third", f"{third:.1f}"],
        ["resident MiB at the end", f"{last:.1f}"],
        ["end / a third", f"{last / third:.3f}"],
        ["equal to upstream", "no" if unequal else "yes"],
    ]
    print(table(rows))


if __name__ == "__main__":
    main()
