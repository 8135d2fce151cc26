"""Whether a mirror's directory is exactly what an index holds, in both directions, down to the last byte.

Everything is compared with the model of the fake index; pages in JSON are compared as raw JSON, so that a mistake that
the renderer and the parser of heliostat share is seen too.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from heliostat.errors import HeliostatError
from heliostat.fakeindex import Expected, Index, render
from heliostat.fakeindex.routes import provenance_bytes
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.pages.parse_html import parse_project
from support.change_feed import Feed
from support.equality_removed import Removed
from support.equality_root import ExpectedRoot

Path = str | os.PathLike[str]

_CONTENT = re.compile(r"/packages/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})/[^/]+")
_STAMP = re.compile(r"\d{8}T\d\d:\d\d:\d\d\n")
_JSON, _HTML, _V1_HTML = "index.v1_json", "index.html", "index.v1_html"
#: There also when they are empty.
_FIXED = frozenset({"simple", "json", "pypi", "packages", "integrity"})
#: Left alone when a file name is quoted into a link; ``;`` is not, because joining drops one that ends a URL.
_LINK_SAFE = "~!$&'()*+,=:@"


def differences(
    index: Index | Path,
    directory: Path | Index,
    *,
    owed: Collection[str] = (),
    only: Collection[str] | None = None,
    also: Collection[str] = (),
    documents: bool = True,
    provenance: bool = True,
    removed: Removed | None = None,
) -> list[str]:
    """One line for everything in which ``directory`` (with ``web/``, ``partial/``...) differs from the index.

    The index may also come second.  ``owed``: projects that are behind: they are not compared, they may be missing
    from the root list, and files of theirs may lie anywhere.  ``only``: the mirror is of these projects alone.
    A project in quarantine may be unknown to the mirror altogether.  ``also``: patterns of paths below ``web/`` that may be there besides.  ``documents``, ``provenance``: whether the
    mirror has any.  ``removed``: what was deleted here, or removed upstream and not here.
    """
    if not isinstance(index, Index):
        index, directory = directory, index
    assert isinstance(index, Index)
    assert not isinstance(directory, Index)
    removed = removed or Removed()
    checker = _Checker(
        index, os.fspath(directory), frozenset(owed), also,
        documents=documents, provenance=provenance, removed=removed,
    )  # fmt: skip
    names = [name for name in index.projects() if only is None or name in only]
    return checker.check(removed.names(names))


class _Checker:
    def __init__(
        self,
        index: Index,
        directory: str,
        owed: frozenset[str],
        also: Collection[str],
        *,
        documents: bool,
        provenance: bool,
        removed: Removed,
    ) -> None:
        self._index, self._directory, self._owed, self._also = index, directory, owed, also
        self._documents, self._provenance, self._removed = documents, provenance, removed
        self._found: list[str] = []
        #: Paths below ``web/`` that belong there.
        self._known: set[str] = {"last-modified"}
        #: What a file's time may be, in nanoseconds: two projects may share the file.
        self._times: dict[str, set[int]] = {}
        #: Names of files that may lie about, because their project is owed.
        self._excused: set[str] = set()

    def check(self, names: list[str]) -> list[str]:
        for name in self._owed:
            self._excuse(name)
        for name in names:
            if name not in self._owed and not self._never_met(name):
                self._project(name)
        for path, times in self._times.items():
            self._time(path, times)
        self._root([name for name in names if self._removed.gone(name) or not self._index[name].quarantined])
        self._stamp()
        self._changes()
        self._nothing_else()
        self._partial()
        self._withheld()
        self._upstream(names)
        return sorted(self._found)

    # -- one project -------------------------------------------------------------------------------------------

    def _project(self, name: str) -> None:
        expected = self._removed.page(self._index, name)
        files = self._removed.files(self._index, name)
        listed = [self._listed(file, one) for file, one in zip(expected.files, files, strict=True)]
        page = msgspec.structs.replace(expected, files=tuple(listed))
        self._json_page(page)
        self._html_page(page)
        self._document(name)
        for file, one in zip(page.files, files, strict=True):
            self._file(name, file, one)

    def _listed(self, file: DistFile, one: Expected) -> DistFile:
        """As our page must list it: a link of our own, and the SHA-256 whatever upstream gave."""
        directory, _, filename = place(one).rpartition("/")
        link = f"../../{directory}/{_quoted(filename)}"
        return msgspec.structs.replace(file, url=link, hashes={"sha256": one.file.content.digests.sha256})

    def _never_met(self, name: str) -> bool:
        """A root list does not name a project in quarantine: a mirror that began later may not know it."""
        return (
            not self._removed.gone(name)
            and self._index[name].quarantined
            and not os.path.lexists(self._path(f"simple/{name}"))
        )

    def _json_page(self, page: ProjectPage) -> None:
        path = f"simple/{page.name}/{_JSON}"
        body = self._read(path)
        if body is None:
            return
        try:
            shown = json.loads(body)
        except ValueError as error:
            self._say(path, f"not JSON: {error}")
            return
        self._compare(path, shown, json.loads(render.page_json_of(page)))
        if not body.endswith(b"}\n"):
            self._say(path, "does not end with a newline")

    def _html_page(self, page: ProjectPage) -> None:
        path = f"simple/{page.name}/{_HTML}"
        body = self._read(path)
        self._one_inode(f"simple/{page.name}")
        if body is None:
            return
        base = "http://mirror.invalid"
        try:
            shown = parse_project(body, url=f"{base}/simple/{page.name}/", name=ProjectName(page.name))
        except HeliostatError as error:
            self._say(path, str(error))
            return
        files = tuple(
            msgspec.structs.replace(
                file, url=f"{base}/{file.url.removeprefix('../../')}", size=None, upload_time=None,
                core_metadata=file.core_metadata or None,
            )
            for file in page.files
        )  # fmt: skip
        wanted = msgspec.structs.replace(page, files=files, versions=None)
        before = len(self._found)
        self._compare(path, msgspec.to_builtins(shown), msgspec.to_builtins(wanted))
        if not page.files and b"<p>" not in body:
            self._say(path, "does not say that there are no files")
        elif page.files and len(self._found) == before and body != render.page_html_of(page):
            self._say(path, "is not in the public index's form")

    def _document(self, name: str) -> None:
        wanted = self._index.document_bytes(name) if self._documents else None
        if self._removed.gone(name) and self._documents:
            wanted = render.document(self._removed[name], self._index.bases)
        if wanted is None:
            return
        if self._removed.alters(name):
            shown = self._read(f"json/{name}")
            original = self._read_if_there(f"../upstream/{name}.json.gz")
            for what in self._removed.document_problems(self._index, name, shown, original) if shown else ():
                self._say(f"json/{name}", what)
        else:
            self._same_bytes(f"json/{name}", wanted)
        link = f"pypi/{name}/json"
        self._known.add(link)
        try:
            target = os.readlink(self._path(link))
        except OSError as error:
            self._say(link, f"not a link: {error.strerror}")
            return
        if target != f"../../json/{name}":
            self._say(link, f"leads to {target!r}")

    def _file(self, name: str, file: DistFile, one: Expected) -> None:
        path = place(one)
        self._digest(path, one)
        time = nanoseconds(one.file.upload_time)
        if time is not None:
            self._times.setdefault(path, set()).add(time)
        if one.file.sidecar is not None:
            self._same_bytes(f"{path}.metadata", one.file.sidecar)
        if file.provenance and self._provenance:
            self._same_bytes(f"integrity/{name}/{one.version}/{file.filename}/provenance", provenance_bytes(one.file))

    def _digest(self, path: str, one: Expected) -> None:
        self._known.add(path)
        try:
            with open(self._path(path), "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self._say(path, f"cannot be read: {error.strerror}")
            return
        if sha256 != one.file.content.digests.sha256:
            self._say(path, "has other bytes")

    def _time(self, path: str, times: set[int]) -> None:
        try:
            shown = os.stat(self._path(path)).st_mtime_ns
        except OSError:
            return
        if shown not in times:
            self._say(path, f"is of {shown} ns, not of its upload time {sorted(times)}")

    # -- the whole ---------------------------------------------------------------------------------------------

    def _root(self, names: list[str]) -> None:
        self._one_inode("simple")
        root = ExpectedRoot(self._index, names, self._owed, self._removed)
        for path, check in ((f"simple/{_JSON}", root.json_differences), (f"simple/{_HTML}", root.html_differences)):
            body = self._read(path)
            for what in check(body) if body is not None else ():
                self._say(path, what)
        for path in (f"simple/{_JSON}", f"simple/{_HTML}", f"simple/{_V1_HTML}"):
            if os.path.exists(self._path(f"{path}.gz")):
                copy = self._read(f"{path}.gz")
                if copy is not None and gzip.decompress(copy) != self._read(path):
                    self._say(f"{path}.gz", "is not a copy of the page")

    def _stamp(self) -> None:
        body = self._read("last-modified")
        if body is not None and not _STAMP.fullmatch(body.decode("latin-1")):
            self._say("last-modified", f"is {body!r}")

    def _changes(self) -> None:
        """The change feed is whole, and all it says of paths is true, but for projects that are owed."""
        folder = self._path("changes")
        found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        feed = Feed(self._read_if_there, found)
        self._found += [f"web/{what}" for what in feed.problems]
        if feed.head is not None:
            self._known.update(f"changes/{name}" for name in found if name not in feed.strays)
        untrue = feed.untrue(lambda path: os.path.lexists(self._path(path))) if not self._owed else ()
        self._found += [f"web/{what}" for what in untrue]

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            with open(self._path(path), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _nothing_else(self) -> None:
        for relative in self._walk("web"):
            path = relative.removeprefix("web/")
            if path in self._known or any(fnmatch.fnmatchcase(path, pattern) for pattern in self._also):
                continue
            if not self._is_excused(path):
                self._say(path, "is referenced by nothing")

    def _partial(self) -> None:
        for relative in self._walk("partial"):
            if not (self._owed and relative.endswith((".part", ".etag"))):
                self._found.append(f"{relative}: is left over")

    def _withheld(self) -> None:
        kept = self._removed.withheld()
        for path in kept:
            if not os.path.isfile(os.path.join(self._directory, "withheld", path)):
                self._found.append(f"withheld/{path}: is not kept")
        allowed = self._withheld_files() | kept
        for relative in self._walk("withheld"):
            path = relative.removeprefix("withheld/")
            if path in allowed:
                with open(os.path.join(self._directory, relative), "rb") as file:
                    if allowed[path] and hashlib.file_digest(file, "sha256").hexdigest() != allowed[path]:
                        self._found.append(f"{relative}: has other bytes")
            elif not self._is_excused(path):
                self._found.append(f"{relative}: is of no quarantined project")

    def _upstream(self, names: list[str]) -> None:
        """The index's own documents, of those projects alone whose documents are others."""
        allowed = {f"upstream/{name}.json.gz" for name in names if self._removed.alters(name)}
        self._found += [f"{path}: is left over" for path in self._walk("upstream") if path not in allowed]

    def _withheld_files(self) -> dict[str, str]:
        """SHA-256 by path of all that a quarantine keeps out of reach."""
        found: dict[str, str] = {}
        for name in self._index.projects():
            project = self._index[name]
            for release in project.releases.values():
                if not (project.quarantined or release.quarantined):
                    continue
                for file in release.files:
                    path = place(Expected(release.version, file))
                    found[path] = file.content.digests.sha256
                    if file.sidecar is not None:
                        found[f"{path}.metadata"] = file.sidecar_sha256
                    if file.provenance is not None:
                        where = f"integrity/{name}/{release.version}/{file.filename}/provenance"
                        found[where] = hashlib.sha256(provenance_bytes(file)).hexdigest()
        return found

    # -- projects that are owed --------------------------------------------------------------------------------

    def _excuse(self, name: str) -> None:
        for project in (self._index.get(name), self._index.previous(name)):
            for release in project.releases.values() if project else ():
                self._excused.update(file.filename for file in release.files)

    def _is_excused(self, path: str) -> bool:
        """Whether what lies there is some owed project's."""
        parts = path.rstrip("/").split("/")
        if parts[0] in ("simple", "json", "pypi", "integrity") and len(parts) > 1 and parts[1] in self._owed:
            return True
        return parts[0] == "packages" and parts[-1].removesuffix(".metadata") in self._excused

    # -- reading -----------------------------------------------------------------------------------------------

    def _path(self, path: str) -> str:
        return os.path.join(self._directory, "web", path)

    def _read(self, path: str) -> bytes | None:
        """The file's bytes; if there is none, that is a difference."""
        self._known.add(path)
        try:
            if os.path.islink(self._path(path)):
                self._say(path, "is a link")
            with open(self._path(path), "rb") as file:
                return file.read()
        except OSError as error:
            self._say(path, f"cannot be read: {error.strerror}")
            return None

    def _same_bytes(self, path: str, wanted: bytes) -> None:
        shown = self._read(path)
        if shown is not None and shown != wanted:
            self._say(path, "has other bytes")

    def _one_inode(self, directory: str) -> None:
        """Both names of the HTML page must be one file."""
        paths = [f"{directory}/{name}" for name in (_HTML, _V1_HTML)]
        self._known.update(paths)
        try:
            first, second = (os.lstat(self._path(path)) for path in paths)
        except OSError as error:
            self._say(directory, f"has not both names of its HTML page: {error.strerror}")
            return
        if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
            self._say(directory, "has two different files as its HTML page")

    def _walk(self, top: str) -> Iterator[str]:
        """All files, links, and empty directories below, relative to the mirror's directory."""
        for folder, directories, files in os.walk(os.path.join(self._directory, top)):
            relative = os.path.relpath(folder, self._directory)
            links = [name for name in directories if os.path.islink(os.path.join(folder, name))]
            for name in [*files, *links]:
                yield f"{relative}/{name}"
            if not files and not directories and relative not in {top, *(f"{top}/{name}" for name in _FIXED)}:
                yield f"{relative}/"

    def _say(self, path: str, what: str) -> None:
        self._found.append(f"web/{path}: {what}")

    def _compare(self, path: str, shown: Any, wanted: Any, where: str = "") -> None:
        """Say in which value two JSON-like values differ."""
        if isinstance(shown, dict) and isinstance(wanted, dict):
            for key in sorted(shown.keys() | wanted.keys()):
                self._compare(path, shown.get(key, _NOTHING), wanted.get(key, _NOTHING), f"{where}.{key}".lstrip("."))
        elif isinstance(shown, list | tuple) and isinstance(wanted, type(shown)) and len(shown) == len(wanted):
            for position, (one, other) in enumerate(zip(shown, wanted, strict=True)):
                self._compare(path, one, other, f"{where}[{position}]")
        elif shown != wanted or type(shown) is not type(wanted):
            self._say(path, f"{where} is {_short(shown)}, not {_short(wanted)}")


class _Nothing:
    def __repr__(self) -> str:
        return "missing"


_NOTHING = _Nothing()


def place(one: Expected) -> str:
    """Where a mirror must have the file, below ``web/``: upstream's digits if they are a digest of the bytes."""
    digests = one.file.content.digests
    found = _CONTENT.fullmatch(urlsplit(one.file.url or one.file.path).path)
    digits = "".join(found.groups()) if found else ""
    if digits not in (digests.sha256, digests.blake2b_256):
        digits = digests.sha256
    return f"packages/{digits[:2]}/{digits[2:4]}/{digits[4:]}/{one.file.filename}"


def nanoseconds(upload_time: str) -> int | None:
    """Since the epoch; None for what a file's time cannot say."""
    try:
        moment = datetime.fromisoformat(upload_time)
    except ValueError:
        return None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _quoted(filename: str) -> str:
    return quote(filename, safe=_LINK_SAFE)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
