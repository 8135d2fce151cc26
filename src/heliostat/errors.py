"""Every exception that heliostat raises on purpose.

Its class says how an error is handled: whom it concerns (one project, the upstream, the store, the operator), and
whether waiting can help.  A project's fault becomes a ledger row with a reason; a store fault ends the pass; a bug ends
the process.
"""

from __future__ import annotations

from collections.abc import Sequence


class HeliostatError(Exception):
    """Base of all errors raised on purpose; ``str()`` of it is one line fit for an operator."""


class ConfigError(HeliostatError):
    """The configuration cannot be used; ``problems`` holds one line for every problem found."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class MirrorLocked(HeliostatError):
    """Another process holds the mirror's lock."""

    def __init__(self, path: str, holder: str) -> None:
        self.path, self.holder = path, holder
        super().__init__(f"{path}: locked by {holder}")


class NoDaemon(HeliostatError):
    """Nobody listens on the control socket (exit 2): what was asked for is for a running daemon."""


class DaemonAnswer(HeliostatError):
    """What the daemon says instead of a result.  ``kinds`` names the class of its error, and that one's bases."""

    def __init__(self, message: str, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        super().__init__(message)


class DaemonLost(HeliostatError):
    """The daemon took a request, and ended, or fell silent, before it was done (exit 3)."""


class Held(HeliostatError):
    """Upstream asks to wait (Retry-After) for longer than a command does; the daemon goes on with it (exit 5)."""


class StateError(HeliostatError):
    """The ledger is missing, damaged, or written by a newer heliostat."""


class UpstreamChanged(HeliostatError):
    """The ledger belongs to another upstream, or upstream's serial went backwards (exit 7)."""


class StoreError(HeliostatError):
    """The disk refused: full, read-only, no permission.  Ends the pass (exit 6)."""

    def __init__(self, action: str, path: str, reason: str) -> None:
        self.action, self.path, self.reason = action, path, reason
        super().__init__(f"cannot {action} {path}: {reason}")


class DiskFull(StoreError):
    """There is no space, no inode, or no quota left: something smaller may still fit."""


class NoRoom(StoreError):
    """One file does not fit on the disk: its project waits, and the others go on.

    ``ever``: it would, if enough were removed (exit 6 at the end); else it is larger than the whole file system, which
    says more about upstream than about the disk.
    """

    def __init__(self, action: str, path: str, reason: str, *, ever: bool) -> None:
        self.ever = ever
        super().__init__(action, path, reason if ever else f"{reason}; it is larger than the whole file system")


class Obstructed(StoreError):
    """Something that is not ours lies where one project's pages or document belong: it waits until that is gone."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__("use", path, f"{what} is in the way; heliostat did not put it there, please remove it")


class PlaceTaken(Obstructed):
    """The disk refused a path since something of another kind lies there, or where a directory above it belongs."""

    def __init__(self, action: str, path: str, reason: str) -> None:
        StoreError.__init__(self, action, path, reason)


class UpstreamError(HeliostatError):
    """Something that upstream sent, or failed to send.  ``url`` never holds a secret."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


class Unavailable(UpstreamError):
    """No usable answer: connection refused or reset, time-out, stall, 5xx.

    ``retry_after`` is in seconds where upstream said one.
    """

    def __init__(self, url: str, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(url, reason)


class RateLimited(Unavailable):
    """429, 503 with Retry-After, or XML-RPC's rate limit fault: everything slows down, not just this request."""


class Missing(UpstreamError):
    """404 or 410: on its own never a reason to delete anything."""

    #: Said by a source that stands in for the first one: it may just not have it yet.
    stand_in: bool = False


class PageMissing(Missing):
    """That of a project's Simple page, wherever upstream keeps it: the first sign that the project is gone."""


class Stale(UpstreamError):
    """The answer's serial is below the one wanted."""

    def __init__(self, url: str, wanted: int, got: int | None) -> None:
        self.wanted, self.got = wanted, got
        super().__init__(url, f"stale: serial {got} where {wanted} was wanted")


class Invalid(UpstreamError):
    """The answer is not what the protocol says: bad JSON or XML, wrong types, too large, endless."""


class TooLarge(Invalid):
    """The answer is longer than what is accepted."""


class NotNow(UpstreamError):
    """The answer is longer than what may be held at the moment: it waits for its turn, and is asked for again."""


class IntegrityError(UpstreamError):
    """Bytes whose digest or size is not the one upstream declared."""

    def __init__(self, url: str, what: str, expected: str, actual: str) -> None:
        self.what, self.expected, self.actual = what, expected, actual
        super().__init__(url, f"{what} is {actual}, but upstream declares {expected}")


class FeedUnsupported(UpstreamError):
    """This upstream has no change feed (no XML-RPC, or the method was removed): use the root list."""


class Refused(HeliostatError):
    """Names, URLs or limits that heliostat will not accept; trying again cannot help (state *blocked*)."""

    def __init__(self, what: str, value: str, reason: str) -> None:
        self.what, self.value, self.reason = what, value, reason
        super().__init__(f"{what} {printable(value)}: {reason}")


class Occupied(Refused):
    """Other bytes lie where a file belongs, and stay there; when that place is free, trying again helps."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__("file", path.rpartition("/")[2], "other bytes lie at its place already, and stay there")


class InTheWay(Occupied):
    """What is no file lies where a file belongs, or what is no directory where one above it does: ``obstacle``."""

    def __init__(self, path: str, obstacle: str, what: str) -> None:
        self.path, self.obstacle = path, obstacle
        reason = f"{what} is in the way at {obstacle}; 'heliostat verify --repair' moves it aside"
        Refused.__init__(self, "file", path.rpartition("/")[2], reason)


def printable(text: str, limit: int = 120) -> str:
    """Hostile text made fit for one log line: quoted, escaped, at most ``limit`` characters of it."""
    shown = text if len(text) <= limit else text[:limit] + "..."
    return ascii(shown)
