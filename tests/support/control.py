"""The control socket spoken to byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.daemon_process import PATIENCE


class Connection:
    """One connection to a control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, command: str, protocol: Any = 1, **arguments: Any) -> None:
        request = {"protocol": protocol, "command": command, "arguments": arguments}
        self.send(json.dumps(request).encode() + b"\n")

    async def lines(self) -> list[dict[str, Any]]:
        """All that is said until the daemon closes the connection."""
        found = []
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while line := await self.reader.readline():
                    found.append(json.loads(line))
        return found

    async def line(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            found: dict[str, Any] = json.loads(await self.reader.readline())
            return found


@contextlib.asynccontextmanager
async def connection(path: Path) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
