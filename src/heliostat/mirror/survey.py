"""What of a project's wanted files is in the tree already, and what lies where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from heliostat import names
from heliostat.errors import Occupied
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.wanted import Wanted, held_files, strongest
from heliostat.store.disk import Entry
from heliostat.store.obstacles import has_directory, refuse_obstacle
from heliostat.store.tree import Tree, is_of


class OpenPaths(msgspec.Struct, frozen=True):
    """Paths of one project whose fate is open, by kind; see :mod:`heliostat.state.schema`."""

    incoming: frozenset[str] = frozenset()
    doomed: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    claimed: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    retained: frozenset[str] = frozenset()
    original: frozenset[str] = frozenset()


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A wanted file of which something is there."""

    path: str
    file: bool
    withheld: bool
    sidecar: bool
    sidecar_withheld: bool
    #: Something lies where the sidecar belongs, whatever it is.
    sidecar_place_taken: bool
    #: File and sidecar, as far as they have another time than that of the upload.
    of_another_time: tuple[str, ...]
    complete: bool


class Survey(msgspec.Struct, frozen=True):
    """What was found: by :attr:`Wanted.key`, nothing for a file of which nothing is there."""

    places: Places
    present: dict[str, Present]

    @property
    def complete(self) -> int:
        """How many files are there with all that belongs to them."""
        return sum(one.complete for one in self.present.values())


def survey(tree: Tree, wanted: Sequence[Wanted], inventory: Inventory, ours: set[str], open_paths: OpenPaths) -> Survey:
    """Look at the places of all wanted files.  ``ours`` are the paths that this project put in place before.

    Raises Occupied when other bytes lie at a file's place.
    """
    places = Places(tree, inventory, ours)
    found: dict[str, Present] = {}
    for want in wanted:
        path = want.path or _same_as_ours(tree, want)
        if path is not None and (one := _look(tree, places, want, path, open_paths.withheld)) is not None:
            found[want.key] = one
    return Survey(places, found)


def _look(tree: Tree, places: Places, want: Wanted, path: str, withheld: frozenset[str]) -> Present | None:
    if not has_directory(tree.disk, path) and not withheld:
        return None
    there = places.have(want, path)
    kept = _kept(tree, want, path) if there is None and path in withheld else None
    beside: Entry | None = None
    taken = sidecar = sidecar_kept = False
    if want.has_sidecar:
        target = names.sidecar_path(path)
        beside = tree.disk.stat(target)
        taken = beside is not None
        if beside is not None and not beside.is_file:
            refuse_obstacle(tree.disk, target)
        sidecar = beside is not None
        if not sidecar and target in withheld:
            beside = tree.disk.stat(names.withheld_path(target))
            sidecar_kept = beside is not None and beside.is_file
    if there is None and kept is None and not taken:
        return None
    times = {path: there or kept, names.sidecar_path(path): beside if sidecar or sidecar_kept else None}
    return Present(
        path=path,
        file=there is not None or kept is not None,
        withheld=kept is not None,
        sidecar=sidecar or sidecar_kept,
        sidecar_withheld=sidecar_kept,
        sidecar_place_taken=taken,
        of_another_time=tuple(one for one, entry in times.items() if entry and not is_of(entry, want.mtime_ns)),
        complete=(there or kept) is not None and (sidecar or sidecar_kept or not want.has_sidecar),
    )


def _kept(tree: Tree, want: Wanted, path: str) -> Entry | None:
    """What is kept out of reach of the wanted file, if it has the digest that upstream gives now."""
    kept, algorithm = names.withheld_path(path), strongest(want.digests)
    entry = _of_right_size(tree, kept, want.size)
    if entry is not None and algorithm is not None and tree.file_matches(kept, algorithm, want.digests[algorithm]):
        return entry
    return None


def _same_as_ours(tree: Tree, want: Wanted) -> str | None:
    """The path of our own file of that name, if its bytes have the digest that upstream gives."""
    if want.maybe is None or _of_right_size(tree, want.maybe, want.size) is None:
        return None
    algorithm = strongest(want.digests)
    if algorithm is None or tree.file_matches(want.maybe, algorithm, want.digests[algorithm]):
        return want.maybe
    return None


class Places:
    """What lies at the places that a project wants; nobody's bytes are ever replaced by other ones."""

    def __init__(self, tree: Tree, inventory: Inventory, ours: set[str]) -> None:
        self._tree, self._ours = tree, ours
        #: The digests that our own page states, by path.
        self._stated = {held.path: held.hashes for held in held_files(inventory.page).values()}
        #: Where other bytes lie that this project put there, and may replace if no other one has them too.
        self.to_replace: set[str] = set()

    def have(self, want: Wanted, path: str) -> Entry | None:
        """What lies at ``path`` if it is the wanted bytes; raises Occupied when others do that are to stay.

        What our own page put there counts by its size, if it states the same digest; everything else is hashed.
        """
        entry = self._tree.disk.stat(path)
        if entry is None:
            return None
        if not entry.is_file:
            refuse_obstacle(self._tree.disk, path)
        algorithm, stated = strongest(want.digests), self._stated.get(path)
        known = stated is not None and (algorithm is None or stated.get(algorithm) == want.digests[algorithm])
        if not known and not self.tell(path, want.digests):
            self._give_way(path)
            return None
        return entry if want.size is None or entry.size == want.size else None

    def tell(self, path: str, digests: Mapping[str, str]) -> bool:
        """Whether the bytes at ``path`` have these digests, as far as they can be told."""
        algorithm = strongest(digests)
        return algorithm is not None and self._tree.file_matches(path, algorithm, digests[algorithm])

    def hold(self, path: str, sha256: str) -> bool:
        """Whether bytes with this digest lie at ``path``; raises Occupied when others do that are to stay."""
        if not has_directory(self._tree.disk, path) or self._tree.disk.stat(path) is None:
            return False
        refuse_obstacle(self._tree.disk, path)
        if self._tree.file_matches(path, "sha256", sha256):
            return True
        self._give_way(path)
        return False

    def _give_way(self, path: str) -> None:
        """Raises Occupied unless this project put the bytes at ``path``, and no page of it lists them as a file."""
        if path not in self._ours or path in self._stated:
            raise Occupied(path)
        self.to_replace.add(path)


def _of_right_size(tree: Tree, path: str, size: int | None) -> Entry | None:
    entry = tree.disk.stat(path)
    return entry if entry is not None and entry.is_file and (size is None or entry.size == size) else None
