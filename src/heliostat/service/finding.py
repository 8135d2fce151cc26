"""Which running daemon reads a configuration file, when the file does not lead to it any more."""

from __future__ import annotations

import contextlib
import os

import msgspec

from heliostat.service.asking import ask_socket
from heliostat.service.control_wire import NAME

#: The kernel's list of sockets (proc(5)); so many of ours are asked at most.
_SOCKETS, _MOST = "/proc/net/unix", 16


def daemon_of(source: str) -> str | None:
    """The directory of the control socket of the daemon that was started with the file ``source``; None when there is
    none, or it cannot be found: it is another user's, or its path is too long for an address.
    """
    for folder in _folders():
        with contextlib.suppress(OSError, ValueError, AttributeError, msgspec.MsgspecError):
            named = ask_socket(folder, "status").get("live").get("configuration")
            if isinstance(named, str) and os.path.realpath(named) == os.path.realpath(source):
                return folder
    return None


def _folders() -> list[str]:
    try:
        with open(_SOCKETS, encoding="utf-8", errors="surrogateescape") as file:
            paths = ["/" + line.rstrip("\n").partition(" /")[2] for line in file]
    except OSError:
        return []
    found = {path.removesuffix(f"/{NAME}"): None for path in paths if path.endswith(f"/{NAME}")}
    return [folder for folder in found if not folder.startswith("/proc/")][:_MOST]
