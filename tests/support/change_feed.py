"""Whether ``web/changes/`` keeps what docs/change-feed.md promises; for a real tree, and for one that was cut short."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from heliostat.errors import Invalid
from heliostat.pages.changes import SEGMENT_ROWS, Change, Head, parse_head, parse_row, segment_name, segment_start

Read = Callable[[str], bytes | None]


class Feed:
    """A feed read with ``read`` (of paths below ``web/``); ``problems`` says what is wrong with it."""

    def __init__(self, read: Read, names: Collection[str]) -> None:
        self.head: Head | None = None
        self.rows: list[Change] = []
        self.problems = list(self._read(read, set(names)))

    def _read(self, read: Read, names: set[str]) -> Iterator[str]:
        body = read("changes/head")
        if body is None:
            if names:
                yield f"changes: {sorted(names)} without a head"
            return
        if len(body) >= 1024:
            yield f"changes/head: {len(body)} bytes"
        try:
            head = self.head = parse_head(body, url="changes/head")
        except Invalid as error:
            yield str(error)
            return
        expected = range(segment_start(head.first), head.number + 1, SEGMENT_ROWS)
        known = {segment_name(start) for start in expected}
        if missing := known - names:
            yield f"changes: {sorted(missing)} missing"
        #: One that was begun and that no head names yet is allowed after a kill, see :meth:`strays`.
        self.strays = names - known - {"head"}
        number = head.first
        for start in expected:
            data = read(f"changes/{segment_name(start)}") or b""
            if segment_name(start) == head.segment:
                if len(data) < head.size:
                    yield f"changes/{head.segment}: {len(data)} bytes, where the head says {head.size}"
                if len(data) > head.size:
                    self.strays.add(head.segment)
                data = data[: head.size]
            if not data.endswith(b"\n"):
                yield f"changes/{segment_name(start)}: does not end with a row"
            for line in data.splitlines():
                try:
                    row = parse_row(line, url=segment_name(start))
                except Invalid as error:
                    yield str(error)
                    return
                if row.number != number:
                    yield f"changes/{segment_name(start)}: row {row.number} where {number} was due"
                number = row.number + 1
                self.rows.append(row)
        if number != head.number + 1:
            yield f"changes: ends at row {number - 1}, where the head says {head.number}"

    def untrue(self, is_there: Callable[[str], bool]) -> Iterator[str]:
        """Paths of which the last row says something else than the tree."""
        last: dict[str, bool] = {}
        for row in self.rows:
            last.update(dict.fromkeys((*row.added, *row.changed), True))
            last.update(dict.fromkeys(row.removed, False))
        for path, there in sorted(last.items()):
            if is_there(path) != there:
                yield f"changes: says that {path} is {'there' if there else 'gone'}"
