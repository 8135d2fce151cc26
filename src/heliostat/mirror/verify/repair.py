"""What a verify found is put right: by the ordinary means of a pass, under the mirror's lock.

A damaged file is moved aside, see :mod:`heliostat.mirror.verify.damaged`, and its project made owed; then a pass of
those projects fetches what is missing, every digest checked, and writes what pages differ.  When the right bytes are in
place what was moved aside goes.  HTML pages and links are written anew from the JSON page before that, without
upstream.  Whether a finding is gone is judged anew, never assumed.
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from itertools import groupby, islice

from heliostat.errors import Obstructed, StoreError
from heliostat.mirror.entries import mark_changing, note_repaired
from heliostat.mirror.inventory import take_inventory
from heliostat.mirror.mending import mend_changes
from heliostat.mirror.places import DAMAGED
from heliostat.mirror.rebuild import show_pages
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.root import write_last_modified, write_root
from heliostat.mirror.segments import write_changes
from heliostat.mirror.verify.beside import LAST_MODIFIED
from heliostat.mirror.verify.damaged import Damaged
from heliostat.mirror.verify.feed import check_feed
from heliostat.mirror.verify.findings import Finding, Kind
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judge import Judge, relative
from heliostat.mirror.verify.result import Repaired
from heliostat.mirror.verify.shelves import Sample, Seen, Shelves
from heliostat.mirror.verify.unreferenced import STORED, Remover
from heliostat.model import ProjectName
from heliostat.pages.changes import FOLDER
from heliostat.pages.render import project_html
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.store.tree import Publication, Tree

#: Projects that are put right together.
_PROJECTS = 200
#: What must be fetched again.
_BYTES: frozenset[Kind] = frozenset({"missing", "size", "digest", "provenance", "obstacle"})
#: What upstream has to be asked about.
_UPSTREAM: frozenset[Kind] = _BYTES | {"page", "document", "disagreement", "ledger", "behind"}
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755

#: A finding and its number.
Numbered = tuple[int, Finding]
#: Synchronises the projects of these names: an ordinary pass of them.
Sync = Callable[[list[str]], Awaitable[Summary]]


class Repair:
    """Puts findings right; made by :meth:`heliostat.mirror.run.Mirror.repair`, which holds the lock."""

    def __init__(
        self,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        ground: Ground,
        sync: Sync,
        scratch: str,
        *,
        packed: bool,
        stop: asyncio.Event,
        denied: Collection[str] = frozenset(),
    ) -> None:
        """``denied``: projects that are to go, and that upstream is not asked about."""
        self._denied = denied
        self._tree, self._ledger, self._keeper, self._ground = tree, ledger, keeper, ground
        self._sync, self._packed, self._stop = sync, packed, stop
        self._names = Names(ground, scratch)
        self._judge = Judge(ground, None)
        self._shelves = Shelves(ground, scratch, quick=False, whole=False, sample=Sample())
        self._unreferenced = 0
        self.result = Repaired()
        self._damaged = Damaged(tree, self.result.notes)

    async def run(
        self,
        findings: Callable[[], Iterable[Finding]],
        *,
        fix: bool,
        delete: bool,
        allow: int,
        unreadable: int,
        counters: Counters,
        unreferenced: int = 0,
    ) -> Repaired:
        """``findings`` gives them anew each time, in order; see :meth:`heliostat.mirror.run.Mirror.repair`.

        Raises StateError; what the store or upstream refused is in the result.
        """
        result = self.result
        groups = groupby(enumerate(findings()), key=lambda item: item[1].project)
        nobodys: list[Numbered] = []
        roots = False
        try:
            while batch := await self._keeper(self._next, groups, nobodys):
                if fix and not self._stop.is_set():
                    await self._keeper(self._clear_obstacles, nobodys)
                roots |= any(one.kind == "root" for items in batch.values() for _, one in items)
                if fix and not self._stop.is_set():
                    counters.phase = "repairing"
                    await self._repair(batch)
            if fix and not self._stop.is_set():
                await self._keeper(self._repair_nobodys, nobodys, findings, roots=roots)
                gone = await self._keeper(self._damaged.forget_replaced)
                if gone and not result.total:
                    result.notes.append(f"{gone} damaged copies went whose places were filled since by a pass")
                await self._keeper(self._repair_feed, nobodys)
            if delete and not self._stop.is_set():
                counters.phase = "removing"
                self._unreferenced = max(self._unreferenced, unreferenced)
                remover = Remover(self._tree, self._ledger, self._names, self._judge, self.result, self._stop)
                await self._keeper(remover.run, findings, self._unreferenced, allow=allow, unreadable=unreadable)
        except StoreError as error:
            result.store_error = str(error)
        result.interrupted = self._stop.is_set()
        return result

    def _next(
        self, groups: Iterator[tuple[str, Iterator[Numbered]]], nobodys: list[Numbered]
    ) -> dict[str, list[Numbered]]:
        """Some projects with their findings; what is unreferenced is counted only."""
        batch: dict[str, list[Numbered]] = {}
        for project, group in islice(groups, _PROJECTS):
            own = batch[project] = []
            for item in group:
                self.result.total += 1
                self._unreferenced += item[1].kind == "unreferenced"
                if item[1].kind != "unreferenced":
                    (own if project else nobodys).append(item)
        return batch

    # -- projects ---------------------------------------------------------------------------------------------------

    async def _repair(self, batch: dict[str, list[Numbered]]) -> None:
        batch = {project: items for project, items in batch.items() if items}
        owed = await self._keeper(self._prepare, {name: [one for _, one in items] for name, items in batch.items()})
        refused: str | None = None
        while True:
            if owed:
                summary = await self._sync(owed)
                self.result.bytes_fetched += summary.bytes_fetched
                self.result.unreachable = self.result.unreachable or summary.unreachable
                refused = summary.store_error
            before = len(self.result.fixed)
            for name, items in batch.items():
                for number in await self._keeper(self._finish, name, items):
                    self.result.fixed.add(number)
            if refused is None:
                return
            # On a full disk that made room: the damaged copies of what is in place by now are gone.
            owed = [name for name in owed if any(number not in self.result.fixed for number, _ in batch[name])]
            if len(self.result.fixed) == before or not owed or self._stop.is_set():
                raise StoreError("repair", self._tree.disk.root, refused)

    def _prepare(self, batch: dict[str, list[Finding]]) -> list[str]:
        """Everything that can be done at once; the names of those that need upstream."""
        owed: list[str] = []
        publications: list[Publication] = []
        for name, findings in batch.items():
            for one in findings:
                if one.kind == "unreadable":
                    self._set_mode(one)
                elif one.kind == "obstacle" and one.path.startswith(STORED) and not one.raw:
                    self._damaged.clear_obstacle(one.path)
                elif one.kind in _BYTES and one.path.startswith(STORED) and not one.raw:
                    self._damaged.take(one.path)
                elif one.kind in ("obstacle", "link"):
                    self._damaged.clear(one)
                elif one.kind in ("page", "html"):
                    self._damaged.clear_way(one.file)
            if any(one.kind in ("html", "link", "obstacle") for one in findings):
                publication = self._from_what_is_known(ProjectName(name))
                if publication is not None:
                    publications.append(publication)
            if any(one.kind in _UPSTREAM for one in findings) and self._may_be_owed(name):
                owed.append(name)
        if publications:
            mark_changing(self._ledger, publications)
            show_pages(self._tree, publications)
        self._tree.disk.sync()
        with self._ledger.transaction() as connection:
            note_repaired(self._tree, self._ledger, [publication.name for publication in publications])
            for name in owed:
                self._ledger.intake.reopen(ProjectName(name), time.time(), "what a verify found is to be repaired")
                connection.execute("UPDATE projects SET page_etag = NULL, document_etag = NULL WHERE name = ?", (name,))
        return owed

    def _may_be_owed(self, name: str) -> bool:
        """Whether a pass may look at it: not at what is removed, waits to be, or was never this mirror's."""
        row = self._ledger.row(name)
        return (
            row is not None
            and name not in self._denied
            and (row.published or row.state == "blocked")
            and row.state not in ("gone", "excluded", "held")
        )

    def _from_what_is_known(self, name: ProjectName) -> Publication | None:
        """The HTML page and the link as the JSON page and the document tell them; None when that cannot be read."""
        try:
            inventory = take_inventory(self._tree, name, published=True)
        except (Obstructed, StoreError):
            return None
        shown, page = inventory.shown, inventory.page
        if shown is None or page is None:
            return None
        html = project_html(relative(page))
        return Publication(
            name=name,
            html_page=html if shown.html_page != html or not shown.html_is_one else None,
            link_missing=shown.document is not None and not shown.link_right,
        )

    def _set_mode(self, one: Finding) -> None:
        entry = self._tree.disk.stat(one.file.rstrip("/"))
        if entry is not None:
            self._tree.disk.set_mode(one.file.rstrip("/"), _DIRECTORY_MODE if entry.is_directory else _FILE_MODE)

    def _finish(self, name: str, items: list[Numbered]) -> list[int]:
        """The numbers of the findings that are gone; what was moved aside for them goes too."""
        judgement = self._judge.judge(self._names.one(name))
        still = {(one.kind, one.path) for one in judgement.findings}
        claims: dict[bytes, list[bytes]] = {}
        for line in judgement.claims:
            claims.setdefault(line[: line.index(b"\t")], []).append(line)
        row = self._ledger.row(name)
        gone = []
        for number, one in items:
            path = one.file.removeprefix("web/").encode("utf-8", "surrogateescape")
            seen = Seen(findings=[])
            if path in claims:
                self._shelves.check(path, claims[path], seen)
            if seen.findings or (one.kind, one.path) in still:
                continue
            if one.kind in ("behind", "ledger", "disagreement", "obstacle") and (
                row is None or row.state in ("pending", "failing", "blocked")
            ):
                continue
            if one.kind == "root":
                continue  # judged with the root pages
            gone.append(number)
            self._damaged.discard(one.file)
        return gone

    def _clear_obstacles(self, nobodys: list[Numbered]) -> None:
        """What is in the way of nobody that is known; who waits for such a place is due again."""
        cleared = [item for item in nobodys if item[1].kind == "obstacle" and item[1].path.startswith(STORED)]
        for number, one in cleared:
            if not one.raw and number not in self.result.fixed:
                self._damaged.clear_obstacle(one.path)
                self._damaged.discard(one.path)
                self.result.fixed.add(number)
        if cleared:
            with self._ledger.transaction():
                self._ledger.paths.wake_all(time.time())

    # -- what is nobody's -------------------------------------------------------------------------------------------

    def _repair_nobodys(
        self, nobodys: list[Numbered], findings: Callable[[], Iterable[Finding]], *, roots: bool
    ) -> None:
        """Modes, and root pages: what is in their way goes, then they are written anew."""
        for _, one in nobodys:
            if one.kind == "unreadable":
                self._set_mode(one)
            elif one.kind in ("obstacle", "root") and one.path.startswith("web/simple/index."):
                self._damaged.clear_unless_file(one)
        of_roots = [one for _, one in nobodys if one.kind == "root"]
        for one in of_roots:
            if one.path == LAST_MODIFIED:
                self._damaged.clear_unless_file(one)
                self._set_mode(one)
                write_last_modified(self._tree, float(self._ledger.get("last_poll") or 0))
        roots = roots or any(one.path != LAST_MODIFIED for one in of_roots)
        if roots:
            write_root(self._tree, self._ledger, force=True, packed=self._packed)
        wrong = {one.path for one in self._names.read_roots().findings} if roots or of_roots else set()
        for number, one in nobodys:
            if (one.kind == "root" and one.path not in wrong) or (one.kind == "unreadable" and self._is_readable(one)):
                self.result.fixed.add(number)
        if roots and not wrong:
            self._judge_roots(findings())

    def _repair_feed(self, nobodys: list[Numbered]) -> None:
        """Rows of what was repaired; a damaged feed is mended, or begins anew: who follows it is to know that."""
        damaged = [(number, one) for number, one in nobodys if one.kind == "feed"]
        if damaged and not check_feed(self._ground, 0.0):  # a pass has begun it anew meanwhile
            for number, _ in damaged:
                self.result.fixed.add(number)
            damaged = []
        for _, one in damaged:
            self._damaged.clear_unless_file(one)
        names = [one.path.removeprefix(f"{FOLDER}/") for _, one in damaged]
        if damaged and mend_changes(self._tree, self._ledger, names) and not check_feed(self._ground, 0.0):
            for number, one in damaged:
                self.result.fixed.add(number)
                self._damaged.discard(one.path)
            damaged = []
        write_changes(self._tree, self._ledger, anew=bool(damaged))
        if damaged:
            first = self._ledger.changelog.first
            lost = f"what it told before row {first} is lost, and " if first > 1 else ""
            self.result.notes.append(
                f"{FOLDER}/: the change feed begins anew, with row {first}: {lost}positions and serials from before do "
                "not count any more; mirrors that follow read the root list once, other copies are to be made whole"
            )
            self._damaged.forget_replaced(f"{DAMAGED}/{FOLDER.removeprefix('web/')}")
            still = {one.path for one in check_feed(self._ground, 0.0)}
            for number, one in damaged:
                if one.path not in still:
                    self.result.fixed.add(number)

    def _judge_roots(self, findings: Iterable[Finding]) -> None:
        """Whether the root pages show each project as they should by now."""
        judge, look = Judge(self._ground, float("inf")), self._names.roots()
        for project, group in groupby(enumerate(findings), key=lambda item: item[1].project):
            about = [(number, one) for number, one in group if one.kind == "root" and project]
            if about:
                found = self._names.one(project)
                found.root_json, found.root_html = look(project)
                still = {(one.kind, one.path) for one in judge.judge(found).findings}
                for number, one in about:
                    if (one.kind, one.path) not in still:
                        self.result.fixed.add(number)

    def _is_readable(self, one: Finding) -> bool:
        entry = self._ground.reader.stamp(one.file.removeprefix("web/").rstrip("/").encode("utf-8", "surrogateescape"))
        mode = self._ground.reader.mode
        if entry is not None and stat.S_ISDIR(entry.mode):
            mode |= mode >> 2
        return entry is None or entry.mode & mode == mode
