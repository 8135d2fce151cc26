"""What a mirror and the process that writes for it tell each other, over a socket that nobody else has.

An order is its lengths, what is to be done (MessagePack), then the bytes of a batch's small files, one behind the
other, which are copied by nobody on the way but the system.  An answer is its length and one of the structs below;
steps come before the last one.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from heliostat import __version__
from heliostat.errors import DiskFull, PlaceTaken, StoreError
from heliostat.store.batch import Batch
from heliostat.store.tree import Body, Placement, Publication

_LENGTHS = struct.Struct("!QQ")
_LENGTH = struct.Struct("!I")
#: The system takes so many buffers at once, at least.
_BUFFERS = 512


class _Outline(msgspec.Struct):
    """A small file without its bytes."""

    size: int
    target: str
    mtime_ns: int | None


class Look(msgspec.Struct, tag=True):
    """Which of these projects are not new?  See :func:`heliostat.store.batch.met`."""

    new: dict[str, list[str]]


class _Put(msgspec.Struct, tag=True):
    """Publications whose small files are told apart from them, each one's in the same order."""

    publications: list[Publication]
    files: list[list[_Outline]]


class Hello(msgspec.Struct, tag=True):
    """What the process says first: how it understands all of this."""

    dialect: str


class Step(msgspec.Struct, tag=True):
    """The next step begins."""

    what: str


class Met(msgspec.Struct, tag=True):
    """Those that are not."""

    names: list[str]


class Done(msgspec.Struct, tag=True):
    """Everything is in place, and durable."""


class Failed(msgspec.Struct, tag=True):
    """The disk refused; what is there of the batch."""

    kind: str
    action: str
    path: str
    reason: str
    made: list[str]
    files: list[Placement]

    def error(self) -> StoreError:
        """As it was raised."""
        kinds = {kind.__name__: kind for kind in (DiskFull, PlaceTaken, StoreError)}
        return kinds[self.kind](self.action, self.path, self.reason)


Answer = Hello | Step | Met | Done | Failed

_orders: msgspec.msgpack.Decoder[Look | _Put] = msgspec.msgpack.Decoder(Look | _Put)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def dialect() -> str:
    """Two processes understand each other when theirs are the same: one may have been begun after an upgrade."""
    told = (Publication, Placement, _Outline, Look, _Put, Step, Met, Done, Failed)
    return f"{__version__} {[(kind.__name__, kind.__struct_fields__) for kind in told]}"


def look(new: Mapping[str, Sequence[str]]) -> tuple[bytes, list[bytes]]:
    """What :func:`send_order` is to send.  Raises UnicodeEncodeError for unusual paths."""
    return msgspec.msgpack.encode(Look({name: list(paths) for name, paths in new.items()})), []


def put(publications: Sequence[Publication]) -> tuple[bytes, list[bytes]]:
    """The same for a batch."""
    order = _Put(
        [msgspec.structs.replace(one, bodies=[]) if one.bodies else one for one in publications],
        [[_Outline(len(body.data), body.target, body.mtime_ns) for body in one.bodies] for one in publications],
    )
    return msgspec.msgpack.encode(order), [body.data for one in publications for body in one.bodies]


def be_patient(one: socket.socket, seconds: int) -> None:
    """Whoever sends or receives there is told when nothing was taken, or nothing came, for so long."""
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        one.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, 0))


def send_order(
    to: socket.socket, order: bytes, contents: list[bytes], silent: Callable[[], None] = lambda: None
) -> None:
    """``silent`` is called whenever nothing was taken for as long as :func:`be_patient` says.  Raises OSError."""
    buffers = [memoryview(_LENGTHS.pack(len(order), sum(map(len, contents)))), memoryview(order)]
    buffers += map(memoryview, contents)
    first = 0
    while first < len(buffers):
        try:
            sent = to.sendmsg(buffers[first : first + _BUFFERS])
        except BlockingIOError:
            silent()
            continue
        while first < len(buffers) and sent >= len(buffers[first]):
            sent -= len(buffers[first])
            first += 1
        if sent:
            buffers[first] = buffers[first][sent:]


class Orders:
    """Receives orders; the bytes of one are valid until the next is asked for."""

    def __init__(self, whence: socket.socket) -> None:
        self._whence = whence
        self._memory = bytearray()

    def next(self) -> Look | list[Publication]:
        """Waits for it.  Raises EOFError when nobody can send any more."""
        length, size = _LENGTHS.unpack(_exactly(self._whence, bytearray(_LENGTHS.size)))
        order = _orders.decode(_exactly(self._whence, bytearray(length)))
        if isinstance(order, Look):
            return order
        if len(self._memory) < size:
            self._memory = bytearray(size)
        contents = _exactly(self._whence, memoryview(self._memory)[:size])
        at = 0
        for publication, outlines in zip(order.publications, order.files, strict=True):
            for one in outlines:
                data = cast("bytes", contents[at : at + one.size])  # who writes it takes any buffer
                publication.bodies.append(Body(data, one.target, one.mtime_ns))
                at += one.size
        return order.publications


def send_answer(to: socket.socket, answer: Answer) -> None:
    """Raises OSError."""
    data = msgspec.msgpack.encode(answer)
    to.sendall(_LENGTH.pack(len(data)) + data)


def receive_answer(whence: socket.socket, silent: Callable[[], None] = lambda: None) -> Answer:
    """Waits for it; ``silent`` as above.  Raises EOFError when none can come any more, OSError."""
    (length,) = _LENGTH.unpack(_exactly(whence, bytearray(_LENGTH.size), silent))
    return _answers.decode(_exactly(whence, bytearray(length), silent))


def failed(error: StoreError, batch: Batch | None = None) -> Failed:
    """What is to be answered when the disk refuses."""
    made, files = ([], []) if batch is None else (batch.made, batch.files)
    kind = next(kind for kind in (DiskFull, PlaceTaken, StoreError) if isinstance(error, kind))
    return Failed(kind.__name__, error.action, error.path, error.reason, made, files)


def _exactly(
    whence: socket.socket, memory: bytearray | memoryview, silent: Callable[[], None] = lambda: None
) -> memoryview:
    view = left = memoryview(memory)
    while left:
        try:
            got = whence.recv_into(left, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            silent()
            continue
        if not got:
            raise EOFError
        left = left[got:]
    return view
