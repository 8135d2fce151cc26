"""How what two sources say of one project differs: in words, at most so many as a report can bear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heliostat.mirror.wanted import strongest
from heliostat.model import DistFile, Document, ProjectPage
from heliostat.pages.links import package_of
from heliostat.policy.removal import MARK
from heliostat.store.incoming import document_digest

#: Differences of one project that are listed one by one.
_MOST = 20


def between_forms(page: ProjectPage, html: ProjectPage) -> list[str]:
    """What is wrong with the HTML page, going by the JSON ``page``."""
    different = []
    if page.serial != html.serial:
        different.append(f"serial {html.serial}, where the JSON page has {page.serial}")
    if (page.status, page.status_reason) != (html.status, html.status_reason):
        different.append(f"status {html.status}, where the JSON page has {page.status}")
    ours, theirs = {f.filename: _form(f) for f in page.files}, {f.filename: _form(f) for f in html.files}
    different += _different(ours, theirs, "the JSON page")
    return different[:_MOST]


def with_document(page: ProjectPage, document: Document, *, stuck: bool = False) -> tuple[list[str], set[str]]:
    """As upstream's do: with one serial both list the same files, and what both say of a file is the same.

    With different serials they list the same files too, or they would not have been published, unless upstream was
    ``stuck``, and they were accepted as they are.
    Also the names of files of whose bytes they say different things.
    """
    listed = {entry.filename: entry for entry in document.files}
    different: list[str] = []
    doubtful: set[str] = set()
    if page.serial is not None and page.serial == document.serial and not page.quarantined:
        on_page = {file.filename for file in page.files}
        for name in sorted(on_page.symmetric_difference(listed)):
            which = "the page alone" if name in on_page else "the document alone"
            different.append(f"{name!a}: in {which}, though both have serial {page.serial}")
        different += (f"version {one!a} is in only one of page and document" for one in _versions(page, document))
    elif (
        document.versions
        and not (page.quarantined or stuck)
        and listed.keys() != {file.filename for file in page.files}
    ):
        different.append(
            f"lists other files than the page; its serial is {document.serial}, that of the page {page.serial}"
        )
    for file in page.files:
        entry = listed.get(file.filename)
        if entry is None:
            continue
        for algorithm, digest in file.hashes.items():
            if entry.hashes.get(algorithm, digest) != digest:
                doubtful.add(file.filename)
                different.append(f"{file.filename!a}: another {algorithm} than on the page")
        if None not in (file.size, entry.size) and file.size != entry.size:
            doubtful.add(file.filename)
            different.append(f"{file.filename!a}: size {entry.size}, where the page has {file.size}")
        if page.serial == document.serial and bool(file.yanked) != bool(entry.yanked):
            different.append(f"{file.filename!a}: yanked in only one of page and document")
    return different[:_MOST], doubtful


def facts(document: Document) -> bytes:
    """A digest of what a document says of its files.  The rest may change upstream without a new serial."""
    said = sorted(
        repr((entry.filename, entry.hashes.get("sha256"), entry.size, bool(entry.yanked), entry.requires_python))
        for entry in document.files
    )
    return document_digest("\n".join(said).encode("utf-8", "surrogatepass"))


def with_upstream(page: ProjectPage, theirs: ProjectPage, serial: int | None) -> list[str]:
    """What is wrong with the ``page`` that is shown, going by upstream's of that ``serial``."""
    different = []
    if serial != page.serial and serial is not None:
        different.append(f"serial {page.serial}, where upstream has {serial}")
    ours = {} if page.quarantined else {file.filename: _upstreams(file) for file in page.files}
    other = {} if theirs.quarantined else {file.filename: _upstreams(file) for file in theirs.files}
    retained = {file.filename for file in page.files if file.yanked == MARK} - other.keys()
    ours = {name: values for name, values in ours.items() if name not in retained}
    for name, values in other.items():  # an algorithm that one of them does not give proves nothing
        if name in ours:
            shared = ours[name][0].keys() & values[0].keys()
            ours[name] = ({key: ours[name][0][key] for key in shared}, *ours[name][1:])
            other[name] = ({key: values[0][key] for key in shared}, *values[1:])
    different += _different(other, ours, "upstream")
    return different[:_MOST]


def _versions(page: ProjectPage, document: Document) -> list[str]:
    """Versions that only one of them has; a release without files need not be on the page."""
    if page.versions is None or not document.versions:
        return []
    with_files = {entry.version for entry in document.files if entry.version is not None}
    return sorted(with_files.difference(page.versions) | set(page.versions).difference(document.versions))


def _form(file: DistFile) -> tuple[object, ...]:
    """What both forms of a page say of a file."""
    algorithm = strongest(file.hashes)
    metadata = file.core_metadata
    hashed = metadata.get(strongest(metadata) or "") if isinstance(metadata, dict) else bool(metadata)
    return (
        package_of(file.url) or file.url, algorithm and file.hashes[algorithm], file.requires_python, file.yanked,
        hashed or False, file.provenance,
    )  # fmt: skip


def _upstreams(file: DistFile) -> tuple[dict[str, str], object, object, object]:
    return file.hashes, file.size, file.requires_python, file.yanked


def _different(
    right: Mapping[str, tuple[object, ...]], shown: Mapping[str, tuple[object, ...]], whose: str
) -> Iterable[str]:
    """What is wrong with ``shown``, going by what ``whose`` page has."""
    for name in sorted(right.keys() | shown.keys()):
        if name not in shown:
            yield f"{name!a} is missing, which {whose} lists"
        elif name not in right:
            yield f"{name!a} is listed, which {whose} does not list"
        elif right[name] != shown[name]:
            yield f"{name!a} is described in another way than by {whose}"
