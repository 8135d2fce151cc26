"""The served tree.  restic's sentence rules here: a thing may be referenced only once it is in place.

Publishing runs file, sidecar, ``json/NAME``, ``pypi/NAME/json``, ``simple/NAME/``; withdrawing runs backwards.
Methods block and belong to one thread; what they leave behind at any instant is a tree whose pages name only what is
there.  Durability is the caller's: see :mod:`heliostat.mirror.publish` for when it syncs.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence

import msgspec

from heliostat import names
from heliostat.errors import Obstructed, PlaceTaken
from heliostat.model import ProjectName
from heliostat.store.disk import Entry, Operations
from heliostat.store.incoming import new_hash

#: Page files of one project or of the root; the two HTML names are one inode.
JSON_PAGE = "index.v1_json"
HTML_PAGES = ("index.html", "index.v1_html")
_SECOND = 1_000_000_000
#: Where that goes which lies in the way in ``withheld/`` or ``partial/``; nothing of ours is looked for there.
_ASIDE = "withheld/damaged/in-the-way"

log = logging.getLogger(__name__)

#: A page's bytes, whole or in pieces.
Content = bytes | Iterable[bytes]


class Placement(msgspec.Struct, frozen=True):
    """Bytes staged under ``partial/`` or lying in ``withheld/``, and where they belong."""

    staged: str
    target: str


class Body(msgspec.Struct, frozen=True):
    """Verified bytes of a small file, in memory until their batch is written, and where they belong."""

    data: bytes
    target: str
    mtime_ns: int | None = None


class Publication(msgspec.Struct, kw_only=True):
    """What changes in the tree for one project; ``None`` leaves a thing as it is."""

    name: ProjectName
    #: Nothing of it is shown yet, so that nothing has to be looked at before it is written.
    fresh: bool = False
    placements: list[Placement] = []
    bodies: list[Body] = []
    #: Files that are in place, or in ``placements``, and the times (nanoseconds) that they are to get.
    times: list[tuple[str, int]] = []
    #: Targets of those that are in place, and are listed above no more: the rest was more than the disk could hold.
    placed: list[str] = []
    document: bytes | None = None
    #: A document that lies under ``partial/`` already.
    staged_document: Placement | None = None
    drop_document: bool = False
    link_missing: bool = False
    json_page: bytes | None = None
    html_page: bytes | None = None
    #: Upstream's own document, packed, where the published one is another.
    original: bytes | None = None
    drop_original: bool = False


def is_of(entry: Entry, mtime_ns: int | None) -> bool:
    """Whether a file has the time that it should have, as far as its file system keeps it; None: any will do."""
    return mtime_ns is None or entry.mtime_ns in (mtime_ns, mtime_ns // _SECOND * _SECOND)


class Shown(msgspec.Struct, frozen=True):
    """What the tree shows of one project now."""

    json_page: bytes | None
    html_page: bytes | None
    #: Both HTML names are the same file.
    html_is_one: bool
    document: bytes | None
    link_right: bool


class Tree:
    """The document root ``web/`` on a disk, and the bytes kept out of reach in ``withheld/``."""

    def __init__(self, disk: Operations, *, temporaries: str = "page") -> None:
        """``temporaries``: how the names of its temporaries begin; several processes have several."""
        self.disk, self._temporaries = disk, temporaries
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        """Make the fixed directories.  Raises StoreError, for example for a missing or read-only directory."""
        for path in ("partial", "web/simple", "web/json", "web/pypi", "web/packages"):
            self.disk.make_directory(path)

    def shown(self, name: ProjectName) -> Shown:
        """Read what is served for ``name``."""
        directory = names.page_directory(name)
        first, second = (self.disk.stat(f"{directory}/{page}") for page in HTML_PAGES)
        return Shown(
            self.disk.read(f"{directory}/{JSON_PAGE}"),
            self.disk.read(f"{directory}/{HTML_PAGES[0]}"),
            first is not None and second is not None and first.inode == second.inode,
            self.disk.read(names.document_path(name)),
            self.disk.read_link(names.document_link(name)) == names.document_link_target(name),
        )

    def refuse_obstacles(self, name: ProjectName) -> bool:
        """Whether anything lies where the project's pages, document and link belong.

        Raises Obstructed when it is something of another kind.
        """
        document, link = names.document_path(name), names.document_link(name)
        pages = names.page_directory(name)
        inside: list[str] = []
        for directory, content in ((pages, (JSON_PAGE, *HTML_PAGES)), (link.rpartition("/")[0], ("json",))):
            found = self.disk.stat(directory)
            if found is not None:
                if not found.is_directory:
                    raise Obstructed(self.disk.root + "/" + directory, "a file")
                inside += [f"{directory}/{one}" for one in content]
        described = False
        for path in (document, *inside):
            found = self.disk.stat(path)
            if found is not None:
                if found.is_directory:
                    raise Obstructed(self.disk.root + "/" + path, "a directory")
                described |= path == document
        return described or bool(inside)

    def has_any(self, name: ProjectName, paths: Iterable[str]) -> bool:
        """Whether anything lies where the project's pages, document, link or any of the ``paths`` belong, or above."""
        try:
            return self._has_any(name, paths)
        except PlaceTaken:
            return True

    def _has_any(self, name: ProjectName, paths: Iterable[str]) -> bool:
        own = names.page_directory(name), names.document_path(name), names.document_link(name).rpartition("/")[0]
        if any(self.disk.stat(path) is not None for path in own):
            return True
        there: dict[str, bool] = {}  # a file and its sidecar share a directory that mostly is not there
        for path in paths:
            directory = path.rpartition("/")[0]
            if directory not in there:
                there[directory] = self.disk.stat(directory) is not None
            if there[directory] and self.disk.stat(path) is not None:
                return True
        return False

    # Each temporary that is begun is noted in ``made``, so that it can be removed when the disk is full.

    def stage_bodies(self, publications: Iterable[Publication], made: list[str]) -> list[Placement]:
        """Write small files under ``partial/``, beside the large ones that lie there already."""
        staged: list[Placement] = []
        for publication in publications:
            for body in publication.bodies:
                placement = Placement(self._temporary(made), body.target)
                self.disk.write(placement.staged, body.data, body.mtime_ns)
                staged.append(placement)
        return staged

    def place(self, staged: Iterable[Placement], publications: Sequence[Publication]) -> None:
        """Rename files into place, and set times; all bytes under ``partial/`` must be durable already."""
        for publication in publications:
            for placement in publication.placements:
                self.disk.replace(placement.staged, placement.target)
        for placement in staged:  # second: a large file's sidecar is a small one
            self.disk.replace(placement.staged, placement.target)
        for publication in publications:
            for path, mtime_ns in publication.times:
                self.set_time(path, mtime_ns)

    def set_time(self, path: str, *times: int | None) -> None:
        """Give a file the first of the ``times`` that it may have, if it has none of them; None: any will do."""
        entry = self.disk.stat(path)
        if entry is not None and not any(is_of(entry, one) for one in times) and times[0] is not None:
            self.disk.set_mtime(path, times[0])

    def stage_documents(self, publications: Iterable[Publication], made: list[str]) -> list[Placement]:
        """Write documents under ``partial/``, beside those that lie there already."""
        publications = list(publications)
        originals = [
            self.stage(publication.original, names.original_path(publication.name), made=made)
            for publication in publications
            if publication.original is not None
        ]
        aside = [publication.staged_document for publication in publications if publication.staged_document]
        documents = [
            self.stage(publication.document, names.document_path(publication.name), fresh=publication.fresh, made=made)
            for publication in publications
            if publication.document is not None
        ]
        return originals + aside + documents

    def place_documents(self, staged: Iterable[Placement], publications: Iterable[Publication]) -> None:
        """Rename documents into place and set the links to them."""
        for placement in staged:
            self.disk.replace(placement.staged, placement.target)
        for publication in publications:
            if publication.link_missing:
                self._link(publication.name, fresh=publication.fresh)

    def stage_pages(self, publications: Iterable[Publication], made: list[str] | None = None) -> list[Placement]:
        """Write index pages under ``partial/``; the HTML page once, with two names."""
        staged: list[Placement] = []
        for publication in publications:
            directory = names.page_directory(publication.name)
            if publication.html_page is not None:
                staged += self.stage_html(publication.html_page, directory, fresh=publication.fresh, made=made)
            if publication.json_page is not None:
                target = f"{directory}/{JSON_PAGE}"
                staged.append(self.stage(publication.json_page, target, fresh=publication.fresh, made=made))
        return staged

    def stage_html(
        self, body: Content, directory: str, *, fresh: bool = False, made: list[str] | None = None
    ) -> list[Placement]:
        """One HTML page under both of its names."""
        first = self.stage(body, f"{directory}/{HTML_PAGES[0]}", fresh=fresh, made=made)
        second = Placement(self._temporary(made), f"{directory}/{HTML_PAGES[1]}")
        self.disk.link(first.staged, second.staged)
        return [first, second]

    def stage(self, body: Content, target: str, *, fresh: bool = False, made: list[str] | None = None) -> Placement:
        """Write one page under ``partial/``, whole or in pieces, to be renamed to ``target``.

        With ``fresh`` nothing is there yet.
        """
        staged = self._temporary(made)
        previous = None if fresh else self.disk.stat(target)
        if isinstance(body, bytes):
            self.disk.write(staged, body)
        else:
            file = self.disk.append(staged)
            try:
                for piece in body:
                    file.write(piece)
            finally:
                file.close()
        if previous is not None:
            self._make_newer(staged, previous)
        return Placement(staged, target)

    def show(self, staged: Iterable[Placement], publications: Iterable[Publication] = ()) -> None:
        """Rename pages into place."""
        for publication in publications:
            if publication.fresh:
                self.disk.make_directory(names.page_directory(publication.name))
        for placement in staged:
            self.disk.replace(placement.staged, placement.target)

    def drop_documents(self, publications: Iterable[Publication]) -> None:
        """Links, then documents, of projects that have none any more; their pages must be in place already."""
        for publication in publications:
            if publication.drop_document:
                self.remove_document(publication.name)
            if publication.drop_original:
                self.disk.unlink(names.original_path(publication.name))

    def remove_document(self, name: ProjectName) -> None:
        link = names.document_link(name)
        self._unlink_link(link.rpartition("/")[0])
        self._unlink(link)
        self.disk.remove_directory(link.rpartition("/")[0])
        self._unlink(names.document_path(name))

    def withdraw(self, name: ProjectName) -> None:
        """Take a removed project's pages and document away; its bytes are the caller's next step.

        A directory in the place of one of them is not ours, and stays: nobody is served by it.  Where a directory is a
        link, the link goes, and what it leads to stays.
        """
        directory = names.page_directory(name)
        self._unlink_link(directory)
        for page in (JSON_PAGE, *HTML_PAGES):
            self._unlink(f"{directory}/{page}")
        self.disk.remove_directory(directory)
        self.remove_document(name)
        self.disk.unlink(names.original_path(name))

    def discard(self, path: str) -> bool:
        """Remove one unreferenced file and the directories that it leaves empty; False when there was none."""
        found = self._unlink(path)
        self.prune(path)
        return found

    def has_file(self, path: str) -> bool:
        """Whether something lies there that is no directory."""
        found = self.disk.stat(path)
        return found is not None and not found.is_directory

    def _unlink(self, path: str) -> bool:
        return self.has_file(path) and self.disk.unlink(path)

    def _unlink_link(self, directory: str) -> None:
        """A link in the place of a directory goes itself, and nothing that it leads to."""
        found = self.disk.stat(directory)
        if found is not None and not found.is_directory and not found.is_file:
            self.disk.unlink(directory)

    def link_above(self, path: str) -> str | None:
        """The first directory above a file of the store that is a link: what lies behind it is not ours."""
        end = path.find("/", len("web/"))
        while (end := path.find("/", end + 1)) > 0:
            found = self.disk.stat(path[:end])
            if found is None:
                return None
            if not found.is_directory and not found.is_file:
                return path[:end]
        return None

    def put_away(self, path: str, away: str) -> None:
        """Move a file to ``away`` in ``withheld/``, where what lies in its way makes room, and is kept aside."""
        try:
            self.disk.replace(path, away)
        except PlaceTaken:
            found = self._in_the_way(away)
            if found is None:
                raise
            self._set_aside(found)
            self.disk.replace(path, away)

    def _set_aside(self, path: str) -> None:
        """Keep what somebody else put there where it is in nobody's way."""
        numbers = {int(entry) for entry in self.disk.names(_ASIDE) if entry.isdecimal()}
        aside = f"{_ASIDE}/{max(numbers, default=0) + 1}"
        log.warning("%s is in the way and was put there by somebody else; it is %s now", path, aside)
        self.disk.replace(path, aside)

    def _in_the_way(self, away: str) -> str | None:
        """What is no directory, and lies where one above ``away`` belongs, or a directory in its own place."""
        end = away.find("/")
        while (end := away.find("/", end + 1)) > 0:
            found = self.disk.stat(away[:end])
            if found is not None and not found.is_directory:
                return away[:end]
        found = self.disk.stat(away)
        return away if found is not None and found.is_directory else None

    def withhold(self, path: str) -> bool:
        """Move one file out of reach, into ``withheld/``, unless it was moved before; False when it was gone."""
        away = names.withheld_path(path)
        if self.has_file(path):
            self.put_away(path, away)
        self.prune(path)  # also after a kill that came just before this
        return self.has_file(away)

    def prune(self, path: str) -> None:
        """Remove the directories above ``path`` that are empty, below the fixed ones; some may be gone already."""
        parent = path.rpartition("/")[0]
        least = 1 if path.startswith("withheld/") else 2
        while parent.count("/") >= least and (self.disk.remove_directory(parent) or self.disk.stat(parent) is None):
            parent = parent.rpartition("/")[0]

    def clean_partial(self, keep: frozenset[str] = frozenset(), *, downloads: bool, age: float = 0.0) -> int:
        """Remove temporaries of an earlier process, and with ``downloads`` the resumable ones too; how many.

        ``keep`` names what stays in any case, ``age`` (seconds) how old a download must be to go.  A finished
        download that never came to its place becomes resumable again.  Directories are none of ours, and kept aside.
        """
        removed = 0
        for entry in self.disk.names("partial"):
            path = f"partial/{entry}"
            found = self.disk.stat(path)
            if found is None:
                continue
            if found.is_directory:
                if not self.disk.remove_directory(path):
                    self._set_aside(path)
            elif not found.is_file:
                removed += self.disk.unlink(path)
            elif not entry.endswith((".part", ".etag")):
                removed += path not in keep and self.disk.unlink(path)
            elif (unfinished := names.unfinished_path(path)) != path and self.disk.stat(unfinished) is None:
                self.disk.replace(path, unfinished)
            elif unfinished != path or (downloads and path not in keep and self._is_old(path, age)):
                removed += self.disk.unlink(path)
        return removed

    def _is_old(self, path: str, age: float) -> bool:
        found = self.disk.stat(path)
        return found is not None and (not age or found.mtime_ns < (time.time() - age) * _SECOND)

    def file_matches(self, path: str, algorithm: str, digest: str) -> bool:
        """Hash the file at ``path``, in pieces, and compare."""
        return self.file_digests(path, (algorithm,)).get(algorithm) == digest

    def file_digests(self, path: str, algorithms: tuple[str, ...]) -> dict[str, str]:
        """The hex digests of a file, read in pieces; empty when it is not there, or no plain file."""
        found = self.disk.stat(path)
        if found is None or not found.is_file:
            return {}
        states = {name: new_hash(name) for name in algorithms}
        for piece in self.disk.pieces(path):
            for state in states.values():
                state.update(piece)
        return {name: state.hexdigest() for name, state in states.items()}

    def _temporary(self, made: list[str] | None = None) -> str:
        path = f"partial/{self._temporaries}-{next(self._numbers)}"
        if made is not None:
            made.append(path)
        return path

    def unstage(self, made: Iterable[str], files: Iterable[Placement], publications: Iterable[Publication]) -> None:
        """Remove the temporaries that a batch could not place; in its publications stays what is still to be placed.

        ``files`` are the small ones that were written.
        """
        placed = {placement.target for placement in files if self.disk.stat(placement.staged) is None}
        for path in made:
            self.disk.unlink(path)
        for publication in publications:
            publication.fresh = False
            kept = [one for one in publication.placements if self.disk.stat(one.staged) is not None]
            publication.placed += [one.target for one in publication.placements if one not in kept]
            publication.placed += [body.target for body in publication.bodies if body.target in placed]
            publication.placements = kept
            publication.bodies = [body for body in publication.bodies if body.target not in placed]
            document = publication.staged_document
            if document is not None and self.disk.stat(document.staged) is None:
                publication.staged_document = None

    def _make_newer(self, staged: str, previous: Entry) -> None:
        """A changed page gets a later whole second, since nginx makes its ETag of seconds and size."""
        written = self.disk.stat(staged)
        assert written is not None
        if written.mtime_ns // _SECOND <= previous.mtime_ns // _SECOND:
            self.disk.set_mtime(staged, (previous.mtime_ns // _SECOND + 1) * _SECOND)

    def _link(self, name: ProjectName, *, fresh: bool) -> None:
        link = names.document_link(name)
        staged = link if fresh else self._temporary()
        if fresh:
            self.disk.make_directory(link.rpartition("/")[0])
        self.disk.symlink(names.document_link_target(name), staged)
        if not fresh:
            self.disk.replace(staged, link)
