"""An index made of recorded answers of a real one, with those of its files whose bytes were recorded too.

The folder has the layout of the recordings' own README: ``json/*/NAME.json`` documents, ``simple-json/*/NAME.json``
pages, ``dists/MANIFEST.json`` with the digests of the distributions, ``metadata/*/FILENAME.metadata``, and
``provenance/FILENAME.provenance``.

Kept as recorded: names, versions (also without files), file names, upload times, yanks and their reasons, required
Python versions, statuses, the document's ``info``, vulnerabilities and ownership.  A file whose bytes are there has
their true digests, the recorded URL path, and the sidecar whose digest the page gives (else the one taken out of the
wheel); a recorded
provenance URL gives the recorded object, or one made up for the file.  A file without bytes gets made-up ones of the
recorded size, and then other digests and another path (``missing="virtual"``), or is left out (``missing="omit"``).
Serials are new ones, in the order of the recorded ones.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from heliostat.fakeindex.content import Content, Virtual
from heliostat.fakeindex.content import Literal as LiteralContent
from heliostat.fakeindex.index import Index
from heliostat.fakeindex.project import UploadedFile, normal_form
from heliostat.fakeindex.synthetic import provenance_for

#: Documents and pages from which files are taken, better sources first; pages come only for what no document has.
_DOCUMENTS = ("json/poetry-1.2.0", "json/dependabot", "json/toolchain", "json/warehouse-docs")
_PAGES = ("simple-json/poetry", "simple-json/warehouse")

_DIGITS = re.compile(r"-(\d[0-9A-Za-z_.!+]*?)(?=-|\.(?:tar|zip|tgz|egg|exe|whl))")
#: Keys of ``info`` that the index makes itself.
_OURS = frozenset(
    {"package_url", "project_url", "release_url", "name", "version", "yanked", "yanked_reason", "requires_python"}
)


def from_recorded(
    folder: str,
    *,
    missing: Literal["virtual", "omit"] = "virtual",
    wrong_sizes: bool = False,
    most: int | None = None,
) -> Index:
    """``wrong_sizes``: sizes are stated as recorded even where the recorded bytes have another one.

    ``most``: made-up files have at most so many bytes.

    Raises OSError if there is no such folder.
    """
    known = _Known(folder, most)
    projects: dict[str, _Recorded] = {}
    for path, body in _bodies(folder, _DOCUMENTS):
        recorded = _from_document(body, path)
        if recorded is not None:
            projects.setdefault(normal_form(recorded.display), recorded)
    for path, body in _bodies(folder, _PAGES):
        recorded = _from_page(body, path)
        if recorded is not None:
            projects.setdefault(normal_form(recorded.display), recorded)
            projects[normal_form(recorded.display)].add_page(recorded)
    index = Index()
    for recorded in sorted(projects.values(), key=lambda one: (one.serial, one.display)):
        _publish(index, recorded, known, missing=missing, wrong_sizes=wrong_sizes)
    return index


class _Known:
    """Bytes by SHA-256, sidecars by SHA-256 and by file name, provenance by file name."""

    def __init__(self, folder: str, most: int | None) -> None:
        self.most = most
        with open(os.path.join(folder, "dists", "MANIFEST.json"), "rb") as file:
            manifest = msgspec.json.decode(file.read())
        self._paths = {entry["sha256"]: os.path.join(folder, entry["path"]) for entry in manifest}
        self.sidecars: dict[str, bytes] = {}
        self.extracted: dict[str, bytes] = {}
        self.provenance: dict[str, Any] = {}
        for directory, name, data in _files(folder, ("metadata/poetry", "metadata/extracted")):
            self.sidecars[hashlib.sha256(data).hexdigest()] = data
            if directory.endswith("extracted"):
                self.extracted[name.removesuffix(".metadata")] = data
        for _, name, data in _files(folder, ("provenance",)):
            if name.endswith(".provenance"):
                self.provenance[name.removesuffix(".provenance")] = msgspec.json.decode(data)

    def content(self, sha256: str) -> Content | None:
        path = self._paths.get(sha256)
        if path is None:
            return None
        with open(path, "rb") as file:
            return LiteralContent(file.read())


@dataclass
class _File:
    """What a document or page says of one file."""

    version: str
    filename: str
    url: str
    sha256: str
    size: int | None
    sidecar_sha256: str | None = None
    provenance: bool = False
    #: Further fields of UploadedFile.
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Recorded:
    display: str
    serial: int
    versions: list[str] = field(default_factory=list)
    files: list[_File] = field(default_factory=list)
    yanked: dict[str, str | None] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    vulnerabilities: list[dict[str, Any]] = field(default_factory=list)
    ownership: dict[str, Any] = field(default_factory=dict)
    status: str = "active"

    def add_page(self, page: _Recorded) -> None:
        """Files that only the page lists, and what it says of those that the document lists too."""
        own = {file.filename: file for file in self.files}
        self.status = page.status
        for file in page.files:
            same = own.get(file.filename)
            if same is None:
                self.files.append(file)
                if file.version not in self.versions:
                    self.versions.append(file.version)
            elif same.sha256 == file.sha256:
                same.sidecar_sha256, same.provenance = file.sidecar_sha256, file.provenance
        for version, reason in page.yanked.items():
            self.yanked.setdefault(version, reason)


def _publish(index: Index, recorded: _Recorded, known: _Known, *, missing: str, wrong_sizes: bool) -> None:
    by_version: dict[str, list[UploadedFile]] = {version: [] for version in recorded.versions}
    for file in recorded.files:
        made = _uploaded(file, known, missing=missing, wrong_sizes=wrong_sizes)
        if made is not None:
            by_version[file.version].append(made)
    if not by_version:
        index.create(recorded.display)
    for version, files in by_version.items():
        index.publish(recorded.display, version, files)
    for version, reason in recorded.yanked.items():
        index.yank(recorded.display, version, reason)
    project = index[recorded.display]
    latest = project.latest()
    if latest is not None:
        latest.info.update(recorded.info)
        index.set_vulnerabilities(recorded.display, latest.version, recorded.vulnerabilities)
    if recorded.ownership:
        project.organization = recorded.ownership.get("organization")
        project.roles = [(role["role"], role["user"]) for role in recorded.ownership.get("roles", [])]
    if recorded.status == "archived":
        index.archive(recorded.display)


def _uploaded(file: _File, known: _Known, *, missing: str, wrong_sizes: bool) -> UploadedFile | None:
    more = dict(file.more)
    content = known.content(file.sha256)
    sidecar = known.sidecars.get(file.sidecar_sha256 or "")
    if content is not None:
        sidecar = sidecar or known.extracted.get(file.filename)
        more["path_form"] = urlsplit(file.url).path
        if wrong_sizes and file.size not in (None, content.size):
            more["stated_size"] = file.size
    elif missing == "omit":
        return None
    else:
        size = file.size or 1000
        content = Virtual(size if known.most is None else min(size, known.most), int(file.sha256[:12] or "0", 16))
    made = UploadedFile(file.filename, content, sidecar=sidecar, **more)
    if file.provenance:
        made.provenance = known.provenance.get(file.filename) or provenance_for(made)
    return made


def _from_document(body: dict[str, Any], path: str) -> _Recorded | None:
    info = body.get("info")
    releases = body.get("releases")
    if not isinstance(info, dict) or not isinstance(releases, dict):
        return None
    recorded = _Recorded(
        display=info.get("name") or os.path.basename(path).removesuffix(".json"),
        serial=int(body.get("last_serial") or 0),
        versions=list(releases),
        vulnerabilities=body.get("vulnerabilities") or [],
        ownership=body.get("ownership") or {},
    )
    recorded.info = {key: value for key, value in info.items() if key not in _OURS}
    for version, files in releases.items():
        for file in files:
            if file.get("yanked"):
                recorded.yanked[version] = file.get("yanked_reason")
            recorded.files.append(_document_file(version, file))
    return recorded


def _document_file(version: str, file: dict[str, Any]) -> _File:
    metadata = file.get("core-metadata")
    time = file.get("upload_time_iso_8601") or (f"{file['upload_time']}Z" if file.get("upload_time") else "")
    return _File(
        version=version,
        filename=file["filename"],
        url=file["url"],
        sha256=file.get("digests", {}).get("sha256", ""),
        size=file.get("size"),
        sidecar_sha256=metadata.get("sha256") if isinstance(metadata, dict) else None,
        more={
            "upload_time": time,
            "requires_python": file.get("requires_python") or None,
            "packagetype": file.get("packagetype") or "",
            "python_version": file.get("python_version") or "",
            "comment_text": file.get("comment_text") or "",
        },
    )


def _from_page(body: dict[str, Any], path: str) -> _Recorded | None:
    if "files" not in body:
        return None
    status = body.get("project-status") or {}
    recorded = _Recorded(
        display=body.get("name") or os.path.basename(path).removesuffix(".json"),
        serial=int(body.get("meta", {}).get("_last-serial") or 0),
        status=status.get("status") or "active",
    )
    for file in body["files"]:
        version = _version_of(file["filename"], recorded.display, body.get("versions") or [])
        if version not in recorded.versions:
            recorded.versions.append(version)
        if file.get("yanked"):
            recorded.yanked[version] = file["yanked"] if isinstance(file["yanked"], str) else None
        metadata = file.get("core-metadata")
        recorded.files.append(
            _File(
                version=version,
                filename=file["filename"],
                url=file["url"],
                sha256=file["hashes"].get("sha256", ""),
                size=file.get("size"),
                sidecar_sha256=metadata.get("sha256") if isinstance(metadata, dict) else None,
                provenance=bool(file.get("provenance")),
                more={
                    "upload_time": file.get("upload-time") or "",
                    "requires_python": file.get("requires-python") or None,
                },
            )
        )
    return recorded


def _version_of(filename: str, name: str, versions: list[str]) -> str:
    """A page does not say which version a file belongs to: the longest listed one that its name holds."""
    rest = filename[len(name) :]
    fitting = [version for version in versions if version in rest]
    if fitting:
        return max(fitting, key=len)
    found = _DIGITS.search(rest)
    return found[1] if found else "0"


def _bodies(folder: str, directories: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for directory, name, data in _files(folder, directories):
        if name.endswith(".json"):
            body = msgspec.json.decode(data)
            if isinstance(body, dict):
                yield os.path.join(directory, name), body


def _files(folder: str, directories: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    """(directory, name, bytes) of all files of the directories that exist, in a fixed order."""
    for directory in directories:
        path = os.path.join(folder, directory)
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            with open(os.path.join(path, name), "rb") as file:
                yield directory, name, file.read()
