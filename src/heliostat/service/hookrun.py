"""One run of a program that others wrote: bounded in time, in what it may say, and in what it leaves running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from heliostat.errors import printable

log = logging.getLogger(__name__)

#: What the program inherits of our environment: no secrets, and nothing of our supervisor's.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
#: Lines that are logged of one run, and characters of each.
_MOST_LINES, _MOST_LINE = 100, 500
_READ = 64 << 10
#: Bytes after which a program that floods us with output is listened to slowly: reading it costs time as well.
_FLOOD, _REST = 1 << 20, 0.005
#: Seconds from SIGTERM to SIGKILL, and for what is still in the pipe when the program has ended.
GRACE, _LAST_WORDS = 5.0, 1.0
_TICK = 0.05
#: Process groups of the programs that run.
_running: set[int] = set()


async def run_program(
    command: Sequence[str],
    *,
    cwd: str,
    variables: Mapping[str, str],
    stdin: int,
    inherit: int,
    started: Callable[[int], None],
    limit: float,
) -> str | None:
    """Run ``command``; None when it went well, else what is wrong.

    ``variables`` are added to a small environment; ``stdin`` and ``inherit`` are descriptors that it gets;
    ``started`` is called with its pid, which is its process group as well, and may raise OSError.  After
    ``limit`` seconds, and when this is cancelled, its process group is ended, first gently; what it leaves running in
    that group is ended in any case.  What it says is logged line by line.
    """
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(variables)
    # A pipe of our own: asyncio's would stay open for as long as anything that the program started holds it.
    ours, theirs = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, env=environment, stdin=stdin, stdout=theirs, stderr=theirs,
            start_new_session=True, pass_fds=(inherit,),
        )  # fmt: skip
    except OSError as error:
        os.close(ours)
        return f"cannot be started: {error.strerror or error}; correct [push] hook, or the file's permissions"
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    os.set_blocking(ours, False)
    listening = asyncio.create_task(_log_output(ours), name="hook output")
    listening.add_done_callback(lambda _: os.close(ours))  # also of one that never began
    late = False
    _running.add(process.pid)
    try:
        started(process.pid)
        try:
            async with asyncio.timeout(limit):
                await process.wait()
        except TimeoutError:
            late = True
            await _end(process)
        await asyncio.wait([listening], timeout=_LAST_WORDS)
    finally:
        try:
            await _end(process)
        finally:
            _signal(process.pid, signal.SIGKILL)
            _running.discard(process.pid)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    if late:
        return f"took longer than {limit:g} s and was ended; [push] hook-timeout is the limit"
    code = process.returncode or 0
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}" if code else None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program and its children; it gets a moment to do so itself."""
    if process.returncode is not None:
        return
    _signal(process.pid, signal.SIGTERM)
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait([waiting], timeout=GRACE)
    finally:
        if process.returncode is None:
            _signal(process.pid, signal.SIGKILL)
    await waiting


def kill_all() -> None:
    """End what runs at once, from whatever thread: nobody will be there to do it."""
    for group in tuple(_running):
        _signal(group, signal.SIGKILL)


async def end_group(group: int) -> None:
    """End a process group that is no child of ours; it gets a moment to do so itself."""
    _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and _is_there(group):
        await asyncio.sleep(_TICK)
    _signal(group, signal.SIGKILL)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _read(descriptor: int) -> bytes:
    """The next bytes; empty at the end.

    No transport: uvloop's closes the descriptor and then the file object that it was given, and what another thread
    has opened in between has the same number.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(descriptor, _READ)
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_reader(descriptor, _set, ready)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _log_output(descriptor: int) -> None:
    """The lines that come out of a pipe, until its other end is closed everywhere.

    What is too much is read all the same, so that the program does not wait for us, and counted.
    """
    lines, dropped, size, rest = 0, 0, 0, b""

    def say(line: bytes) -> None:
        nonlocal lines, dropped
        if lines >= _MOST_LINES:
            dropped += len(line) + 1
            return
        if text := line.decode("utf-8", "replace").strip():
            lines += 1
            log.info(
                "hook: %s", text if text.isprintable() and len(text) <= _MOST_LINE else printable(text, _MOST_LINE)
            )

    try:
        while data := await _read(descriptor):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                say(line)
            if len(rest) > _READ:
                say(rest)
                rest = b""
            size += len(data)
            # Even if there is always more, others get their turn.
            await asyncio.sleep(_REST if size > _FLOOD else 0)
        say(rest)
    finally:
        if dropped:
            log.info("hook: and %d bytes more", dropped)
