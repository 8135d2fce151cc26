"""Puts batches in place: in this process, and in a process of its own when there are very many.

Python lets one thread run at a time.  A thread that creates and renames files stops and starts with every system call,
and with it the event loop, which then waits for the interpreter a third of the time.  A first sync is much faster, and
takes less CPU, when the same calls are made elsewhere, one after the other as ever.  Everything else stays here: who is
owed, what is decided, the ledger, the lock.  A few changed projects are not worth another process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from heliostat.errors import DiskFull, PlaceTaken
from heliostat.store.batch import Batch, Tell, met
from heliostat.store.beats import got_on
from heliostat.store.disk import Disk
from heliostat.store.orders import (
    Answer,
    Failed,
    Hello,
    Met,
    Step,
    be_patient,
    dialect,
    look,
    put,
    receive_answer,
    send_order,
)
from heliostat.store.side_by_side import SideBySide
from heliostat.store.tree import Publication, Tree

log = logging.getLogger(__name__)

#: A terminal, and systemctl kill, send these to all processes of a service; this one decides what becomes of them.
NOT_FOR_IT: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: So often (seconds) it is looked at while it does not answer; after so many looks somebody is told.
_LOOK: Final = 2
_TOLD: Final = 30
#: Whoever stopped it has forgotten it when it is still stopped at so many looks in a row.
_FORGOTTEN: Final = 2


class Writer:
    """Writes into one tree; methods block, and belong to the thread that keeps it.

    ``lock`` is the descriptor of the mirror's lock: the process holds it too, so that nobody else begins to write
    before it has ended, which it does with ours.
    """

    def __init__(self, tree: Tree, lock: int | None = None) -> None:
        self._tree, self._lock = tree, lock
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        #: It has told that it speaks as this one does.
        self._met = False
        self._side_by_side = SideBySide()
        #: It cannot be had, or was lost: not to be tried again for the time being.
        self._alone = type(tree.disk) is not Disk

    @property
    def can_be_apart(self) -> bool:
        """Whether another process may be had, as far as is known."""
        return not self._alone

    def begin(self) -> None:
        """There will be much to do: the process is begun, and ready when it comes."""
        if not self._alone and self._socket is None:
            self._begin()

    def met(self, new: Mapping[str, Sequence[str]], *, apart: bool) -> list[str]:
        """Those of ``new`` projects that are not new: something lies where they or their files belong.

        Raises StoreError.
        """
        answer = self._ask(partial(look, new)) if apart else None
        if isinstance(answer, Failed):
            raise answer.error()
        return answer.names if isinstance(answer, Met) else met(self._tree, new)

    def put(self, publications: Sequence[Publication], tell: Tell, *, apart: bool) -> None:
        """Put publications in place, durably; ``apart``: in a process of its own, where one can be had.

        Raises StoreError.  After DiskFull and PlaceTaken nothing of it lies under ``partial/``, and in the
        publications is what is still to be placed.
        """
        batch = Batch(publications)
        try:
            if not (apart and self._put_apart(batch, tell)):
                batch.put(self._tree, tell, self._side_by_side)
        except (DiskFull, PlaceTaken):
            batch.undo(self._tree)
            raise

    def rest(self) -> None:
        """There is nothing more to write for the time being: the process, if there is one, ends."""
        self._end()
        self._alone = type(self._tree.disk) is not Disk

    def _put_apart(self, batch: Batch, tell: Tell) -> bool:
        """False when that could not be done, or not to the end: it is to be done here."""
        alone = self._alone
        answer = self._ask(partial(put, batch.publications), tell)
        if isinstance(answer, Failed):
            batch.made, batch.files = answer.made, answer.files
            raise answer.error()
        if answer is None and not alone:  # some of it may have been done
            batch.undo(self._tree)
        return answer is not None

    def _ask(self, order: Callable[[], tuple[bytes, list[bytes]]], tell: Tell = lambda _: None) -> Answer | None:
        """The last answer; None when there is nobody to ask, or nobody any more."""
        if self._alone:
            return None
        try:
            parts = order()
        except UnicodeEncodeError:  # a path in no encoding at all
            return None
        if self._socket is None and not self._begin():
            return None
        assert self._socket is not None
        assert self._process is not None
        silence = _Silence(self._process.pid)
        try:
            if not self._met:
                self._meet(self._socket, silence)
            send_order(self._socket, *parts, silence)
            while isinstance(answer := receive_answer(self._socket, silence), Step):
                got_on()
                silence = _Silence(self._process.pid)
                tell(answer.what)
        except _Stopped:
            self._end(at_once=True)
            self._lose("it was stopped")
            return None
        except (OSError, EOFError):
            self._lose(self._end())
            return None
        except msgspec.MsgspecError as error:
            self._lose(f"it says what nobody understands: {error}")
            self._end(at_once=True)
            return None
        return answer

    def _meet(self, whom: socket.socket, silence: _Silence) -> None:
        """Raises ValidationError when it is another heliostat's."""
        hello = receive_answer(whom, silence)
        if not isinstance(hello, Hello) or hello.dialect != dialect():
            raise msgspec.ValidationError("it is of another version; was heliostat upgraded? Then restart it")
        self._met = True

    def _lose(self, why: str) -> None:
        log.warning("the process that writes has ended (%s): going on without it", why)
        self._alone = True

    def _begin(self) -> bool:
        if not sys.executable:
            self._alone = True
            return False
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return self._none_to_be_had(error)
        held = () if self._lock is None else (self._lock,)
        arguments = [str(theirs.fileno()), str(os.getpid()), self._tree.disk.root]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_IT)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "heliostat.store.writer_process", *arguments],
                pass_fds=(theirs.fileno(), *held),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same heliostat
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=None if log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            return self._none_to_be_had(error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        be_patient(ours, _LOOK)
        self._socket, self._met = ours, False
        log.debug("process %d writes from now on", self._process.pid)
        return True

    def _none_to_be_had(self, error: OSError) -> bool:
        log.info("no process can be had to write: %s", error.strerror or error)
        self._alone = True
        return False

    def _end(self, *, at_once: bool = False) -> str:
        """How it has ended."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return ""
        if at_once:
            process.kill()
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # somebody stopped it; it has nothing to do any more
            process.kill()
            code = process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Stopped(Exception):
    """It does not run, and nobody lets it."""


class _Silence:
    """Called every so many seconds for as long as it does not get on.  Raises _Stopped."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._looks = self._stopped = 0

    def __call__(self) -> None:
        self._looks += 1
        self._stopped = self._stopped + 1 if _is_stopped(self._process) else 0
        if self._stopped == _FORGOTTEN:
            raise _Stopped
        if self._looks % _TOLD == 0:
            log.warning("the process that writes has not answered for a minute: it waits for the disk")


def _is_stopped(process: int) -> bool:
    """As a signal stops it (proc(5), ``stat``)."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False
