"""Mirrors of very many projects that need not be synchronised first: state as a finished synchronisation leaves it.

Only the projects that a benchmark touches are mirrored for real; of the others there are the rows, without pages or
files.  What does no work proportional to the mirror does not notice.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence

from contestants import heliostat, simple_json
from harness import successful, timed
from peers import SHADOWMIRE_ENV, bandersnatch_run, shadowmire_run

from heliostat.mirror.places import DATABASE
from heliostat.model import Listed, ProjectName
from heliostat.names import normalise
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Published

_BATCH = 2_000


def listed(url: str) -> tuple[int, list[tuple[str, int]]]:
    """The root list at ``url``: its own serial, and (name, serial) of each project."""
    found = simple_json(f"{url}/simple/")
    return found["meta"]["_last-serial"], [(entry["name"], entry["_last-serial"]) for entry in found["projects"]]


def made_up(count: int) -> list[tuple[str, int]]:
    """Names and serials of an index that nobody serves."""
    return [(f"project-{number:07}", 10 * (number + 1)) for number in range(count)]


def prepared_heliostat(url: str, config: str, directory: str, real: Sequence[str]) -> None:
    """A mirror of everything at ``url`` that owes nothing; the projects ``real`` are mirrored for real."""
    successful(timed(heliostat(config, "mirror", *real)), "heliostat mirror NAME")
    serial, projects = listed(url)
    ledger = Ledger(os.path.join(directory, DATABASE), create=False)
    fill_ledger(ledger, projects, serial, set(real))
    ledger.close()
    # Settles what only a pass knows: facts, root index, checkpoint.
    successful(timed(heliostat(config)), "heliostat mirror --once")


def fill_ledger(ledger: Ledger, projects: Sequence[tuple[str, int]], serial: int, known: Iterable[str] = ()) -> None:
    """Rows of all ``projects`` as published; those ``known`` are there already."""
    done = set(known)
    now = time.time()
    take_list(ledger, projects, serial, now)
    for batch in _batches(projects):
        rows = [(ProjectName(normalise(name)), name, theirs) for name, theirs in batch if name not in done]
        ledger.record([published(name, display, theirs, now) for name, display, theirs in rows])
    ledger.put(reconciled=now)


def take_list(ledger: Ledger, projects: Sequence[tuple[str, int]], serial: int, now: float) -> None:
    """A complete root list, compared with the ledger."""
    ledger.root_list.begin()
    for batch in _batches(projects):
        ledger.root_list.add([Listed(name, theirs) for name, theirs in batch], lambda _: True)
    ledger.root_list.finish(serial, now, everything=False)


def published(name: ProjectName, display: str, serial: int, now: float) -> Published:
    """What a finished try records of a project with five files."""
    return Published(
        name=name,
        display=display,
        wanted_serial=serial,
        accepted_serial=serial,
        page_serial=serial,
        state="current",
        files=5,
        bytes=100_000,
        policy="",
        page_etag=f'"page-{serial}"',
        document_etag=f'"document-{serial}"',
        checked_at=now,
        extra=False,
    )


def prepared_bandersnatch(command: str, url: str, directory: str, real: Sequence[str]) -> None:
    """bandersnatch's state: its serial and its generation; the projects ``real`` are mirrored for real."""
    serial, _ = listed(url)
    successful(timed(bandersnatch_run(command, url, directory, "sync", *real)), "bandersnatch sync")
    for name, text in (("generation", "5"), ("status", str(serial))):
        with open(os.path.join(directory, name), "w", encoding="ascii") as file:
            file.write(text)


def prepared_shadowmire(python: str, url: str, directory: str, real: Sequence[str]) -> None:
    """shadowmire's table of serials; the projects ``real`` are mirrored for real."""
    known, (_, projects) = set(real), listed(url)
    table = sqlite3.connect(os.path.join(directory, "local.db"))
    with table:
        table.execute("CREATE TABLE local (key TEXT PRIMARY KEY, value INT NOT NULL, file_serial INT)")
        rows = ((name, serial, serial) for name, serial in projects if name not in known)
        table.executemany("INSERT INTO local VALUES (?, ?, ?)", rows)
    table.close()
    successful(timed(shadowmire_run(python, url, directory), env=SHADOWMIRE_ENV), "shadowmire sync")


def _batches(projects: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    rest = iter(projects)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def first_names(url: str, count: int) -> list[str]:
    """The first names of the root list, the ones that a start looks for in the tree."""
    return sorted(name for name, _ in listed(url)[1])[:count]


def follow(directory: str, url: str) -> None:
    """The same index has another URL from now on: no reason to compare everything anew."""
    ledger = Ledger(os.path.join(directory, DATABASE), create=False)
    ledger.put(upstream=url)
    ledger.close()
