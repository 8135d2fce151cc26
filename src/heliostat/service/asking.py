"""Asking a running daemon how it is, over the endpoint that it has: without an event loop or an HTTP library.

Whoever asks has its ledger as well: no answer, a late one or one of somebody else is none.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import msgspec

from heliostat.config import Config
from heliostat.config_values import host_and_port

#: Seconds for the whole of it, and the most bytes of an answer.
_PATIENCE, _MOST = 3.0, 64 << 20


def ask_live(config: Config) -> dict[str, Any] | None:
    """What the daemon of this mirror says of itself beyond its ledger; None when it does not, or has no endpoint."""
    deadline = time.monotonic() + _PATIENCE
    for address in config.service.listen:
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            told = _told(_get(address, "/status.json", deadline))
            if told.get("directory") == config.mirror.directory and isinstance(told.get("live"), dict):
                live: dict[str, Any] = told["live"]
                return live
    return None


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
