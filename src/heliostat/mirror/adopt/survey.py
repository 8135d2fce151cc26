"""What an adoption would do: project after project is looked at, and nothing changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from heliostat.mirror.adopt.catalogue import Catalogue
from heliostat.mirror.adopt.drafts import Draft, read_draft
from heliostat.mirror.adopt.eye import Eye, Stopping
from heliostat.mirror.adopt.files import Check, Inspector
from heliostat.mirror.adopt.layouts import Layout
from heliostat.mirror.adopt.plans import Plan, plan_for
from heliostat.mirror.adopt.report import Finding, Record, Result
from heliostat.mirror.report import Counters

#: Projects that are committed together, files of theirs after which it is enough, and bytes when they are hashed.
_BATCH, _BATCH_FILES, _BATCH_BYTES = 256, 20_000, 16 << 30


class Survey:
    """Looks at projects, and says what is to be done; changes nothing."""

    def __init__(
        self, eye: Eye, layout: Layout, check: Check, *, elsewhere: bool, stopped: Callable[[], bool], workers: int = 0
    ) -> None:
        self.eye, self._layout, self._check, self._elsewhere = eye, layout, check, elsewhere
        self._inspector = Inspector(eye, check, stopped)
        self._stopped = stopped
        self._workers = workers or min(16, max(2, os.cpu_count() or 1))
        self.catalogue = Catalogue(eye)

    def batches(self, after: str, counters: Counters) -> Iterator[list[Plan]]:
        """Plans of all projects after that name, in order.  Raises Stopping, StoreError."""
        rest = [name for name in self.catalogue.names if name > after]
        counters.projects_total, counters.projects_done = len(self.catalogue.names), 0
        counters.projects_done = counters.projects_total - len(rest)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="heliostat-adopt") as pool:
            drafts: list[Draft] = []
            size = files = 0
            for name in rest:
                if self._stopped():
                    raise Stopping
                drafts.append(read_draft(self.eye, self.catalogue, name))
                size += sum(entry.file.size or 0 for entry in drafts[-1].entries)
                files += len(drafts[-1].entries)
                large = size > _BATCH_BYTES and self._check == "digest"
                if len(drafts) == _BATCH or files > _BATCH_FILES or large:
                    yield self._plans(pool, drafts, counters)
                    drafts, size, files = [], 0, 0
            if drafts:
                yield self._plans(pool, drafts, counters)

    def _plans(self, pool: ThreadPoolExecutor, drafts: Sequence[Draft], counters: Counters) -> list[Plan]:
        looks = pool.map(
            self._inspector.look,
            [draft.name for draft in drafts for _ in draft.entries],
            [entry for draft in drafts for entry in draft.entries],
        )
        plans = []
        for draft in drafts:
            seen = [next(looks) for _ in draft.entries]
            plan = plan_for(self.eye, draft, seen, tool=self._layout.tool, elsewhere=self._elsewhere)
            plans.append(plan)
            counters.projects_done += 1
            counters.files_done += plan.files
            counters.bytes_done += plan.bytes if self._check == "digest" else 0
        return plans

    def about_the_tree(self) -> tuple[list[str], list[Finding]]:
        """Leftovers that belong to no project, and what is said of them and of what is left alone."""
        gone = [*self.catalogue.temporaries, *self.catalogue.hashed, *self._layout.leftovers(self.eye.root)]
        said = [Finding("removed", path, "", f"left by {self._layout.tool}") for path in gone]
        said += [Finding("strange", path, "", "no project; left alone") for path in self.catalogue.strange]
        return gone, said


def look_over(
    root: str,
    layout: Layout,
    check: Check,
    *,
    elsewhere: bool,
    in_scope: Callable[[str], bool],
    counters: Counters,
    stopped: Callable[[], bool],
) -> tuple[Result, Record]:
    """What an adoption would find and do; nothing is written, and no lock taken."""
    result, record = Result(tool=layout.tool, check=check, dry_run=True), Record(None, 0, new=True)
    moves = layout.moves(root)
    survey = Survey(Eye(root, moves), layout, check, elsewhere=elsewhere, stopped=stopped)
    result.count(record.add(moved(name) for name in moves))
    try:
        for plans in survey.batches("", counters):
            for plan in plans:
                tell(result, plan, in_scope)
                result.count(record.add(plan.findings))
        result.count(record.add(survey.about_the_tree()[1]))
    except Stopping:
        result.interrupted = True
    return result, record


def tell(result: Result, plan: Plan, in_scope: Callable[[str], bool]) -> None:
    """The project is one of those that the result counts."""
    if plan.row is None:
        return
    result.projects += 1
    result.files += plan.files
    result.bytes += plan.bytes
    result.hashed += plan.hashed
    result.outside += not in_scope(plan.name)


def moved(name: str) -> Finding:
    """What is said of a folder that gets its place below ``web``."""
    return Finding("moved", name, "", f"to web/{name}; a link stays, for web servers that still serve the old place")
