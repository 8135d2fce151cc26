"""An adoption: project after project, in batches that are durable, resumable after a kill at any instant.

Of each batch the order is: files that get other places are linked there, pages and documents are written, what was
wrong is moved aside, leftovers go, and then ledger and position are committed together.  Done again, after a kill,
each step finds what is left of it to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import msgspec

from heliostat.errors import ConfigError, Obstructed, StoreError
from heliostat.mirror.adopt.catalogue import SIMPLE, Catalogue
from heliostat.mirror.adopt.drafts import Draft, read_draft
from heliostat.mirror.adopt.eye import Eye, Stopping
from heliostat.mirror.adopt.files import Check, Inspector
from heliostat.mirror.adopt.layouts import Layout, Tool, bring_below_web
from heliostat.mirror.adopt.plans import Plan, Relocation, plan_for
from heliostat.mirror.adopt.report import Finding, Record, Result
from heliostat.mirror.doomed import Reaper
from heliostat.mirror.places import DAMAGED
from heliostat.mirror.rebuild import adopt_spellings, claims_of
from heliostat.mirror.report import Counters
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

#: Projects that are committed together, files of theirs after which it is enough, and bytes when they are hashed.
_BATCH, _BATCH_FILES, _BATCH_BYTES = 256, 20_000, 16 << 30
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
#: What the ledger remembers while an adoption is under way, and for good.
UNDER_WAY, DONE = "adopting", "adopted"


class Intention(msgspec.Struct, kw_only=True):
    """What goes once a project's pages do not name it any more; afterwards nothing else would tell."""

    aside: list[str] = []
    leftovers: list[str] = []
    doomed: list[str] = []

    def also(self, plan: Plan) -> Intention:
        """This, and what ``plan`` says."""
        return Intention(
            aside=list(dict.fromkeys([*self.aside, *plan.aside])),
            leftovers=list(dict.fromkeys([*self.leftovers, *plan.leftovers])),
            doomed=list(dict.fromkeys([*self.doomed, *plan.doomed])),
        )


class Position(msgspec.Struct, kw_only=True):
    """How far an adoption is."""

    tool: str
    check: str
    top: bool
    #: The last project of the last batch.
    after: str = ""
    #: Bytes of the record that are about what is done.
    recorded: int = 0
    #: Of the projects of the batch under way.
    intentions: dict[str, Intention] = {}
    result: Result


class Survey:
    """Looks at projects, and says what is to be done; changes nothing."""

    def __init__(
        self, eye: Eye, layout: Layout, check: Check, *, elsewhere: bool, stopped: Callable[[], bool], workers: int = 0
    ) -> None:
        self.eye, self._layout, self._check, self._elsewhere = eye, layout, check, elsewhere
        self._inspector = Inspector(eye, check, stopped)
        self._stopped = stopped
        self._workers = workers or min(16, max(2, os.cpu_count() or 1))
        self.catalogue = Catalogue(eye)

    def batches(self, after: str, counters: Counters) -> Iterator[list[Plan]]:
        """Plans of all projects after that name, in order.  Raises Stopping, StoreError."""
        rest = [name for name in self.catalogue.names if name > after]
        counters.projects_total, counters.projects_done = len(self.catalogue.names), 0
        counters.projects_done = counters.projects_total - len(rest)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="heliostat-adopt") as pool:
            drafts: list[Draft] = []
            size = files = 0
            for name in rest:
                if self._stopped():
                    raise Stopping
                drafts.append(read_draft(self.eye, self.catalogue, name))
                size += sum(entry.file.size or 0 for entry in drafts[-1].entries)
                files += len(drafts[-1].entries)
                large = size > _BATCH_BYTES and self._check == "digest"
                if len(drafts) == _BATCH or files > _BATCH_FILES or large:
                    yield self._plans(pool, drafts, counters)
                    drafts, size, files = [], 0, 0
            if drafts:
                yield self._plans(pool, drafts, counters)

    def _plans(self, pool: ThreadPoolExecutor, drafts: Sequence[Draft], counters: Counters) -> list[Plan]:
        looks = pool.map(
            self._inspector.look,
            [draft.name for draft in drafts for _ in draft.entries],
            [entry for draft in drafts for entry in draft.entries],
        )
        plans = []
        for draft in drafts:
            seen = [next(looks) for _ in draft.entries]
            plan = plan_for(self.eye, draft, seen, tool=self._layout.tool, elsewhere=self._elsewhere)
            plans.append(plan)
            counters.projects_done += 1
            counters.files_done += plan.files
            counters.bytes_done += plan.bytes if self._check == "digest" else 0
        return plans

    def about_the_tree(self) -> tuple[list[str], list[Finding]]:
        """Leftovers that belong to no project, and what is said of them and of what is left alone."""
        gone = [*self.catalogue.temporaries, *self.catalogue.hashed, *self._layout.leftovers(self.eye.root)]
        said = [Finding("removed", path, "", f"left by {self._layout.tool}") for path in gone]
        said += [Finding("strange", path, "", "no project; left alone") for path in self.catalogue.strange]
        return gone, said


