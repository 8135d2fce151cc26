"""The summary of ``heliostat stats``, in words and as JSON."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import msgspec

from heliostat.cli import format as fmt
from heliostat.cli.options import Options
from heliostat.cli.output import show
from heliostat.stats.reading import Reading
from heliostat.stats.summary import Period, Row, Summary, Traffic, summarise, traffic


def report(
    options: Options,
    code: int,
    connection: sqlite3.Connection,
    reading: Reading,
    written: Sequence[str],
    notes: Sequence[str],
    *,
    period: Period,
    top: int,
    share: Fraction,
) -> None:
    """Print what was read, and what the kept counts say; under --quiet only what is wrong."""
    if options.quiet and not options.json:
        show(options, code, [fmt.plain(note) for note in notes], {})
        return
    summary = summarise(connection, period, top)
    listed = list(traffic(connection, period, share))
    if options.json:
        show(options, code, (), _object(reading, written, notes, summary, listed, share))
    else:
        show(options, code, _words(reading, written, notes, summary, listed, share), {})


def _object(
    reading: Reading,
    written: Sequence[str],
    notes: Sequence[str],
    summary: Summary,
    listed: Sequence[Traffic],
    share: Fraction,
) -> dict[str, Any]:
    return {
        "read": {
            "files": reading.files,
            "unchanged": reading.unchanged,
            "lines": reading.lines,
            "not_understood": reading.odd,
            "bytes": reading.bytes,
        },
        "written": list(written),
        "problems": list(notes),
        **{key: value for key, value in msgspec.to_builtins(summary).items() if key not in _NAMED},
        "projects": [_row(row, "project") for row in summary.projects],
        "versions": [_row(row, "project", "version") for row in summary.versions],
        "files": [_row(row, "file") for row in summary.files],
        "installers": [_row(row, "installer", "version") for row in summary.installers],
        "pythons": [_row(row, "python") for row in summary.pythons],
        "share": float(share),
        "traffic": [msgspec.to_builtins(one) for one in listed],
    }


_NAMED = ("projects", "versions", "files", "installers", "pythons")


def _row(row: Row, *names: str) -> dict[str, Any]:
    figures = {"downloads": row.downloads, "requests": row.requests, "bytes": row.bytes}
    return dict(zip(names, row.name, strict=True)) | figures


def _words(
    reading: Reading,
    written: Sequence[str],
    notes: Sequence[str],
    summary: Summary,
    listed: Sequence[Traffic],
    share: Fraction,
) -> list[str]:
    lines = [fmt.plain(note) for note in notes]
    odd = f", {fmt.number(reading.odd)} of them not understood" if reading.odd else ""
    lines.append(
        f"read: {fmt.counted(reading.lines, 'line')}{odd}, {fmt.size(reading.bytes)}, of "
        f"{fmt.counted(reading.files, 'file')}; {fmt.counted(reading.unchanged, 'file')} as before"
    )
    if written:
        lines.append(f"written: {fmt.counted(len(written), 'day')}, the last is {written[-1]}")
    if summary.first is None:
        return [*lines, "nothing was asked for in this period"]
    lines.append(
        f"from {summary.first} to {summary.last}: {fmt.counted(summary.downloads, 'download')} of "
        f"{fmt.counted(summary.file_count, 'file')}, {fmt.counted(summary.requests, 'request')}, "
        f"{fmt.counted(summary.project_count, 'project')}, {fmt.size(summary.bytes)}; "
        f"at most {fmt.counted(max(day.clients for day in summary.days), 'client')} a day"
    )
    statuses = ", ".join(f"{fmt.number(count)} x {status}" for status, count in summary.statuses.items())
    lines.append(f"answers: {statuses}")
    for title, rows in (
        ("projects", summary.projects),
        ("versions", summary.versions),
        ("files", summary.files),
        ("installers", summary.installers),
        ("pythons", summary.pythons),
    ):
        lines += _table(title, rows)
    percent = f"{float(share * 100):.12g}%"
    lines.append(
        f"list: {fmt.number(len(listed))} of {fmt.counted(summary.project_count, 'project')} "
        f"make up {percent} of the requests for projects (--list FILE writes them)"
    )
    return lines


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    names = [fmt.plain(" ".join(part for part in row.name if part) or "not told") for row in rows]
    width = max(len(title), *(min(len(name), 50) for name in names)) + 2
    lines = ["", f"{title:{width}}{'downloads':>12}{'requests':>12}{'bytes':>12}"]
    lines += [
        f"{name:{width}}{fmt.number(row.downloads):>12}{fmt.number(row.requests):>12}{fmt.size(row.bytes):>12}"
        for name, row in zip(names, rows, strict=True)
    ]
    return lines
