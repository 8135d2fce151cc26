"""One project, from owed to handed over: read, plan, fetch, and give the publisher what changes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from heliostat import names
from heliostat.config import Config
from heliostat.errors import (
    NoRoom,
    Obstructed,
    PageMissing,
    Refused,
    UpstreamError,
)
from heliostat.mirror import news
from heliostat.mirror.amend import amend
from heliostat.mirror.aside import Arrived, Aside, Missing
from heliostat.mirror.budget import PageBudget, Share
from heliostat.mirror.claims import Claims, turns
from heliostat.mirror.download import SMALL
from heliostat.mirror.failures import Failures
from heliostat.mirror.files import FileCollector, Ready
from heliostat.mirror.inventory import Inventory, take_inventory
from heliostat.mirror.item import Item
from heliostat.mirror.metadata import Answers, MetadataReader
from heliostat.mirror.outcome import fill, outcome_of, shown_entry
from heliostat.mirror.owners import Neighbours
from heliostat.mirror.ownpage import own_answers
from heliostat.mirror.provenance import ProvenanceFetcher
from heliostat.mirror.publish import Publisher
from heliostat.mirror.quarantine import Quarantine
from heliostat.mirror.reachability import Reachability
from heliostat.mirror.remnants import Remnants
from heliostat.mirror.removals import PAGES, Removals
from heliostat.mirror.report import Counters
from heliostat.mirror.rules import Rules
from heliostat.mirror.standing import Place, Standing
from heliostat.mirror.survey import OpenPaths, Places, Survey, survey
from heliostat.mirror.tally import Tally
from heliostat.mirror.wanted import Held, Wanted, held_files, provenance_path, wanted_files
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow, Row, Tombstone
from heliostat.store.incoming import document_digest
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Placement, Publication, Tree
from heliostat.upstream.faults import NotConnected
from heliostat.upstream.traffic import Traffic

log = logging.getLogger(__name__)

#: Documents above this (bytes) are not held in memory while files are fetched.
_LARGE_DOCUMENT = 256 << 10


class ProjectSync:
    """Synchronises projects; an upstream fault concerns its project alone, a store fault comes out."""

    def __init__(
        self,
        config: Config,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        publisher: Publisher,
        *,
        reader: MetadataReader,
        budget: PageBudget,
        files: FileCollector,
        provenance: ProvenanceFetcher | None,
        removals: Removals,
        reachability: Reachability,
        counters: Counters,
        tally: Tally,
        traffic: Traffic,
        head: int | None,
        rules: Rules,
        tree_began_empty: bool = False,
    ) -> None:
        self._config, self._tree, self._ledger, self._keeper = config, tree, ledger, keeper
        self._publisher, self._reader, self._budget, self._files = publisher, reader, budget, files
        self._provenance, self._removals, self._counters, self._tally = provenance, removals, counters, tally
        self._reachability, self._traffic, self._rules = reachability, traffic, rules
        #: Upstream's own serial as it was told last, where it is known.
        self.head = head
        #: Who is about to put bytes where.
        self.claims = Claims()
        self._failures = Failures(config, reader, publisher, counters, self.claims)
        self._numbers = itertools.count(1)
        #: Asked for when many fail.
        self._another: Row | None = None
        self._found_down = False
        #: What the ledger knows nothing of is not there, most likely, and need not be looked for beforehand.
        self.tree_began_empty = tree_began_empty
        #: Projects for which that was wrong: they are to be synchronised once more.
        self._met_names: list[ProjectName] = []
        self._asking_another = asyncio.Lock()
        self._looking_for_room = asyncio.Lock()
        self._next_look_for_room = 0.0

    async def sync(self, row: Row) -> None:
        """Bring one owed project up to date, or record why not.  Raises StoreError, StateError."""
        share = self._budget.share()
        try:
            await self._sync(row, share)
        except PageMissing as error:
            await self._missing(row, error)
        except Refused as error:
            await self._failures.block(row, error)
        except Obstructed as error:
            await self._failures.fail(row, error)
        except NoRoom as error:
            if error.ever:
                self._tally.no_room = self._tally.no_room or str(error)
            await self._failures.fail(row, error)
        except UpstreamError as error:
            await self._failures.fail(row, error)
            try:
                self._reachability.failed(error, before=row.attempts > 0)
            except UpstreamError:
                if isinstance(error, NotConnected) or not await self._another_answers():
                    raise
        except BaseException:
            self.claims.release(row.name)
            raise
        finally:
            if not share.handed_over:
                share.release()

    async def _another_answers(self) -> bool:
        """Whether upstream has an answer for a project with which all was well: then it is the others that fail."""
        async with self._asking_another:
            if self._found_down or not self._reachability.down:  # somebody else has found out meanwhile
                return not self._found_down
            row = self._another = self._another or await self._keeper(self._ledger.unsuspected)
            self._found_down = row is None or not await self._reader.answers(row)
            if not self._found_down:
                self._reachability.answered()
            return not self._found_down

    async def _sync(self, row: Row, share: Share) -> None:
        begun = time.monotonic()
        answers = await self._reader.read(row, share)
        self._removals.another_answered(row.name)
        self._reachability.answered()
        if answers is None:
            await self._unchanged(row)
            return
        serial = answers.serial
        if share.large:
            aside = Aside(self._tree.disk, f"aside-{next(self._numbers)}", share, answers)
            del answers  # it is not to be held by anybody else
            item = await self._plan_large(row, aside)
        else:
            item = await self._plan(row, answers, untouched=row.untouched)

        def done() -> None:
            if item.met:
                self._met(row)
                share.release()
                return
            self._counters.projects_done += 1
            if item.given_up:
                self._failures.given_up(row, item)
                share.release()
                return
            self._traffic.projects.add(time.monotonic() - begun)
            share.release()
            self.claims.release(row.name)
            if self._tally.published(row, item):
                news.published(row.name, serial)
            else:
                log.debug("%s: unchanged, serial %s", row.name, serial)

        item.done, share.handed_over = done, True
        await self._publisher.submit(item)

    async def _unchanged(self, row: Row) -> None:
        """Page and document are as they were; provenance objects may have changed all the same (PEP 740)."""
        publication = Publication(name=row.name)
        if row.why == "sweep" and self._provenance is not None:
            inventory = await in_thread(take_inventory, self._tree, row.name, row.published)
            if inventory.page is not None:
                await self._fetch_provenance(row, publication, inventory.page)
        if publication.placements:
            await self._publisher.submit(
                Item(name=row.name, publication=publication, shown=True, fetched=len(publication.placements))
            )
        await self._keeper(self._ledger.touch, row.name, time.time())
        self._tally.unchanged += 1
        self._counters.projects_done += 1

    async def _plan(self, row: Row, answers: Answers, *, untouched: bool) -> Item:
        """What changes, its files fetched; what it claims is claimed until that is in the tree."""
        begun = await self._begin(row, answers, untouched=untouched)
        await self.claims.take(row.name, begun.keys)
        later = untouched and not row.attempts and self.tree_began_empty and self._publisher.is_busy
        later = later and all(map(_is_small, begun.wanted))
        if later:
            await self._check_room()
            found: Survey | None = Survey(Places(self._tree, begun.standing.inventory, begun.standing.ours), {})
        else:
            found = await self._found(row, begun, begun.wanted, untouched=untouched)
        if found is None:  # something is in the tree, although nothing is recorded: a kill came between
            self.claims.release(row.name)
            return await self._plan(row, answers, untouched=False)
        try:
            item = await self._finish(row, begun, found, {})
        except UpstreamError:
            if later:  # perhaps because its place is another project's, which tells more
                await self._found(row, begun, begun.wanted, untouched=untouched)
            raise
        item.unlooked = untouched and self._publisher.is_busy
        return item

    async def _plan_large(self, row: Row, aside: Aside) -> Item:
        """The same for a project with a large page, which lies aside as long as there is something to wait for."""
        try:
            begun = await self._begin(row, aside.answers, untouched=False)
            keys, aside.answers = begun.keys, begun.answers
            if not self.claims.take_now(row.name, keys):
                del begun
                await aside.leave((), len(keys))
                await self.claims.take(row.name, keys)
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

    async def _finish(self, row: Row, begun: _Begun, found: Survey, arrived: Mapping[str, Arrived]) -> Item:
        item = Item(name=row.name, publication=Publication(name=row.name))
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
        provenance = await self._fetch_provenance(row, item.publication, page, answers)
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

    async def _fetch_provenance(
        self, row: Row, publication: Publication, page: ProjectPage, answers: Answers | None = None
    ) -> set[str]:
        if page.quarantined:
            return set()
        files, paths = page.files, set()
        if answers is not None and (answers.own or answers.retained):  # upstream may not have these any more
            there = [file for file in files if answers.own or file.filename in answers.retained]
            paths = {provenance_path(row.name, file.provenance, file.filename) for file in there if file.provenance}
            files = tuple(file for file in files if file not in there)
            publication.placements += await in_thread(self._out_of_reach, paths)
        if self._provenance is None:  # what an earlier configuration fetched stays, since the page still links it
            return paths | {
                provenance_path(row.name, file.provenance, file.filename) for file in files if file.provenance
            }
        placements, fetched = await self._provenance.fetch(row.name, files, refresh=row.why == "sweep")
        publication.placements += placements
        return paths | fetched

    def _out_of_reach(self, paths: set[str]) -> list[Placement]:
        """What of these is not in place, but was put out of reach."""
        found = []
        for path in sorted(paths):
            away = names.withheld_path(path)
            if self._tree.disk.stat(path) is None and self._tree.disk.stat(away) is not None:
                found.append(Placement(away, path))
        return found

    # -- failures -----------------------------------------------------------------------------------------------

    async def _missing(self, row: Row, error: PageMissing) -> None:
        """The page answers 404: gone, if there is a second sign; otherwise owed."""
        if row.state == "retained" and row.published:
            if self._rules.retains(row.name):
                await self._keeper(self._ledger.touch, row.name, time.time())
                self._tally.unchanged += 1
                self._counters.projects_done += 1
                return
            self._removals.confirm(row, "removed upstream, and retained until now")
        outcome = None
        if not self._removals.waits(row.name):
            outcome = self._removals.judge(row, error, time.time(), self._failures.due(row))
        if outcome is None and row.published and self._rules.retains(row.name):
            reason = self._removals.reason_for(row.name) or "removed upstream"
            self._removals.settled({row.name})
            await self._retain(row, reason)
        elif outcome is not None:
            await self._failures.submit(row, outcome)
        else:
            self._counters.projects_done += 1

    async def _retain(self, row: Row, reason: str) -> None:
        """Upstream removed it: its page says so, and everything stays."""
        log.info("%s: %s; retained", row.name, reason)
        try:
            answers = await in_thread(own_answers, self._tree, row)
            item = await self._plan(row, msgspec.structs.replace(answers, gone=True), untouched=False)
        except (Refused, Obstructed, UpstreamError) as error:
            self.claims.release(row.name)
            await self._failures.fail(row, error)
            return
        item.tombstones.append(
            Tombstone(time.time(), row.name, None, row.wanted_serial or None, reason, approved=True, what="retained")
        )

        def done() -> None:
            self._counters.projects_done += 1
            if item.given_up:
                self._failures.given_up(row, item)
                return
            self.claims.release(row.name)
            self._tally.published(row, item)

        item.done = done
        await self._publisher.submit(item)

    def _met(self, row: Row) -> None:
        """Something of it, or in its place, is in the tree, although the ledger knows nothing of it."""
        self.tree_began_empty = False
        self.claims.release(row.name)
        self._met_names.append(row.name)

    def take_met(self) -> list[ProjectName]:
        """Projects that are to be synchronised once more, since something lies in their places; told once."""
        met, self._met_names = self._met_names, []
        return met


def _unlinked(one: PathRow) -> PathRow:
    """What was never shown is not kept either."""
    return msgspec.structs.replace(one, fate="unlink") if one.fate == "keep" else one


class _Begun(NamedTuple):
    """What is known before a project has its turn with its file names, ``keys``."""

    answers: Answers
    standing: Standing
    wanted: list[Wanted]
    keys: set[str]


def _is_small(want: Wanted) -> bool:
    """It waits in memory, and its place is known."""
    return want.path is not None and want.size is not None and want.size <= SMALL


def _is_missing(want: Wanted, found: Survey) -> bool:
    there = found.present.get(want.key)
    return there is None or not there.file


def _ready(want: Wanted, arrived: Arrived | None) -> Ready | None:
    return Ready(want, arrived.path, arrived.sha256, arrived.sidecar) if arrived is not None else None


def _is_held(want: Wanted, held: Mapping[str, Held]) -> bool:
    """Whether our own page has these very bytes already."""
    ours = held.get(want.file.filename)
    return ours is not None and want.path == ours.path
