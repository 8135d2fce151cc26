"""The daemon as a process: started, asked over its endpoint, poked, and what it cost so far."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

_TICK = os.sysconf("SC_CLK_TCK")
#: Seconds until something that does not come is given up.
_PATIENCE = 120.0


class Following:
    """A running ``heliostat mirror``; its endpoint is the socket at ``address``."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self._process, self._address = process, address
        self.pid = process.pid

    def cpu(self) -> float:
        """CPU seconds of the process so far, in steps of a clock tick (usually 10 ms)."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            figures = file.read().rpartition(")")[2].split()
        return (int(figures[11]) + int(figures[12])) / _TICK

    def poke(self) -> None:
        """SIGUSR1: a poll at once."""
        self._process.send_signal(signal.SIGUSR1)

    def ask(self, path: str, method: str = "GET", headers: Sequence[str] = ()) -> tuple[int, str]:
        """Status and body; (0, "") while it does not listen."""
        lines = "".join(f"{line}\r\n" for line in headers)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self._address)
                connection.sendall(f"{method} {path} HTTP/1.0\r\n{lines}Content-Length: 0\r\n\r\n".encode())
                with connection.makefile("rb") as answer:
                    head, _, body = answer.read().decode().partition("\r\n\r\n")
        except OSError:
            return 0, ""
        return int(head.split()[1]), body

    def until_ready(self) -> None:
        """Returns when the mirror is complete; raises SystemExit when it never is, or the process ended."""
        deadline = time.monotonic() + _PATIENCE
        while self.ask("/readyz")[0] != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon does not get ready: {self.ask('/readyz')[1]!r}")
            time.sleep(0.02)


@contextlib.contextmanager
def following(config: str, address: str) -> Iterator[Following]:
    """A daemon from here to the end; ``config`` must say that it listens on the socket at ``address``."""
    command = [sys.executable, "-m", "heliostat", "--quiet", "--no-progress", "mirror", "--config", config]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    one = Following(process, address)
    try:
        one.until_ready()
        yield one
    finally:
        process.terminate()
        process.wait()
