"""What a project is going to be: what of its files is there, what had to be fetched, and all that changes with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from heliostat import names
from heliostat.config import Config
from heliostat.errors import UpstreamError
from heliostat.mirror.amend import amend
from heliostat.mirror.aside import Arrived, Aside, Missing
from heliostat.mirror.claims import Claims, turns
from heliostat.mirror.files import FileCollector, Ready, comes_whole
from heliostat.mirror.inventory import Inventory, take_inventory
from heliostat.mirror.item import Item
from heliostat.mirror.metadata import Answers, MetadataReader
from heliostat.mirror.outcome import fill, outcome_of, shown_entry
from heliostat.mirror.owners import Neighbours
from heliostat.mirror.project_provenance import ProjectProvenance
from heliostat.mirror.publish import Publisher
from heliostat.mirror.quarantine import Quarantine
from heliostat.mirror.remnants import Remnants
from heliostat.mirror.removals import PAGES
from heliostat.mirror.rules import Rules
from heliostat.mirror.standing import Place, Standing
from heliostat.mirror.survey import OpenPaths, Places, Survey, survey
from heliostat.mirror.wanted import Held, Wanted, held_files, wanted_files
from heliostat.model import DistFile
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow, Row
from heliostat.store.incoming import document_digest
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Publication, Tree

#: Documents above this (bytes) are not held in memory while files are fetched.
_LARGE_DOCUMENT = 256 << 10


class ProjectPlanner:
    """Makes items for the publisher; what they claim stays claimed until whoever asked releases it."""

    def __init__(
        self,
        config: Config,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        publisher: Publisher,
        *,
        reader: MetadataReader,
        files: FileCollector,
        provenance: ProjectProvenance,
        rules: Rules,
        claims: Claims,
        head: int | None,
        tree_began_empty: bool,
    ) -> None:
        self._config, self._tree, self._ledger, self._keeper = config, tree, ledger, keeper
        self._publisher, self._reader, self._files, self._provenance = publisher, reader, files, provenance
        self._rules, self._claims = rules, claims
        #: Upstream's own serial as it was told last, where it is known.
        self.head = head
        #: What the ledger knows nothing of is not there, most likely, and need not be looked for beforehand.
        self.tree_began_empty = tree_began_empty
        self._looking_for_room = asyncio.Lock()
        self._next_look_for_room = 0.0

    async def plan(self, row: Row, answers: Answers, *, untouched: bool) -> Item:
        """What changes, its files fetched; what it claims is claimed until that is in the tree."""
        begun = await self._begin(row, answers, untouched=untouched)
        await self._claims.take(row.name, begun.keys)
        later = untouched and not row.attempts and self.tree_began_empty and self._publisher.is_busy
        later = later and comes_whole(begun.wanted)
        if later:
            await self._check_room()
            found: Survey | None = Survey(Places(self._tree, begun.standing.inventory, begun.standing.ours), {})
        else:
            found = await self._found(row, begun, begun.wanted, untouched=untouched)
        if found is None:  # something is in the tree, although nothing is recorded: a kill came between
            self._claims.release(row.name)
            return await self.plan(row, answers, untouched=False)
        try:
            item = await self._finish(row, begun, found, {}, unlooked=later)
        except UpstreamError:
            if later:  # perhaps because its place is another project's, which tells more
                await self._found(row, begun, begun.wanted, untouched=untouched)
            raise
        item.unlooked = later or (untouched and self._publisher.is_busy)
        return item

    async def plan_large(self, row: Row, aside: Aside) -> Item:
        """The same for a project with a large page, which lies aside as long as there is something to wait for."""
        try:
            begun = await self._begin(row, aside.answers, untouched=False)
            keys, aside.answers = begun.keys, begun.answers
            if not self._claims.take_now(row.name, keys):
                del begun
                await aside.leave((), len(keys))
                await self._claims.take(row.name, keys)
                await aside.back()
                begun = await self._begin(row, aside.answers, untouched=False)
            found = await self._found(row, begun, begun.wanted, untouched=False)
            assert found is not None
            arrived: dict[str, Arrived] = {}
            ahead = Publication(name=row.name)
            if any(_is_missing(want, found) for want in begun.wanted):
                present = found.present
                await aside.leave(
                    (Missing(want, present.get(want.key)) for want in begun.wanted if _is_missing(want, found)),
                    len(keys),
                )
                del begun, found, present
                places = Places(self._tree, Inventory(None, None, None), set())
                ahead = await self._files.collect_ahead(row, aside, places, self._neighbours(row, keys))
                arrived = await aside.back()
                begun = await self._begin(row, aside.answers, untouched=False)
                rest = [want for want in begun.wanted if want.file.filename not in arrived]
                found = await self._found(row, begun, rest, untouched=False)
                assert found is not None
            item = await self._finish(row, begun, found, arrived)
            assert item.publication is not None
            item.publication.times += ahead.times
            return item
        finally:
            await in_thread(aside.drop)

    async def _begin(self, row: Row, answers: Answers, *, untouched: bool) -> _Begun:
        standing = Standing(row.name) if untouched else await self._standing(row)
        if answers.keep_document and standing.inventory.document is not None:
            answers = msgspec.structs.replace(answers, document=standing.inventory.document, unchanged=True)
        if answers.gone or self._rules.amend(row.name):
            kept = [] if untouched else await self._keeper(self._ledger.denials.kept, row.name)
            answers = await in_thread(
                partial(amend, kept=kept, withheld=standing.open_paths.withheld),
                self._tree, self._rules, row.name, answers, standing.inventory,
            )  # fmt: skip
        answers = await self._set_aside(row, answers, standing.inventory)
        held: Mapping[str, Held] = standing.held
        if answers.own or answers.retained:  # their places are known, although no page of ours may say so now
            held = {**held_files(answers.page), **held}
        wanted = wanted_files(answers.page, answers.document, held, allow_unhashed=self._config.upstream.allow_unhashed)
        if not self._config.mirror.files:
            wanted = [want for want in wanted if _is_held(want, held)]
        return _Begun(answers, standing, wanted, turns((want.file.filename for want in wanted), standing.ours))

    async def _found(self, row: Row, begun: _Begun, wanted: list[Wanted], *, untouched: bool) -> Survey | None:
        """What of ``wanted`` is there; None when a project that should be ``untouched`` has something in the tree."""
        found = await in_thread(self._look, row, wanted, begun.standing, untouched)
        if found is not None and found.places.to_replace:
            neighbours = self._neighbours(row, begun.keys)
            for path in found.places.to_replace:
                await self._keeper(neighbours.refuse_if_shared, path)
        return found

    async def _finish(
        self, row: Row, begun: _Begun, found: Survey, arrived: Mapping[str, Arrived], *, unlooked: bool = False
    ) -> Item:
        item = Item(name=row.name, publication=Publication(name=row.name), unlooked=unlooked)
        try:
            await self._prepare(item, row, begun, found, arrived)
        except BaseException:
            self._publisher.memory.give(item.publication)
            raise
        return item

    async def _check_room(self) -> None:
        """Raises StoreError when nothing more can be fetched; looks once a second."""
        async with self._looking_for_room:
            if (now := time.monotonic()) >= self._next_look_for_room:
                await in_thread(self._files.check_room)
                self._next_look_for_room = now + 1.0

    def _neighbours(self, row: Row, keys: set[str]) -> Neighbours:
        return Neighbours(self._tree, self._ledger, row.name, keys)

    async def _standing(self, row: Row) -> Standing:
        inventory = await in_thread(take_inventory, self._tree, row.name, row.published)
        return Standing(row.name, inventory, await self._keeper(self._open_paths, row))

    def _look(self, row: Row, wanted: list[Wanted], standing: Standing, untouched: bool) -> Survey | None:
        if untouched and take_inventory(self._tree, row.name, published=False).shown is not None:
            return None
        found = survey(self._tree, wanted, standing.inventory, standing.ours, standing.open_paths)
        if found.complete < len(wanted):
            self._files.check_room()
        return found

    async def _set_aside(self, row: Row, answers: Answers, inventory: Inventory) -> Answers:
        """A large document waits on disk, not in memory, until the project's files are there."""
        body = answers.body
        if body is None or len(body) <= _LARGE_DOCUMENT:
            return answers
        if inventory.shown is not None and inventory.shown.document == body:
            return msgspec.structs.replace(answers, body=None, unchanged=True)
        placement = await in_thread(self._tree.stage, body, names.document_path(row.name))
        return msgspec.structs.replace(answers, body=None, staged=placement, staged_digest=document_digest(body))

    def _open_paths(self, row: Row) -> OpenPaths:
        found: dict[str, set[str]] = {}
        for one in self._ledger.paths.all_of_project(row.name):
            found.setdefault(one.kind, set()).add(one.path)
        found["incoming"] = self._ledger.paths.incoming(row.name)
        return OpenPaths(**{kind: frozenset(paths) for kind, paths in found.items()})

    def _withheld(self, row: Row) -> list[PathRow]:
        return self._ledger.paths.of_project(row.name, "withheld")

    async def _prepare(
        self, item: Item, row: Row, begun: _Begun, found: Survey, arrived: Mapping[str, Arrived]
    ) -> None:
        assert item.publication is not None
        answers, standing, wanted = begun.answers, begun.standing, begun.wanted
        inventory, before, ours = standing.inventory, standing.before, standing.ours
        neighbours = self._neighbours(row, begun.keys)
        if not arrived:
            ready = await self._files.collect(row, item, wanted, inventory, found, neighbours)
        else:
            rest = [want for want in wanted if want.file.filename not in arrived]
            came = iter(await self._files.collect(row, item, rest, inventory, found, neighbours))
            ready = [_ready(want, arrived.get(want.file.filename)) or next(came) for want in wanted]
        own = {one.want.file.filename: shown_entry(one) for one in ready if one.want.listed}
        listed = [own.get(file.filename) or self._elsewhere(file) for file in answers.page.files]
        page = msgspec.structs.replace(answers.page, files=tuple(listed), serial=answers.serial)
        placed = len(item.publication.placements)
        provenance = await self._provenance.prepare(row, item.publication, page, answers)
        item.fetched += len(item.publication.placements) - placed
        after = {one.path for one in ready} | {names.sidecar_path(o.path) for o in ready if o.sidecar} | provenance
        withheld = [] if row.untouched else await self._keeper(self._withheld, row)
        quarantine = Quarantine(row, page, inventory, withheld, keeps=self._rules.keeps)
        item.doomed = [quarantine.doom(path, answers.serial) for path in sorted(ours - after)]
        shown = before | standing.open_paths.withheld
        item.doomed = [one if one.path in shown else _unlinked(one) for one in item.doomed]
        item.doomed += [one for one in quarantine.ended(answers.serial) if one.path not in after]
        places = (Place(one.path, one.want.listed, bool(one.sidecar)) for one in ready)
        item.claims, item.unclaimed = standing.rows(places)
        item.restored = [
            PathRow(path, row.name, "withheld")
            for path in standing.open_paths.withheld
            if path in after or path.startswith(PAGES)
        ]
        item.before, item.documented = before, answers.document is not None
        fill(item.publication, page, answers, inventory)
        if not row.untouched or answers.amended or answers.retained:
            Remnants(self._rules, row, answers, standing).note(item, quarantine, ready, after)
        item.outcome = outcome_of(
            row, answers, page, ready, inventory, head=self.head, stuck_seconds=self._config.mirror.stuck_seconds
        )

    def _elsewhere(self, file: DistFile) -> DistFile:
        """A file that this mirror does not keep: its link leads to upstream.  Raises Refused as fetching it would."""
        return msgspec.structs.replace(file, url=self._reader.checked_url(file.url))


def _unlinked(one: PathRow) -> PathRow:
    """What was never shown is not kept either."""
    return msgspec.structs.replace(one, fate="unlink") if one.fate == "keep" else one


class _Begun(NamedTuple):
    """What is known before a project has its turn with its file names, ``keys``."""

    answers: Answers
    standing: Standing
    wanted: list[Wanted]
    keys: set[str]


def _is_missing(want: Wanted, found: Survey) -> bool:
    there = found.present.get(want.key)
    return there is None or not there.file


def _ready(want: Wanted, arrived: Arrived | None) -> Ready | None:
    return Ready(want, arrived.path, arrived.sha256, arrived.sidecar) if arrived is not None else None


def _is_held(want: Wanted, held: Mapping[str, Held]) -> bool:
    """Whether our own page has these very bytes already."""
    ours = held.get(want.file.filename)
    return ours is not None and want.path == ours.path
