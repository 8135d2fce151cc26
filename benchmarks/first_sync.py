"""First sync of many small files; beside bandersnatch, shadowmire and curl.

    python benchmarks/first_sync.py [--projects 2000] [--turns 7] [--directory /dev/shm] [--shadowmire CHECKOUT]
    python benchmarks/first_sync.py --latency 0.1 | --error-rate 0.01 | --slow-disk 1

Upstream is the fake index on loopback, a process of its own.  Figures are of whole processes; the contestants take
turns, and the ratios are medians over the turns, with their range.  "default" is the polite default configuration,
"tuned" sets bounds for an upstream of one's own.  curl fetches the same URLs, 50 at a time, and keeps them as files.
Wheels are archives that hold their metadata, as real ones do, and heliostat takes the sidecars from there; with
--opaque they are noise, and every sidecar is a request of its own.

On a disk use --keep (some 300 MB for each contestant and turn): ext4 does not use inodes again that were freed within
the last minutes, and looks at each of them for every file that it makes, so that every tree is paid for by who comes
after it was removed.

With a slow upstream or a slow disk the tuned heliostat runs once without and once with it, and the default one with it;
so do bandersnatch and curl with a slow upstream (a disk can be slowed down for heliostat only, through its own
interface to it, and then no second process writes).
"""

from __future__ import annotations

import argparse
import os
import sys

from contest import Contestant, contest_options, figures, ratio_table, take_turns
from contestants import (
    SPREAD_FOR_LATENCY,
    TUNED,
    TUNED_FOR_LATENCY,
    curl_parallel,
    heliostat,
    heliostat_config,
    urls_of_everything,
)
from harness import upstream
from peers import SHADOWMIRE_ENV, WORKERS, bandersnatch, bandersnatch_run, shadowmire, shadowmire_run
from tables import machine

DEFAULT, OWN = "heliostat default", "heliostat tuned"
BANDERSNATCH, SHADOWMIRE, CURL = f"bandersnatch {WORKERS} workers", f"shadowmire {WORKERS} workers", "curl 50 at once"


def main() -> None:
    options = _options()
    bounds = {"metadata-at-once": options.metadata_at_once, "files-at-once": options.files_at_once}
    arguments = ("--projects", str(options.projects), "--files", str(options.files), "--size", str(options.size))
    versions: list[str] = []
    with upstream(*arguments, *([] if options.opaque else ["--archives"])) as url:
        urls = urls_of_everything(url)
        conditions = {"latency": options.latency, "error_rate": options.error_rate}
        conditions = {key: value for key, value in conditions.items() if value}
        if conditions or options.slow_disk:
            contestants, pairs = _hindered(options, url, urls, bounds, conditions, versions)
        else:
            contestants, pairs = _ordinary(options, url, urls, bounds, versions)
        results = take_turns(contestants, url, turns=options.turns, parent=options.directory, keep=options.keep)
    where = options.directory or "the temporary folder"
    kind = "noise" if options.opaque else "archives"
    print(f"{options.projects} projects, wheels are {kind}, {len(urls)} URLs, {options.turns} turns, in {where}")
    print(f"tuned: {bounds}")
    print(", ".join([machine(), *versions]) + "\n")
    print(figures(results) + "\n")
    print(ratio_table(results, pairs))


