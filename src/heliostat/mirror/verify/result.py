"""What a verify saw, and what a repair did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from heliostat.mirror.verify.findings import Kind, Marks

if TYPE_CHECKING:
    pass


class Result(msgspec.Struct):
    """What a verify saw.  Sizes are bytes, times seconds."""

    projects: int = 0
    files: int = 0
    hashed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    #: How many findings of each kind.
    kinds: dict[Kind, int] = {}
    interrupted: bool = False
    #: It went on where an earlier one had ended.
    resumed: bool = False
    #: Why upstream could not be asked.
    unreachable: str | None = None
    #: Projects without a page that can be read: whose files they are, nobody can tell.
    unreadable: int = 0
    #: Projects that were asked for by name, and that nobody here knows.
    unknown: list[str] = []

    @property
    def findings(self) -> int:
        return sum(self.kinds.values())


class Repaired:
    """What a repair did."""

    def __init__(self) -> None:
        self.total = 0
        #: The numbers of the findings that are gone.
        self.fixed = Marks()
        self.bytes_fetched = 0
        self.deleted = 0
        #: Files whose removal waits for approval.
        self.held = 0
        self.notes: list[str] = []
        self.interrupted = False
        self.unreachable: str | None = None
        self.store_error: str | None = None

    @property
    def left(self) -> int:
        """Findings that are still there."""
        return self.total - len(self.fixed)

    def figures(self) -> dict[str, Any]:
        """For machines."""
        return {
            "fixed": len(self.fixed), "left": self.left, "bytes_fetched": self.bytes_fetched, "deleted": self.deleted,
            "held": self.held, "notes": self.notes, "interrupted": self.interrupted, "unreachable": self.unreachable,
            "store_error": self.store_error,
        }  # fmt: skip
