"""Hits are counted in memory, in tables of bounded size, and written to the database together with the position.

What counts (docs/stats.md is the manual):

- A *download* is a GET of a file that was answered with the whole of it (200), once for each such answer.
- Parts (206), and whole answers that were broken off, are added up by day, client, installer and file: one request, and
  one download as soon as they have as many bytes as the file.
- A *request* is a GET of a project's file, sidecar, page, document or provenance that got a 200, 206 or 304.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from hashlib import blake2b

from heliostat.names import package_path
from heliostat.stats.agents import Agent, agent_of
from heliostat.stats.lines import Hit
from heliostat.stats.targets import FILE, Target, target_of

#: Entries of all tables together, and of each table of numbers of rows.
_MOST = 20_000
_ANSWERED = (200, 206, 304)

_Count = tuple[int, Target, Agent]


class Tally:
    """What was not written yet.  The database changes in :meth:`write` only, in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._counts: defaultdict[_Count, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._parts: defaultdict[tuple[int, Target, Agent, str], int] = defaultdict(int)
        self._answers: defaultdict[tuple[int, str, int], list[int]] = defaultdict(lambda: [0, 0])
        self._clients: set[tuple[int, str]] = set()
        self._sizes: dict[Target, int] = {}
        self._files: dict[Target, int] = {}
        self._agents: dict[Agent, int] = {}

    @property
    def full(self) -> bool:
        return len(self._counts) + len(self._parts) + len(self._clients) + len(self._answers) > _MOST

    def add(self, hit: Hit) -> None:
        day, address, method, raw, status, sent, whole, header = hit
        target = target_of(raw)
        answer = self._answers[day, target.kind, status]
        answer[0] += 1
        answer[1] += sent
        if address:
            self._clients.add((day, address))
        if not target.project or method != "GET" or status not in _ANSWERED:
            return
        agent = agent_of(header)
        count = self._counts[day, target, agent]
        count[2] += sent
        if target.kind != FILE or status == 304:
            count[0] += 1
        elif status == 200 and whole:
            count[0] += 1
            count[1] += 1
            if sent > self._sizes.get(target, 0):
                self._sizes[target] = sent
        else:
            self._parts[day, target, agent, address] += sent

    def write(self) -> None:
        """Add everything to the database, and begin anew."""
        run = self._connection.executemany
        days = {key[0] for key in self._answers}
        run("INSERT INTO days (day, key) VALUES (?, randomblob(32)) ON CONFLICT DO UPDATE SET dirty = 1",
            [(day,) for day in sorted(days)])  # fmt: skip
        # A day that was closed is opened again by lines that come late; its clients may then be counted twice.
        run("UPDATE days SET key = randomblob(32) WHERE day = ? AND key IS NULL", [(day,) for day in sorted(days)])
        run("INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " requests = requests + excluded.requests, bytes = bytes + excluded.bytes",
            [(*key, *numbers) for key, numbers in self._answers.items()])  # fmt: skip
        run("INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " requests = requests + excluded.requests, downloads = downloads + excluded.downloads,"
            " bytes = bytes + excluded.bytes",
            [(day, self._file(target), self._agent(agent), *numbers)
             for (day, target, agent), numbers in self._counts.items()])  # fmt: skip
        run("UPDATE files SET size = max(coalesce(size, 0), ?) WHERE id = ?",
            [(size, self._file(target)) for target, size in self._sizes.items()])  # fmt: skip
        keys = {day: self._key(day) for day in days}
        run("INSERT OR IGNORE INTO clients VALUES (?, ?)",
            [(day, _pseudonym(keys[day], address)) for day, address in self._clients])  # fmt: skip
        run("INSERT INTO parts (day, file, agent, client, bytes) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            [(day, self._file(target), self._agent(agent), _pseudonym(keys[day], address), sent)
             for (day, target, agent, address), sent in self._parts.items()])  # fmt: skip
        for table in (self._answers, self._counts, self._sizes, self._clients, self._parts):
            table.clear()
        for numbers_of in (self._files, self._agents):
            if len(numbers_of) > _MOST:
                numbers_of.clear()

    def _key(self, day: int) -> bytes:
        (key,) = self._connection.execute("SELECT key FROM days WHERE day = ?", (day,)).fetchone()
        return bytes(key)

    def _file(self, target: Target) -> int:
        row = target if target.kind == FILE else Target("", target.project)
        number = self._files.get(row)
        if number is None:
            number = self._files[row] = self._number("files (project, version, name, digits)", tuple(row[1:]))
        return number

    def _agent(self, agent: Agent) -> int:
        number = self._agents.get(agent)
        if number is None:
            number = self._agents[agent] = self._number("agents (installer, version, python)", tuple(agent))
        return number

    def _number(self, table: str, row: tuple[str, ...]) -> int:
        """The number of a row that is made if need be; ``table`` names its columns as well."""
        name, _, columns = table.partition(" ")
        marks = ", ".join("?" * len(row))
        self._connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
        found = self._connection.execute(f"SELECT id FROM {name} WHERE {columns} = ({marks})", row)
        (number,) = found.fetchone()
        return int(number)


