"""How fast access logs are counted, and in how much memory.

    python benchmarks/stats.py [--megabytes 100] [--clients 20000] [--files 5000] [--turns 3]
    python benchmarks/stats.py --memory 10,100,1000

The first tells MB/s of whole processes (``heliostat stats --no-write``) for the combined format, for JSON, and for both
compressed with gzip, counted in bytes after decompression.  The second makes ever larger logs, with as many more
clients, and tells the peak memory.  A tenth of the lines are pages, a tenth parts of files; the rest are downloads.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import sys
import tempfile

import tables
from harness import Run, successful, timed

_UA = (
    'pip/24.{minor} {{"ci":null,"cpu":"x86_64","distro":{{"id":"bookworm","libc":{{"lib":"glibc","version":"2.36"}},'
    '"name":"Debian GNU/Linux","version":"12"}},"implementation":{{"name":"CPython","version":"3.11.2"}},'
    '"installer":{{"name":"pip","version":"24.{minor}"}},"openssl_version":"OpenSSL 3.0.11 19 Sep 2023",'
    '"python":"3.{python}.2","setuptools_version":"66.1.1","system":{{"name":"Linux","release":"6.1.0-13-amd64"}}}}'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", help="where the logs are made")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory", help="sizes in MB, separated by commas: tell peak memory instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=options.directory) as folder:
        if options.memory:
            _memory(folder, [int(size) for size in options.memory.split(",")], options)
        else:
            _speed(folder, options)
    print(f"\n{tables.machine()}")


def _speed(folder: str, options: argparse.Namespace) -> None:
    rows = [["log", "MB", "s", "MB/s"]]
    for form in ("combined", "json"):
        plain = os.path.join(folder, form)
        _make(plain, form, options.megabytes, options.clients, options.files)
        packed = f"{plain}.gz"
        with open(plain, "rb") as source, gzip.open(packed, "wb", 6) as target:
            while block := source.read(1 << 20):
                target.write(block)
        size = os.stat(plain).st_size / 1e6
        for path in (plain, packed):
            took = [_count(path).wall for _ in range(options.turns)]
            speeds = tables.spread([size / seconds for seconds in took], 1)
            rows.append([os.path.basename(path), f"{size:.0f}", tables.spread(took), speeds])
            os.unlink(path)
    print(tables.table(rows))


def _memory(folder: str, sizes: list[int], options: argparse.Namespace) -> None:
    rows = [["MB", "clients", "s", "peak MiB"]]
    for size in sizes:
        path = os.path.join(folder, "access.log")
        clients = options.clients * size // sizes[0]
        _make(path, "combined", size, clients, options.files)
        run = _count(path)
        rows.append([f"{size}", f"{clients}", f"{run.wall:.1f}", f"{run.memory:.0f}"])
    print(tables.table(rows))


def _count(path: str) -> Run:
    return successful(timed([sys.executable, "-m", "heliostat", "stats", "--no-write", "--quiet", path]), path)


def _make(path: str, form: str, megabytes: int, clients: int, files: int) -> None:
    """A log of one day, always the same."""
    chance = random.Random(1)
    agents = [_UA.format(minor=minor, python=python) for minor in range(4) for python in range(8, 14)]
    agents += ["uv/0.5.11", "poetry/1.8.3 CPython/3.11.2 Linux/6.1.0"]
    end, written, number = megabytes * 1_000_000, 0, 0
    with open(path, "w", encoding="ascii") as log:
        while written < end:
            number += 1
            which = int(chance.paretovariate(0.6)) % files
            target = f"/packages/{which % 256:02x}/00/{which:060x}/project_{which % 997}-1.{which}-py3-none-any.whl"
            status = 200
            if not number % 10:
                target = f"/simple/project-{which % 997}/"
            elif not number % 11:
                status = 206
            address = chance.randrange(clients)
            client = f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
            second = number // 200 % 86400
            clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            written += log.write(_line(form, clock, client, target, status, chance.choice(agents)))


def _line(form: str, clock: str, client: str, target: str, status: int, agent: str) -> str:
    if form == "combined":
        shown = agent.replace('"', "\\x22")
        return f'{client} - - [20/Nov/2026:{clock} +0000] "GET {target} HTTP/1.1" {status} 20480 "-" "{shown}"\n'
    shown = agent.replace('"', '\\"')
    return (
        f'{{"time":"2026-11-20T{clock}+00:00","address":"{client}","method":"GET","target":"{target}",'
        f'"protocol":"HTTP/1.1","status":{status},"bytes":20480,"seconds":0.001,"complete":"OK","range":"",'
        f'"type":"application/octet-stream","encoding":"","agent":"{shown}","tls":"TLSv1.3"}}\n'
    )


if __name__ == "__main__":
    main()
