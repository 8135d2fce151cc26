"""What the counts say of a period: totals, the first of each kind, and all projects by traffic."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import msgspec

from heliostat.stats.lines import date_of

_FAR = 1 << 40


class Period(NamedTuple):
    """Days, both included."""

    first: int = -_FAR
    last: int = _FAR


class Row(msgspec.Struct, frozen=True):
    """A project, a file, a version, an installer or a Python; ``name`` has as many parts as that needs."""

    name: tuple[str, ...]
    downloads: int
    requests: int
    bytes: int


class Day(msgspec.Struct, frozen=True):
    """``requests`` and ``bytes`` are of all answers; ``clients`` are addresses."""

    date: str
    downloads: int
    requests: int
    bytes: int
    clients: int


class Summary(msgspec.Struct, kw_only=True):
    """Figures of a period; ``first`` and ``last`` are null when nothing was asked for in it."""

    first: str | None
    last: str | None
    downloads: int
    requests: int
    bytes: int
    #: How many there are, of which the lists hold the first.
    project_count: int
    file_count: int
    statuses: dict[str, int]
    kinds: dict[str, int]
    days: list[Day]
    projects: list[Row]
    versions: list[Row]
    files: list[Row]
    installers: list[Row]
    pythons: list[Row]


class Traffic(msgspec.Struct, frozen=True):
    """A project's part of all requests."""

    project: str
    requests: int
    downloads: int
    bytes: int


_FROM = """
FROM counts JOIN files ON files.id = counts.file JOIN agents ON agents.id = counts.agent
WHERE counts.day BETWEEN ? AND ?
"""
_SUMS = "sum(counts.downloads), sum(counts.requests), sum(counts.bytes)"


def summarise(connection: sqlite3.Connection, period: Period, top: int) -> Summary:
    """The figures of ``period``; lists hold the first ``top``, most downloads first, then by name."""

    def tops(columns: str, where: str = "") -> list[Row]:
        numbers = ", ".join(str(at + 1) for at in range(columns.count(",") + 1))
        found = connection.execute(
            f"SELECT {columns}, {_SUMS} {_FROM} {where} GROUP BY {numbers}"
            f" ORDER BY sum(counts.downloads) DESC, sum(counts.requests) DESC, {numbers} LIMIT ?",
            (*period, top),
        )
        return [Row(tuple(row[:-3]), *row[-3:]) for row in found]

    def by(column: str) -> dict[str, int]:
        found = connection.execute(
            f"SELECT {column}, sum(requests) FROM answers WHERE day BETWEEN ? AND ? GROUP BY 1 ORDER BY 1", period
        )
        return {str(key): requests for key, requests in found}

    days = _days(connection, period)
    projects, files = connection.execute(
        "SELECT count(DISTINCT files.project),"
        f" count(DISTINCT CASE WHEN counts.downloads > 0 THEN files.id END) {_FROM}",
        period,
    ).fetchone()
    return Summary(
        first=days[0].date if days else None,
        last=days[-1].date if days else None,
        downloads=sum(day.downloads for day in days),
        requests=sum(day.requests for day in days),
        bytes=sum(day.bytes for day in days),
        project_count=projects,
        file_count=files,
        statuses=by("status"),
        kinds=by("kind"),
        days=days,
        projects=tops("files.project"),
        versions=tops("files.project, files.version", "AND counts.downloads > 0"),
        files=tops("files.name", "AND counts.downloads > 0"),
        installers=tops("agents.installer, agents.version"),
        pythons=tops("agents.python"),
    )


def _days(connection: sqlite3.Connection, period: Period) -> list[Day]:
    found = connection.execute(
        "SELECT days.day,"
        " (SELECT coalesce(sum(downloads), 0) FROM counts WHERE counts.day = days.day),"
        " (SELECT coalesce(sum(requests), 0) FROM answers WHERE answers.day = days.day),"
        " (SELECT coalesce(sum(bytes), 0) FROM answers WHERE answers.day = days.day),"
        " days.clients + (SELECT count(*) FROM clients WHERE clients.day = days.day)"
        " FROM days WHERE days.day BETWEEN ? AND ? ORDER BY days.day",
        period,
    )
    return [Day(date_of(day).isoformat(), *numbers) for day, *numbers in found]


def traffic(connection: sqlite3.Connection, period: Period, share: Fraction) -> Iterator[Traffic]:
    """The fewest projects that together have ``share`` of all requests, most requests first, then by name."""
    (total,) = connection.execute(
        "SELECT coalesce(sum(requests), 0) FROM counts WHERE day BETWEEN ? AND ?", period
    ).fetchone()
    wanted, so_far = share * total, 0
    rows = connection.execute(
        "SELECT files.project, sum(counts.requests), sum(counts.downloads), sum(counts.bytes)"
        f" {_FROM} GROUP BY files.project ORDER BY sum(counts.requests) DESC, files.project",
        period,
    )
    for row in rows:
        if so_far >= wanted:
            return
        so_far += row[1]
        yield Traffic(*row)
