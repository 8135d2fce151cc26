"""What a verify saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from heliostat.mirror.verify.findings import Kind

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

    @property
    def findings(self) -> int:
        return sum(self.kinds.values())
