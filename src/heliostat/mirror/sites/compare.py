"""What a site's page has that the right one has not, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from heliostat.model import DistFile, ProjectPage


class Differences(msgspec.Struct, frozen=True):
    """File names, in order, and versions, as far as both pages tell theirs."""

    missing: list[str]
    extra: list[str]
    #: Listed by both, with other bytes or another description.
    changed: list[str]
    missing_versions: list[str]

    @property
    def any(self) -> bool:
        return bool(self.missing or self.extra or self.changed)


def _all(_: DistFile) -> bool:
    return True


def compare(right: ProjectPage, shown: ProjectPage, counts: Callable[[DistFile], bool] = _all) -> Differences:
    """How the page ``shown`` differs from the ``right`` one, as to files that count."""
    wanted, there = _files(right), _files(shown)
    missing = [name for name, file in wanted.items() if name not in there and counts(file)]
    extra = [name for name, file in there.items() if name not in wanted and counts(file)]
    changed = [
        name for name, file in wanted.items()
        if name in there and counts(file) and next(told_differently(file, there[name]), None)
    ]  # fmt: skip
    versions: list[str] = []
    if right.versions is not None and shown.versions is not None:
        known = set(shown.versions)
        versions = [one for one in right.versions if one not in known]
    return Differences(sorted(missing), sorted(extra), sorted(changed), versions)


def told_differently(right: DistFile, shown: DistFile) -> Iterator[str]:
    """What two pages say in different ways of a file; an algorithm that one of them does not give proves nothing."""
    for kind in sorted(right.hashes.keys() & shown.hashes.keys()):
        if right.hashes[kind] != shown.hashes[kind]:
            yield f"{kind} {shown.hashes[kind]}, where {right.hashes[kind]} is right"
    if right.hashes and not right.hashes.keys() & shown.hashes.keys():
        yield f"no {', '.join(sorted(right.hashes))}"
    if right.size is not None and shown.size is not None and right.size != shown.size:
        yield f"{shown.size} bytes, where {right.size} is right"
    if (right.requires_python or "") != (shown.requires_python or ""):
        yield f"requires-python {shown.requires_python!a}, where {right.requires_python!a} is right"
    if right.yanked != shown.yanked:
        yield f"yanked {shown.yanked!a}, where {right.yanked!a} is right"


def _files(page: ProjectPage) -> dict[str, DistFile]:
    return {} if page.quarantined else {file.filename: file for file in page.files}
