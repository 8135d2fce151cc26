"""Which files the pages of a project say are there.

A claim is a line: path, kind, size, algorithm, digest, project, separated by tabs; paths lie below the web root.
Kinds: ``file``, ``sidecar``, ``proof`` (a provenance object; the digest is that of the file it must be about), and
``maybe`` for what may be there and need not.
"""

from __future__ import annotations

import contextlib

from heliostat import names
from heliostat.errors import Refused
from heliostat.mirror.verify.findings import Finding, finding
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judgement import Found
from heliostat.mirror.wanted import digits_of, provenance_path, strongest
from heliostat.model import CoreMetadata, DistFile, Document, DocumentFile, ProjectName, ProjectPage
from heliostat.pages.links import package_of


class Claims:
    """Claims of one project; what is wrong with a page's links is added to ``findings``."""

    def __init__(self, ground: Ground, found: Found, findings: list[Finding]) -> None:
        self._ground, self._found, self._findings = ground, found, findings
        self._name = ProjectName(found.name)
        self._key = found.name.encode()
        self._page = b"web/simple/%s/index.v1_json" % self._key
        self.lines: list[bytes] = []
        #: Files of which page and document say different things: who is right, only upstream can tell.
        self.doubtful: set[str] = set()

    def page(self, page: ProjectPage, kind: str = "file") -> None:
        """What a page lists."""
        if page.quarantined:
            return
        for file in page.files:
            path = package_of(file.url)
            if path is None:
                if file.url.startswith("file:"):
                    self._say(f"{file.filename!a}: its link leads to no file of ours")
                continue
            if file.filename in self.doubtful:
                self.add(kind, path, None, {})
            else:
                self.add(kind, path, file.size, file.hashes)
            if file.core_metadata:
                self._sidecar(kind, path, file.core_metadata)
            if file.provenance:
                self._proof(kind, file)

    def _say(self, problem: str) -> None:
        self._findings.append(finding("page", self._page, self._found.name, problem))

    def _sidecar(self, kind: str, path: str, metadata: CoreMetadata) -> None:
        hashes = metadata if isinstance(metadata, dict) else {}
        self.add("sidecar" if kind == "file" else "maybe", names.sidecar_path(path), None, hashes)

    def _proof(self, kind: str, file: DistFile) -> None:
        try:
            path = provenance_path(self._name, file.provenance or "", file.filename)
        except Refused as error:
            self._say(str(error))
            return
        required = self._ground.provenance and kind == "file" and file.filename not in self.doubtful
        self.add("proof" if required else "maybe", path, None, file.hashes if required else {})

    def document(self, page: ProjectPage | None, document: Document) -> None:
        """Files that only the document lists; the ledger knows where they are, without it they are looked for."""
        if page is not None and page.quarantined:
            return
        listed = {file.filename for file in page.files} if page is not None else set()
        others = [entry for entry in document.files if entry.filename not in listed]
        row = self._found.row
        if row is not None and page is not None:
            extras = self._ground.books.extras(self._found.name) if row.extra and self._ground.books else []
            by_place = {path: entry for entry in others for path in _places(entry)}
            for path in extras:
                entry = by_place.get(path.removesuffix(names.METADATA_SUFFIX))
                if path.endswith(names.METADATA_SUFFIX):
                    metadata = entry.core_metadata if entry else None
                    self._sidecar("file", path.removesuffix(names.METADATA_SUFFIX), metadata)
                else:
                    self.add("file", path, entry.size if entry else None, entry.hashes if entry else {})
            return
        elsewhere = page is not None and any(file.url.startswith("http") for file in page.files)
        for entry in others:
            if page is None and entry.version is not None:
                with contextlib.suppress(Refused):
                    self.add("maybe", names.provenance_path(self._name, entry.version, entry.filename), None, {})
            for number, path in enumerate(_places(entry)):
                must = not number and page is not None and self._ground.files and not elsewhere
                kind = "file" if must and digits_of(entry) is not None else "maybe"
                self.add(kind, path, entry.size, entry.hashes if kind == "file" else {})
                if entry.core_metadata:
                    self._sidecar("maybe", path, entry.core_metadata)

    def add(self, kind: str, path: str, size: int | None, hashes: dict[str, str]) -> None:
        algorithm = strongest(hashes)
        self.lines.append(
            b"%s\t%s\t%s\t%s\t%s\t%s"
            % (
                path.removeprefix("web/").encode(),
                kind.encode(),
                b"" if size is None else b"%d" % size,
                (algorithm or "").encode(),
                hashes[algorithm].encode() if algorithm else b"",
                self._key,
            )
        )


def _places(entry: DocumentFile) -> list[str]:
    """Where the bytes of a file may lie that a document lists, the likeliest first."""
    found = []
    for digits in dict.fromkeys((digits_of(entry), names.content_digits(entry.url), entry.hashes.get("sha256"))):
        try:
            found.append(names.package_path(digits or "", entry.filename))
        except Refused:
            continue
    return found
