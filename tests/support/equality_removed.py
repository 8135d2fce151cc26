"""What a mirror shows otherwise than its index: what was deleted here, and what was removed there and not here."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from heliostat.fakeindex import Expected, Index, render
from heliostat.fakeindex.project import Project
from heliostat.fakeindex.routes import provenance_bytes
from heliostat.model import ProjectPage

#: What pages say of what upstream removed.
MARK = "removed upstream; kept by this mirror"


@dataclass(frozen=True)
class Removed:
    """Entries are ``name`` or ``name==version``; projects are as the index had them when they were last mirrored."""

    #: Kept out, although the index has it.
    denied: Collection[str] = ()
    #: Whose pages (of whole projects) and bytes must be out of reach.
    kept: Mapping[str, Project] = field(default_factory=dict)
    #: Shown, although the index has it no more.
    retained: Mapping[str, Project] = field(default_factory=dict)

    # -- which projects ----------------------------------------------------------------------------------------

    def names(self, names: list[str]) -> list[str]:
        return sorted({name for name in names if name not in self.denied} | self._whole(self.retained))

    def gone(self, name: str) -> bool:
        """Whether a whole project is shown that the index has no more."""
        return name in self.retained

    def __getitem__(self, name: str) -> Project:
        return self.retained[name]

    # -- one project -------------------------------------------------------------------------------------------

    def versions(self, name: str, entries: Collection[str]) -> set[str]:
        return {one.partition("==")[2] for one in entries if one.startswith(f"{name}==")}

    def alters(self, name: str) -> bool:
        return bool(self.versions(name, self.denied) or self.versions(name, self.retained))

    def page(self, index: Index, name: str) -> ProjectPage:
        """As it must be shown, but for links."""
        if self.gone(name):
            gone = render.page(self.retained[name], index.bases)
            return msgspec.structs.replace(gone, status="archived", status_reason=MARK)
        shown = index.expected_page(name)
        assert shown is not None
        if not self.alters(name):
            return shown
        page = shown
        denied, more = self.versions(name, self.denied), self._more(index, name)
        files = [one for one, where in zip(page.files, index.expected_files(name), strict=True)
                 if where.version not in denied]  # fmt: skip
        old = [
            msgspec.structs.replace(file, yanked=file.yanked or MARK)
            for version, project in more
            for file, where in zip(render.page(project, index.bases).files, _offered(project), strict=True)
            if where.version == version and file.filename not in {one.filename for one in page.files}
        ]
        versions = None if page.versions is None else tuple(
            dict.fromkeys([*(one for one in page.versions if one not in denied), *(version for version, _ in more)])
        )  # fmt: skip
        return msgspec.structs.replace(page, files=(*files, *old), versions=versions)

    def files(self, index: Index, name: str) -> list[Expected]:
        """In the order of that page."""
        if self.gone(name):
            return _offered(self.retained[name])
        denied = self.versions(name, self.denied)
        now = [one for one in index.expected_files(name) if one.version not in denied]
        there = {one.file.filename for one in now}
        return now + [
            one
            for version, project in self._more(index, name)
            for one in _offered(project)
            if one.version == version and one.file.filename not in there
        ]

    def document_problems(self, index: Index, name: str, shown: bytes, original: bytes | None) -> Iterator[str]:
        """What is wrong with an altered document, and with the index's own that must be kept beside it."""
        wanted = index.document_bytes(name)
        assert wanted is not None
        if original is None or gzip.decompress(original) != wanted:
            yield "upstream's own document is not kept"
        ours, theirs = json.loads(shown), json.loads(wanted)
        releases = theirs["releases"]
        for version in self.versions(name, self.denied):
            releases.pop(version, None)
        for version, project in self._more(index, name):
            old = json.loads(render.document(project, index.bases) or b"{}")["releases"][version]
            known = {one["filename"] for one in releases.get(version, ())}
            for one in (entry for entry in old if entry["filename"] not in known):
                more = {} if one["yanked"] else {"yanked": True, "yanked_reason": MARK}
                releases.setdefault(version, []).append(one | more)
        if ours["releases"] != releases:
            yield f"has other releases: {sorted(ours['releases'])}, not {sorted(releases)}"
        if ours["info"]["version"] not in releases or ours["urls"] != releases[ours["info"]["version"]]:
            yield "is of no release that it has"
        for one in (ours, theirs):
            del one["releases"], one["urls"]
        if theirs["info"]["version"] in releases and ours != theirs:
            yield "says something else"

    def _more(self, index: Index, name: str) -> list[tuple[str, Project]]:
        found = [(version, self.retained[f"{name}=={version}"]) for version in self.versions(name, self.retained)]
        return sorted(found, key=lambda one: one[0])

    @staticmethod
    def _whole(entries: Collection[str]) -> set[str]:
        return {entry for entry in entries if "==" not in entry}

    # -- what is kept ------------------------------------------------------------------------------------------

    def withheld(self) -> dict[str, str]:
        """SHA-256 by path below ``withheld/`` of all that must be there; an empty one where any bytes will do."""
        found: dict[str, str] = {}
        for entry, project in self.kept.items():
            name, _, version = entry.partition("==")
            for one in _offered(project):
                if version in ("", one.version):
                    found.update(bytes_of(name, one))
            if not version:
                found |= {f"simple/{name}/index.v1_json": "", f"json/{name}": ""}
        return found


def bytes_of(name: str, one: Expected) -> dict[str, str]:
    """SHA-256 of a file and of what belongs to it, by paths below ``web/``."""
    from support.equality import place

    path, file = place(one), one.file
    found = {path: file.content.digests.sha256}
    if file.sidecar is not None:
        found[f"{path}.metadata"] = file.sidecar_sha256
    if file.provenance is not None:
        where = f"integrity/{name}/{one.version}/{file.filename}/provenance"
        found[where] = hashlib.sha256(provenance_bytes(file)).hexdigest()
    return found


def _offered(project: Project) -> list[Expected]:
    return [Expected(release.version, file) for release, file in project.offered()]
