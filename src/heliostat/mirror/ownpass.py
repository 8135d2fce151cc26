"""A pass over a few projects that asks nobody: what our own tree says of them is published anew, by today's rules."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from heliostat.mirror.changes import Seen
from heliostat.mirror.crew import Slots
from heliostat.mirror.metadata import Answers, Documents, MetadataReader
from heliostat.mirror.onepass import Pass
from heliostat.state.rows import Row

if TYPE_CHECKING:
    from heliostat.mirror.budget import Share
    from heliostat.model import ProjectName


class OwnPass(Pass):
    """One such pass; the projects are published as the answers say, and stay owed what they are owed."""

    def __init__(self, *arguments: Any, projects: Mapping[ProjectName, tuple[Row, Answers]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._projects = projects

    async def go(self, started: float) -> int | None:
        """Raises StoreError, StateError."""
        self._started = started
        await self._take_rules()
        removals = self._removals({}, Seen())
        await self._crew(Documents(None), removals, time.time(), heard=True, head=None)
        return None

    def _metadata(self, documents: Documents, slots: Slots) -> MetadataReader:  # noqa: ARG002 - nobody is waited for
        return _OwnReader(self._upstream, self._config, documents, answers=self._projects)

    async def _owed(self, now: float) -> AsyncIterator[Row]:  # noqa: ARG002 - whether it is owed or not
        for row, _ in self._projects.values():
            # It is not brought up to date by this.
            yield msgspec.structs.replace(row, wanted_serial=row.accepted_serial)


class _OwnReader(MetadataReader):
    def __init__(self, *arguments: Any, answers: Mapping[ProjectName, tuple[Row, Answers]]) -> None:
        super().__init__(*arguments)
        self._own = answers

    async def read(self, row: Row, share: Share) -> Answers | None:
        answers = self._own[row.name][1]
        share.holds(answers.size)
        return answers
