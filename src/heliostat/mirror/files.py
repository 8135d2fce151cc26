"""The files of one project: which are in place already, and fetching the rest side by side.

Nothing is referenced here: what is fetched is staged for the project's batch, or placed ahead of it, recorded as
``incoming``, when there is a lot of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from heliostat import names
from heliostat.errors import Missing, NoRoom, Occupied, Refused, UpstreamError
from heliostat.mirror.aside import Arrived, Aside
from heliostat.mirror.crew import Slots
from heliostat.mirror.download import SMALL, Downloader, Fetched
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.item import Item
from heliostat.mirror.owners import Neighbours
from heliostat.mirror.publish import Publisher
from heliostat.mirror.report import Counters
from heliostat.mirror.survey import Places, Present, Survey
from heliostat.mirror.tally import Tally
from heliostat.mirror.transfer import Transfer
from heliostat.mirror.wanted import Wanted
from heliostat.pages.links import LOCAL
from heliostat.state.rows import Row
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Body, Placement, Publication
from heliostat.upstream.pace import LARGE
from heliostat.upstream.traffic import Traffic

#: Downloads that one project runs side by side; the shared permits bound them across projects.
_FILES_AT_ONCE = 16
#: So many files, or bytes, are placed ahead of their project's pages, so that nothing piles up under ``partial/``.
_AHEAD_FILES = 128
_AHEAD_BYTES = 1 << 30


class Ready(msgspec.Struct):
    """A wanted file whose bytes are in place, or will be with the project's batch."""

    want: Wanted
    path: str
    sha256: str | None
    sidecar: dict[str, str] | None = None


