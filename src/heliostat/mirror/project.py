"""One project, from owed to handed over: read, plan, fetch, and give the publisher what changes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time

import msgspec

from heliostat.config import Config
from heliostat.errors import (
    NoRoom,
    Obstructed,
    PageMissing,
    Refused,
    UpstreamError,
)
from heliostat.mirror import news
from heliostat.mirror.aside import Aside
from heliostat.mirror.budget import PageBudget, Share
from heliostat.mirror.claims import Claims
from heliostat.mirror.failures import Failures
from heliostat.mirror.files import FileCollector
from heliostat.mirror.inventory import take_inventory
from heliostat.mirror.item import Item
from heliostat.mirror.metadata import MetadataReader
from heliostat.mirror.ownpage import own_answers
from heliostat.mirror.project_plan import ProjectPlanner
from heliostat.mirror.project_provenance import ProjectProvenance
from heliostat.mirror.publish import Publisher
from heliostat.mirror.reachability import Reachability
from heliostat.mirror.removals import Removals
from heliostat.mirror.report import Counters
from heliostat.mirror.rules import Rules
from heliostat.mirror.tally import Tally
from heliostat.model import ProjectName
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Row, Tombstone
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Publication, Tree
from heliostat.upstream.faults import NotConnected
from heliostat.upstream.traffic import Traffic

log = logging.getLogger(__name__)


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
        provenance: ProjectProvenance,
        removals: Removals,
        reachability: Reachability,
        counters: Counters,
        tally: Tally,
        traffic: Traffic,
        head: int | None,
        rules: Rules,
        tree_began_empty: bool = False,
    ) -> None:
        self._tree, self._ledger, self._keeper = tree, ledger, keeper
        self._publisher, self._reader, self._budget = publisher, reader, budget
        self._provenance, self._removals, self._counters, self._tally = provenance, removals, counters, tally
        self._reachability, self._traffic, self._rules = reachability, traffic, rules
        #: Who is about to put bytes where.
        self.claims = Claims()
        self.planner = ProjectPlanner(
            config, tree, ledger, keeper, publisher,
            reader=reader, files=files, provenance=provenance, rules=rules, claims=self.claims,
            head=head, tree_began_empty=tree_began_empty,
        )  # fmt: skip
        self._failures = Failures(config, reader, publisher, counters, self.claims)
        self._numbers = itertools.count(1)
        #: Asked for when many fail.
        self._another: Row | None = None
        self._found_down = False
        #: Projects whose places were thought to be empty, and are not: they are to be synchronised once more.
        self._met_names: list[ProjectName] = []
        self._asking_another = asyncio.Lock()

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
            item = await self.planner.plan_large(row, aside)
        else:
            item = await self.planner.plan(row, answers, untouched=row.untouched)

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
        if row.why == "sweep" and self._provenance.is_fetched:
            inventory = await in_thread(take_inventory, self._tree, row.name, row.published)
            if inventory.page is not None:
                await self._provenance.prepare(row, publication, inventory.page)
        if publication.placements:
            await self._publisher.submit(
                Item(name=row.name, publication=publication, shown=True, fetched=len(publication.placements))
            )
        await self._keeper(self._ledger.touch, row.name, time.time())
        self._tally.unchanged += 1
        self._counters.projects_done += 1

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
            item = await self.planner.plan(row, msgspec.structs.replace(answers, gone=True), untouched=False)
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
        self.planner.tree_began_empty = False
        self.claims.release(row.name)
        self._met_names.append(row.name)

    def take_met(self) -> list[ProjectName]:
        """Projects that are to be synchronised once more, since something lies in their places; told once."""
        met, self._met_names = self._met_names, []
        return met
