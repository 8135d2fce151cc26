"""Where the program begins: before anything heavy is imported, signals that a daemon answers are made to wait for it.

A service manager may send SIGHUP as soon as there is a process; until its handlers are in place, about half a second
later, that would end it.  Held back, it is answered then.
"""

from __future__ import annotations

import signal
import sys

#: What asks a daemon for something, and ends a process that has no handlers.
WAITING = (signal.SIGHUP, signal.SIGUSR1)


def main() -> int:
    """The command line; its exit code."""
    if "mirror" in sys.argv[1:]:
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
    from heliostat.cli.main import main as run

    return run()


def release() -> None:
    """This process is no daemon: such signals end it, now if one came."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING)