def look_over(
    root: str,
    layout: Layout,
    check: Check,
    *,
    elsewhere: bool,
    in_scope: Callable[[str], bool],
    counters: Counters,
    stopped: Callable[[], bool],
) -> tuple[Result, Record]:
    """What an adoption would find and do; nothing is written, and no lock taken."""
    result, record = Result(tool=layout.tool, check=check, dry_run=True), Record(None, 0, new=True)
    moves = layout.moves(root)
    survey = Survey(Eye(root, moves), layout, check, elsewhere=elsewhere, stopped=stopped)
    _count(result, record.add(_moved(name) for name in moves))
    try:
        for plans in survey.batches("", counters):
            for plan in plans:
                _tell(result, plan, in_scope)
                _count(result, record.add(plan.findings))
        _count(result, record.add(survey.about_the_tree()[1]))
    except Stopping:
        result.interrupted = True
    return result, record


class Adoption:
    """Carries it out; everything belongs to the keeper's thread."""

    def __init__(
        self,
        tree: Tree,
        ledger: Ledger,
        layout: Layout,
        check: Check,
        path: str,
        *,
        elsewhere: bool,
        in_scope: Callable[[str], bool],
        counters: Counters,
        stopped: Callable[[], bool],
    ) -> None:
        self._tree, self._ledger, self._layout, self._check, self._path = tree, ledger, layout, check, path
        self._elsewhere, self._in_scope, self._counters, self._stopped = elsewhere, in_scope, counters, stopped

    def run(self) -> tuple[Result, Record]:
        """Begin, or go on; with ``interrupted`` in the result when it was asked to stop.  Raises StoreError."""
        position, record = self._begin()
        result = position.result
        try:
            _count(result, record.add(map(_moved, self._layout.moves(self._tree.disk.root))))
            bring_below_web(self._tree.disk, self._layout)
            self._tree.prepare()
            self._tree.clean_partial(downloads=False)
            Reaper(self._tree, self._ledger).reap_leftovers()
            survey = Survey(
                Eye(self._tree.disk.root), self._layout, self._check, elsewhere=self._elsewhere, stopped=self._stopped
            )
            for plans in survey.batches(position.after, self._counters):
                self._carry_out(plans, position, record)
            self._end(survey, position, record)
        except Stopping:
            result.interrupted = True
        return result, record

    def _begin(self) -> tuple[Position, Record]:
        ledger, before = self._ledger, self._ledger.get(UNDER_WAY)
        fresh = Position(
            tool=self._layout.tool, check=self._check, top=self._layout.top,
            result=Result(tool=self._layout.tool, check=self._check),
        )  # fmt: skip
        position = msgspec.json.decode(before, type=Position) if before else fresh
        if position.check != self._check:
            log.warning("begun with --check %s; beginning anew with --check %s", position.check, self._check)
            position = fresh
        if position is fresh:
            with ledger.transaction():
                ledger.begin_rebuild()
                ledger.put(**{UNDER_WAY: msgspec.json.encode(position).decode(), DONE: None})
        position.result.resumed = position is not fresh
        record = Record(self._path, position.recorded, new=position is fresh)
        _count(position.result, record.pending)
        return position, record

    def _carry_out(self, plans: list[Plan], position: Position, record: Record) -> None:
        tree, ledger, result = self._tree, self._ledger, position.result
        for plan in plans:
            self._clear_the_way(plan)
        new = record.add(finding for plan in plans for finding in plan.findings)
        before = position.intentions
        intentions = {plan.name: before.get(plan.name, Intention()).also(plan) for plan in plans}
        position.intentions = before | intentions
        with ledger.transaction():
            for plan in plans:
                if plan.relocations:
                    ledger.paths.announce(plan.name, [path for one in plan.relocations for path in one.targets])
            ledger.put(**{UNDER_WAY: msgspec.json.encode(position).decode()})
        for plan in plans:
            for one in plan.relocations:
                self._relocate(one)
            for path in plan.modes:
                tree.disk.set_mode(path, _FILE_MODE)
        self._show(plans)
        for intention in intentions.values():
            for path in intention.aside:
                self._move_aside(path)
            for path in intention.leftovers:
                self._remove(path)
        tree.disk.sync()
        for plan in plans:
            _tell(result, plan, self._in_scope)
        _count(result, new)
        position.after, position.recorded = plans[-1].name, record.size
        position.intentions = {name: one for name, one in position.intentions.items() if name not in intentions}
        doomed = [PathRow(path, name, "doomed", "unlink") for name, one in intentions.items() for path in one.doomed]
        with ledger.transaction():
            ledger.insert_rebuilt(self._row(plan) for plan in plans if plan.row is not None)
            for plan in plans:
                if plan.page is not None:
                    ledger.paths.add(claims_of(tree, plan.name, plan.page, plan.document))
            ledger.paths.add(doomed)
            ledger.put(**{UNDER_WAY: msgspec.json.encode(position).decode()})
        Reaper(tree, ledger).reap(doomed)

    def _row(self, plan: Plan) -> dict[str, object]:
        assert plan.row is not None
        return plan.row | {"named": not self._in_scope(plan.name)}

    def _clear_the_way(self, plan: Plan) -> None:
        """Links go where folders belong.  Of a project where something else lies, nothing is touched."""
        for path in plan.in_the_way:
            self._tree.disk.unlink(path)
        try:
            self._tree.refuse_obstacles(plan.name)
        except Obstructed as error:
            plan.findings = [one for one in plan.findings if one.kind not in ("renamed", "removed", "mode")]
            plan.findings.append(Finding("obstacle", f"{SIMPLE}/{plan.name}", plan.name, str(error)))
            plan.publication = plan.page = plan.row = None
            plan.relocations, plan.doomed, plan.aside, plan.leftovers, plan.modes = [], [], [], [], []

    def _show(self, plans: Sequence[Plan]) -> None:
        """Documents and links, then pages; the old ones stay until the new ones are durable."""
        tree = self._tree
        publications = [plan.publication for plan in plans if plan.publication is not None]
        documents = tree.stage_documents(publications, [])
        staged = tree.stage_pages(publications)
        tree.disk.sync()
        tree.place_documents(documents, publications)
        tree.show(staged)
        tree.disk.sync()

    def _relocate(self, one: Relocation) -> None:
        """Another name for the same bytes; where the file system has no such links they move to the first place."""
        disk = self._tree.disk
        for number, target in enumerate(one.targets):
            if self._is_placed(one, target):
                continue
            staged = "partial/adopted"
            disk.unlink(staged)
            try:
                disk.link(one.source, staged)
            except StoreError:
                if number == 0 and disk.stat(one.source) is not None:
                    disk.replace(one.source, target)
                return
            disk.replace(staged, target)
        for target in one.targets:
            if disk.stat(target) is not None:
                disk.set_mode(target, _FILE_MODE)

    def _is_placed(self, one: Relocation, target: str) -> bool:
        """Whether the bytes are at ``target``, perhaps by a run that was killed; other ones are moved aside."""
        disk = self._tree.disk
        there, source = disk.stat(target), disk.stat(one.source)
        if there is None:
            return False
        if source is None or there.inode == source.inode or one.sha256 is None:
            return True
        if there.size == source.size and self._tree.file_matches(target, "sha256", one.sha256):
            return True
        self._move_aside(target)
        return False

    def _move_aside(self, path: str) -> None:
        disk, kept = self._tree.disk, f"{DAMAGED}/{path.removeprefix('web/')}"
        if disk.stat(path) is not None:
            disk.replace(path, kept)
            self._tree.prune(path)

    def _remove(self, path: str) -> None:
        """A leftover: a file, or a folder if it is empty by now."""
        disk = self._tree.disk
        found = disk.stat(path)
        if found is None:
            return
        if not found.is_directory:
            disk.unlink(path)
        elif not disk.remove_directory(path):
            log.warning("%s: not empty; look at what is in it, it is no part of the mirror", path)

    def _end(self, survey: Survey, position: Position, record: Record) -> None:
        tree, ledger = self._tree, self._ledger
        adopt_spellings(tree, ledger)
        gone, said = survey.about_the_tree()
        _count(position.result, record.add(said))
        for path in gone:
            found = tree.disk.stat(path)
            if found is not None and found.is_directory and path not in survey.catalogue.hashed:
                self._remove_all(path)
            self._remove(path)
        tree.disk.sync()
        position.recorded = record.size
        with ledger.transaction():
            ledger.end_rebuild(None)
            ledger.put(**{UNDER_WAY: None, DONE: msgspec.json.encode(position).decode()})

    def _remove_all(self, folder: str) -> None:
        """A folder that was the old tool's alone."""
        for entry in self._tree.disk.names(folder):
            path = f"{folder}/{entry}"
            found = self._tree.disk.stat(path)
            if found is not None and found.is_directory:
                self._remove_all(path)
            self._remove(path)


