"""Large files: eight of 200 MB, eight at a time; beside bandersnatch, shadowmire and curl writing the same files.

    python benchmarks/large_files.py [--files 8] [--megabytes 200] [--turns 7] [--directory /dev/shm]

The files are made up by the fake index as they are read; each belongs to a project of its own, since one contestant
fetches the files of one project one after the other. MB/s is of whole processes: start, metadata, hashing and the
last sync included. curl neither hashes nor syncs; a second row of it hashes what it wrote, on all cores.
``--directory`` needs room for one copy of all files.
"""

from __future__ import annotations

from contest import Contestant, contest_options, figures, ratio_table, take_turns
from contestants import curl_parallel, curl_then_openssl, heliostat, heliostat_config, urls_of_everything
from harness import upstream
from peers import SHADOWMIRE_ENV, bandersnatch, bandersnatch_run, shadowmire, shadowmire_run
from tables import machine

from heliostat.fakeindex.control import Control

AT_ONCE = 8
OWN, BANDERSNATCH, SHADOWMIRE, CURL = "heliostat", "bandersnatch", "shadowmire", f"curl {AT_ONCE} at once"
HASHED = f"{CURL}, then openssl"


def main() -> None:
    parser = contest_options(__doc__, ["bandersnatch", "curl"])
    parser.add_argument("--files", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--megabytes", type=float, default=200, help="of each file, millions of bytes (%(default)s)")
    options = parser.parse_args()
    versions = []
    with upstream("--empty") as url:
        publish(url, options.files, int(options.megabytes * 1_000_000))
        urls = urls_of_everything(url)
        bounds = {"files-at-once": AT_ONCE}
        contestants = [Contestant(OWN, lambda place: heliostat(heliostat_config(url, place, bounds)))]
        if "bandersnatch" not in options.without:
            command, version = bandersnatch()
            versions.append(f"bandersnatch {version}")
            contestants.append(
                Contestant(BANDERSNATCH, lambda place: bandersnatch_run(command, url, place, workers=AT_ONCE))
            )
        if options.shadowmire:
            python, version = shadowmire(options.shadowmire)
            versions.append(f"shadowmire {version}")
            env = {**SHADOWMIRE_ENV, "SHADOWMIRE_WORKERS": str(AT_ONCE)}
            contestants.append(Contestant(SHADOWMIRE, lambda place: shadowmire_run(python, url, place), env=env))
        if "curl" not in options.without:
            contestants.append(Contestant(CURL, lambda place: curl_parallel(urls, place, AT_ONCE)))
            contestants.append(Contestant(HASHED, lambda place: curl_then_openssl(urls, place, AT_ONCE)))
        results = take_turns(contestants, url, turns=options.turns, parent=options.directory)
    where = options.directory or "the temporary folder"
    print(f"{options.files} files of {options.megabytes:g} MB, {AT_ONCE} at once, {options.turns} turns, in {where}")
    print(", ".join([machine(), *versions]) + "\n")
    print(figures(results, options.files * options.megabytes) + "\n")
    print(ratio_table(results, [(BANDERSNATCH, OWN), (SHADOWMIRE, OWN), (CURL, OWN), (HASHED, OWN)]))


def publish(url: str, count: int, size: int) -> None:
    """``count`` projects with one file of ``size`` bytes each."""
    control = Control(url)
    for number in range(count):
        filename = f"large_{number}-1.0.tar.gz"
        control.publish(f"large-{number}", "1.0", files=[{"filename": filename, "size": size, "seed": number}])


if __name__ == "__main__":
    main()
