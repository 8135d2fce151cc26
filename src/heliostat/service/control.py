"""The control socket of a daemon: commands that must write while it holds the lock are carried out by it.

Only the daemon's own user, and root, are listened to.  Clients are few, their requests small; one that does not read,
or that goes away, delays nobody, and what it asked for is carried out all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Mapping

import msgspec

from heliostat.errors import HeliostatError, printable
from heliostat.service.control_commands import HANDLERS, Call, Handler
from heliostat.service.control_wire import (
    HEARTBEAT,
    MOST_REQUEST,
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
    peer_of,
    socket_folder,
)
from heliostat.service.daemon import Daemon
from heliostat.state.database import owner_of

log = logging.getLogger(__name__)

#: Connections, and commands that are being carried out, at the same time.
_MOST = 16
#: Seconds by which two times differ that are one and the same.
_SAME = 1.0
#: Seconds between two looks at the counters; that the last line may take; that commands may take once the daemon ends.
_EVERY, _FAREWELL, _END = 0.25, 30.0, 2.0


@contextlib.asynccontextmanager
async def control_socket(daemon: Daemon, handlers: Mapping[str, Handler] = HANDLERS) -> AsyncIterator[None]:
    """While this is open, clients are served.  Where the socket cannot be made, that is logged, and no more."""
    served = _Served(daemon, handlers)
    folder = socket_folder(daemon.config)
    try:
        server = await _listen(folder, served)
    except OSError as error:
        reason = error.strerror or str(error)
        log.error("no control socket at %s/%s: %s; commands that write have to wait", folder, NAME, reason)
        yield
        return
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):
            os.unlink(f"{folder}/{NAME}")
        await served.end()


async def _listen(folder: str, served: _Served) -> asyncio.Server:
    """Raises OSError.  Whose the lock is may remove a socket that is left from before."""
    path = f"{folder}/{NAME}"
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(0, "something that is no socket is in the way; heliostat did not put it there")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with address_in(folder) as address:
            listener.bind(address)
        os.chmod(path, 0o600)  # nobody can connect before it listens
        return await asyncio.start_unix_server(served.client, sock=listener, limit=MOST_REQUEST)
    except BaseException:
        listener.close()
        raise


class _Served:
    """The clients of one daemon, and what they asked for."""

    def __init__(self, daemon: Daemon, handlers: Mapping[str, Handler]) -> None:
        self._daemon, self._handlers = daemon, handlers
        self._clients: set[asyncio.Task[None]] = set()
        self._commands: set[asyncio.Task[object]] = set()

    async def end(self) -> None:
        """What runs gets a moment to end, and its clients to hear of it."""
        for tasks in (self._commands, self._clients):
            if tasks:
                await asyncio.wait(tasks, timeout=_END)
        for task in (*self._commands, *self._clients):
            task.cancel()
        await asyncio.gather(*self._commands, *self._clients, return_exceptions=True)

    def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection was made."""
        writer.transport.set_write_buffer_limits(high=0)
        if len(self._clients) >= _MOST:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="control client")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader, writer)
            if answer is not None:
                async with asyncio.timeout(_FAREWELL):
                    await _say(writer, answer)
        except (OSError, TimeoutError):
            log.debug("a control client went away, or did not read")
        except Exception:
            log.exception("a control client was not served; please report this")
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer | None:
        """The last line to be said; None when nobody is there to hear it."""
        folder = socket_folder(self._daemon.config)
        user = peer_of(writer.get_extra_info("socket").fileno())
        if user not in (0, os.geteuid()):
            return _refusal("StoreError", f"this daemon runs as another user; run this as {owner_of(folder)}")
        try:
            async with asyncio.timeout(PROMPT):
                line = await reader.readline()
        except TimeoutError:
            return _refusal("Refused", f"no request came within {PROMPT:g} s")
        except ValueError:
            return _refusal("Refused", f"a request has at most {MOST_REQUEST} bytes")
        if not line.endswith(b"\n"):
            return None
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, RecursionError) as error:
            return _refusal("Refused", f"that is no request: {error}")
        if request.protocol != PROTOCOL:
            text = f"protocol {request.protocol} is not spoken here, but {PROTOCOL}; use the same heliostat for both"
            return _refusal("Refused", text)
        handler = self._handlers.get(request.command)
        if handler is None:
            return _refusal("Refused", f"command {printable(request.command, 60)} is not known to the running daemon")
        if len(self._commands) >= _MOST:
            return _refusal("MirrorLocked", f"the daemon carries out {_MOST} commands already; try again later")
        return await self._carry_out(handler, Call(self._daemon, bytes(request.arguments)), writer)

    async def _carry_out(self, handler: Handler, call: Call, writer: asyncio.StreamWriter) -> Answer:
        command: asyncio.Task[object] = asyncio.create_task(_run(handler, call), name="control command")
        self._commands.add(command)
        command.add_done_callback(self._commands.discard)
        await _say(writer, Accepted())
        said, when, held = b"", 0.0, None
        while not (await asyncio.wait([command], timeout=_EVERY))[0]:
            hold = self._daemon.held() if call.waits else None
            if hold is None or held is None or abs(hold.until - held.until) > _SAME:
                held = hold  # clocks are read one after the other: otherwise each look would be news
            now, line = time.monotonic(), msgspec.json.encode(Progress(call.counters, *(held or ())))
            # A client that does not read gets no more until it does.
            if (line != said or now - when >= HEARTBEAT) and not writer.transport.get_write_buffer_size():
                said, when = line, now
                writer.write(line + b"\n")
            if writer.transport.is_closing():
                raise ConnectionResetError
        try:
            return Done(msgspec.Raw(msgspec.json.encode(command.result())))
        except asyncio.CancelledError:
            return _refusal("HeliostatError", "the daemon ended before this was done")
        except HeliostatError as error:
            return Failed([kind.__name__ for kind in type(error).__mro__], str(error))
        except Exception as error:
            log.exception("a command failed unexpectedly; please report this")
            return Failed([type(error).__name__], f"unexpected {type(error).__name__}; the daemon's log has more")


async def _run(handler: Handler, call: Call) -> object:
    return await handler(call)


async def _say(writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Until it is taken."""
    writer.write(msgspec.json.encode(answer) + b"\n")
    await writer.drain()


def _refusal(kind: str, message: str) -> Failed:
    return Failed([kind, "HeliostatError"], message)
