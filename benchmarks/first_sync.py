"""First sync of many small files, then a poll that finds nothing new; beside curl fetching the same bytes.

    python benchmarks/first_sync.py [--projects 2000] [--runs 3] [--directory /dev/shm]

Upstream is the fake index on loopback, a process of its own.  Figures are of whole processes, medians of the runs,
which alternate.  ``polite`` is the default configuration; ``tuned`` sets bounds for an upstream of one's own.
"""

from __future__ import annotations

import argparse
import json
import os

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

TUNED = {"metadata_at_once": 32, "files_at_once": 64}


def main() -> None:
    options = _options()
    runs: dict[str, list[Run]] = {name: [] for name in ("polite", "tuned", "poll", "curl")}
    with upstream("--projects", str(options.projects)) as url:
        urls = urls_of_everything(url)
        for _ in range(options.runs):
            for name, settings in (("polite", {}), ("tuned", TUNED)):
                with mirror_directory(options.directory) as directory:
                    command = heliostat(url, directory, **settings)
                    runs[name].append(_complete(command))
                    if name == "tuned":
                        runs["poll"].append(_complete(command))
                    os.unlink(f"{directory}.toml")
            with mirror_directory(options.directory) as directory:
                runs["curl"].append(_complete(curl_parallel(urls, directory)))
                os.unlink(f"{directory}.curl")
    print(f"{options.projects} projects, {len(urls)} URLs, {options.runs} runs each; {machine()}\n")
    print(_report(runs, len(urls)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    return parser.parse_args()


def _complete(command: list[str]) -> Run:
    run = timed(command)
    if run.code:
        raise SystemExit(f"{command[0]} ended with {run.code}: {run.output[-2000:]}")
    return run


def _report(runs: dict[str, list[Run]], urls: int) -> str:
    rows = [["what", "wall s", "CPU s", "of it kernel s", "peak MiB", "requests", "wall / curl"]]
    curl = sorted(run.wall for run in runs["curl"])[len(runs["curl"]) // 2]
    for name, title in (
        ("polite", "first sync, default bounds"),
        ("tuned", "first sync, bounds for one's own upstream"),
        ("curl", "curl --parallel-max 50, same bytes"),
        ("poll", "poll, nothing new"),
    ):
        done = runs[name]
        wall = [run.wall for run in done]
        requests = str(urls) if name == "curl" else str(json.loads(done[-1].output)["requests"])
        rows.append(
            [
                title,
                spread(wall),
                spread([run.cpu for run in done]),
                spread([run.system for run in done]),
                spread([run.memory for run in done], 0),
                requests,
                f"{sorted(wall)[len(wall) // 2] / curl:.2f}",
            ]
        )
    return table(rows)


if __name__ == "__main__":
    main()
