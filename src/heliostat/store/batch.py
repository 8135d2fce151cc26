"""What several projects publish together, on its way into the tree, in an order that a kill and a power cut respect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from heliostat.model import ProjectName
from heliostat.store.side_by_side import SideBySide
from heliostat.store.tree import Placement, Publication, Tree

#: Told of each step before it begins.
Tell = Callable[[str], None]


def met(tree: Tree, new: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of ``new`` projects that are not new: something lies where they, or their files (the paths), belong.

    Raises StoreError.
    """
    return [name for name, paths in new.items() if tree.has_any(ProjectName(name), paths)]


class _One(NamedTuple):
    """A publication, and what of it lies under ``partial/``."""

    publication: Publication
    files: list[Placement]
    documents: list[Placement]
    pages: list[Placement]

    def stage(self, tree: Tree, made: list[str]) -> None:
        own = (self.publication,)
        self.files.extend(tree.stage_bodies(own, made))
        self.documents.extend(tree.stage_documents(own, made))
        self.pages.extend(tree.stage_pages(own, made))

    def place(self, tree: Tree) -> None:
        tree.place(self.files, (self.publication,))
        tree.place_documents(self.documents, (self.publication,))

    def show(self, tree: Tree) -> None:
        tree.show(self.pages, (self.publication,))
        tree.drop_documents((self.publication,))


class Batch:
    """Publications that are put in place with three syncs in all."""

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        #: Temporaries that were begun, and those of small files that were written.
        self.made: list[str] = []
        self.files: list[Placement] = []

    def put(self, tree: Tree, tell: Tell, side_by_side: SideBySide) -> None:
        """Write, make durable, rename, make durable, show, make durable.

        Raises StoreError; what it had begun is undone by :meth:`undo`.
        """
        disk, staged, made = tree.disk, [_One(one, [], [], []) for one in self.publications], self.made
        tell("writing documents and pages")
        try:
            side_by_side.each(lambda one: one.stage(tree, made), staged, sum(_parts(p) for p in self.publications))
        finally:
            self.files = [placement for one in staged for placement in one.files]
        disk.sync()
        tell("placing files")
        files = sum(len(one.files) + len(one.documents) + len(one.publication.placements) for one in staged)
        side_by_side.each(lambda one: one.place(tree), staged, 2 * files)
        if files or any(p.times or p.link_missing for p in self.publications):
            disk.sync()
        tell("showing pages")
        pages = sum(len(one.pages) for one in staged)
        side_by_side.each(lambda one: one.show(tree), staged, pages)
        if pages or any(p.drop_document or p.drop_original for p in self.publications):
            disk.sync()

    def undo(self, tree: Tree) -> None:
        """Remove what could not be placed; in the publications stays what is still to be placed."""
        tree.unstage(self.made, self.files, self.publications)


def _parts(publication: Publication) -> int:
    """How many files of it are to be written."""
    pages = (publication.document, publication.json_page, publication.html_page, publication.original)
    return len(publication.bodies) + sum(part is not None for part in pages)
