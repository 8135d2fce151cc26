"""Every project's name with where it was met: several sorted lists, merged; none of them is ever held as a whole."""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.verify.beside import look_beside
from heliostat.mirror.verify.findings import Finding, finding
from heliostat.mirror.verify.folders import listing
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judgement import Found
from heliostat.mirror.verify.reading import Odd, Stamp
from heliostat.mirror.verify.sorter import Sorter
from heliostat.pages.render import root_html_head
from heliostat.pages.root_list import RootListParser

_PIECE = 1 << 20
_NORMAL = re.compile(rb"[a-z0-9]+(?:-[a-z0-9]+)*")
_ROOT_LINK = re.compile(rb'<a [^>]*href="(?:/simple/|\./)?([^"/]+)/?"')
_ENTRY = re.compile(rb'<a href="([a-z0-9-]+)/">([A-Za-z0-9._-]+)</a>')
_SEPARATORS = re.compile(rb"[-_.]+")
#: What may lie in ``simple/`` beside projects.
ROOT_PAGES = frozenset({b"index.html", b"index.v1_html", b"index.v1_json"})
_PACKED = frozenset(page + b".gz" for page in ROOT_PAGES)
_SIMPLE, _JSON, _PYPI, _INTEGRITY, _ROOT_JSON, _ROOT_HTML, _ROW = range(7)


class Roots(NamedTuple):
    """The root pages as they were read: when the JSON one was written, and what was wrong with them."""

    time: float | None
    findings: list[Finding]


