"""An adoption: project after project, in batches that are durable, resumable after a kill at any instant.

Of each batch the order is: files that get other places are linked there, pages and documents are written, what was
wrong is moved aside, leftovers go, and then ledger and position are committed together.  Done again, after a kill,
each step finds what is left of it to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from heliostat.config import Config
from heliostat.errors import Obstructed, StoreError
from heliostat.mirror.adopt.catalogue import SIMPLE
from heliostat.mirror.adopt.eye import Eye, Stopping
from heliostat.mirror.adopt.files import Check
from heliostat.mirror.adopt.layouts import Layout, Tool, bring_below_web, recognise
from heliostat.mirror.adopt.plans import Plan, Relocation
from heliostat.mirror.adopt.position import DONE, UNDER_WAY, Intention, Position, begun, earlier
from heliostat.mirror.adopt.report import Finding, Record, Result
from heliostat.mirror.adopt.survey import Survey, moved, tell
from heliostat.mirror.doomed import Reaper
from heliostat.mirror.places import ADOPTION, DAMAGED, scope_of, state_directory
from heliostat.mirror.rebuild import adopt_spellings, claims_of
from heliostat.mirror.report import Counters
from heliostat.mirror.root import write_root
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.threads import Keeper
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

_FILE_MODE = 0o644


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
            result.count(record.add(map(moved, self._layout.moves(self._tree.disk.root))))
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
        position.result.count(record.pending)
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
            tell(result, plan, self._in_scope)
        result.count(new)
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
        position.result.count(record.add(said))
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


async def adopt_tree(
    config: Config,
    tree: Tree,
    ledger: Ledger,
    keeper: Keeper,
    tool: Tool | None,
    check: Check,
    *,
    counters: Counters,
    stopped: Callable[[], bool],
) -> tuple[Result, Record]:
    """See :meth:`heliostat.mirror.run.Mirror.adopt`."""
    path = f"{state_directory(config)}/{ADOPTION}"
    counters.phase = "adopting"
    if (before := await keeper(earlier, ledger, path)) is not None:
        return before
    started = time.time()
    resumed = await keeper(begun, ledger)
    layout = resumed if resumed is not None else await keeper(recognise, config.mirror.directory, tool)
    adoption = Adoption(
        tree, ledger, layout, check, path,
        elsewhere=not config.mirror.files, in_scope=scope_of(config).__contains__, counters=counters, stopped=stopped,
    )  # fmt: skip
    result, record = await keeper(adoption.run)
    if not result.interrupted:
        await keeper(write_root, tree, ledger, force=True, packed=config.mirror.gzip_root)
    result.seconds = time.time() - started
    counters.phase = "done"
    return result, record
