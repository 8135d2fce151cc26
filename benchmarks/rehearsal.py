"""A rehearsal of the whole index: 700,000 projects mirrored to the end, metadata only; then a model of the real thing.

    python benchmarks/rehearsal.py [--projects 700000] [--directory /srv/room] [--file-rate N --byte-rate MB/S]

Upstream is synthetic, its documents have the sizes that real ones have (log-normal, a long tail, below 30 KB on
average).  The mirror takes no files (``[mirror] files = false``); ``--with-files`` fetches them after all, small ones,
and works without that setting.

Needs some seven inodes a project and half an hour or more; nothing is repeated, so it is one figure, not a median.
With rates of files and bytes, which other benchmarks here measure, :mod:`estimate` says what they would mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import urllib.request

import estimate
from contestants import TUNED, heliostat, heliostat_config
from footprint import usage
from harness import Run, mirror_directory, successful, timed, upstream
from peers import bandersnatch, bandersnatch_run
from tables import machine, table

from heliostat.config import keys
from heliostat.fakeindex.control import Control


def main() -> None:
    options = _options()
    mirror = {} if options.with_files else metadata_only()
    found = {"projects": options.projects, "files": options.files, "size": options.size}
    index = [word for key, value in found.items() for word in (f"--{key}", str(value))]
    index += ["--description", str(options.description), "--long-tail"]
    with upstream(*index, warm=False) as url:
        average = _document_size(url, options.projects)
        with mirror_directory(options.directory) as place:
            config = heliostat_config(url, place, TUNED, mirror)
            run, requests = _counted(url, heliostat(config), options.sample_every)
            summary = json.loads(successful(run, "heliostat").output)
            rows = [_row("heliostat", run, summary["projects"], requests, *usage(place))]
        if options.bandersnatch:
            peer, version = bandersnatch()
            with mirror_directory(options.directory) as place:
                words = bandersnatch_run(peer, url, place, files=options.with_files)
                other, requests = _counted(url, words, options.sample_every)
                rows.append(_row(f"bandersnatch {version}", other, options.projects, requests, *usage(place)))
    kept = "with files" if options.with_files else "metadata only"
    where = options.directory or "the temporary folder"
    print(f"{options.projects} projects, {kept}, documents of {average / 1000:.1f} KB on average, in {where}")
    print(machine() + "\n")
    head = ["what", "projects / s", "wall s", "CPU s", "kernel s", "requests", "inodes", "MB on disk", "peak MiB"]
    print(table([[*head, "MiB over time"], *rows]) + "\n")
    if rates := estimate.rates_of(options, summary["projects"] / run.wall):
        print(estimate.model(options, rates))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=700_000, help="(%(default)s)")
    parser.add_argument("--files", type=int, default=5, help="of each project, as its pages list them (%(default)s)")
    parser.add_argument("--size", type=int, default=1_000, help="average bytes of a file (%(default)s)")
    parser.add_argument("--description", type=int, default=20_000, help="average bytes in a document (%(default)s)")
    parser.add_argument("--with-files", action="store_true", help="fetch the files, too")
    parser.add_argument("--bandersnatch", action="store_true", help="measure it as well, after heliostat")
    parser.add_argument("--sample-every", type=float, default=5.0, metavar="SECONDS", help="memory (%(default)s)")
    parser.add_argument("--directory", help="where the mirror is written (default: the temporary folder)")
    estimate.add_options(parser)
    return parser.parse_args()


def metadata_only() -> dict[str, object]:
    """Keys of ``[mirror]`` that leave the files out."""
    if "files" not in keys("mirror"):
        raise SystemExit("this heliostat has no setting that leaves the files out: [mirror] files")
    return {"files": False}


def _document_size(url: str, projects: int) -> float:
    """The average size of a document, of a few hundred of them."""
    numbers = range(0, projects, max(1, projects // 300))
    sizes = []
    for number in numbers:
        with urllib.request.urlopen(f"{url}/pypi/project-{number:07}/json") as answer:
            sizes.append(len(answer.read()))
    return statistics.mean(sizes)


def _counted(url: str, command: list[str], every: float) -> tuple[Run, int]:
    control = Control(url)
    before = control.state()["requests"]
    run = timed(command, sample_every=every)
    return run, control.state()["requests"] - before


def _row(title: str, run: Run, projects: int, requests: int, inodes: int, size: int) -> list[str]:
    """Memory over time is what was resident after each tenth of the run."""
    samples = run.samples
    tenths = [samples[len(samples) * tenth // 10][1] for tenth in range(10)] if samples else []
    return [
        title + (f" (ended with {run.code})" if run.code else ""),
        f"{projects / run.wall:.0f}",
        f"{run.wall:.1f}",
        f"{run.cpu:.1f}",
        f"{run.system:.1f}",
        str(requests),
        str(inodes),
        f"{size / 1e6:.0f}",
        f"{run.memory:.0f}",
        " ".join(f"{one:.0f}" for one in tenths),
    ]


if __name__ == "__main__":
    main()
