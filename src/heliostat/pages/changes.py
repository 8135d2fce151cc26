"""The static change feed ``changes/``: its head and rows, as bytes and back.  docs/change-feed.md is the contract."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from heliostat.errors import Invalid

#: ``added``: was not served before.  ``updated``: pages, documents or files changed.  ``quarantined``: its page says
#: so and offers nothing.  ``removed``: its pages and documents are gone.  ``repaired``: the same as before, after
#: what was served was damaged or missing.  ``dropped``: bytes that its page names no more are gone, or, where another
#: project's page names them, have that one's time; nothing else.
What = Literal["added", "updated", "quarantined", "removed", "repaired", "dropped"]

T = TypeVar("T")

FORMAT = 1
#: Rows of a full segment.
SEGMENT_ROWS = 10_000
#: Bytes: of a head that we accept (ours have less than 1 KB), and of a row.
MOST_HEAD, MOST_ROW = 4096, 1 << 20
FOLDER, HEAD = "web/changes", "head"
#: Full segments that are kept; whoever has not read them by then begins with the root list.
KEPT = 20

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**18)]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to one project: ``number`` counts from 1, ``at`` is seconds since the epoch (UTC).

    ``serial`` is what the page states, or of the removal; paths are relative to the document root.  ``changed`` are
    written at places that may have been served before.
    """

    number: int
    at: float
    serial: int | None
    project: str
    what: What
    #: How the name is spelled where that is not its normal form.
    display: str | None = None
    #: In the first row of those that were written together: the head's serial before them.
    complete: int | None = None
    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []


class Told(msgspec.Struct, frozen=True):
    """As much of a row as another mirror needs; of ``what`` only ``removed`` and ``dropped`` matter to it."""

    number: _Count
    serial: _Count | None
    project: str
    what: str
    display: str | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far the feed goes; ``serial`` is the mirror's checkpoint when all rows up to ``number`` were in place."""

    format: int = FORMAT
    #: Changes with everything that makes rows read before meaningless: a new ledger, another upstream.
    mirror: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}\\Z")]
    serial: _Count
    #: The newest row, and the oldest that is kept; ``first`` is one more than ``number`` when there is none.
    number: _Count
    first: _Count
    #: All rows up to here are in the root list too, which is written less often.
    listed: _Count
    #: The file that holds the newest row, and how many of its bytes count.
    segment: str
    size: _Count

    @property
    def start(self) -> int:
        """The number of the first row of the open segment."""
        return segment_start(max(self.number, self.first))


class _Format(msgspec.Struct):
    format: int


_HEAD = msgspec.json.Decoder(Head)
_ROW = msgspec.json.Decoder(Change)
_TOLD = msgspec.json.Decoder(Told)


def segment_start(number: int) -> int:
    """The first row of the segment that row ``number`` belongs to."""
    return (number - 1) // SEGMENT_ROWS * SEGMENT_ROWS + 1


def segment_name(number: int) -> str:
    """The file that row ``number`` belongs to."""
    return f"{segment_start(number):012d}.jsonl"


def head_bytes(head: Head) -> bytes:
    return msgspec.json.encode(head) + b"\n"


def row_bytes(change: Change) -> bytes:
    return msgspec.json.encode(change) + b"\n"


def parse_head(body: bytes, *, url: str) -> Head:
    """Raises Invalid for what is no head, one of a later format, or one that contradicts itself."""
    try:
        known = msgspec.json.decode(body, type=_Format).format
        if known != FORMAT:
            raise Invalid(url, f"a change feed of format {known}; this heliostat knows format {FORMAT}")
        head = _HEAD.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(url, f"not the head of a change feed: {error}") from None
    if not 1 <= head.first <= head.number + 1 or head.listed > head.number or head.segment != segment_name(head.start):
        raise Invalid(url, "the head of this change feed contradicts itself")
    return head


def parse_row(line: bytes, *, url: str) -> Change:
    """Raises Invalid."""
    return _parsed(_ROW, line, url)


def parse_told(line: bytes, *, url: str) -> Told:
    """Raises Invalid."""
    return _parsed(_TOLD, line, url)


def _parsed(decoder: msgspec.json.Decoder[T], line: bytes, url: str) -> T:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(url, f"not a row of a change feed: {error}") from None
