"""How fast a whole tree is verified, and in how much memory.

    python benchmarks/verify.py [--directory DIR] [--turns 5] [--without bandersnatch]
    python benchmarks/verify.py --memory 10000,100000,1000000

The first compares, over the same files, ``heliostat verify --web-root`` (pages, documents, links, presence and digests)
with ``openssl dgst -sha256`` on all cores, which hashes and nothing else, and with ``bandersnatch verify``: 10,000
small files, and a few large ones.  The second makes ever larger trees and tells the peak memory of all processes
together.  Files are in the page cache, if they fit: it is not the disk that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time

import peers
import synthetic_tree
import tables
from harness import successful, timed

_OPENSSL = 'find "$1" -type f -print0 | xargs -0 -P "$2" -n "$3" openssl dgst -sha256 >/dev/null'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", help="where the trees are made")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--small", type=int, default=10_000, help="how many small files")
    parser.add_argument("--small-size", type=int, default=4096, help="bytes of each")
    parser.add_argument("--large", type=int, default=16, help="how many large files")
    parser.add_argument("--large-size", type=int, default=256 << 20, help="bytes of each")
    parser.add_argument("--memory", help="numbers of files, separated by commas: tell peak memory instead")
    parser.add_argument("--without", nargs="*", default=[], choices=["bandersnatch"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=options.directory) as folder:
        if options.memory:
            _memory(folder, [int(number) for number in options.memory.split(",")])
        else:
            _speed(folder, options)
    print(f"\n{tables.machine()}")


def _speed(folder: str, options: argparse.Namespace) -> None:
    peer = None if "bandersnatch" in options.without else peers.bandersnatch()
    rows = [["files", "contestant", "s", "CPU s", "times openssl"]]
    for label, files, size, each in (
        (f"{options.small:,} of {options.small_size:,} bytes", options.small, options.small_size, 10),
        (f"{options.large} of {options.large_size >> 20} MiB", options.large, options.large_size, 4),
    ):
        tree = os.path.join(folder, f"{files}")
        synthetic_tree.make(f"{tree}/web", files=files, size=size, files_each=each)
        commands = {
            "openssl dgst -sha256": _openssl(tree, files),
            "heliostat verify": [sys.executable, "-m", "heliostat", "verify", "--web-root", f"{tree}/web"],
        }
        if peer is not None:
            commands[f"bandersnatch {peer[1]} verify"] = _bandersnatch(peer[0], tree)
        rows += _compared(label, commands, options.turns)
        subprocess.run(["rm", "-rf", tree], check=True)
    print(tables.table(rows))


def _compared(label: str, commands: dict[str, list[str]], turns: int) -> list[list[str]]:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(turns + 1):
        for name in list(commands)[:: 1 if turn % 2 else -1]:
            run = successful(timed(commands[name]), name)
            if turn:  # the first one warms the cache
                runs[name].append((run.wall, run.cpu))
    base = [wall for wall, _ in runs["openssl dgst -sha256"]]
    return [
        [
            label, name, tables.spread([wall for wall, _ in took]), tables.spread([cpu for _, cpu in took]),
            tables.ratios([wall for wall, _ in took], base),
        ]
        for name, took in runs.items()
    ]  # fmt: skip


def _openssl(tree: str, files: int) -> list[str]:
    cores = os.cpu_count() or 1
    return ["sh", "-c", _OPENSSL, "sh", f"{tree}/web/packages", str(cores), str(max(1, min(500, files // (4 * cores))))]


def _bandersnatch(command: str, tree: str) -> list[str]:
    """It looks at what the documents name, and may change nothing."""
    words = ("verify", "--dry-run", "--workers", str(peers.WORKERS))
    return peers.bandersnatch_run(command, "https://127.0.0.1:9", tree, *words)


def _memory(folder: str, sizes: list[int]) -> None:
    rows = [["files", "peak MiB, all processes", "s", "files/s"]]
    for files in sizes:
        web = os.path.join(folder, "web")
        synthetic_tree.make(web, files=files, size=128)
        started = time.perf_counter()
        peak = _peak([sys.executable, "-m", "heliostat", "verify", "--quiet", "--web-root", web])
        took = time.perf_counter() - started
        rows.append([f"{files:,}", f"{peak:.0f}", f"{took:.1f}", f"{files / took:,.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
        subprocess.run(["rm", "-rf", web], check=True)
    print(tables.table(rows))


def _peak(command: list[str]) -> float:
    """The most memory (MiB) that a process and its children have at once; what they share counts once."""
    process = subprocess.Popen(command)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return peak


def _resident(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        for one in (pid, *children):
            with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as file:
                total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0) / 1024
    return total


if __name__ == "__main__":
    main()
