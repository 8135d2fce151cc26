"""A supervisor as systemd is one: it starts what a unit says, listens to what it is told, and ends what hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from support.cli import command, environment

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
#: Seconds after which a message that does not come is given up.
_PATIENCE = 60.0
PROGRAM = "/opt/heliostat/bin/heliostat"


class Unit:
    """A unit file: the values of each key, in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                self._values.setdefault(key, []).append(value)

    def all(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def one(self, key: str) -> str:
        (value,) = self._values[key]
        return value

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.all("Environment") for pair in line.split())


class Service:
    """A process that was started under supervision, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process, watchdog: float | None, forget: Callable[[], None]) -> None:
        self.process = process
        self._watchdog = watchdog
        #: Closes the socket: nobody listens any more.
        self.forget = forget
        self.messages: list[dict[str, str]] = []
        #: Whether it was ended for not feeding the watchdog.
        self.starved = False
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._fed = asyncio.Event()

    async def heard(self, data: bytes) -> None:
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()
        if "READY" in message or "WATCHDOG" in message:
            self._fed.set()

    async def until(self, wanted: Callable[[dict[str, str]], bool], *, after: int = 0) -> int:
        """The number of messages up to the first one that is ``wanted``, after so many others."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._until(wanted, after)
        except TimeoutError:
            said = "\n".join(map(str, self.messages))
            raise AssertionError(f"it never said that; it said:\n{said}\n{''.join(self.lines)}") from None

    async def _until(self, wanted: Callable[[dict[str, str]], bool], after: int) -> int:
        async with self._news:
            while True:
                for at in range(after, len(self.messages)):
                    if wanted(self.messages[at]):
                        return at + 1
                code = self.process.returncode
                assert code is None, f"it ended with {code}, and never said that:\n{''.join(self.lines)}"
                await self._news.wait()

    async def until_said(self, key: str, value: str = "1", *, after: int = 0) -> int:
        return await self.until(lambda message: message.get(key) == value, after=after)

    async def mourn(self) -> None:
        """Whoever waits for a message of a process that ended waits in vain."""
        await self.process.wait()
        async with self._news:
            self._news.notify_all()

    async def watch(self) -> None:
        """From the first READY on, as systemd does it."""
        if self._watchdog is None:
            return
        await self._fed.wait()
        while True:
            self._fed.clear()
            try:
                async with asyncio.timeout(self._watchdog):
                    await self._fed.wait()
            except TimeoutError:
                self.starved = True
                self.process.send_signal(signal.SIGABRT)
                return

    async def until_starved(self, most: int = 20) -> int:
        """The exit code of a process that hangs: it is ended for not feeding the watchdog.

        Fails when it feeds it more than ``most`` times before.
        """
        fed, ending = len(self.messages), asyncio.ensure_future(self.process.wait())
        feeding = asyncio.ensure_future(self._until_fed(fed, most))
        await asyncio.wait({ending, feeding}, return_when=asyncio.FIRST_COMPLETED)
        feeding.cancel()
        assert ending.done(), f"it hangs, and fed the watchdog {most} times"
        assert self.starved
        return ending.result()

    async def _until_fed(self, after: int, times: int) -> None:
        for _ in range(times):
            after = await self.until_said("WATCHDOG", after=after)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@contextlib.asynccontextmanager
async def supervised(
    *arguments: str,
    cwd: Path,
    abstract: bool = False,
    watchdog: float | None = None,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> AsyncIterator[Service]:
    """The command line, started with a notification socket; killed in the end if it still runs.

    ``before`` runs in the child before the program does.  Standard error is announced as the journal's stream.
    """
    with tempfile.TemporaryDirectory(prefix="heliostat-notify-") as place, _bound(place, abstract=abstract) as listener:
        name = listener.getsockname()
        more = {"NOTIFY_SOCKET": "@" + name[1:].decode() if abstract else name, "INVOCATION_ID": "0" * 32}
        if watchdog is not None:
            more["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        stream = os.fstat(theirs.fileno())
        more["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command(*arguments),
                cwd=cwd,
                env=environment(cwd, **more, **(env or {})),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=theirs.fileno(),
                preexec_fn=before,
            )

        def forget() -> None:
            listening.cancel()
            listener.close()

        service = Service(process, watchdog, forget)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        reading = asyncio.create_task(_lines(reader, service))
        listening = asyncio.create_task(_listen(listener, service))
        others = [asyncio.create_task(service.watch()), asyncio.create_task(service.mourn())]
        try:
            yield service
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading
            for task in (listening, *others):
                task.cancel()
            await asyncio.gather(listening, *others, return_exceptions=True)
            with contextlib.suppress(OSError):  # what it said last
                while True:
                    await service.heard(listener.recv(65536))
            writer.close()


@contextlib.contextmanager
def _bound(place: str, *, abstract: bool) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{place}" if abstract else f"{place}/notify")
        listener.settimeout(0)
        yield listener


async def _listen(listener: socket.socket, service: Service) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await service.heard(await loop.sock_recv(listener, 65536))


async def _lines(reader: asyncio.StreamReader, service: Service) -> None:
    with contextlib.suppress(ConnectionError):
        async for line in reader:
            service.lines.append(line.decode())


def as_run(unit: Unit, config: Path) -> list[str]:
    """The arguments of a unit's ExecStart, for another configuration than the one it names."""
    program, *arguments = unit.one("ExecStart").split()
    assert program == PROGRAM
    at = arguments.index("--config") + 1
    return [*arguments[:at], str(config), *arguments[at + 1 :]]


def installed(path: Path, to: Path) -> Path:
    """A copy of a unit below ``to`` that names a program which is there, as systemd-analyze wants to see it."""
    copy = to / path.name
    copy.write_text(path.read_text(encoding="utf-8").replace(PROGRAM, sys.executable), encoding="utf-8")
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``systemd-analyze``; its absence is a failure, as for every test that is marked ``outside``."""
    try:
        return subprocess.run(
            ["systemd-analyze", "--no-pager", *arguments],
            capture_output=True, encoding="utf-8", check=False, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError:
        raise AssertionError("systemd-analyze is not installed (Debian: apt install systemd)") from None
