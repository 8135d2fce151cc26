"""What the service tells its supervisor: the datagrams of sd_notify(3), without its library.

Nothing here may harm the loop: a supervisor that does not listen, or whose socket is full, is told later or never.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

#: The longest status line, in bytes; so many messages at most wait for a supervisor that does not listen.
_MOST_STATUS, _MOST_OWED = 400, 8


class Notifier:
    """Messages to the supervisor named by ``environ``, in which they are taken out: they are not for children.

    Without NOTIFY_SOCKET, or with a kind of address that is not known here, it does nothing.  Every method returns at
    once and raises nothing.  What changes the supervisor's mind (ready, reloading, stopping) is kept until it could be
    sent; the rest is dropped.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        limit, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._owed: list[bytes] = []
        self._said = ""
        self._failed = self._stopped = False
        #: Whether :meth:`ready` was called.
        self.started = False
        #: Seconds without :meth:`watchdog` after which the supervisor ends this process; None when it does not watch.
        self.watchdog_limit: float | None = None
        if not address:
            return
        if not address.startswith(("@", "/")) or len(address) < 2:
            log.warning("NOTIFY_SOCKET is neither a path nor @NAME: the supervisor is told nothing")
            return
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError as error:
            log.warning("the supervisor cannot be told how this is going: %s", error)
            return
        if limit.isdecimal() and int(limit) and pid in ("", str(os.getpid())):
            self.watchdog_limit = int(limit) / 1e6

    def __bool__(self) -> bool:
        """Whether anybody is to be told."""
        return self._socket is not None

    def ready(self) -> None:
        """Start, or reload, is over."""
        self.started = True
        self._state("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; :meth:`ready` ends that."""
        self._state(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """The end has begun, and takes at most so long; said once."""
        if self._stopped:
            return
        self._stopped = True
        self._state(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def extend(self, seconds: float) -> None:
        """Start, reload or stop takes longer: so long from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}".encode())

    def watchdog(self) -> None:
        """Something was achieved since the last time."""
        if self.watchdog_limit is not None:
            self._send(b"WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for people; the same line again costs nothing."""
        if text != self._said:
            line = " ".join(text.split()).encode("utf-8", "replace")[:_MOST_STATUS]
            if self._send(b"STATUS=" + line.decode("utf-8", "ignore").encode()):
                self._said = text

    def close(self) -> None:
        """Tells once more what is still to be told."""
        if self._socket is not None:
            self._settle()
            self._socket.close()
            self._socket = None

    def _state(self, text: str) -> None:
        if self._socket is not None:
            self._owed.append(text.encode())
            del self._owed[:-_MOST_OWED]
            self._settle()

    def _settle(self) -> bool:
        """Sends what is owed, in its order; whether nothing is owed any more."""
        while self._owed:
            if not self._put(self._owed[0]):
                return False
            del self._owed[0]
        return True

    def _send(self, message: bytes) -> bool:
        return self._settle() and self._put(message)

    def _put(self, message: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message, self._address)
        except (OSError, ValueError) as error:
            if not self._failed and not isinstance(error, BlockingIOError):
                log.warning("the supervisor cannot be told how this is going: %s", error)
                self._failed = True
            return False
        self._failed = False
        return True
