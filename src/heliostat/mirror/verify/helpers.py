"""Processes that judge and compare for a verify: very many small files keep the interpreter busy, not the disk.

They are forked while the process has no other threads, inherit what is verified, and hold nothing else: whatever a
verify has found out is in the one that asks.  They end with it, however it ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
from queue import SimpleQueue
from typing import Any, NoReturn

import msgspec

from heliostat.errors import HeliostatError, StateError, StoreError
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judge import Judge
from heliostat.mirror.verify.judgement import Found, Judgement, Upstream
from heliostat.mirror.verify.reading import Stopping, be_idle
from heliostat.mirror.verify.shelves import Sample, Seen, Shelves, Stretch

_LENGTH = struct.Struct("!Q")
#: More readers than this gain nothing from any disk.
_MOST = 32


class JudgeThese(msgspec.Struct):
    """Projects to be judged; None where upstream was not asked."""

    root_time: float | None
    founds: list[Found]
    answers: list[Upstream | None]

    def do(self, ground: Ground) -> list[Judgement]:
        judge = Judge(ground, self.root_time)
        return [judge.judge(found, answer) for found, answer in zip(self.founds, self.answers, strict=True)]


class CompareThese(msgspec.Struct):
    """Claims to be compared with the tree."""

    scratch: str
    quick: bool
    whole: bool
    sample: Sample
    stretch: Stretch

    def do(self, ground: Ground) -> Seen:
        shelves = Shelves(ground, self.scratch, quick=self.quick, whole=self.whole, sample=self.sample)
        return shelves.compare(self.stretch)


Job = JudgeThese | CompareThese


def usual_number() -> int:
    """How many do the work side by side when nobody says it."""
    return max(2, min(_MOST, len(os.sched_getaffinity(0))))


class Helpers:
    """Forks ``count`` processes at once; each does one job at a time for whoever calls, from any thread."""

    def __init__(self, ground: Ground, count: int, *, idle: bool) -> None:
        self._ground = ground
        self._free: SimpleQueue[socket.socket] = SimpleQueue()
        self._sockets: list[socket.socket] = []
        self._children: list[int] = []
        ground.reader.budget.share(count)
        gc.freeze()  # what is there is shared, as long as nobody looks at it
        for _ in range(count):
            ours, theirs = socket.socketpair()
            child = os.fork()
            if not child:
                _serve(ground, theirs, [*self._sockets, ours], idle=idle)
            theirs.close()
            self._sockets.append(ours)
            self._children.append(child)
            self._free.put(ours)

    def do(self, job: Job) -> Any:
        """The job's result.  Raises Stopping, StateError, StoreError."""
        budget = self._ground.reader.budget
        helper = self._free.get()
        try:
            _send(helper, job)
            kind, result, read = _receive(helper)
        except (OSError, EOFError):
            if budget.stop.is_set():
                raise Stopping from None
            reason = "a process that read it was ended; not enough memory?"
            raise StoreError("verify", self._ground.web, reason) from None
        finally:
            self._free.put(helper)
        budget.bytes += read
        if kind == "state":
            raise StateError(result)
        if kind == "defect":
            raise RuntimeError(result)
        return result

    def stop(self) -> None:
        """End what they are doing; whoever waits for it gets Stopping."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def close(self) -> None:
        """Returns when they are gone."""
        for one in self._sockets:
            one.close()
        for child in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        self._children.clear()


def _serve(ground: Ground, asked: socket.socket, inherited: list[socket.socket], *, idle: bool) -> NoReturn:
    """Do jobs until nobody can ask for more."""
    try:
        for one in inherited:  # only the process that asks may hold these, so that its end is seen here
            one.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the one that asks decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if idle:
            be_idle()
        budget = ground.reader.budget
        while True:
            job = _receive(asked)
            before = budget.bytes
            try:
                answer = ("done", job.do(ground), 0)
            except HeliostatError as error:
                answer = ("state", str(error), 0)
            except Exception as error:
                answer = ("defect", f"{type(error).__name__}: {error}", 0)
            _send(asked, (*answer[:2], budget.bytes - before))
    except (EOFError, OSError):
        pass
    finally:
        os.kill(os.getpid(), signal.SIGKILL)  # nothing that the other process has to end or to flush is ours
    raise AssertionError("unreachable")


def _send(to: socket.socket, what: object) -> None:
    data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    to.sendall(_LENGTH.pack(len(data)))
    to.sendall(data)


def _receive(whence: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_exactly(whence, _LENGTH.size))
    return pickle.loads(_exactly(whence, length))  # noqa: S301 - from ourselves, over a socket without a name


def _exactly(whence: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = whence.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return bytes(data)
