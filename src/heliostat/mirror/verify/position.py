"""Where a verify has got to, on disk, so that whatever ends it, the next one goes on from there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator

import msgspec

from heliostat.errors import StoreError
from heliostat.mirror.verify.findings import Finding, as_line
from heliostat.mirror.verify.sorter import Sorter

_FILE, _LOCK = "position", "lock"
#: Ours, and what else may lie in the folder of a verify.
_OURS = ("position", "lock", "claims-", "suspects-", "root-", "names-", "walk-", "final-", "stray-", "new-")


class Position(msgspec.Struct, omit_defaults=True):
    """How far it is; written after what it speaks of is safe."""

    #: What was asked; another question begins anew.
    asked: str
    #: When it began, in seconds since the epoch.
    started: float
    seed: int
    #: Projects up to this name are judged.
    name: str = ""
    #: All projects are.
    names_done: bool = False
    #: Everything below this path is compared, in hexadecimal.
    path: str = ""
    files_done: bool = False
    projects: int = 0
    files: int = 0
    hashed: int = 0
    bytes: int = 0
    claims: int = 0
    claim_runs: int = 0
    suspect_runs: int = 0
    #: Wrong in any form: see :class:`heliostat.mirror.verify.judgement.Judgement`.
    unreadable: int = 0


def begin(asked: str) -> Position:
    """The position of a verify that begins now; which files a sample takes is drawn anew."""
    return Position(asked=asked, started=time.time(), seed=random.getrandbits(63))


class Desk:
    """The folder of one verify: its position, the claims, and what seems wrong so far."""

    def __init__(self, folder: str, position: Position) -> None:
        self.folder, self.position = folder, position
        self.claims = Sorter(folder, "claims", position.claim_runs)
        self.suspects = Sorter(folder, "suspects", position.suspect_runs)
        self.resumed = bool(position.name or position.names_done)

    def suspect(self, findings: Iterable[Finding]) -> None:
        self.suspects.add(map(as_line, findings))

    def save(self) -> None:
        """What was found up to here survives anything, and is not looked for again."""
        self.claims.flush()
        self.suspects.flush()
        self.position.claim_runs, self.position.suspect_runs = self.claims.runs, self.suspects.runs
        path = os.path.join(self.folder, _FILE)
        with open(f"{path}.new", "wb") as file:
            file.write(msgspec.json.encode(self.position))
            file.flush()
            os.fdatasync(file.fileno())
        os.replace(f"{path}.new", path)


@contextlib.contextmanager
def desk(folder: str | None, position: Position, *, restart: bool) -> Iterator[Desk]:
    """The desk in ``folder``, where an earlier verify that was asked the same is gone on with unless ``restart``.

    It is emptied when the verify says that it is done, by :func:`clear`.  Without a folder a temporary one is used.
    Raises StoreError.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="heliostat-verify-") as temporary:
            yield Desk(temporary, position)
        return
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError("keep the position in", folder, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                "keep the position in", folder, "another verify is using it; name another folder"
            ) from None
        _refuse_foreign(folder)
        earlier = None if restart else _read(folder)
        if earlier is None or earlier.asked != position.asked:
            clear(folder)
            earlier = position
        _drop_unfinished(folder, earlier)
        yield Desk(folder, earlier)
    finally:
        if set(os.listdir(folder)) == {_LOCK}:  # nothing to go on with
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def clear(folder: str) -> None:
    """Nothing is to be gone on with any more."""
    for entry in os.listdir(folder):
        if entry != _LOCK and entry.startswith(_OURS):
            os.unlink(os.path.join(folder, entry))


def _drop_unfinished(folder: str, position: Position) -> None:
    """Runs that no position speaks of would be counted twice; merged ones are made anew."""
    known = {f"claims-{n:06}" for n in range(position.claim_runs)}
    known |= {f"suspects-{n:06}" for n in range(position.suspect_runs)}
    for entry in os.listdir(folder):
        if entry not in known and entry not in (_FILE, _LOCK):
            os.unlink(os.path.join(folder, entry))


def _refuse_foreign(folder: str) -> None:
    for entry in os.listdir(folder):
        if not entry.startswith(_OURS):
            raise StoreError("keep the position in", folder, f"{entry!r} is no verify's; name an empty or new folder")


def _read(folder: str) -> Position | None:
    try:
        with open(os.path.join(folder, _FILE), "rb") as file:
            return msgspec.json.decode(file.read(), type=Position)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
