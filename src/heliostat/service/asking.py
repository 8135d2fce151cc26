"""Asking a running daemon how it is, by its control socket or its endpoint: without an event loop or an HTTP library.

Whoever asks has its ledger as well: no answer, a late one or one of somebody else is none.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import msgspec

from heliostat.config import Config
from heliostat.config.addresses import host_and_port
from heliostat.service.control_wire import (
    MOST_ANSWER,
    PROTOCOL,
    Answer,
    Done,
    Failed,
    Request,
    address_in,
    socket_folder,
)

#: Seconds for the whole of it, and the most bytes of an answer.
_PATIENCE, _MOST = 3.0, 64 << 20


def ask_live(config: Config) -> dict[str, Any] | None:
    """What the daemon of this mirror says of itself beyond its ledger; None when it does not, or cannot be reached.

    Its control socket is for its own user and root; others ask its endpoint, if it has one.
    """
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        return _live(ask_socket(socket_folder(config), "status"), config)
    deadline = time.monotonic() + _PATIENCE
    for address in config.service.listen:
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            return _live(_told(_get(address, "/status.json", deadline)), config)
    return None


def _live(told: Any, config: Config) -> dict[str, Any]:
    """Raises ValueError."""
    if isinstance(told, dict) and told.get("directory") == config.mirror.directory:
        live = told.get("live")
        if isinstance(live, dict):
            return live
    raise ValueError("somebody else")


def ask_socket(folder: str, command: str) -> Any:
    """What the daemon whose control socket is in ``folder`` answers to ``command``.

    Raises OSError, ValueError, MsgspecError.
    """
    deadline = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_UNIX) as connection, address_in(folder) as address:
        connection.settimeout(_PATIENCE)
        connection.connect(address)
        connection.sendall(msgspec.json.encode(Request(PROTOCOL, command)) + b"\n")
        answer = bytearray()
        while more := connection.recv(1 << 16):
            answer += more
            if answer.endswith(b"\n"):
                last = answer[answer.rfind(b"\n", 0, -1) + 1 :]
                said = msgspec.json.decode(last, type=Answer)
                if isinstance(said, Done):
                    return msgspec.json.decode(said.result)
                if isinstance(said, Failed):
                    raise ValueError(said.message)
            left = deadline - time.monotonic()
            if len(answer) > MOST_ANSWER or left <= 0:
                raise ValueError("too long")
            connection.settimeout(left)
        raise ValueError("no answer")


def _told(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError("no answer")
    return msgspec.json.decode(body, type=dict[str, Any])


def _get(address: str, target: str, deadline: float) -> bytes:
    """The whole answer to one request.  Raises OSError, ValueError."""
    parts = host_and_port(address)
    if parts is None:
        connection = socket.socket(socket.AF_UNIX)
    else:
        connection = socket.socket(socket.AF_INET6 if ":" in parts[0] else socket.AF_INET)
    with connection:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        connection.connect(parts or address.removeprefix("unix:"))
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode("ascii"))
        answer = bytearray()
        while more := connection.recv(1 << 16):
            answer += more
            if len(answer) > _MOST or time.monotonic() > deadline:
                raise ValueError("too long")
        return bytes(answer)
