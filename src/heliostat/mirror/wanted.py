"""Pure planning: which files a project must have, where each belongs, and what is left of what was there.

A file's place is made of a digest of its bytes.  Upstream's own content-addressed path is kept when its digits are
the file's SHA-256, or its BLAKE2b-256 as upstream's document or our own hashing says; otherwise the SHA-256 decides.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from heliostat import names
from heliostat.errors import Refused
from heliostat.model import CoreMetadata, DistFile, Document, DocumentFile, ProjectName, ProjectPage
from heliostat.pages.links import package_of

#: Hashes that decide about a file, the strongest first.
_STRENGTH = (
    "sha256", "sha512", "sha384", "blake2b", "sha3_512", "sha3_384", "sha3_256", "blake2b_256", "blake2s",
    "sha3_224", "sha224", "sha1", "md5",
)  # fmt: skip


_PROVENANCE = re.compile(r"/integrity/[^/]+/([^/]+)/[^/]+/provenance\Z")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One file that the mirror must have."""

    file: DistFile
    #: On the index page; False for one that only the document lists.
    listed: bool
    #: ``web/packages/...`` when it is known before the bytes are.
    path: str | None
    #: Digits of upstream's path that are kept if they prove to be the BLAKE2b-256 of the bytes.
    candidate: str | None
    #: Where our own page has a file of this name, when nothing tells yet whether it is the same one.
    maybe: str | None
    #: All digests the bytes must have.
    digests: dict[str, str]
    mtime_ns: int | None

    @property
    def size(self) -> int | None:
        return self.file.size

    @property
    def key(self) -> str:
        """Names the bytes: two files with one key are the same file."""
        if self.path:
            return self.path
        algorithm = strongest(self.digests)
        return f"{algorithm}:{self.digests[algorithm]}/{self.file.filename}" if algorithm else self.file.url

    @property
    def partial(self) -> str | None:
        """Where its download lies while it is in progress; None when it has no digest to be named by."""
        algorithm = strongest(self.digests)
        return names.partial_path(algorithm, self.digests[algorithm]) if algorithm else None

    @property
    def has_sidecar(self) -> bool:
        return bool(self.file.core_metadata)

    def path_for(self, computed: Mapping[str, str]) -> str:
        """Where the bytes belong once their digests were computed."""
        if self.path:
            return self.path
        if self.candidate and computed.get("blake2b_256") == self.candidate:
            return names.package_path(self.candidate, self.file.filename)
        return names.package_path(computed["sha256"], self.file.filename)


class Held(msgspec.Struct, frozen=True):
    """What our own page says is in place: a file's path and hashes, and its sidecar's."""

    path: str
    hashes: dict[str, str]
    size: int | None
    core_metadata: CoreMetadata
    provenance: str | None


def strongest(digests: Mapping[str, str]) -> str | None:
    """The strongest algorithm among ``digests``."""
    if "sha256" in digests:  # nearly always
        return "sha256"
    return next((algorithm for algorithm in _STRENGTH if algorithm in digests), None)


def held_files(page: ProjectPage | None, extra: Iterable[str] = ()) -> dict[str, Held]:
    """The files that our own page puts in place, by file name, and those at the paths that are recorded as ``extra``.

    What a document says of files that our page does not list proves nothing: such files are known by their paths alone.
    """
    held = {
        path.rpartition("/")[2]: Held(path, {}, None, None, None)
        for path in extra
        if not path.endswith(names.METADATA_SUFFIX)
    }
    for file in page.files if page else ():
        path = package_of(file.url)
        if path is not None:
            held[file.filename] = Held(path, file.hashes, file.size, file.core_metadata, file.provenance)
    return held


def digits_of(entry: DocumentFile) -> str | None:
    """The digits of the place that a file of upstream's document was given; None where its bytes alone tell."""
    digits = names.content_digits(entry.url)
    sha256, blake2b = entry.hashes.get("sha256"), entry.hashes.get("blake2b_256")
    if digits is None or (sha256 and blake2b and digits not in (sha256, blake2b)):
        return sha256
    return digits


def wanted_files(
    page: ProjectPage, document: Document | None, held: Mapping[str, Held], *, allow_unhashed: bool
) -> list[Wanted]:
    """Every file of the page and of the document; none of a project in quarantine, whatever they list.

    Raises Refused for a name that cannot be a file, a file without any hash, or two files that claim one place.
    """
    if page.quarantined:
        return []
    described = {entry.filename: entry for entry in document.files} if document else {}
    wanted = [_wanted(file, described.get(file.filename), held, listed=True) for file in page.files]
    on_page = {file.filename for file in page.files}
    wanted += [
        _wanted(entry.as_on_page(), entry, held, listed=False)
        for filename, entry in described.items()
        # One whose place the document does not tell could not be found by readers.
        if filename not in on_page and digits_of(entry) is not None
    ]
    claims: dict[str, Wanted] = {}
    for item in wanted:
        if not item.digests and not allow_unhashed:
            raise Refused("file", item.file.filename, "upstream gives no hash; [upstream] allow-unhashed would take it")
        other = claims.setdefault(item.key, item)
        if other is not item:
            raise Refused("file", item.file.filename, f"claims the same place as {other.file.filename!r}")
    return wanted


def _wanted(file: DistFile, entry: DocumentFile | None, held: Mapping[str, Held], *, listed: bool) -> Wanted:
    names.safe_filename(file.filename)
    digests = dict(file.hashes)
    if entry and not _contradict(digests, entry.hashes):
        digests = {**entry.hashes, **digests}
    sha256 = digests.get("sha256")
    digits = names.content_digits(file.url)
    ours = held.get(file.filename)
    path = candidate = maybe = None
    if digits is not None and digits in (sha256, digests.get("blake2b_256") if sha256 else None):
        path = names.package_path(digits, file.filename)
    elif ours and sha256 and ours.hashes.get("sha256") == sha256:
        path = ours.path
    elif digits is not None:
        candidate, maybe = digits, ours.path if ours else None
    elif sha256:
        path = names.package_path(sha256, file.filename)
    else:
        maybe = ours.path if ours else None
    when = file.upload_time or (entry.upload_time if entry else None)
    size = file.size if file.size is not None else (entry.size if entry else None)
    if size != file.size:
        file = msgspec.structs.replace(file, size=size)
    return Wanted(
        file=file,
        listed=listed,
        path=path,
        candidate=candidate,
        maybe=maybe,
        digests=digests,
        mtime_ns=nanoseconds(when),
    )


def _contradict(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return any(other[algorithm] != digest for algorithm, digest in one.items() if algorithm in other)


def nanoseconds(upload_time: str | None) -> int | None:
    """An upload time (``yyyy-mm-ddThh:mm:ss[.ffffff][Z]``, UTC) in nanoseconds since the epoch; None if unusable."""
    if not upload_time:
        return None
    try:
        parsed = dt.datetime.fromisoformat(upload_time)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=dt.UTC)
    micro = (parsed - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return micro * 1000 if 0 <= micro < 2**63 // 1000 else None


def provenance_path(name: ProjectName, url: str, filename: str) -> str:
    """Where the provenance object (PEP 740) that a page links as ``url`` belongs.  Raises Refused."""
    try:
        found = _PROVENANCE.search(urlsplit(url).path)
    except ValueError:
        raise Refused("provenance URL", url, "not a URL") from None
    return names.provenance_path(name, unquote(found.group(1)) if found else "unknown", filename)
