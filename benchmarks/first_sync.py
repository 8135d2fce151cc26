"""First sync of many small files, then a poll that finds nothing new; beside bandersnatch and curl.

    python benchmarks/first_sync.py [--projects 2000] [--runs 7] [--directory /dev/shm] [--peers]

Upstream is the fake index on loopback, a process of its own.  Figures are of whole processes; the contestants take
turns, and the ratios are medians over the turns, with their range.  "default" is the polite default configuration,
"tuned" sets bounds for an upstream of one's own.  curl fetches the same URLs, 50 at a time, and keeps them as files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable

from harness import (
    Run,
    curl_parallel,
    heliostat,
    machine,
    mirror_directory,
    spread,
    table,
    timed,
    upstream,
    urls_of_everything,
)
from peers import bandersnatch, bandersnatch_mirror

TUNED = {"metadata_at_once": 32, "files_at_once": 64}
TITLES = {
    "default": "heliostat, default bounds",
    "tuned": "heliostat, tuned bounds",
    "bandersnatch": "bandersnatch, 10 workers",
    "curl": "curl, 50 at once",
    "poll": "heliostat, poll: nothing new",
    "bandersnatch poll": "bandersnatch, run: nothing new",
}


def main() -> None:
    options = _options()
    runs: dict[str, list[Run]] = {name: [] for name in TITLES}
    peer, version = bandersnatch() if options.peers else ("", "")
    with upstream("--projects", str(options.projects)) as url:
        urls = urls_of_everything(url)
        for _ in range(options.runs):
            _turn(runs, "default", options.directory, lambda place: heliostat(url, place))
            _turn(runs, "tuned", options.directory, lambda place: heliostat(url, place, **TUNED), again="poll")
            _turn(runs, "curl", options.directory, lambda place: curl_parallel(urls, place))
            if peer:
                _turn(
                    runs,
                    "bandersnatch",
                    options.directory,
                    lambda place: bandersnatch_mirror(peer, url, place),
                    again="bandersnatch poll",
                )
    print(f"{options.projects} projects, {len(urls)} URLs, {options.runs} turns, in {options.directory or 'tmp'}")
    print(f"{machine()}{f', bandersnatch {version}' if peer else ''}\n")
    print(_report(runs, len(urls)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    parser.add_argument("--peers", action="store_true", help="install and measure bandersnatch as well")
    return parser.parse_args()


def _turn(
    runs: dict[str, list[Run]],
    name: str,
    parent: str | None,
    command: Callable[[str], list[str]],
    *,
    again: str | None = None,
) -> None:
    """One contestant from an empty directory; with ``again`` a second run over what the first left."""
    with mirror_directory(parent) as place:
        words = command(place)
        runs[name].append(_complete(words))
        if again:
            runs[again].append(_complete(words))
        for suffix in (".toml", ".conf", ".curl"):
            if os.path.exists(place + suffix):
                os.unlink(place + suffix)


def _complete(command: list[str]) -> Run:
    run = timed(command)
    if run.code:
        raise SystemExit(f"{command[0]} ended with {run.code}: {run.output[-2000:]}")
    return run


def _report(runs: dict[str, list[Run]], urls: int) -> str:
    rows = [["what", "wall s", "CPU s", "kernel s", "peak MiB", "requests", "wall / tuned", "CPU / tuned"]]
    tuned = runs["tuned"]
    for name, title in TITLES.items():
        done = runs[name]
        if not done:
            continue
        requests = str(json.loads(done[-1].output)["requests"]) if title.startswith("heliostat") else ""
        rows.append(
            [
                title,
                spread([run.wall for run in done]),
                spread([run.cpu for run in done]),
                f"{statistics.median(run.system for run in done):.2f}",
                f"{statistics.median(run.memory for run in done):.0f}",
                str(urls) if name == "curl" else requests,
                spread([run.wall / base.wall for run, base in zip(done, tuned, strict=True)]),
                spread([run.cpu / base.cpu for run, base in zip(done, tuned, strict=True)]),
            ]
        )
    return table(rows)


if __name__ == "__main__":
    main()
