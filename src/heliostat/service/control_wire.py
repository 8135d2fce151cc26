"""What is said on the control socket: one request, a line of JSON; then lines of JSON until ``done`` or ``failed``.

docs/push.md is the contract.  A number says which version of it is spoken; what a side does not know of a line it
ignores.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import msgspec

from heliostat.config import Config
from heliostat.mirror.places import state_directory
from heliostat.mirror.report import Counters

PROTOCOL = 1
NAME = "control.sock"
#: Bytes of a request and of an answer's line.
MOST_REQUEST, MOST_ANSWER = 1 << 20, 64 << 20
#: Seconds: from one line of an answer to the next at most; until a request must have come, and be accepted.
HEARTBEAT, PROMPT = 5.0, 10.0
_MOST_ADDRESS = 107


class Request(msgspec.Struct):
    """What the client wants; ``arguments`` are what the command takes."""

    protocol: int
    command: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Accepted(msgspec.Struct, tag_field="say", tag="accepted"):
    """The first answer: the request is being carried out."""

    protocol: int = PROTOCOL


class Progress(msgspec.Struct, tag_field="say", tag="progress"):
    """How far it is; at least every few seconds, so that both sides know that the other one is there.

    While it waits since upstream asked for that: who did, and until when, in seconds since the epoch.
    """

    counters: Counters
    held_by: str | None = None
    held_until: float | None = None


class Done(msgspec.Struct, tag_field="say", tag="done"):
    """The last answer: what came of it."""

    result: msgspec.Raw


class Failed(msgspec.Struct, tag_field="say", tag="failed"):
    """The last answer: why nothing came of it.  ``kinds`` are the names of the error's class and of its bases."""

    kinds: list[str]
    message: str


Answer = Accepted | Progress | Done | Failed


def socket_folder(config: Config) -> str:
    """Where the socket is: beside the lock."""
    return state_directory(config)


@contextlib.contextmanager
def address_in(folder: str) -> Iterator[str]:
    """The socket's address, for ``bind`` and ``connect``; good while this is open.  Raises OSError.

    An address has 107 bytes at most; a longer path is reached through an open descriptor of its directory.
    """
    path = f"{folder}/{NAME}"
    if len(os.fsencode(path)) <= _MOST_ADDRESS:
        yield path
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def peer_of(connection: int) -> int:
    """The user that the process at the other end of a connected socket ran as, by its descriptor.  Raises OSError."""
    with socket.socket(fileno=os.dup(connection)) as one:
        credentials = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)
