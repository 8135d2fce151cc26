"""``python -m heliostat.fakeindex``: the fake index as a process; its first line of output is its URL."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import replace

from heliostat.fakeindex.index import Index
from heliostat.fakeindex.options import Options
from heliostat.fakeindex.recorded import from_recorded
from heliostat.fakeindex.server import FakeIndex
from heliostat.fakeindex.synthetic import many_projects, small_index


def main() -> None:
    """Serve until SIGINT or SIGTERM, or (``--with-stdin``) until the standard input ends."""
    parser = _parser()
    asked = parser.parse_args()
    work = _serve(asked, _index(asked, parser))
    if asked.uvloop:
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m heliostat.fakeindex", description="A fake package index on loopback."
    )
    what = parser.add_argument_group("what it holds (default: the small index)")
    what.add_argument("--empty", action="store_true", help="nothing")
    what.add_argument("--projects", type=int, metavar="N", help="N made-up projects")
    what.add_argument("--files", type=int, default=5, metavar="N", help="files of each (%(default)s)")
    what.add_argument(
        "--sidecars", type=int, metavar="N", help="of them wheels with metadata (3, if there are as many)"
    )
    what.add_argument("--size", type=int, default=20_000, metavar="BYTES", help="average size of a file (%(default)s)")
    what.add_argument("--description", type=int, default=0, metavar="BYTES", help="average length in a document")
    what.add_argument("--long-tail", action="store_true", help="most of them much shorter, a few much longer")
    what.add_argument("--archives", action="store_true", help="wheels are archives with their metadata in them")
    what.add_argument("--recorded", metavar="FOLDER", help="recorded answers of a real index")
    how = parser.add_argument_group("how it behaves")
    how.add_argument("--host", default="127.0.0.1")
    how.add_argument("--port", type=int, default=0)
    how.add_argument("--files-port", type=int, default=0)
    how.add_argument("--files-host", action="store_true", help="files on a second port, printed on the second line")
    how.add_argument("--static", action="store_true", help="like a static mirror")
    how.add_argument("--no-xmlrpc", dest="xmlrpc", action="store_false")
    how.add_argument("--no-documents", dest="documents", action="store_false")
    how.add_argument("--no-log", dest="log", action="store_false", help="count requests without keeping them")
    how.add_argument("--no-control", dest="control", action="store_false", help="no /_control/")
    how.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before every answer")
    how.add_argument("--error-rate", type=float, default=0.0, metavar="SHARE", help="of requests that get a 503")
    how.add_argument("--warm", action="store_true", help="render everything before the URL is printed")
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--uvloop", action="store_true")
    how.add_argument("--with-stdin", action="store_true", help="end when the standard input does")
    return parser


def _index(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> Index:
    if asked.empty:
        return Index()
    if asked.recorded:
        return from_recorded(asked.recorded)
    if asked.projects is not None:
        try:
            return many_projects(
                asked.projects,
                asked.files,
                asked.sidecars,
                asked.size,
                seed=asked.seed,
                description=asked.description,
                long_tail=asked.long_tail,
                archives=asked.archives,
            )
        except ValueError as error:
            parser.error(str(error))
    return small_index()


async def _serve(asked: argparse.Namespace, index: Index) -> None:
    options = Options.static() if asked.static else Options(xmlrpc=asked.xmlrpc)
    names = ("documents", "files_host", "log", "control", "latency", "error_rate", "seed")
    options = replace(options, **{name: getattr(asked, name) for name in names})
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    if asked.with_stdin:
        loop.add_reader(sys.stdin.fileno(), _read_stdin, done)
    server = FakeIndex(index, host=asked.host, port=asked.port, files_port=asked.files_port, options=options)
    async with server:
        if asked.warm:
            server.warm()
        sys.stdout.write(f"{server.url}\n" + (f"{server.files_url}\n" if asked.files_host else ""))
        sys.stdout.flush()
        await done.wait()


def _read_stdin(done: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        done.set()


if __name__ == "__main__":
    main()
