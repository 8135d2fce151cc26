"""The second look: a mirror may be at work, so nothing is called wrong that is right a moment later.

Whatever seemed wrong is judged anew, from the pages that are there by now.  Where something of a project changed within
the last moments, and somebody may be at work, that is repeated after a pause until it is settled.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice

import msgspec

from heliostat.mirror.owners import possible_owners
from heliostat.mirror.verify.findings import Finding, as_line, finding, from_line
from heliostat.mirror.verify.folders import listing
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judge import Judge
from heliostat.mirror.verify.judgement import Found, Judgement, Upstream
from heliostat.mirror.verify.reading import Stopping
from heliostat.mirror.verify.shelves import Seen, Shelves
from heliostat.mirror.verify.sorter import Sorter
from heliostat.state.queries import Queries

#: Kinds that concern one file, found by looking at what pages claim.
_OF_FILES = frozenset({"missing", "size", "digest", "provenance"})
_STORED = ("web/packages/", "web/integrity/")
_NORMAL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
#: Looks at something that keeps changing.
_MOST_LOOKS = 12
#: What nobody names, held in memory at once.
_AT_ONCE = 20_000

#: Asks upstream about a project; None when it is not to be asked, or did not answer.
Ask = Callable[[Found], Upstream | None]


class Pace(msgspec.Struct, frozen=True):
    """Seconds: what did not change for ``settled`` is as it is; between two looks there is a ``pause``."""

    settled: float
    pause: float


def beside_mirror(batch_seconds: float) -> Pace:
    """While a mirror may be at work, whose batches take about so long: what some of them left alone is as it is."""
    return Pace(max(5.0, 15 * batch_seconds), max(1.0, 1.5 * batch_seconds))


class Again:
    """Looks again; one thread."""

    def __init__(
        self, ground: Ground, names: Names, shelves: Shelves, scratch: str, *, pace: Pace, started: float, ask: Ask
    ) -> None:
        self._ground, self._names, self._shelves, self._scratch = ground, names, shelves, scratch
        self._pace, self._ask = pace, ask
        self._started_ns = int(started * 1e9)
        #: How many projects have no page that could be read.
        self.unreadable = 0
        self._judge = Judge(ground, None)
        self._roots: Callable[[str], tuple[int, int]] | None = None

    def confirm(self, suspects: Sorter, confirmed: Sorter, *, roots: bool) -> None:
        """Put into ``confirmed`` what is still wrong.  ``roots``: the root pages are to be compared.

        Raises Stopping.
        """
        current, strays = suspects, Sorter(self._scratch, "stray")
        for number in range(1, _MOST_LOOKS + 1):
            self.unreadable = 0
            self._read_roots(confirmed if number == 1 else None, wanted=roots)
            later = Sorter(self._scratch, f"new-{number}")
            findings = map(from_line, current.sorted())
            for project, group in groupby(findings, key=lambda one: one.project):
                for still, settled in self._project(project, group) if project else self._nobodys(group):
                    if still.kind == "unreferenced" and still.path.startswith(_STORED):
                        _keep(strays, still)
                    else:
                        _keep(confirmed if settled or number == _MOST_LOOKS else later, still)
            if current is not suspects:
                current.discard()
            current = later
            if next(later.sorted(), None) is None:
                break
            if self._ground.reader.budget.stop.wait(self._pace.pause):
                raise Stopping
        self._strays(strays, confirmed)
        strays.discard()
        if roots:
            self._leftovers(confirmed)
        confirmed.flush()

    def _read_roots(self, confirmed: Sorter | None, *, wanted: bool) -> None:
        if not wanted:
            return
        roots = self._names.read_roots()
        if confirmed is not None:
            confirmed.add(map(as_line, roots.findings))
        self._judge, self._roots = Judge(self._ground, roots.time), self._names.roots()

    # -- a project's ------------------------------------------------------------------------------------------------

    def _project(self, project: str, group: Iterable[Finding]) -> Iterator[tuple[Finding, bool]]:
        """What is still wrong, and whether it is settled that it is."""
        judgement = self._judged(project)
        self.unreadable += not judgement.readable
        settled = self._is_settled(judgement)
        said: dict[tuple[str, str], list[Finding]] = {}
        for one in judgement.findings:
            said.setdefault((one.kind, one.path), []).append(one)
        claims: dict[bytes, list[bytes]] = {}
        for line in judgement.claims:
            claims.setdefault(line[: line.index(b"\t")], []).append(line)
        last: Finding | None = None
        for one in group:
            if last is not None and (one.kind, one.path) == (last.kind, last.path):
                continue
            last = one
            yield from ((still, settled) for still in said.get((one.kind, one.path), ()))
            if one.path.startswith(_STORED) and one.kind != "unreferenced":
                yield from self._file(one, claims, settled=settled)
            elif one.kind == "obstacle" and (one.kind, one.path) not in said:
                yield from ((still, settled) for still in self._still_there(one))

    def _file(self, one: Finding, claims: dict[bytes, list[bytes]], *, settled: bool) -> Iterator[tuple[Finding, bool]]:
        path = one.file.encode("utf-8", "surrogateescape").removeprefix(b"web/")
        if path not in claims:
            return
        seen = Seen(findings=[])
        self._shelves.check(path, claims[path], seen)
        stamp = self._ground.reader.stamp(path)
        settled = settled and (stamp is None or self._is_old(stamp.changed_ns))
        yield from ((still, settled) for still in seen.findings if still.project == one.project)

    def _judged(self, project: str) -> Judgement:
        found = self._names.one(project)
        if self._roots is not None:
            found.root_json, found.root_html = self._roots(project)
        return self._judge.judge(found, self._ask(found))

    def _is_settled(self, judgement: Judgement) -> bool:
        return all(self._is_old(stamp.changed_ns) for stamp in judgement.stamps)

    def _is_old(self, changed_ns: int) -> bool:
        return changed_ns < (time.time() - self._pace.settled) * 1e9

    # -- nobody's ---------------------------------------------------------------------------------------------------

    def _nobodys(self, group: Iterable[Finding]) -> Iterator[tuple[Finding, bool]]:
        for one in group:
            if one.kind == "root":
                continue  # read anew already
            yield from ((still, True) for still in self._still_there(one))

    def _still_there(self, one: Finding) -> Iterator[Finding]:
        path = one.file.encode("utf-8", "surrogateescape").removeprefix(b"web/")
        stamp = self._ground.reader.stamp(path.rstrip(b"/"))
        if stamp is None:
            return
        mode = self._ground.reader.mode
        if one.kind == "unreadable" and path.endswith(b"/") and "lacks" in one.problem:
            mode |= mode >> 2
            if stamp.mode & mode == mode:
                return
        if one.kind == "unreferenced" and stamp.changed_ns > self._started_ns:
            return  # it came meanwhile; the next verify knows what it is
        yield one

    # -- what nobody names ------------------------------------------------------------------------------------------

    def _strays(self, strays: Sorter, confirmed: Sorter) -> None:
        found = map(from_line, strays.sorted())
        unnamed = (one for one in found if not self._is_spoken_for(one))
        while chunk := {one.file.removeprefix("web/"): one for one in islice(unnamed, _AT_ONCE)}:
            for name in self._changed():
                for line in self._judge.judge(self._names.one(name)).claims:
                    chunk.pop(line[: line.index(b"\t")].decode(), None)
            for one in chunk.values():
                _keep(confirmed, one)

    def _leftovers(self, confirmed: Sorter) -> None:
        """What lies in ``partial/`` while nobody is at work: temporaries, and downloads that nobody will go on with."""
        ground = self._ground
        if ground.partial is None or ground.books is None or ground.busy is not None:
            return
        resumable = ground.books.read(lambda connection: Queries(connection).owed_by_state())
        entries = listing(os.fsencode(ground.partial), self._scratch, "names-partial")
        found = [
            finding("unreferenced", b"partial/" + entry, "", "left over; nobody is at work on it")
            for entry in entries
            if not resumable or not entry.endswith((b".part", b".etag"))
        ]
        if ground.busy is None:  # nor has anybody begun meanwhile
            confirmed.add(map(as_line, found))

    def _is_spoken_for(self, one: Finding) -> bool:
        """Whether a page that is there by now names the file, or may, or the ledger knows what it is for."""
        if one.raw:
            return False  # nothing of ours has such a name
        if self._ground.books is not None and self._ground.books.open_fate(one.file):
            return True
        path = one.file.encode("utf-8", "surrogateescape").removeprefix(b"web/")
        for owner in possible_owners(one.file):
            if not _NORMAL.fullmatch(owner):
                continue
            found = self._names.one(owner)
            if not (found.simple or found.document):
                continue
            judgement = self._judge.judge(found)
            if not judgement.readable or any(line.startswith(path + b"\t") for line in judgement.claims):
                return True
        return False

    def _changed(self) -> Iterator[str]:
        """Projects whose pages were written after the verify began."""
        reader = self._ground.reader
        for entry in listing(reader.root + b"simple/", self._scratch, "names-changed", mark=b"\0"):
            stamp = reader.stamp(b"simple/%s/index.v1_json" % entry.rstrip(b"\0")) if entry.endswith(b"\0") else None
            name = entry.rstrip(b"\0").decode("utf-8", "replace")
            if stamp is not None and stamp.changed_ns >= self._started_ns and _NORMAL.fullmatch(name):
                yield name


def _keep(sorter: Sorter, one: Finding) -> None:
    sorter.add([as_line(one)])
    if sorter.is_full:
        sorter.flush()
