"""Which provenance objects (PEP 740) a project's page accounts for, and which of them change with it."""

from __future__ import annotations

from heliostat import names
from heliostat.mirror.metadata import Answers
from heliostat.mirror.provenance import ProvenanceFetcher
from heliostat.mirror.wanted import provenance_path
from heliostat.model import ProjectPage
from heliostat.state.rows import Row
from heliostat.store.threads import in_thread
from heliostat.store.tree import Placement, Publication, Tree


class ProjectProvenance:
    """Without a ``fetcher`` nothing is fetched, and what an earlier configuration fetched stays."""

    def __init__(self, tree: Tree, fetcher: ProvenanceFetcher | None) -> None:
        self._tree, self._fetcher = tree, fetcher

    @property
    def is_fetched(self) -> bool:
        return self._fetcher is not None

    async def prepare(
        self, row: Row, publication: Publication, page: ProjectPage, answers: Answers | None = None
    ) -> set[str]:
        """Adds to ``publication`` what is new or comes back; the paths of all objects that the page accounts for.

        Raises UpstreamError, Refused, StoreError.
        """
        if page.quarantined:
            return set()
        files, paths = page.files, set()
        if answers is not None and (answers.own or answers.retained):  # upstream may not have these any more
            there = [file for file in files if answers.own or file.filename in answers.retained]
            paths = {provenance_path(row.name, file.provenance, file.filename) for file in there if file.provenance}
            files = tuple(file for file in files if file not in there)
            publication.placements += await in_thread(self._out_of_reach, paths)
        if self._fetcher is None:  # what is there stays, since the page still links it
            return paths | {
                provenance_path(row.name, file.provenance, file.filename) for file in files if file.provenance
            }
        placements, fetched = await self._fetcher.fetch(row.name, files, refresh=row.why == "sweep")
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