class Names:
    """The names of one tree; ``scratch`` is a folder for what is sorted on disk."""

    def __init__(self, ground: Ground, scratch: str) -> None:
        self._ground, self._scratch = ground, scratch
        self._root_json = Sorter(scratch, "root-json")
        self._root_html = Sorter(scratch, "root-html")
        self._whole: set[int] = set()
        #: What lies where only names of projects belong.
        self.findings: list[Finding] = []

    def read_roots(self) -> Roots:
        """Read the root pages into sorted runs.  Raises Stopping."""
        found: list[Finding] = []
        time = None
        for sorter in (self._root_json, self._root_html):
            sorter.discard()
        for path, read, tag in (
            (b"simple/index.v1_json", self._read_json, _ROOT_JSON),
            (b"simple/index.html", self._read_html, _ROOT_HTML),
        ):
            try:
                handle, opened = self._ground.reader.open(path)
            except FileNotFoundError:
                found.append(finding("root", b"web/" + path, "", "not there"))
                continue
            except Odd as odd:
                found.append(finding("root", b"web/" + path, "", odd.problem))
                continue
            try:
                read(handle)
                self._whole.add(tag)
                if tag == _ROOT_JSON:
                    time = opened.st_mtime
            except (Invalid, OSError) as error:
                self._whole.discard(tag)
                reason = error.reason if isinstance(error, Invalid) else f"cannot be read: {error.strerror}"
                found.append(finding("root", b"web/" + path, "", reason))
            finally:
                os.close(handle)
        first, second = (self._ground.reader.stamp(b"simple/" + one) for one in (b"index.html", b"index.v1_html"))
        if first is not None and (second is None or second.inode != first.inode):
            problem = "not there" if second is None else "another file than index.html"
            found.append(finding("root", b"web/simple/index.v1_html", "", problem))
        found += look_beside(self._ground)
        return Roots(time, found)

    def _read_json(self, handle: int) -> None:
        parser = RootListParser("the root page")
        while piece := os.read(handle, _PIECE):
            self._ground.reader.budget.take(len(piece))
            for entry in parser.feed(piece):
                try:
                    name = names.normalise(entry.display).encode()
                except Refused as error:
                    raise Invalid("the root page", str(error)) from None
                self._root_json.add([b"%s\t%d" % (name, entry.serial or 0)])
            if self._root_json.is_full:
                self._root_json.flush()
        parser.close()

    def _read_html(self, handle: int) -> None:
        """One entry a line, as we write it; other mirrors' pages have the same form, and more in it."""
        head = root_html_head()
        rest = os.read(handle, len(head))
        ours = rest == head
        if not ours and self._ground.books is not None and self._ground.books.get("root_written"):
            raise Invalid("the root page", "does not begin as it was written")
        body_ends = False
        if ours:
            rest = b""
        while piece := os.read(handle, _PIECE):
            self._ground.reader.budget.take(len(piece))
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _PIECE:
                raise Invalid("the root page", "a line of more than a megabyte")
            for line in lines:
                if ours and not body_ends:
                    body_ends = line == b"</body>"
                    if not body_ends and not _is_entry(line):
                        raise Invalid("the root page", f"a line that is no entry: {line[:80]!a}")
                elif ours:
                    raise Invalid("the root page", f"a line behind its end: {line[:80]!a}")
                for name in _ROOT_LINK.findall(line):
                    self._root_html.add([name])
            if self._root_html.is_full:
                self._root_html.flush()
        if ours and body_ends and rest != b"</html>" and b"</html>" in rest:
            raise Invalid("the root page", "more behind its end than was written")
        if not rest.rstrip().endswith(b"</html>") or (ours and not body_ends):
            raise Invalid("the root page", "cut off: it does not end with </html>")

    def all(self, after: str = "") -> Iterator[Found]:
        """Every name, in order, behind ``after``; what is no project's goes to :attr:`findings`."""
        self.findings = []
        streams = [
            self._folder(b"simple/", _SIMPLE, directories=True),
            self._folder(b"json/", _JSON, directories=False),
            self._folder(b"pypi/", _PYPI, directories=True),
            self._folder(b"integrity/", _INTEGRITY, directories=True),
            self._lines(self._root_json, _ROOT_JSON),
            self._lines(self._root_html, _ROOT_HTML),
        ]
        if self._ground.books is not None:
            streams.append((row.name.encode(), _ROW, row) for row in self._ground.books.rows(after))
        behind, current = after.encode(), Found("")
        for name, tag, value in heapq.merge(*streams, key=_key):
            if name <= behind:
                continue
            if name != current.name.encode():
                if current.name:
                    yield current
                current = self._new(name.decode())
            if tag == _SIMPLE:
                current.simple = True
            elif tag == _JSON:
                current.document = True
            elif tag == _PYPI:
                current.link = True
            elif tag == _ROOT_JSON:
                current.root_json = value
            elif tag == _ROOT_HTML:
                current.root_html = value
            elif tag == _ROW:
                current.row = value
        if current.name:
            yield current

    def one(self, name: str) -> Found:
        """A single project, looked up; what the root pages show of it is not looked at."""
        reader, key = self._ground.reader, name.encode()
        return Found(
            name,
            simple=_is_directory(reader.stamp(b"simple/" + key)),
            document=reader.stamp(b"json/" + key) is not None,
            link=_is_directory(reader.stamp(b"pypi/" + key)),
            row=self._ground.books.row(name) if self._ground.books else None,
        )

    def roots(self) -> Callable[[str], tuple[int, int]]:
        """What the root pages show of a project; to be asked in the order of names."""
        pages = []
        for sorter, tag in ((self._root_json, _ROOT_JSON), (self._root_html, _ROOT_HTML)):
            pages.append((tag in self._whole, _Ahead(self._lines(sorter, tag))))

        def look(name: str) -> tuple[int, int]:
            first, second = (page.find(name.encode()) if whole else -2 for whole, page in pages)
            return first, second

        return look

    def _new(self, name: str) -> Found:
        return Found(
            name,
            root_json=-1 if _ROOT_JSON in self._whole else -2,
            root_html=-1 if _ROOT_HTML in self._whole else -2,
        )

    def _folder(self, folder: bytes, tag: int, *, directories: bool) -> Iterator[tuple[bytes, int, Any]]:
        top = folder.rstrip(b"/").decode()
        if problem := self._ground.reader.folder_problem(folder):
            self.findings.append(finding("unreadable", b"web/" + folder, "", problem))
        try:
            for entry in listing(self._ground.reader.root + folder, self._scratch, f"names-{top}", mark=b"\0"):
                name = entry.rstrip(b"\0")
                if name in ROOT_PAGES and tag == _SIMPLE:
                    continue
                if name in _PACKED and tag == _SIMPLE:
                    continue
                if entry.endswith(b"\0") == directories and _NORMAL.fullmatch(name):
                    yield name, tag, None
                elif _NORMAL.fullmatch(name):
                    what = "a directory, where a document belongs" if not directories else "no directory"
                    self.findings.append(finding("obstacle", b"web/" + folder + name, name.decode(), what))
                elif tag != _INTEGRITY:  # what lies below integrity/ is looked at with the files
                    self.findings.append(finding("unreferenced", b"web/" + folder + name, "", "no project's name"))
                if len(self.findings) > 10_000:
                    del self.findings[10_000:]
        except OSError as error:
            problem = f"cannot be listed: {error.strerror}"
            self.findings.append(finding("unreadable", b"web/" + folder.rstrip(b"/"), "", problem))

    @staticmethod
    def _lines(sorter: Sorter, tag: int) -> Iterator[tuple[bytes, int, Any]]:
        for line in sorter.sorted():
            name, _, serial = line.partition(b"\t")
            if _NORMAL.fullmatch(name):
                yield name, tag, int(serial or 0)


def _is_directory(stamp: Stamp | None) -> bool:
    return stamp is not None and stat.S_ISDIR(stamp.mode)


class _Ahead:
    """A sorted list that is read no further than it is asked for."""

    def __init__(self, items: Iterator[tuple[bytes, int, Any]]) -> None:
        self._items = items
        self._next = next(items, None)

    def find(self, name: bytes) -> int:
        while self._next is not None and self._next[0] < name:
            self._next = next(self._items, None)
        return int(self._next[2]) if self._next is not None and self._next[0] == name else -1


def _is_entry(line: bytes) -> bool:
    """Whether a line is an entry of our own: a name's normal form, and a spelling of it."""
    found = _ENTRY.fullmatch(line)
    if found is None:
        return False
    return found[1] == found[2] or _SEPARATORS.sub(b"-", found[2]).lower() == found[1]


def _key(item: tuple[bytes, int, Any]) -> bytes:
    return item[0]