def _options() -> argparse.Namespace:
    parser = contest_options(__doc__, ["default", "bandersnatch", "curl"])
    parser.add_argument("--projects", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--files", type=int, default=5, help="of each project, up to 3 with a sidecar (%(default)s)")
    parser.add_argument("--size", type=int, default=20_000, help="average bytes of a file (%(default)s)")
    parser.add_argument("--metadata-at-once", type=int, default=TUNED["metadata-at-once"], help="tuned (%(default)s)")
    parser.add_argument("--files-at-once", type=int, default=TUNED["files-at-once"], help="tuned (%(default)s)")
    parser.add_argument("--opaque", action="store_true", help="wheels that do not hold their metadata")
    parser.add_argument("--keep", action="store_true", help="remove the trees at the end only; for disks")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before each answer of upstream")
    parser.add_argument("--error-rate", type=float, default=0.0, metavar="SHARE", help="of requests that get a 503")
    parser.add_argument("--slow-disk", type=float, metavar="MS", help="milliseconds added to each disk operation")
    return parser.parse_args()


def _ordinary(
    options: argparse.Namespace, url: str, urls: list[str], bounds: dict[str, int], versions: list[str]
) -> tuple[list[Contestant], list[tuple[str, str]]]:
    contestants = [Contestant(OWN, lambda place: heliostat(heliostat_config(url, place, bounds)))]
    if "default" not in options.without:
        contestants.insert(0, Contestant(DEFAULT, lambda place: heliostat(heliostat_config(url, place))))
    contestants += _peers(options, url, urls, versions, {})
    pairs = [(BANDERSNATCH, OWN), (BANDERSNATCH, DEFAULT), (SHADOWMIRE, OWN), (OWN, CURL), (DEFAULT, CURL)]
    return contestants, pairs


def _peers(
    options: argparse.Namespace, url: str, urls: list[str], versions: list[str], conditions: dict[str, float]
) -> list[Contestant]:
    found = []
    if "bandersnatch" not in options.without:
        command, version = bandersnatch()
        versions.append(f"bandersnatch {version}")
        found.append(
            Contestant(
                BANDERSNATCH,
                lambda place: bandersnatch_run(command, url, place),
                conditions=conditions,
                may_fail=bool(conditions),
            )
        )
    if options.shadowmire:
        python, version = shadowmire(options.shadowmire)
        versions.append(f"shadowmire {version}")
        found.append(
            Contestant(
                SHADOWMIRE,
                lambda place: shadowmire_run(python, url, place),
                env=SHADOWMIRE_ENV,
                conditions=conditions,
                may_fail=bool(conditions),
            )
        )
    if "curl" not in options.without:
        found.append(Contestant(CURL, lambda place: curl_parallel(urls, place), conditions=conditions))
    return found


def _hindered(
    options: argparse.Namespace,
    url: str,
    urls: list[str],
    bounds: dict[str, int],
    conditions: dict[str, float],
    versions: list[str],
) -> tuple[list[Contestant], list[tuple[str, str]]]:
    """The tuned heliostat as it is, and with a slow or failing upstream, or a slow disk."""
    slowed = {**bounds, **TUNED_FOR_LATENCY} if options.latency else bounds
    spread = SPREAD_FOR_LATENCY if options.latency else {}
    words = [f"{key} {value:g}".replace("_", " ") for key, value in conditions.items()]
    words += [f"{options.slow_disk:g} ms disk"] if options.slow_disk else []
    title = f"heliostat, {', '.join(words)}"

    def command(place: str, delay: float, bounds: dict[str, int], mirror: dict[str, int]) -> list[str]:
        config = heliostat_config(url, place, bounds, mirror)
        if options.slow_disk is None:
            return heliostat(config)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_disk.py")
        return [sys.executable, script, config, str(delay)]

    contestants = [
        Contestant(OWN, lambda place: command(place, 0, bounds, {})),
        Contestant(title, lambda place: command(place, options.slow_disk or 0, slowed, spread), conditions=conditions),
    ]
    polite = f"heliostat default, {', '.join(words)}"
    if "default" not in options.without:
        contestants.append(
            Contestant(polite, lambda place: command(place, options.slow_disk or 0, {}, {}), conditions=conditions)
        )
    if not options.slow_disk:
        contestants += _peers(options, url, urls, versions, conditions)
    return contestants, [(title, OWN), (polite, OWN), (BANDERSNATCH, title), (SHADOWMIRE, title), (title, CURL)]


if __name__ == "__main__":
    main()
