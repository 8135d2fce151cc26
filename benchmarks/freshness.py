"""From published upstream to installable from the mirror, in seconds: with polls alone, and pushed.

    python benchmarks/freshness.py [--publications 20] [--interval 10] [--projects 2000] [--directory /dev/shm]

A daemon follows the fake index.  Releases are published at random moments, one at a time; the clock runs from the
answer to the upload until the mirror's page lists the file and the file lies where the page says.  "poll" waits for
the next poll by itself: that is half an interval on average, whatever the mirror does.  "signal" sends SIGUSR1 right
after the upload, "ping" posts to /ping, where the daemon takes that.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from urllib.parse import unquote

import msgspec
from contestants import heliostat, heliostat_config
from following import Following, following
from harness import mirror_directory, successful, timed, upstream
from tables import machine, spread, table

from heliostat.fakeindex.control import Control

_PATIENCE = 600.0
_LOOK_EVERY = 0.002


def main() -> None:
    options = _options()
    with (
        upstream("--projects", str(options.projects), "--files", "2") as url,
        mirror_directory(options.directory) as place,
    ):
        address = f"{place}.sock"
        service = {"listen": f"unix:{address}"}
        config = heliostat_config(url, place, mirror={"interval": options.interval}, service=service)
        successful(timed(heliostat(config)), "the first synchronisation")
        publisher = Publisher(Control(url), place, options.projects, options.seed)
        rows = [["how", "publications", "seconds until installable"]]
        with following(config, address) as daemon:
            rows.append(_measured("poll", publisher, options, lambda: True))
            rows.append(_measured("signal", publisher, options, lambda: _poked(daemon)))
            if daemon.ask("/ping", "POST")[0] in (200, 202, 204):
                rows.append(_measured("ping", publisher, options, lambda: _pinged(daemon)))
            else:
                rows.append(["ping", "0", "this daemon takes none"])
    print(f"{options.projects} projects, a poll each {options.interval:g} s")
    print(machine() + "\n")
    print(table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publications", type=int, default=20, help="of each kind (%(default)s)")
    parser.add_argument("--interval", type=float, default=10, help="seconds between two polls (%(default)s)")
    parser.add_argument("--projects", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and projects (%(default)s)")
    parser.add_argument("--directory", help="where the mirror is written (default: the temporary folder)")
    return parser.parse_args()


class Publisher:
    """Uploads releases to the index, and looks at the mirror until they are there."""

    def __init__(self, control: Control, place: str, projects: int, seed: int) -> None:
        self._control, self._place, self._projects = control, place, projects
        self.random = random.Random(seed)
        self._number = 0

    def publish(self) -> tuple[str, str]:
        """One more release with one file; the project and the file's name."""
        self._number += 1
        name = f"project-{self.random.randrange(self._projects):07}"
        filename = f"{name.replace('-', '_')}-9.{self._number}-py3-none-any.whl"
        file = {"filename": filename, "size": 20_000, "seed": -self._number}
        self._control.publish(name, f"9.{self._number}", files=[file])
        return name, filename

    def wait(self, name: str, filename: str) -> None:
        """Returns when the file can be installed."""
        deadline = time.monotonic() + _PATIENCE
        while not self._there(name, filename):
            if time.monotonic() > deadline:
                raise SystemExit(f"{filename} does not arrive")
            time.sleep(_LOOK_EVERY)

    def _there(self, name: str, filename: str) -> bool:
        folder = f"{self._place}/web/simple/{name}"
        with open(f"{folder}/index.v1_json", "rb") as file:
            page = file.read()
        if filename.encode() not in page:
            return False
        listed = {one["filename"]: one["url"] for one in msgspec.json.decode(page)["files"]}
        return os.path.exists(os.path.join(folder, unquote(listed[filename])))


def _measured(title: str, publisher: Publisher, options: argparse.Namespace, push: Callable[[], bool]) -> list[str]:
    """A row; each publication waits for a random part of an interval first, so that it falls anywhere in it."""
    found = []
    for _ in range(options.publications):
        time.sleep(publisher.random.uniform(0, options.interval) if title == "poll" else 0.2)
        name, filename = publisher.publish()
        begun = time.perf_counter()
        if not push():
            raise SystemExit(f"{title}: refused")
        publisher.wait(name, filename)
        found.append(time.perf_counter() - begun)
    return [title, str(len(found)), spread(found)]


def _poked(daemon: Following) -> bool:
    daemon.poke()
    return True


def _pinged(daemon: Following) -> bool:
    """Upstream's ping; one that is put off, because another one was just taken, counts as taken."""
    return daemon.ask("/ping", "POST")[0] in (200, 202, 204, 429)


if __name__ == "__main__":
    main()
