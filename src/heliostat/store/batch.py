"""What several projects publish together, on its way into the tree, in an order that a kill and a power cut respect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heliostat.store.tree import Placement, Publication, Tree

#: Told of each step before it begins.
Tell = Callable[[str], None]


class Batch:
    """Publications that are put in place with three syncs in all."""

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        #: Temporaries that were begun, and the small files among them once all of those are written.
        self.made: list[str] = []
        self.files: list[Placement] = []

    def put(self, tree: Tree, tell: Tell) -> None:
        """Write, make durable, rename, make durable, show, make durable.

        Raises StoreError; what it had begun is undone by :meth:`undo`.
        """
        publications, disk = self.publications, tree.disk
        tell("writing documents and pages")
        self.files = tree.stage_bodies(publications, self.made)
        documents = tree.stage_documents(publications, self.made)
        pages = tree.stage_pages(publications, self.made)
        disk.sync()
        tell("placing files")
        tree.place(self.files, publications)
        tree.place_documents(documents, publications)
        if self.files or documents or any(p.placements or p.times or p.link_missing for p in publications):
            disk.sync()
        tell("showing pages")
        tree.show(pages, publications)
        tree.drop_documents(publications)
        if pages or any(p.drop_document or p.drop_original for p in publications):
            disk.sync()

    def undo(self, tree: Tree) -> None:
        """Remove what could not be placed; in the publications stays what is still to be placed."""
        tree.unstage(self.made, self.files, self.publications)
