"""Access logs as nginx writes them, and what was counted of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliostat.stats.database import opened, transaction
from heliostat.stats.lines import day_of
from heliostat.stats.reading import Reading, read_logs
from heliostat.stats.summary import Period, Summary, summarise
from heliostat.stats.tally import forget_days

DIGITS = "ab" * 32
PLACE = f"/packages/ab/ab/{DIGITS[4:]}"
WHEEL = f"{PLACE}/foo_bar-1.0-py3-none-any.whl"
EVERY = Period()
#: Of a few days before TODAY.
START = dt.datetime(2026, 11, 20, 22, 0, tzinfo=dt.UTC)
TODAY = day_of(dt.date(2026, 11, 25))
PIP = (
    'pip/24.0 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm","name":"Debian GNU/Linux"},'
    '"implementation":{"name":"CPython","version":"3.11.2"},"installer":{"name":"pip","version":"24.0"},'
    '"openssl_version":"OpenSSL 3.0.11","python":"3.11.2","system":{"name":"Linux","release":"6.1.0"}}'
)


def escaped(text: str) -> str:
    """As nginx's combined format has it."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02X}" for byte in text.encode())


def combined(
    seconds: float = 0,
    target: str = WHEEL,
    *,
    client: str = "192.0.2.1",
    status: int = 200,
    sent: int = 1000,
    agent: str = PIP,
    method: str = "GET",
) -> bytes:
    """A line, ``seconds`` after START."""
    when = START + dt.timedelta(seconds=seconds)
    return (
        f"{client} - - [{when:%d/%b/%Y:%H:%M:%S} +0000] "
        f'"{method} {escaped(target)} HTTP/1.1" {status} {sent} "-" "{escaped(agent)}"\n'
    ).encode()


def as_json(
    seconds: float = 0,
    target: str = WHEEL,
    *,
    client: str = "192.0.2.1",
    status: int = 200,
    sent: int = 1000,
    agent: str = PIP,
    method: str = "GET",
    complete: str = "OK",
) -> bytes:
    """The same in ``heliostat_json``."""
    fields = {
        "time": (START + dt.timedelta(seconds=seconds)).isoformat(), "address": client, "method": method,
        "target": target, "protocol": "HTTP/1.1", "status": status, "bytes": sent, "seconds": 0.001,
        "complete": complete, "range": "", "type": "x", "encoding": "", "agent": agent, "tls": "",
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def many(lines: int) -> Iterator[bytes]:
    """Downloads of 50 files, each by another client."""
    line = combined(0, f"{PLACE}/p-1.FILE.zip", client="CLIENT", agent="pip/24.0")
    for number in range(lines):
        client = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        yield line.replace(b"CLIENT", client.encode()).replace(b"FILE", str(number % 50).encode())


def count(
    database: Path, *logs: Path | str, today: int = TODAY, directory: Path | None = None, keep: int | None = None
) -> Reading:
    """One run over these logs."""
    with opened(str(database)) as connection:
        where = str(directory) if directory else None
        reading = read_logs(connection, map(str, logs), today=today, directory=where)
        if keep is not None:
            with transaction(connection):
                forget_days(connection, keep)
    return reading


def counted(database: Path) -> list[Any]:
    """All that is kept, by names."""
    queries = (
        """SELECT day, project, files.version, name, digits, installer, agents.version, python, requests, downloads, bytes
        FROM counts JOIN files ON files.id = file JOIN agents ON agents.id = agent ORDER BY 1, 2, 3, 4, 5, 6, 7, 8""",
        "SELECT * FROM answers ORDER BY day, kind, status",
        "SELECT day, clients + (SELECT count(*) FROM clients WHERE clients.day = days.day) FROM days ORDER BY day",
    )
    with opened(str(database)) as connection:
        return [connection.execute(query).fetchall() for query in queries]


def summary(database: Path, period: Period = EVERY, top: int = 100) -> Summary:
    with opened(str(database)) as connection:
        return summarise(connection, period, top)


def downloads(database: Path) -> dict[str, int]:
    """By file name."""
    return {row.name[0]: row.downloads for row in summary(database).files}