class FileCollector:
    """Has files in place or staged.  Raises UpstreamError, Refused, StoreError."""

    def __init__(
        self,
        keeper: Keeper,
        publisher: Publisher,
        downloader: Downloader,
        slots: Slots,
        *,
        counters: Counters,
        tally: Tally,
        traffic: Traffic,
    ) -> None:
        self._keeper, self._slots = keeper, slots
        self._publisher, self._downloader = publisher, downloader
        self._counters, self._tally, self._traffic = counters, tally, traffic

    def check_room(self) -> None:
        """Raises StoreError when nothing more can be fetched."""
        self._downloader.room.check()

    async def collect(
        self,
        row: Row,
        item: Item,
        wanted: list[Wanted],
        inventory: Inventory,
        found: Survey,
        neighbours: Neighbours,
    ) -> list[Ready]:
        """Have every wanted file in place, staged, or in the item.

        The files that did arrive are placed even if another one failed: the next try then starts from there.
        """
        places, present = found.places, found.present
        if any(_is_large(want) for want in wanted if want.key not in present or not present[want.key].file):
            self._slots.lend()
        transfers = _Transfers(self._counters, wanted, present)
        batch = _Batch(self._publisher, self._downloader, row, item, neighbours)
        todo = iter(wanted)
        ready: dict[str, Ready] = {}

        async def drain() -> None:
            for want in todo:
                ready[want.file.filename] = await self._one(
                    want, present.get(want.key), batch, inventory, places, transfers
                )

        await self._crew(drain, min(_FILES_AT_ONCE, len(wanted)), batch, transfers)
        return [ready[want.file.filename] for want in wanted]

    async def collect_ahead(self, row: Row, aside: Aside, places: Places, neighbours: Neighbours) -> Publication:
        """Fetch the missing files of a project that lies aside, and place them ahead of its pages.

        What is left to be done with its pages is returned.  A file whose place is taken is left out: that is for
        somebody to judge who has the project's page.
        """
        self._slots.lend()
        item = Item(name=row.name, publication=Publication(name=row.name))
        assert item.publication is not None
        transfers = _Transfers(self._counters, (), {}, more=aside.files, more_bytes=aside.bytes)
        batch = _Batch(self._publisher, self._downloader, row, item, neighbours)
        nothing = Inventory(None, None, None)

        async def drain() -> None:
            while (one := await aside.next()) is not None:
                want = one.want
                try:
                    ready = await self._one(want, one.present, batch, nothing, places, transfers)
                except Occupied:
                    continue
                finally:
                    transfers.forget(want)
                await aside.note(Arrived(want.file.filename, ready.path, ready.sha256, ready.sidecar))

        try:
            await self._crew(drain, min(_FILES_AT_ONCE, aside.files), batch, transfers)
            await batch.place_ahead()
        except BaseException:
            self._publisher.memory.give(item.publication)
            raise
        return item.publication

    async def _crew(
        self, drain: Callable[[], Awaitable[None]], size: int, batch: _Batch, transfers: _Transfers
    ) -> None:
        crew = [asyncio.ensure_future(drain()) for _ in range(size)]
        try:
            await asyncio.gather(*crew)
        except BaseException as error:
            for task in crew:
                task.cancel()
            await asyncio.gather(*crew, return_exceptions=True)
            if isinstance(error, UpstreamError | Refused | NoRoom):
                await batch.place_ahead()
            raise
        finally:
            crew.clear()  # its tasks hold the error that is raised, whose frames would hold them
            transfers.end()

    async def _one(
        self,
        want: Wanted,
        present: Present | None,
        batch: _Batch,
        inventory: Inventory,
        places: Places,
        transfers: _Transfers,
    ) -> Ready:
        within: Fetched | None = None
        if present is not None:
            await self._correct_times(present, want, batch)
        if present is not None and present.file:
            path, sha256 = present.path, want.digests.get("sha256") or inventory.sha256_of(want.file.filename)
            if present.withheld:
                await batch.add(Placement(names.withheld_path(path), path), 0)
        else:
            _refuse_own(want, want.path)
            transfer = transfers.file(want)
            begun = time.monotonic()
            fetched = await self._downloader.file(want, transfer)
            self._traffic.files.add(time.monotonic() - begun)
            if want.has_sidecar and not (present is not None and present.sidecar):
                within = await self._downloader.metadata_within(want, fetched.content)
            path, sha256 = want.path_for(fetched.digests), fetched.digests["sha256"]
            # Where it belongs was perhaps not known before: what lies there is another project's, and stays.
            if want.path is None and await self._holds(places, batch, path, fetched.digests["sha256"]):
                await self._downloader.drop(fetched)
            else:
                await batch.take(fetched, path, want.mtime_ns)
            self._count(fetched, transfer)
        ready = Ready(want, path, sha256)
        if want.has_sidecar:
            ready.sidecar = await self._sidecar(want, path, present, within, batch, inventory, places, transfers)
        return ready

    async def _holds(self, places: Places, batch: _Batch, path: str, sha256: str) -> bool:
        """Whether bytes with this digest lie at ``path``; raises Occupied when others do that are to stay."""
        if await in_thread(places.hold, path, sha256):
            return True
        if path in places.to_replace:
            await self._keeper(batch.neighbours.refuse_if_shared, path)
        return False

    async def _correct_times(self, present: Present, want: Wanted, batch: _Batch) -> None:
        """The same bytes were uploaded again: they get the new time, unless they have another project's."""
        for path in present.of_another_time:
            if not await self._keeper(batch.neighbours.give_time, path):
                assert want.mtime_ns is not None
                batch.set_time(path, want.mtime_ns)

    async def _sidecar(
        self,
        want: Wanted,
        path: str,
        present: Present | None,
        within: Fetched | None,
        batch: _Batch,
        inventory: Inventory,
        places: Places,
        transfers: _Transfers,
    ) -> dict[str, str]:
        """``within``: what was taken out of the wheel."""
        declared, target = want.file.core_metadata, names.sidecar_path(path)
        ours = inventory.sidecar_of(want.file.filename)
        known = dict(declared) if isinstance(declared, dict) else ours
        if present is not None and present.sidecar and known:
            kept = names.withheld_path(target) if present.sidecar_withheld else None
            trusted = kept is None and ours is not None and _agree(known, ours)
            if trusted or await in_thread(places.tell, kept or target, known):
                if kept:
                    await batch.add(Placement(kept, target), 0)
                return known
        if within is None and present is not None and present.file and not present.withheld:
            within = await self._downloader.metadata_within(want, path)
        if within is None:
            _refuse_own(want, target)
        transfer = transfers.sidecar(want)
        fetched = within if within is not None else await self._fetch_sidecar(want, transfer)
        looked = want.path is not None and not (present is not None and present.sidecar_place_taken)
        if looked or not await self._holds(places, batch, target, fetched.digests["sha256"]):
            await batch.take(fetched, target, want.mtime_ns)
        if within is None:
            self._count(fetched, transfer)
        else:
            transfer.done()
            self._traffic.from_wheels += 1
        return {"sha256": fetched.digests["sha256"]} if not isinstance(declared, dict) or not declared else declared

    async def _fetch_sidecar(self, want: Wanted, transfer: Transfer) -> Fetched:
        begun = time.monotonic()
        fetched = await self._downloader.sidecar(want, transfer)
        self._traffic.files.add(time.monotonic() - begun)
        return fetched

    def _count(self, fetched: Fetched, transfer: Transfer) -> None:
        transfer.done()
        self._tally.bytes_fetched += fetched.size
        self._traffic.sizes.add(fetched.size)