def begun(ledger: Ledger) -> Layout | None:
    """The layout of an adoption that was interrupted: some of what it was recognised by may be gone."""
    before = ledger.get(UNDER_WAY)
    if before is None:
        return None
    position = msgspec.json.decode(before, type=Position)
    return Layout(cast(Tool, position.tool), position.top)


def earlier(ledger: Ledger, path: str) -> tuple[Result, Record] | None:
    """What an adoption that is finished came to; None when this ledger is still to be filled by one.

    Raises ConfigError for the ledger of a mirror that was never adopted.
    """
    if (done := ledger.get(DONE)) is not None:
        position = msgspec.json.decode(done, type=Position)
        position.result.already = True
        return position.result, Record(path if os.path.exists(path) else None, position.recorded, new=False)
    if ledger.get(UNDER_WAY) is None and not ledger.get("rebuilding"):
        problem = "there is a ledger already, so this is a heliostat mirror; to adopt the tree all the same"
        raise ConfigError([f"{ledger.path}: {problem}, move the ledger away first"])
    return None


def _tell(result: Result, plan: Plan, in_scope: Callable[[str], bool]) -> None:
    if plan.row is None:
        return
    result.projects += 1
    result.files += plan.files
    result.bytes += plan.bytes
    result.hashed += plan.hashed
    result.outside += not in_scope(plan.name)


def _count(result: Result, findings: Sequence[Finding]) -> None:
    for one in findings:
        result.kinds[one.kind] = result.kinds.get(one.kind, 0) + 1


def _moved(name: str) -> Finding:
    return Finding("moved", name, "", f"to web/{name}; a link stays, for web servers that still serve the old place")
