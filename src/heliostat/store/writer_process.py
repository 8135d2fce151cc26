"""The process that puts batches in place for a :class:`~heliostat.store.writer.Writer`; nobody else starts it.

It decides nothing, and ends with the process that it writes for, however that ends.  Signals that ask a mirror to do
something are blocked from its start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys

from heliostat.errors import StoreError
from heliostat.store.batch import Batch, met
from heliostat.store.disk import Disk
from heliostat.store.orders import Done, Hello, Look, Met, Orders, Step, dialect, failed, send_answer
from heliostat.store.side_by_side import SideBySide
from heliostat.store.tree import Tree

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """``DESCRIPTOR PARENT DIRECTORY``: a socket, the process to write for, and where the tree is."""
    descriptor, parent, root = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    _die_with(parent)
    with contextlib.suppress(OSError, EOFError):
        _serve(socket.socket(fileno=descriptor), Tree(Disk(root), temporaries=f"apart-{os.getpid()}"))


def _serve(asked: socket.socket, tree: Tree) -> None:
    orders, side_by_side = Orders(asked), SideBySide()
    send_answer(asked, Hello(dialect()))
    while True:
        order = orders.next()
        batch = None
        try:
            if isinstance(order, Look):
                send_answer(asked, Met(met(tree, order.new)))
                continue
            batch = Batch(order)
            batch.put(tree, lambda what: send_answer(asked, Step(what)), side_by_side)
            send_answer(asked, Done())
        except StoreError as error:
            send_answer(asked, failed(error, batch))


def _die_with(parent: int) -> None:
    """What is killed must not go on writing here; where the system knows no such wish, the socket's end tells."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit


if __name__ == "__main__":
    main()
