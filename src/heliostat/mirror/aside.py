"""A project with a large page while it waits: what is known of it lies under ``partial/``, and its memory is others'.

It waits for its files, which may take any time, or for another project that has a file name in common with it.  What
upstream said is not asked for again afterwards, and what came meanwhile is not hashed again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from heliostat.mirror.budget import Share
from heliostat.mirror.metadata import Answers
from heliostat.mirror.survey import Present
from heliostat.mirror.wanted import Wanted
from heliostat.store.disk import Operations
from heliostat.store.threads import in_thread

T = TypeVar("T")

#: Files that are written to, and read from, the disk at once.
_AT_ONCE = 256
#: Bytes that stay in memory, and how many of them for each file: its name is claimed.
_LEAST, _OF_A_FILE = 128 << 10, 100


class Missing(msgspec.Struct, frozen=True, array_like=True):
    """A file that is to be fetched, and what of it is there."""

    want: Wanted
    present: Present | None


class Arrived(msgspec.Struct, frozen=True, array_like=True):
    """A file that was fetched and placed, or will be before anything that is handed over later."""

    filename: str
    path: str
    sha256: str | None
    sidecar: dict[str, str] | None


class Aside:
    """What upstream said of one project, in memory or under ``partial/NAME-*``; and its files that are missing."""

    def __init__(self, disk: Operations, name: str, share: Share, answers: Answers) -> None:
        self._disk, self._base, self._share = disk, f"partial/{name}", share
        #: None while it is not in memory.
        self._answers: Answers | None = answers
        self._todo: deque[Missing] = deque()
        self._done: list[Arrived] = []
        self._pieces = self._taken = self._notes = 0
        self._alone = asyncio.Lock()
        #: Missing files, with their sidecars, and their bytes as far as they are known.
        self.files = self.bytes = 0

    @property
    def answers(self) -> Answers:
        """Page and document; they must not lie aside."""
        assert self._answers is not None
        return self._answers

    @answers.setter
    def answers(self, answers: Answers) -> None:
        self._answers = answers

    async def leave(self, missing: Iterable[Missing], names: int) -> None:
        """Let go of the memory; ``names`` file names stay claimed.  The caller must not keep anything either."""
        await in_thread(self._write, missing)
        self._answers = None
        self._share.set_aside(_LEAST + _OF_A_FILE * names)

    def _write(self, missing: Iterable[Missing]) -> None:
        self._disk.write(f"{self._base}-answers", msgspec.msgpack.encode(self._answers))
        piece: list[Missing] = []
        for one in missing:
            piece.append(one)
            needs_sidecar = one.want.has_sidecar and not (one.present is not None and one.present.sidecar)
            self.files += 1 + needs_sidecar
            self.bytes += one.want.size or 0
            if len(piece) == _AT_ONCE:
                self._write_piece(piece)
                piece = []
        if piece:
            self._write_piece(piece)

    def _write_piece(self, piece: list[Missing]) -> None:
        self._disk.write(f"{self._base}-todo-{self._pieces}", msgspec.msgpack.encode(piece))
        self._pieces += 1

    async def next(self) -> Missing | None:
        """The next of the missing files, to one of those who ask; None when there are no more."""
        async with self._alone:
            if not self._todo and self._taken < self._pieces:
                path = f"{self._base}-todo-{self._taken}"
                self._taken += 1
                self._todo.extend(await in_thread(self._take, path, list[Missing]))
        return self._todo.popleft() if self._todo else None

    async def note(self, arrived: Arrived) -> None:
        """A missing file is there."""
        self._done.append(arrived)
        if len(self._done) >= _AT_ONCE:
            done, self._done = self._done, []
            path = f"{self._base}-done-{self._notes}"
            self._notes += 1
            await in_thread(self._disk.write, path, msgspec.msgpack.encode(done))

    async def back(self) -> dict[str, Arrived]:
        """Wait for the turn of a large project, and have all in memory again; the files that came, by their names."""
        await self._share.become_large()
        self._answers = await in_thread(self._take, f"{self._base}-answers", Answers)
        self._share.holds(self._answers.size)
        return await in_thread(self._arrived)

    def _arrived(self) -> dict[str, Arrived]:
        arrived: dict[str, Arrived] = {}
        while self._notes:
            self._notes -= 1
            noted = self._take(f"{self._base}-done-{self._notes}", list[Arrived])
            arrived |= {one.filename: one for one in noted}
        return arrived | {one.filename: one for one in self._done}

    def _take(self, path: str, kind: type[T]) -> T:
        body = self._disk.read(path)
        assert body is not None
        self._disk.unlink(path)
        return msgspec.msgpack.decode(body, type=kind)

    def drop(self) -> None:
        """Nothing is wanted any more; blocks."""
        self._disk.unlink(f"{self._base}-answers")
        for number in range(self._taken, self._pieces):
            self._disk.unlink(f"{self._base}-todo-{number}")
        for number in range(self._notes):
            self._disk.unlink(f"{self._base}-done-{number}")
