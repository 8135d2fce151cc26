"""The files of one project: which are in place already, and fetching the rest side by side.

Nothing is referenced here: what is fetched is staged for the project's batch, or placed ahead of it, recorded as
``incoming``, when there is a lot of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from heliostat import names
from heliostat.errors import NoRoom, Refused, UpstreamError
from heliostat.mirror.crew import Slots
from heliostat.mirror.doomed import shared_with
from heliostat.mirror.download import Downloader, Fetched
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.publish import Item, Publisher
from heliostat.mirror.report import Counters
from heliostat.mirror.tally import Tally
from heliostat.mirror.transfer import Transfer
from heliostat.mirror.wanted import Wanted, held_files, strongest
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow, Row
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Placement, Publication, Tree
from heliostat.upstream.pace import LARGE

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


class _Present(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    file: bool
    withheld: bool
    sidecar: bool
    sidecar_withheld: bool
    foreign: bool
    complete: bool


class FileCollector:
    """Has files in place or staged.  Raises UpstreamError, Refused, StoreError."""

    def __init__(
        self,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        publisher: Publisher,
        downloader: Downloader,
        slots: Slots,
        *,
        counters: Counters,
        tally: Tally,
    ) -> None:
        self._tree, self._ledger, self._keeper, self._slots = tree, ledger, keeper, slots
        self._publisher, self._downloader = publisher, downloader
        self._counters, self._tally = counters, tally

    async def collect(
        self,
        row: Row,
        item: Item,
        wanted: list[Wanted],
        inventory: Inventory,
        ours: set[str],
        *,
        withheld: set[str],
        shared: set[str],
    ) -> list[Ready]:
        """Have every wanted file in place or staged.

        ``ours`` are the paths that this project put in place before, ``shared`` those that others claim as well.
        The files that did arrive are placed even if another one failed: the next try then starts from there.
        """
        assert item.publication is not None
        places = _Places(self._tree, inventory, ours, shared)
        present = await in_thread(None, self._present, wanted, places, withheld)
        if any(_is_large(want) for want in wanted if want.key not in present or not present[want.key].file):
            self._slots.lend()
        transfers = _Transfers(self._counters, wanted, present)
        batch = _Batch(self._publisher, row, item)
        todo = iter(wanted)
        ready: dict[str, Ready] = {}

        async def drain() -> None:
            for want in todo:
                ready[want.file.filename] = await self._one(
                    want, present.get(want.key), batch, inventory, places, transfers
                )

        crew = [asyncio.create_task(drain()) for _ in range(min(_FILES_AT_ONCE, len(wanted)))]
        try:
            for finished in asyncio.as_completed(crew):
                await finished
        except BaseException as error:
            for task in crew:
                task.cancel()
            await asyncio.gather(*crew, return_exceptions=True)
            if isinstance(error, UpstreamError | Refused | NoRoom):
                await batch.place_ahead()
            raise
        finally:
            transfers.end()
        item.shared += batch.shared
        item.shared += [PathRow(other.path, row.name, "shared") for other in batch.shared]
        return [ready[want.file.filename] for want in wanted]

    async def _one(
        self,
        want: Wanted,
        present: _Present | None,
        batch: _Batch,
        inventory: Inventory,
        places: _Places,
        transfers: _Transfers,
    ) -> Ready:
        if present is not None and present.foreign:
            await self._share(present.path, batch)
        if present is not None and present.file:
            path, sha256 = present.path, want.digests.get("sha256") or inventory.sha256_of(want.file.filename)
            if present.withheld:
                await batch.add(Placement(names.withheld_path(path), path), 0)
        else:
            transfer = transfers.file(want)
            fetched = await self._downloader.file(want, transfer)
            path, sha256 = want.path_for(fetched.digests), fetched.digests["sha256"]
            # Where it belongs was perhaps not known before: what lies there is another project's, and stays.
            if want.path is None and await in_thread(None, places.hold, path, fetched.digests["sha256"]):
                await in_thread(None, self._tree.disk.unlink, fetched.staged)
                if path not in places.ours:
                    await self._share(path, batch)
            else:
                await batch.add(Placement(fetched.staged, path), fetched.size)
            self._count(fetched, transfer)
        ready = Ready(want, path, sha256)
        if want.has_sidecar:
            ready.sidecar = await self._sidecar(want, path, present, batch, inventory, places, transfers)
        return ready

    async def _share(self, path: str, batch: _Batch) -> None:
        """Another project has this place already: its bytes stay until both let go of them."""
        owners = await self._keeper(shared_with, self._tree, self._ledger, path)
        batch.shared += owners
        batch.shared += [PathRow(names.sidecar_path(row.path), row.project, "shared") for row in owners]

    async def _sidecar(
        self,
        want: Wanted,
        path: str,
        present: _Present | None,
        batch: _Batch,
        inventory: Inventory,
        places: _Places,
        transfers: _Transfers,
    ) -> dict[str, str]:
        declared, target = want.file.core_metadata, names.sidecar_path(path)
        ours = inventory.sidecar_of(want.file.filename)
        known = dict(declared) if isinstance(declared, dict) else ours
        if present is not None and present.sidecar and known:
            kept = names.withheld_path(target) if present.sidecar_withheld else None
            if (ours is not None and _agree(known, ours)) or await in_thread(None, places.tell, kept or target, known):
                if kept:
                    await batch.add(Placement(kept, target), 0)
                return known
        transfer = transfers.sidecar(want)
        fetched = await self._downloader.sidecar(want, transfer)
        if await in_thread(None, places.hold, target, fetched.digests["sha256"]):
            await in_thread(None, self._tree.disk.unlink, fetched.staged)
        else:
            await batch.add(Placement(fetched.staged, target), fetched.size)
        self._count(fetched, transfer)
        return {"sha256": fetched.digests["sha256"]} if not isinstance(declared, dict) or not declared else declared

    def _count(self, fetched: Fetched, transfer: Transfer) -> None:
        transfer.done()
        self._tally.files_added += 1
        self._tally.bytes_fetched += fetched.size

    def _present(self, wanted: Sequence[Wanted], places: _Places, withheld: set[str]) -> dict[str, _Present]:
        """Which wanted files lie in the tree.

        Raises Refused when other bytes lie at a file's place, StoreError when there is no room for what is missing.
        """
        found: dict[str, _Present] = {}
        for want in wanted:
            path = want.path or self._same_as_ours(want)
            if path is None:
                continue
            there = places.have(want, path)
            kept = not there and path in withheld and self._right_size(names.withheld_path(path), want.size)
            sidecar = names.sidecar_path(path)
            sidecar_there = want.has_sidecar and self._right_size(sidecar, None)
            sidecar_kept = (
                want.has_sidecar
                and not sidecar_there
                and sidecar in withheld
                and self._right_size(names.withheld_path(sidecar), None)
            )
            if there or kept or sidecar_there:
                found[want.key] = _Present(
                    path=path,
                    file=there or kept,
                    withheld=kept,
                    sidecar=sidecar_there or sidecar_kept,
                    sidecar_withheld=sidecar_kept,
                    foreign=there and path not in places.ours,
                    complete=(there or kept) and (sidecar_there or sidecar_kept or not want.has_sidecar),
                )
        if sum(present.complete for present in found.values()) < len(wanted):
            self._downloader.room.check()
        return found

    def _same_as_ours(self, want: Wanted) -> str | None:
        """The path of our own file of that name, if its bytes have the digest that upstream gives."""
        if want.maybe is None or not self._right_size(want.maybe, want.size):
            return None
        algorithm = strongest(want.digests)
        if algorithm is None or self._tree.file_matches(want.maybe, algorithm, want.digests[algorithm]):
            return want.maybe
        return None

    def _right_size(self, path: str, size: int | None) -> bool:
        return _right_size(self._tree, path, size)


class _Places:
    """What lies at the places that a project wants; nobody's bytes are ever replaced by other ones."""

    def __init__(self, tree: Tree, inventory: Inventory, ours: set[str], shared: set[str]) -> None:
        self._tree, self.ours, self._shared = tree, ours, shared
        #: The digests that our own page states, by path.
        self._stated = {held.path: held.hashes for held in held_files(inventory.page, inventory.document).values()}

    def have(self, want: Wanted, path: str) -> bool:
        """Whether the wanted bytes lie at ``path``; raises Refused when others do that are to stay.

        What our own page put there counts by its size, if it states the same digest; everything else is hashed.
        """
        algorithm = strongest(want.digests)
        if self._tree.disk.stat(path) is None:
            return False
        stated = self._stated.get(path)
        if stated is not None and (algorithm is None or stated.get(algorithm) == want.digests[algorithm]):
            return _right_size(self._tree, path, want.size)
        if algorithm and self._tree.file_matches(path, algorithm, want.digests[algorithm]):
            return _right_size(self._tree, path, want.size)
        return self._give_way(path, page=stated is not None)

    def tell(self, path: str, digests: Mapping[str, str]) -> bool:
        """Whether the bytes at ``path`` have these digests, as far as they can be told."""
        algorithm = strongest(digests)
        return algorithm is not None and self._tree.file_matches(path, algorithm, digests[algorithm])

    def hold(self, path: str, sha256: str) -> bool:
        """Whether bytes with this digest lie at ``path``; raises Refused when others do that are to stay."""
        if self._tree.disk.stat(path) is None:
            return False
        if self._tree.file_matches(path, "sha256", sha256):
            return True
        return self._give_way(path, page=path in self._stated)

    def _give_way(self, path: str, *, page: bool) -> bool:
        """False: the bytes at ``path`` are only ours, and no page lists them as a file; raises Refused otherwise."""
        if path in self.ours and path not in self._shared and not page:
            return False
        raise Refused("file", path.rpartition("/")[2], "other bytes lie at its place already, and stay there")


