"""Asking the daemon that holds a mirror to do what must be done by it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from heliostat.config import Config
from heliostat.errors import DaemonAnswer, DaemonLost, StoreError
from heliostat.mirror.report import Counters
from heliostat.service.control_wire import (
    HEARTBEAT,
    MOST_ANSWER,
    NAME,
    PROMPT,
    PROTOCOL,
    Accepted,
    Answer,
    Done,
    Failed,
    Progress,
    Request,
    address_in,
    socket_folder,
)
from heliostat.state.database import owner_of

#: So many heartbeats may fail to come.
_PATIENCE = 12


async def ask(
    config: Config,
    command: str,
    arguments: dict[str, Any] | None = None,
    counters: Counters | None = None,
    held: Callable[[str, float], None] | None = None,
) -> Any | None:
    """What the daemon of ``config``'s mirror answers to ``command``; None when no daemon listens there.

    ``counters`` follow its progress; ``held`` is told who asked it to wait and until when, in seconds since the epoch,
    again and again, and may raise what ends this.  When this is cancelled or ends so the daemon goes on.
    Raises DaemonAnswer for what it refuses or fails at, DaemonLost when it ends or hangs, StoreError when the socket is
    another user's.
    """
    async with _connected(config) as connection:
        if connection is None:
            return None
        reader, writer = connection
        raw = msgspec.Raw(msgspec.json.encode(arguments or {}))
        with contextlib.suppress(ConnectionError):  # what it says is still to be read
            writer.write(msgspec.json.encode(Request(PROTOCOL, command, raw)) + b"\n")
            await writer.drain()
        decoder, patience, accepted = msgspec.json.Decoder(Answer), PROMPT, False
        while True:
            answer = await _next(reader, decoder, patience, accepted=accepted)
            if answer is None:
                return None
            if isinstance(answer, Accepted):
                accepted, patience = True, HEARTBEAT * _PATIENCE
            elif isinstance(answer, Progress):
                if counters is not None:
                    for field in Counters.__struct_fields__:
                        setattr(counters, field, getattr(answer.counters, field))
                if held is not None and answer.held_by is not None and answer.held_until is not None:
                    held(answer.held_by, answer.held_until)
            elif isinstance(answer, Done):
                return msgspec.json.decode(answer.result)
            elif isinstance(answer, Failed):
                raise DaemonAnswer(answer.message, tuple(answer.kinds))


@contextlib.asynccontextmanager
async def _connected(config: Config) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]:
    folder = socket_folder(config)
    try:
        with address_in(folder) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MOST_ANSWER)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK, errno.ENOTDIR, errno.EAGAIN):
            yield None
            return
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason += f"; run this as {owner_of(folder)}"
        raise StoreError("ask the daemon at", f"{folder}/{NAME}", reason) from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _next(
    reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[Answer], patience: float, *, accepted: bool
) -> Answer | None:
    """Its next line; None when it closed the connection, or says nothing, before it took the request."""
    try:
        async with asyncio.timeout(patience):
            line = await reader.readline()
    except TimeoutError:
        if not accepted:
            return None
        raise DaemonLost(f"the daemon has said nothing for {patience:g} s; heliostat status tells how it is") from None
    except (OSError, ValueError):
        line = b""
    if not line.endswith(b"\n"):
        if not accepted:
            return None
        raise DaemonLost("the daemon ended before this was done; run it again")
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        raise DaemonLost(f"the daemon said what is not understood ({error}); use the same heliostat for both") from None