def _pseudonym(key: bytes, address: str) -> bytes:
    return blake2b(address.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()


def settle(connection: sqlite3.Connection, directory: str | None) -> None:
    """Count parts as the request, and where they have all bytes of a file as the download, that they are.

    A file is as large as the mirror in ``directory`` has it, else as the largest of its whole answers.
    """
    _stat_sizes(connection, directory)
    for state, requests, downloads, where in (
        (1, 1, 0, "parts.state = 0"),
        (2, 0, 1, "parts.state = 1 AND parts.bytes >= files.size AND files.size > 0"),
    ):
        chosen = f"FROM parts JOIN files ON files.id = parts.file WHERE {where}"
        connection.execute(
            "INSERT INTO counts SELECT parts.day, parts.file, parts.agent, count(*) * ?, count(*) * ?, 0"
            f" {chosen} GROUP BY parts.day, parts.file, parts.agent ON CONFLICT DO UPDATE SET"
            " requests = requests + excluded.requests, downloads = downloads + excluded.downloads",
            (requests, downloads),
        )
        connection.execute(f"UPDATE days SET dirty = 1 WHERE day IN (SELECT parts.day {chosen})")
        connection.execute(
            f"UPDATE parts SET state = ? WHERE (day, file, agent, client) IN"
            f" (SELECT parts.day, parts.file, parts.agent, parts.client {chosen})",
            (state,),
        )


def close_days(connection: sqlite3.Connection, before: int) -> None:
    """Forget who was there on days before this one; how many there were stays."""
    connection.execute(
        "UPDATE days SET clients = clients + (SELECT count(*) FROM clients WHERE clients.day = days.day), key = NULL"
        " WHERE day < ? AND key IS NOT NULL",
        (before,),
    )
    connection.execute("DELETE FROM clients WHERE day < ?", (before,))
    connection.execute("DELETE FROM parts WHERE day < ?", (before,))


def forget_days(connection: sqlite3.Connection, keep: int) -> None:
    """Drop all but the last ``keep`` days; lines of dropped days are not counted any more."""
    (newest,) = connection.execute("SELECT max(day) FROM days").fetchone()
    floor = (newest or 0) - keep + 1
    connection.execute("UPDATE meta SET floor = max(floor, ?)", (floor,))
    for table in ("counts", "answers", "clients", "parts", "days"):
        connection.execute(f"DELETE FROM {table} WHERE day < ?", (floor,))


def _stat_sizes(connection: sqlite3.Connection, directory: str | None) -> None:
    if directory is None:
        return
    rows = connection.execute(
        "SELECT DISTINCT files.id, files.digits, files.name FROM parts JOIN files ON files.id = parts.file"
        " WHERE parts.state < 2 LIMIT ?",
        (_MOST,),
    )
    found = []
    for number, digits, name in rows:
        try:
            found.append((os.stat(os.fsencode(f"{directory}/{package_path(digits, name)}")).st_size, number))
        except OSError:
            continue
    connection.executemany("UPDATE files SET size = ? WHERE id = ?", found)