class _Transfers:
    """What one project's files and sidecars add to the totals, by file name: from the start, as far as it is known."""

    def __init__(self, counters: Counters, wanted: Sequence[Wanted], present: Mapping[str, _Present]) -> None:
        self._counters = counters
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
        return self._files.get(name) or self._files.setdefault(name, Transfer(self._counters, want.size))

    def sidecar(self, want: Wanted) -> Transfer:
        """Its size is known when it is there."""
        name = want.file.filename
        return self._sidecars.get(name) or self._sidecars.setdefault(name, Transfer(self._counters, None))

    def end(self) -> None:
        """What has not come will not come in this pass."""
        for transfer in (*self._files.values(), *self._sidecars.values()):
            transfer.end()


class _Batch:
    """Placements of one project; placed ahead of its pages when there are many."""

    def __init__(self, publisher: Publisher, row: Row, item: Item) -> None:
        self._publisher, self._row, self._item = publisher, row, item
        self._bytes = 0
        #: Rows for the projects that had the place before us.
        self.shared: list[PathRow] = []

    async def add(self, placement: Placement, size: int) -> None:
        assert self._item.publication is not None
        placements = self._item.publication.placements
        placements.append(placement)
        self._bytes += size
        if len(placements) >= _AHEAD_FILES or self._bytes >= _AHEAD_BYTES:
            await self.place_ahead()

    async def place_ahead(self) -> None:
        """Place what is staged so far: recorded as incoming, referenced by no page yet."""
        assert self._item.publication is not None
        placements, self._item.publication.placements = self._item.publication.placements, []
        self._bytes = 0
        if placements:
            ahead = Publication(name=self._row.name, placements=placements)
            await self._publisher.submit(Item(name=self._row.name, publication=ahead))


def _is_large(want: Wanted) -> bool:
    return want.size is None or want.size > LARGE


def _right_size(tree: Tree, path: str, size: int | None) -> bool:
    entry = tree.disk.stat(path)
    return entry is not None and not entry.is_directory and (size is None or entry.size == size)


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(algorithm, digest) == digest for algorithm, digest in one.items())
