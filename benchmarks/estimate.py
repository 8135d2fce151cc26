"""A model, not a measurement: how long a first sync of the real index would take at given rates and links.

    python benchmarks/estimate.py --project-rate 900 --file-rate 1500 --byte-rate 800

Rates are of one machine: projects a second without files (rehearsal.py), small files a second (first_sync.py), and MB/s
of large files (large_files.py).  The work overlaps, so the slowest of the four is the least that it takes, and their
sum the most, if nothing overlapped.  Left out: upstream's own limits and politeness, errors, latency, a disk that gets
slower as it fills.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from tables import table

_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one mirror does in a second, measured: projects, small files, bytes of large files."""

    title: str
    projects: float
    files: float
    bytes: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the model needs to know; the size of the index is as published at the end of 2026, rounded."""
    parser.add_argument("--real-projects", type=float, default=800_000, help="(%(default)s)")
    parser.add_argument("--real-files", type=float, default=17e6, help="with as many sidecars or less (%(default)s)")
    parser.add_argument("--real-terabytes", type=float, default=100, help="(%(default)s)")
    parser.add_argument("--links", type=float, nargs="+", default=[1, 10], metavar="GBIT", help="Gbit/s (%(default)s)")
    for whose, words in (("", "heliostat's"), ("peer-", "bandersnatch's")):
        parser.add_argument(f"--{whose}project-rate", type=float, metavar="N", help=f"{words} projects a second")
        parser.add_argument(f"--{whose}file-rate", type=float, metavar="N", help=f"{words} small files a second")
        parser.add_argument(f"--{whose}byte-rate", type=float, metavar="MB/S", help=f"{words} MB/s of large files")


def rates_of(options: argparse.Namespace, project_rate: float | None = None) -> list[Rates]:
    """Those whose rates are all known; ``project_rate`` is what was just measured of heliostat."""
    own = (options.project_rate or project_rate, options.file_rate, options.byte_rate)
    peer = (options.peer_project_rate, options.peer_file_rate, options.peer_byte_rate)
    found = []
    for title, (projects, files, megabytes) in (("heliostat", own), ("bandersnatch", peer)):
        if projects and files and megabytes:
            found.append(Rates(title=title, projects=projects, files=files, bytes=megabytes * 1e6))
    return found


def model(options: argparse.Namespace, rates: Sequence[Rates]) -> str:
    """Days, for each mirror and each link."""
    size = options.real_terabytes * 1e12
    rows = [["MODEL", "link", "link days", "projects h", "small files h", "bytes days", "at least", "at most"]]
    for one in rates:
        for gigabits in options.links:
            link = size * 8 / (gigabits * 1e9)
            parts = (options.real_projects / one.projects, options.real_files / one.files, size / one.bytes)
            rows.append(
                [
                    one.title,
                    f"{gigabits:g} Gbit/s",
                    f"{link / _DAY:.1f}",
                    f"{parts[0] / 3600:.1f}",
                    f"{parts[1] / 3600:.1f}",
                    f"{parts[2] / _DAY:.1f}",
                    f"{max(link, *parts) / _DAY:.1f} days",
                    f"{(link + sum(parts)) / _DAY:.1f} days",
                ]
            )
    head = (
        f"A MODEL of a first sync of {options.real_projects:,.0f} projects, {options.real_files:,.0f} files, "
        f"{options.real_terabytes:g} TB: rates measured on one machine, the rest is arithmetic."
    )
    return f"{head}\n\n{table(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    rates = rates_of(options)
    if not rates:
        parser.error("give --project-rate, --file-rate and --byte-rate, or those of the peer")
    print(model(options, rates))


if __name__ == "__main__":
    main()
