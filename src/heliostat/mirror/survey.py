"""What of a project's wanted files is in the tree already, and what lies where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from heliostat import names
from heliostat.errors import Refused
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.wanted import Wanted, held_files, strongest
from heliostat.store.tree import Tree


class OpenPaths(msgspec.Struct, frozen=True):
    """Paths of one project whose fate is open, by kind; see :mod:`heliostat.state.schema`."""

    incoming: frozenset[str] = frozenset()
    doomed: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A wanted file of which something is there."""

    path: str
    file: bool
    withheld: bool
    sidecar: bool
    sidecar_withheld: bool
    #: Something lies where the sidecar belongs, whatever it is.
    sidecar_place_taken: bool
    foreign: bool
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

    Raises Refused when other bytes lie at a file's place.
    """
    places = Places(tree, inventory, ours, open_paths.shared)
    found: dict[str, Present] = {}
    for want in wanted:
        path = want.path or _same_as_ours(tree, want)
        if path is not None and (one := _look(tree, places, want, path, open_paths.withheld)) is not None:
            found[want.key] = one
    return Survey(places, found)


def _look(tree: Tree, places: Places, want: Wanted, path: str, withheld: frozenset[str]) -> Present | None:
    if not withheld and tree.disk.stat(path.rpartition("/")[0]) is None:
        return None
    there = places.have(want, path)
    kept = not there and path in withheld and _right_size(tree, names.withheld_path(path), want.size)
    sidecar = sidecar_kept = taken = False
    if want.has_sidecar:
        beside = names.sidecar_path(path)
        entry = tree.disk.stat(beside)
        taken = entry is not None
        sidecar = entry is not None and not entry.is_directory
        sidecar_kept = not sidecar and beside in withheld and _right_size(tree, names.withheld_path(beside), None)
    if not (there or kept or taken):
        return None
    return Present(
        path=path,
        file=there or kept,
        withheld=kept,
        sidecar=sidecar or sidecar_kept,
        sidecar_withheld=sidecar_kept,
        sidecar_place_taken=taken,
        foreign=there and path not in places.ours,
        complete=(there or kept) and (sidecar or sidecar_kept or not want.has_sidecar),
    )


def _same_as_ours(tree: Tree, want: Wanted) -> str | None:
    """The path of our own file of that name, if its bytes have the digest that upstream gives."""
    if want.maybe is None or not _right_size(tree, want.maybe, want.size):
        return None
    algorithm = strongest(want.digests)
    if algorithm is None or tree.file_matches(want.maybe, algorithm, want.digests[algorithm]):
        return want.maybe
    return None


class Places:
    """What lies at the places that a project wants; nobody's bytes are ever replaced by other ones."""

    def __init__(self, tree: Tree, inventory: Inventory, ours: set[str], shared: frozenset[str]) -> None:
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


def _right_size(tree: Tree, path: str, size: int | None) -> bool:
    entry = tree.disk.stat(path)
    return entry is not None and not entry.is_directory and (size is None or entry.size == size)
