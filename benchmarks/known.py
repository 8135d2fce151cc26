"""A mirror as it is after years: very many projects that the ledger knows, and hardly anything else on disk.

    python benchmarks/known.py root|list|polls DIRECTORY

are the parts that :mod:`scale` measures as processes of their own; each prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from heliostat.config import load_config
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.report import Counters
from heliostat.mirror.root import entries, write_root, write_status
from heliostat.mirror.run import Mirror
from heliostat.model import ProjectName, ProjectPage
from heliostat.pages.render import project_html, project_json, root_json
from heliostat.pages.root_list import RootListParser
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Publication, Tree

#: What a list comes in, as the network gives it.
_PIECE = 256 << 10


def prepare(directory: str, url: str, projects: int) -> None:
    """A ledger that knows all ``projects`` of the synthetic index at ``url``, root pages, and the first few pages."""
    index = many_projects(projects, 1)
    ledger = Ledger(f"{directory}/heliostat.db")
    now = time.time()
    ledger.insert_rebuilt(
        {
            "name": name, "display": display, "wanted_serial": serial, "accepted_serial": serial, "page_serial": serial,
            "published": 1, "state": "current", "files": 1, "bytes": 20_000, "policy": "", "page_etag": '"0123456789"',
            "document_etag": '"0123456789"', "checked_at": now,
        }
        for name, display, serial, _ in index.entries()
    )  # fmt: skip
    ledger.put(
        rebuilding=None, cursor=index.serial, upstream=url, upstream_serial=index.serial, reconciled=now,
        scope="everything", swept=now, documents=1, last_poll=now,
    )  # fmt: skip
    tree = Tree(Disk(directory))
    tree.prepare()
    for _, name, serial in ledger.published_names(limit=3):
        page = ProjectPage(name=ProjectName(name), serial=serial)
        publication = Publication(name=page.name, json_page=project_json(page), html_page=project_html(page))
        tree.show(tree.stage_pages([publication]))
    write_root(tree, ledger)
    write_status(tree, ledger.checkpoint())
    ledger.close()


def root(directory: str) -> dict[str, Any]:
    """Root pages as a whole, with gzipped copies and without."""
    tree, found = Tree(Disk(directory)), {}
    ledger = Ledger(f"{directory}/heliostat.db")
    for packed in (False, True):
        write = partial(write_root, tree, ledger, force=True, packed=packed)
        found["packed" if packed else "plain"] = _spent(write)
    write_root(tree, ledger)
    ledger.close()
    return {**found, "memory": _peak()}


def changed_list(directory: str) -> dict[str, Any]:
    """A list with 100 changed projects: decoded, compared with the ledger, and taken into it."""
    ledger = Ledger(f"{directory}/heliostat.db")
    body = f"{directory}/partial/list"
    with open(body, "wb") as file:
        rows = enumerate(entries(ledger))
        every = max(1, ledger.published_count() // 100)
        most = ledger.cursor + 1000
        file.writelines(root_json(((d, n, most if at % every == 0 else s) for at, (d, n, s) in rows), most))

    def take() -> None:
        parser = RootListParser("the list")
        ledger.intake.begin_list()
        for piece in _pieces(body):
            ledger.intake.add_listed(parser.feed(piece), lambda _: True)
        ledger.intake.finish_list(parser.close() or 0, time.time(), everything=False)

    spent = _spent(take)
    os.unlink(body)
    ledger.close()
    return {"spent": spent, "owed": ledger_owed(directory), "memory": _peak()}


def ledger_owed(directory: str) -> int:
    ledger = Ledger(f"{directory}/heliostat.db")
    try:
        return ledger.count_due(time.time())
    finally:
        ledger.close()


def polls(directory: str) -> dict[str, Any]:
    """Polls that find nothing, in a process that stays: CPU seconds of each."""
    with open(f"{directory}.toml", encoding="utf-8") as file:
        config = load_config(file.read(), source=f"{directory}.toml")

    async def run() -> list[float]:
        async with Mirror.open(config) as mirror:
            spent = []
            for _ in range(30):
                before = _cpu()
                await mirror.run(counters=Counters(), stop=asyncio.Event(), patient=True)
                spent.append(_cpu() - before)
            return spent[5:]

    return {"spent": asyncio.run(run()), "memory": _peak()}


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    """The largest resident size of this process in MiB; what its parent had before does not count."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


if __name__ == "__main__":
    part = {"root": root, "list": changed_list, "polls": polls}[sys.argv[1]]
    json.dump(part(sys.argv[2]), sys.stdout)
