"""What an operator deletes goes at once and stays away; what is restored comes back, from withheld/ if it is there.

Deleting: the deny-list first, so that a kill at any instant afterwards leaves nothing but work for the next pass;
then pages; bytes last.  Nobody is asked for anything.  Restoring: what is kept is shown again as it was, and then
upstream is asked, where it was the operator who had deleted it.  What upstream removed stays as it is shown then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from heliostat.config import Config
from heliostat.errors import HeliostatError, Invalid, Obstructed, Refused, StoreError, UpstreamError
from heliostat.mirror import denials
from heliostat.mirror.keeping import drop
from heliostat.mirror.metadata import Answers
from heliostat.mirror.onepass import Asked
from heliostat.mirror.ownpage import own_answers, put_aside_answers
from heliostat.mirror.ownpass import OwnPass
from heliostat.mirror.removals import Removal, begun, carry_out
from heliostat.mirror.report import Counters, Deletion, Summary
from heliostat.mirror.root import write_root
from heliostat.mirror.rules import configured_denials, rules_of
from heliostat.mirror.segments import write_changes
from heliostat.mirror.tally import Tally
from heliostat.model import ProjectName
from heliostat.policy.denials import Entry, Versions
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Denied, KeptFile, Row, Tombstone
from heliostat.store.threads import Keeper
from heliostat.store.tree import Tree
from heliostat.upstream.client import Upstream

log = logging.getLogger(__name__)


class Sync(Protocol):
    """An ordinary pass over some projects."""

    async def __call__(self, names: list[str]) -> Summary: ...


class Deleter:
    """Deletes and restores in a mirror whose lock is held, while no pass runs."""

    def __init__(
        self,
        config: Config,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        *,
        upstream: Upstream,
        sync: Sync,
        counters: Counters,
        stop: asyncio.Event,
    ) -> None:
        self._config, self._tree, self._ledger, self._keeper = config, tree, ledger, keeper
        self._upstream, self._sync, self._counters, self._stop = upstream, sync, counters, stop
        self._tally = Tally()
        self._report = Deletion()

    # -- delete ----------------------------------------------------------------------------------------------------

    async def delete(self, entries: Sequence[Entry], *, reason: str, purge: bool) -> Deletion:
        """Deny and remove.  What the store refuses is told in the result.  Raises StateError."""
        self._counters.phase = "removing"
        try:
            before = await self._keeper(self._deny, entries, reason, purge)
            await self._keeper(self._withdraw, entries)
            await self._without_releases(entries, before)
            if purge:
                await self._keeper(self._purge, entries)
            await self._finish()
            await self._keeper(self._tell_of_rest, {entry.project for entry in entries})
        except StoreError as error:
            self._report.store_error = str(error)
        return self._report

    def _deny(self, entries: Sequence[Entry], reason: str, purge: bool) -> dict[ProjectName, Row]:
        """The rows of those projects that are served, as they were before."""
        ledger, now = self._ledger, time.time()
        rows = {entry.project: row for entry in entries if (row := ledger.row(entry.project)) is not None}
        with ledger.transaction():
            for entry in entries:
                ledger.denials.deny([Denied(entry.project, entry.version, "operator", now, reason, purge)])
                ledger.denials.give_up(entry.project, entry.version)
                denials.denied(ledger, entry, now)
        denials.note_denied(self._tree, ledger)
        shown = {name: row for name, row in rows.items() if row.published}
        for entry in entries:
            self._report.entries[str(entry)] = "deleted" if entry.project in shown else "denied"
        return shown

    def _withdraw(self, entries: Sequence[Entry]) -> None:
        rules = rules_of(self._config, self._ledger)
        whole = {entry.project for entry in entries if not entry.version}
        going = [one for one in denials.leaving_denied(self._ledger, rules) if one.row.name in whole]
        for name in sorted(whole - {one.row.name for one in going}):
            row = self._ledger.row(name)
            if row is not None and begun(self._tree, self._ledger, name):  # by a restore that was killed
                going.append(Removal(row, rules.why_denied(name, None) or "deleted", "excluded", approved=True))
        self._report.files += carry_out(self._tree, self._ledger, going, keeps=rules.keeps)
        self._report.projects += sum(one.row.published for one in going)

    async def _without_releases(self, entries: Sequence[Entry], before: dict[ProjectName, Row]) -> None:
        whole = {entry.project for entry in entries if not entry.version}
        names = {entry.project for entry in entries if entry.version} & before.keys() - whole
        await self._publish({name: before[name] for name in sorted(names)})

    def _tell_of_rest(self, names: set[ProjectName]) -> None:
        """Bytes that could not go."""
        for row in self._ledger.paths.of_kind("doomed", limit=-1):
            if row.project in names:
                link = self._tree.link_above(row.path)
                why = f"{link} is a symbolic link" if link else "a page that cannot be read may name it"
                self._report.failed[row.project] = f"{row.path} is not removed yet: {why}"

    def _purge(self, entries: Sequence[Entry]) -> None:
        """What is kept of it from before goes too."""
        for entry in entries:
            rows = [
                row
                for row in self._ledger.paths.of_project(entry.project, "withheld")
                if row.fate == "keep" and (not entry.version or row.version in Versions([entry.version]))
            ]
            if rows:
                drop(self._tree, self._ledger, rows, what="deleted for good")
                self._report.files += len(rows)

    # -- restore ---------------------------------------------------------------------------------------------------

    async def restore(self, entries: Sequence[Entry]) -> Deletion:
        """Take off the deny-list, and show again.  Raises Refused for what the configuration denies, StateError."""
        self._refuse_configured(entries)
        self._counters.phase = "restoring"
        try:
            wanted = [entry.project for entry in entries if await self._restore(entry)]
            await self._finish()
            if wanted and not self._stop.is_set():
                await self._ask_upstream(sorted(set(wanted)))
        except StoreError as error:
            self._report.store_error = str(error)
        self._report.interrupted = self._stop.is_set()
        return self._report

    def _refuse_configured(self, entries: Sequence[Entry]) -> None:
        configured = set(configured_denials(self._config))
        for entry in entries:
            if entry in configured:
                text = f"[mirror] deny in {self._config.source} names it; take it out there"
                raise Refused("project", str(entry), text)

    async def _restore(self, entry: Entry) -> bool:
        """Show what is kept of it; whether upstream is to be asked."""
        lifted, kept = await self._keeper(self._lift, entry)
        row = await self._keeper(self._ledger.row, entry.project)
        if row is not None and row.published:
            shown = await self._restore_releases(entry, row, lifted=bool(lifted), kept=kept)
        elif entry.version and not lifted:
            shown = False
        else:
            shown = not entry.version and await self._restore_project(entry, row, lifted=bool(lifted))
        if shown:
            await self._keeper(self._bury, entry, row, lifted=bool(lifted))
        if lifted:
            self._report.entries[str(entry)] = "restored" if shown else "allowed"
            return await self._keeper(self._is_wanted, entry, row)
        self._report.entries[str(entry)] = "restored" if shown else "nothing kept"
        return False

    def _lift(self, entry: Entry) -> tuple[list[Denied], list[KeptFile]]:
        """The denials that end, and what is kept of the releases concerned."""
        ledger, now = self._ledger, time.time()
        known = [row for row in ledger.denied() if row.origin == "operator" and row.project == entry.project]
        lifted = [row for row in known if row.version == entry.version] or (known if not entry.version else [])
        rules = rules_of(self._config, ledger)
        if lifted:
            with ledger.transaction():
                ledger.denials.allow(lifted)
                rules = rules_of(self._config, ledger)
                for row in lifted:
                    denials.allowed(ledger, rules, Entry(entry.project, row.version), now)
            denials.note_denied(self._tree, ledger)
        versions = Versions({row.version for row in lifted} | {entry.version})
        kept = [one for one in ledger.denials.kept(entry.project) if one.version in versions]
        denied = Versions(rules.denials.releases.get(entry.project, ()))
        return lifted, [one for one in kept if one.version not in denied]

    async def _restore_releases(self, entry: Entry, row: Row, *, lifted: bool, kept: list[KeptFile]) -> bool:
        if not kept:
            return False
        if not lifted:  # upstream removed it: it stays from now on
            await self._keeper(self._stay, entry)
        return await self._publish({row.name: row}, returning=kept if lifted else ())

    async def _restore_project(self, entry: Entry, row: Row | None, *, lifted: bool) -> bool:
        if row is None:
            row = await self._keeper(self._new_row, entry)
        answers = await self._keeper(self._put_aside, row)
        if answers is None:
            if not lifted:
                await self._keeper(self._ledger.drop_unknown, row.name)
            return False
        if not lifted:
            await self._keeper(self._stay, entry)
            answers = msgspec.structs.replace(answers, gone=True)
        done = await self._publish_as({row.name: (row, answers)})
        if done and lifted:
            await self._keeper(self._ask_again, row)
        return done

    def _put_aside(self, row: Row) -> Answers | None:
        try:
            return put_aside_answers(self._tree, row)
        except (Invalid, Refused) as error:
            log.warning("%s: what is kept of it cannot be read: %s", row.name, error)
            return None

    def _new_row(self, entry: Entry) -> Row:
        self._ledger.intake.want(entry.project, entry.project, time.time(), named=False, why="new")
        row = self._ledger.row(entry.project)
        assert row is not None
        return row

    def _bury(self, entry: Entry, row: Row | None, *, lifted: bool) -> None:
        reason = "restored" if lifted else "restored, although upstream removed it"
        stone = Tombstone(
            time.time(), entry.project, None, row.page_serial if row else None, reason, approved=True,
            version=entry.version or None, what="restored",
        )  # fmt: skip
        with self._ledger.transaction():
            self._ledger.bury([stone])

    def _stay(self, entry: Entry) -> None:
        with self._ledger.transaction():
            self._ledger.denials.retain(entry.project, entry.version, time.time())

    def _is_wanted(self, entry: Entry, before: Row | None) -> bool:
        """Whether the project is one that this mirror holds: in its scope, or served until it was deleted."""
        rules = rules_of(self._config, self._ledger)
        row = self._ledger.row(entry.project)
        return entry.project in rules.scope or (row is not None and row.published) or before is not None

    async def _ask_upstream(self, names: list[str]) -> None:
        try:
            summary = await self._sync(names)
        except HeliostatError as error:
            self._report.unreachable = str(error)
            return
        self._report.unreachable = summary.unreachable
        self._report.store_error = summary.store_error
        self._report.owed = [one for one in summary.owed if one.project in names]
        for name in await self._keeper(self._shown, names):
            self._report.failed.pop(name, None)
        self._report.unknown = summary.unknown

    def _shown(self, names: list[str]) -> list[str]:
        """Those that are as upstream has them now, whatever our own tree was short of."""
        rows = {name: self._ledger.row(name) for name in names}
        return [name for name, row in rows.items() if row is not None and row.published and row.state == "current"]

    # -- both ------------------------------------------------------------------------------------------------------

    async def _publish(self, rows: dict[ProjectName, Row], *, returning: Sequence[KeptFile] = ()) -> bool:
        """Show anew what our own tree has of these projects."""
        projects: dict[ProjectName, tuple[Row, Answers]] = {}
        for name, row in rows.items():
            try:
                projects[name] = row, await self._keeper(self._own, row, returning)
            except (Obstructed, Refused, UpstreamError) as error:
                self._report.failed[name] = str(error)
        return await self._publish_as(projects)

    def _own(self, row: Row, returning: Sequence[KeptFile]) -> Answers:
        retained = frozenset(one.path for one in self._ledger.paths.of_project(row.name, "retained"))
        answers = own_answers(self._tree, row, retained=retained, returning=returning)
        return msgspec.structs.replace(answers, gone=row.state == "retained")

    async def _publish_as(self, projects: dict[ProjectName, tuple[Row, Answers]]) -> bool:
        if not projects:
            return False
        one = OwnPass(
            self._config, self._tree, self._ledger, self._keeper, self._upstream, projects=projects,
            asked=Asked(tuple(projects)), counters=self._counters, tally=self._tally, stop=asyncio.Event(),
        )  # fmt: skip
        try:
            async with self._upstream:  # only files that are missing are asked for there
                await one.go(time.time())
        except UpstreamError as error:
            log.warning("not all that is missing could be had: %s", error)
        return await self._keeper(self._look_at, projects)

    def _look_at(self, projects: dict[ProjectName, tuple[Row, Answers]]) -> bool:
        """What was owed before is owed still; whether all are shown as they are to be."""
        good = True
        for name, (before, _) in projects.items():
            row = self._ledger.row(name)
            if row is None or row.state in ("failing", "blocked") or not row.published:
                self._report.failed[name] = row.error or "not published" if row else "not published"
                self._ask_again(before)
                good = False
            elif before.state == "failing":
                self._ledger.intake.reopen(name, time.time(), before.error or "")
            elif before.due_at is not None and before.published and row.due_at is None:
                self._ask_again(before)
        return good

    def _ask_again(self, row: Row) -> None:
        self._ledger.intake.want(row.display, row.name, time.time(), named=row.named, why=row.why or "policy")

    async def _finish(self) -> None:
        """Root index and change feed."""
        self._report.files += self._tally.files_removed
        self._report.projects += self._tally.updated
        if await self._keeper(self._ledger.get, "root_written") is not None:  # else there was no pass yet
            packed = self._config.mirror.gzip_root
            await self._keeper(write_root, self._tree, self._ledger, packed=packed)
        await self._keeper(write_changes, self._tree, self._ledger)
