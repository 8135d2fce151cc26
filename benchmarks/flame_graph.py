"""The journey of a byte: a scenario under py-spy, a flame graph of it, and what dominates in which thread.

    python benchmarks/flame_graph.py first_sync|large_files|incremental|idle_poll|rehearsal [--native]

Writes ``SCENARIO.svg`` into the present folder (``--pictures`` for another one) and prints the functions with the
largest share of samples of their own, of the event loop's thread and of the others.  Only running threads are sampled,
so shares are of CPU time.  The scenario runs twice, once for the picture and once for the figures.  Needs the right to
trace one's own children.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from contestants import TUNED, heliostat, heliostat_config, urls_of_everything
from environments import installed
from harness import mirror_directory, successful, timed, upstream
from large_files import AT_ONCE, publish
from prepared import first_names, prepared_heliostat
from rehearsal import metadata_only
from tables import machine, table

from heliostat.fakeindex.control import Control


@dataclass(frozen=True)
class Scenario:
    """An upstream, and what is prepared and then profiled on a fresh mirror of it."""

    index: Callable[[argparse.Namespace], Sequence[str]]
    warm: bool
    command: Callable[[argparse.Namespace, str, str], Sequence[str]]


def _first_sync(_: argparse.Namespace, url: str, place: str) -> Sequence[str]:
    urls_of_everything(url)
    return heliostat(heliostat_config(url, place, TUNED))


def _large_files(options: argparse.Namespace, url: str, place: str) -> Sequence[str]:
    publish(url, 8, options.megabytes * 1_000_000)
    urls_of_everything(url)
    return heliostat(heliostat_config(url, place, {"files-at-once": AT_ONCE}))


def _incremental(options: argparse.Namespace, url: str, place: str) -> Sequence[str]:
    config, names = heliostat_config(url, place, TUNED), first_names(url, options.changed)
    prepared_heliostat(url, config, place, names)
    control = Control(url)
    for number, name in enumerate(names):
        filename = f"{name.replace('-', '_')}-2.0.tar.gz"
        control.publish(name, "2.0", files=[{"filename": filename, "size": 20_000, "seed": -number - 1}])
    return heliostat(config)


def _idle_poll(options: argparse.Namespace, url: str, place: str) -> Sequence[str]:
    config = heliostat_config(url, place)
    prepared_heliostat(url, config, place, first_names(url, 3))
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "held_open.py")
    return [sys.executable, script, config, str(options.polls)]


def _rehearsal(options: argparse.Namespace, url: str, place: str) -> Sequence[str]:
    del options
    return heliostat(heliostat_config(url, place, TUNED, metadata_only()))


def _projects(options: argparse.Namespace) -> list[str]:
    return ["--projects", str(options.projects)]


SCENARIOS = {
    "first_sync": Scenario(_projects, warm=True, command=_first_sync),
    "large_files": Scenario(lambda _: ["--empty"], warm=False, command=_large_files),
    "incremental": Scenario(_projects, warm=False, command=_incremental),
    "idle_poll": Scenario(_projects, warm=False, command=_idle_poll),
    "rehearsal": Scenario(
        lambda options: [*_projects(options), "--size", "1000", "--description", "20000", "--long-tail"],
        warm=True,
        command=_rehearsal,
    ),
}


def main() -> None:
    options = _options()
    folder = installed("py-spy", sys.executable, "py-spy")
    if folder is None:
        raise SystemExit("py-spy cannot be installed here")
    os.makedirs(options.pictures, exist_ok=True)
    picture = os.path.join(options.pictures, f"{options.scenario}.svg")
    spy = [
        os.path.join(folder, "py-spy"),
        "record",
        "--threads",
        "--subprocesses",
        "--function",
        "--nonblocking",
        "--rate",
        str(options.rate),
    ]
    spy += ["--native"] if options.native else []
    with _ready(options) as command:
        _spied([*spy, "--format", "flamegraph", "--output", picture, "--", *command])
    _tidy(picture, options.scenario)
    with _ready(options) as command, mirror_directory(None) as place:
        path = os.path.join(place, "stacks")
        _spied([*spy, "--format", "raw", "--output", path, "--", *command])
        with open(path, encoding="utf-8") as file:
            threads = own_samples(file)
    print(f"{options.scenario}: {os.path.relpath(picture)}, {machine()}\n")
    for title, counts in threads.items():
        print(_report(title, counts, options.top) + "\n")


def _tidy(picture: str, scenario: str) -> None:
    """The picture alone, without its script; its title is the scenario, not a command with paths of this machine."""
    with open(picture, encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"process \d+:[^<(]*writer_process[^<(]*", "the process that writes ", text)
    text = re.sub(r"process \d+:[^<(]*", "the process itself ", text)
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).replace(' onload="init(evt)"', "")
    with open(picture, "w", encoding="utf-8") as file:
        file.write(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>heliostat: {scenario}", text))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--projects", type=int, default=2000, help="but for large_files (%(default)s)")
    parser.add_argument("--changed", type=int, default=100, help="projects, for incremental (%(default)s)")
    parser.add_argument("--megabytes", type=int, default=200, help="of each of 8, for large_files (%(default)s)")
    parser.add_argument("--polls", type=int, default=1000, help="for idle_poll (%(default)s)")
    parser.add_argument("--rate", type=int, default=200, help="samples a second (%(default)s)")
    parser.add_argument("--top", type=int, default=15, help="functions that are printed (%(default)s)")
    parser.add_argument("--native", action="store_true", help="see into extension modules, too")
    parser.add_argument("--pictures", default=".", help="where the flame graph is written (default: here)")
    parser.add_argument("--directory", help="where the mirrors are written (default: the temporary folder)")
    return parser.parse_args()


WRITER = "process that writes"


@contextmanager
def _ready(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    """The scenario's command, with everything prepared for it."""
    scenario = SCENARIOS[options.scenario]
    with (
        upstream(*scenario.index(options), warm=scenario.warm) as url,
        mirror_directory(options.directory) as place,
    ):
        yield scenario.command(options, url, place)


def _spied(command: Sequence[str]) -> None:
    successful(timed(command), "py-spy")


def own_samples(stacks: Iterator[str]) -> dict[str, Counter[str]]:
    """Samples by the function that was running, of the event loop's thread, of all others, and of who writes."""
    found: dict[str, Counter[str]] = {"event loop": Counter(), "other threads": Counter(), WRITER: Counter()}
    samples = []
    for line in stacks:
        stack, _, number = line.rpartition(" ")
        told = stack.split(";")
        processes = [frame for frame in told if frame.startswith("process ")]
        frames = told[len(processes) :]
        if any("writer_process" in one for one in processes):
            found[WRITER][frames[-1]] += int(number)
        elif len(frames) > 1:
            samples.append((frames[0], frames[-1], int(number)))
    # A thread has no name yet while the interpreter starts.
    main_thread = {_identity(thread) for thread, _, _ in samples if "MainThread" in thread}
    for thread, frame, count in samples:
        found["event loop" if _identity(thread) in main_thread else "other threads"][frame] += count
    return {title: counts for title, counts in found.items() if counts}


def _identity(thread: str) -> str:
    """Of ``thread (NUMBER): NAME``, the number."""
    return thread.partition("(")[2].partition(")")[0]


def _report(title: str, counts: Counter[str], top: int) -> str:
    total = counts.total()
    rows = [[f"{title}: {total} samples", "share"]]
    rows += [[f"`{frame}`", f"{100 * count / total:.1f}%"] for frame, count in counts.most_common(top)]
    return table(rows)


if __name__ == "__main__":
    main()