class _Transfers:
    """What one project's files and sidecars add to the totals, by file name: from the start, as far as it is known."""

    def __init__(
        self,
        counters: Counters,
        wanted: Sequence[Wanted],
        present: Mapping[str, Present],
        *,
        more: int = 0,
        more_bytes: int = 0,
    ) -> None:
        """``more``: so many others, with so many bytes, of which it is told one by one, and then not again."""
        self._counters, self._more, self._more_bytes = counters, more, more_bytes
        counters.files_total += more
        counters.bytes_total += more_bytes
        self._files: dict[str, Transfer] = {}
        self._sidecars: dict[str, Transfer] = {}
        for want in wanted:
            there = present.get(want.key)
            if there is None or not there.file:
                self.file(want)
            if want.has_sidecar and not (there is not None and there.sidecar):
                self.sidecar(want)

    def file(self, want: Wanted) -> Transfer:
        name = want.file.filename
        if name not in self._files:
            self._one_of_more(want.size or 0)
            self._files[name] = Transfer(self._counters, want.size)
        return self._files[name]

    def sidecar(self, want: Wanted) -> Transfer:
        """Its size is known when it is there."""
        name = want.file.filename
        if name not in self._sidecars:
            self._one_of_more(0)
            self._sidecars[name] = Transfer(self._counters, None)
        return self._sidecars[name]

    def _one_of_more(self, size: int) -> None:
        """It counts by itself from now on."""
        if self._more:
            self._more -= 1
            self._more_bytes -= size
            self._counters.files_total -= 1
            self._counters.bytes_total -= size

    def forget(self, want: Wanted) -> None:
        """All of it came, or will not come in this pass."""
        for transfers in (self._files, self._sidecars):
            transfer = transfers.pop(want.file.filename, None)
            if transfer is not None:
                transfer.end()

    def end(self) -> None:
        """What has not come will not come in this pass."""
        for transfer in (*self._files.values(), *self._sidecars.values()):
            transfer.end()
        self._counters.bytes_total -= self._more_bytes
        self._more = self._more_bytes = 0


class _Batch:
    """What one project puts in place; placed ahead of its pages when it is much."""

    def __init__(
        self, publisher: Publisher, downloader: Downloader, row: Row, item: Item, neighbours: Neighbours
    ) -> None:
        self._publisher, self._downloader, self._row, self._item = publisher, downloader, row, item
        self._bytes = 0
        self.neighbours = neighbours

    def set_time(self, path: str, mtime_ns: int) -> None:
        """What lies at ``path``, or will with the batch, is of another time."""
        assert self._item.publication is not None
        self._item.publication.times.append((path, mtime_ns))

    async def take(self, fetched: Fetched, target: str, mtime_ns: int | None) -> None:
        """What was fetched belongs at ``target``; small files wait in memory, as long as there are not too many."""
        content = fetched.content
        self._item.fetched += 1
        if isinstance(content, bytes) and not self._publisher.memory.take(len(content)):
            content = await self._downloader.stage(content, mtime_ns)
        if isinstance(content, bytes):
            assert self._item.publication is not None
            self._item.publication.bodies.append(Body(content, target, mtime_ns))
            await self._added(fetched.size)
        else:
            await self.add(Placement(content, target), fetched.size)

    async def add(self, placement: Placement, size: int) -> None:
        """Bytes that lie on the disk already."""
        assert self._item.publication is not None
        self._item.publication.placements.append(placement)
        await self._added(size)

    async def _added(self, size: int) -> None:
        publication = self._item.publication
        assert publication is not None
        self._bytes += size
        if len(publication.placements) + len(publication.bodies) >= _AHEAD_FILES or self._bytes >= _AHEAD_BYTES:
            await self.place_ahead()

    async def place_ahead(self) -> None:
        """Place what is there so far: recorded as incoming, referenced by no page yet.

        Nothing of a project whose places nobody has looked at: that is done for the whole of it, just before.
        """
        if self._item.unlooked:
            return
        publication = self._item.publication
        assert publication is not None
        ahead = Publication(name=self._row.name, placements=publication.placements, bodies=publication.bodies)
        publication.placements, publication.bodies, self._bytes = [], [], 0
        fetched, self._item.fetched = self._item.fetched, 0
        if ahead.placements or ahead.bodies:
            try:
                await self._publisher.submit(Item(name=self._row.name, publication=ahead, fetched=fetched))
            except BaseException:  # another file of the project failed meanwhile, or the pass ends
                publication.placements += ahead.placements
                publication.bodies += ahead.bodies
                self._item.fetched += fetched
                raise


def comes_whole(wanted: Sequence[Wanted]) -> bool:
    """Whether so little is wanted that nothing of it has to be placed ahead, and all of the places are known."""
    small = all(want.path is not None and want.size is not None and want.size <= SMALL for want in wanted)
    return small and 2 * len(wanted) < _AHEAD_FILES


def _refuse_own(want: Wanted, path: str | None) -> None:
    """Raises Missing for what our own page names, and only our own tree could have had."""
    if want.file.url.startswith(f"{LOCAL}packages/"):
        raise Missing(path or want.file.filename, "not there any more, nor in withheld/")


def _is_large(want: Wanted) -> bool:
    return want.size is None or want.size > LARGE


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(algorithm, digest) == digest for algorithm, digest in one.items())
