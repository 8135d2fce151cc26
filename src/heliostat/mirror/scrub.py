"""What a scrub does with one project: it looks at everything of it, and again at what seemed wrong.

It is a verify of one project after the other, so that a finding is acted on when it is made.  What no page names it
does not look for: only a verify of everything can tell that.  Blocking, for a thread of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import NamedTuple

from heliostat.config import Config
from heliostat.mirror.places import DATABASE, state_directory
from heliostat.mirror.verify.again import Again, Pace
from heliostat.mirror.verify.feed import check_feed
from heliostat.mirror.verify.findings import Finding, as_line, finding, from_line
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.ground import Books, Ground, mirror_ground
from heliostat.mirror.verify.judge import Judge
from heliostat.mirror.verify.reading import Budget, Stopping
from heliostat.mirror.verify.shelves import Sample, Seen, Shelves, by_path
from heliostat.mirror.verify.sorter import Sorter

#: Nobody else is at work.
ALONE = Pace(0.0, 0.0)
#: So many findings, or bytes read since the first one, and something is to be done about them first.
_MOST, _FAR = 1000, 256 << 20
#: Seconds between two looks at the root pages, when the first one found something.
_PAUSE = 3.0
_FOLDERS = (b"simple/", b"json/", b"pypi/", b"packages/", b"integrity/")


class Next(NamedTuple):
    """A project to be looked at, and the size of its files in bytes, as the ledger has it."""

    name: str
    size: int


class Looked(NamedTuple):
    """What seems to be wrong; ``path`` is how far it got, None when it is through."""

    findings: list[Finding]
    path: str | None


class Extent(NamedTuple):
    """How much is served."""

    projects: int
    files: int
    bytes: int


def extent(config: Config) -> Extent:
    """Raises StateError."""
    return Extent(*Books(_ledger(config)).read(lambda one: one.execute("SELECT * FROM totals").fetchone()))


def following(config: Config, name: str) -> Next | None:
    """The first project behind ``name`` that is served; None when it was the last one.  Raises StateError."""
    query = "SELECT name, bytes FROM projects WHERE published = 1 AND name > ? AND name NOT LIKE '!%' ORDER BY name"
    found = Books(_ledger(config)).read(lambda one: one.execute(f"{query} LIMIT 1", (name,)).fetchone())
    return None if found is None else Next(*found)


def _ledger(config: Config) -> str:
    return f"{state_directory(config)}/{DATABASE}"


class Looker:
    """Looks at one mirror within a budget.  Raises Stopping, StateError, StoreError."""

    def __init__(self, config: Config, budget: Budget) -> None:
        self._ground: Ground = mirror_ground(config, budget)

    def project(self, name: str, after: str, reached: Callable[[str | None], None]) -> Looked:
        """Look at a project, of files only at those behind the path ``after``.

        ``reached`` hears of each file: of its path as long as nothing was found, so that nothing found is ever passed.
        """
        judgement = Judge(self._ground, None).judge(Names(self._ground, "").one(name))
        shelves = _shelves(self._ground, "")
        seen, behind, reader = Seen(findings=judgement.findings), after.encode(), self._ground.reader
        first = None
        for path, claims in by_path(sorted(set(judgement.claims))):
            if path <= behind:
                continue
            shelves.check(path, claims, seen)
            folder = path[: path.rindex(b"/") + 1]
            if problem := reader.folder_problem(folder):
                seen.findings.append(finding("unreadable", b"web/" + folder, "", problem))
            reached(None if seen.findings else path.decode())
            if seen.findings:
                first = reader.budget.bytes if first is None else first
                if len(seen.findings) >= _MOST or reader.budget.bytes - first >= _FAR:
                    return Looked(seen.findings, path.decode())
        return Looked(seen.findings, None)

    def again(self, findings: Iterable[Finding], pace: Pace, started: float) -> list[Finding]:
        """What of that is still wrong, each once, in order; ``started``: when it was looked at, or before."""
        with tempfile.TemporaryDirectory(prefix="heliostat-scrub-") as scratch:
            suspects, confirmed = Sorter(scratch, "suspects"), Sorter(scratch, "confirmed")
            suspects.add(map(as_line, findings))
            names, shelves = Names(self._ground, scratch), _shelves(self._ground, scratch)
            again = Again(
                self._ground, names, shelves, scratch, pace=pace, started=started, ask=lambda _: None
            )  # fmt: skip
            again.confirm(suspects, confirmed, roots=False)
            return list(map(from_line, confirmed.sorted()))

    def top(self) -> list[Finding]:
        """What is wrong with what is no single project's: the root pages, once there are any, and the directories."""
        with tempfile.TemporaryDirectory(prefix="heliostat-scrub-") as scratch:
            first = self._top(scratch)
            if first and self._ground.reader.budget.stop.wait(_PAUSE):
                raise Stopping
            return [one for one in self._top(scratch) if one in first] if first else []

    def _top(self, scratch: str) -> list[Finding]:
        books, reader, names = self._ground.books, self._ground.reader, Names(self._ground, scratch)
        problems = ((folder, reader.folder_problem(folder)) for folder in _FOLDERS)
        found = [finding("unreadable", b"web/" + folder, "", problem) for folder, problem in problems if problem]
        if books is None or not books.get("root_written"):
            return found
        found += check_feed(self._ground, 0.0)
        roots = names.read_roots()
        found += roots.findings
        shown, judge = names.roots(), Judge(self._ground, roots.time)
        for row in books.rows():
            serial, html = shown(row.name)
            if not row.published or ((serial or None) == row.page_serial and html >= 0) or roots.time is None:
                continue
            if len(found) >= _MOST:  # written anew it is right for all
                break
            one = names.one(row.name)  # the page itself says what is right, the ledger only where to look
            one.root_json, one.root_html = serial, html
            found += (what for what in judge.judge(one).findings if what.kind == "root")
        return found


def _shelves(ground: Ground, scratch: str) -> Shelves:
    return Shelves(ground, scratch, quick=False, whole=False, sample=Sample())
