"""The fields that index pages and JSON documents share: typed decoding, and dialects made one.

Every function either returns the value as :mod:`heliostat.model` wants it or raises
:class:`~heliostat.errors.Invalid` with the place in the body that is wrong.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from heliostat.errors import Invalid, Refused, printable
from heliostat.model import CoreMetadata, ProjectName, Yanked
from heliostat.names import normalise

#: No file is larger than a pebibyte; a number above it is a mistake or an attack on sums.
MAX_SIZE = 2**50
#: What an SQLite integer holds.
MAX_SERIAL = 2**63 - 1
#: More entries than any project has by an order of magnitude.
MAX_FILES = 250_000
#: The greatest major version of the Simple API that we read (PEP 629: refuse a greater one).
MAJOR = 1

Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=MAX_SERIAL)]
#: Some mirrors write serials as text.
SerialOrText = Serial | str | None
RawHashes = dict[str, str | None]
RawMetadata = bool | RawHashes | None

#: Hex digits by ``hashlib`` name; the order is the one in which hashes are listed.
PAGE_ALGORITHMS = {
    "sha256": 64,
    "sha512": 128,
    "sha384": 96,
    "blake2b": 128,
    "sha3_512": 128,
    "sha3_384": 96,
    "sha3_256": 64,
    "blake2s": 64,
    "sha3_224": 56,
    "sha224": 56,
    "sha1": 40,
    "md5": 32,
}
#: Only the JSON document knows this name: BLAKE2b with 32 bytes of output.
DOCUMENT_ALGORITHMS = {"sha256": 64, "blake2b_256": 64, **PAGE_ALGORITHMS}

_HEX = re.compile(r"[0-9a-f]++")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"[0-9]{1,19}")
_VERSION = re.compile(r"([0-9]{1,9})(?:\.[0-9]{1,9})*+")
_STATUS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
#: Nearly every URL: nothing in it that a parser could stumble over.
_USUAL_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/[A-Za-z0-9._~/+%!-]*")
#: A link of our own pages to a file of ours.
_OWN_LINK = re.compile(r"\.\./\.\./(packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[A-Za-z0-9_][A-Za-z0-9._+!~-]*)")
_OWN_PAGE = re.compile(r"file:///simple/[a-z0-9-]+/")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00:?00)?", re.ASCII)

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes, url: str) -> T:
    """``body`` as the decoder's type; raises Invalid naming the key, and the index in an array, that is wrong."""
    check_utf8(body, url)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise Invalid(url, f"wrong content: {exc}") from None
    except msgspec.DecodeError as exc:
        raise Invalid(url, f"not JSON: {exc}") from None
    except RecursionError:
        raise Invalid(url, "not acceptable JSON: nested too deep") from None


def check_utf8(body: bytes, url: str) -> None:
    """Raises Invalid unless all of ``body`` is UTF-8, also where the decoder skips; in bounded memory."""
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view, step = memoryview(body), 1 << 20
    for start in range(0, len(body), step):
        try:
            decoder.decode(view[start : start + step], start + step >= len(body))
        except UnicodeDecodeError as exc:
            raise Invalid(url, f"not UTF-8: {exc.reason} near byte {start + exc.start}") from None


def same_project(given: str, wanted: ProjectName, url: str) -> None:
    """Raises Invalid when a page calls itself another project's."""
    try:
        name = normalise(given)
    except Refused as exc:
        raise Invalid(url, f"name: {exc}") from None
    if name != wanted:
        raise Invalid(url, f"name: the page of {printable(name)}, where {printable(wanted)} was asked for")


def not_another_project(given: str, wanted: ProjectName, url: str) -> None:
    """Raises Invalid when a document calls itself another project's; what is no name is nobody's, and means nothing."""
    with contextlib.suppress(Refused):
        if normalise(given) != wanted:
            raise Invalid(
                url, f"info.name: the document of {printable(given)}, where {printable(wanted)} was asked for"
            )


def check_version(version: str | None, url: str) -> None:
    """Raises Invalid for a greater major version of the API than ours; no version counts as 1.0 (PEP 629)."""
    if version is None:
        return
    found = _VERSION.fullmatch(version)
    if not found:
        raise Invalid(url, f"api-version: {printable(version)} is not a version")
    if int(found[1]) > MAJOR:
        raise Invalid(url, f"api-version: {version}, and only {MAJOR}.x is understood")


def serial(given: int | str | None, where: str, url: str) -> int | None:
    """A serial, also when it was written as text; ``None`` when there is none."""
    if not isinstance(given, str):
        return given
    if not _DECIMAL.fullmatch(given) or int(given) > MAX_SERIAL:
        raise Invalid(url, f"{where}: {printable(given)} is not a serial")
    return int(given)


def hashes(given: Mapping[str, str | None] | None, where: str, url: str, known: Mapping[str, int]) -> dict[str, str]:
    """The usable hashes, lower-case, in the order of ``known``; empty only when nothing was given.

    Unknown algorithms and digests of the wrong form are dropped as long as a good one remains.
    """
    if not given:
        return {}
    if len(given) == 1 and _SHA256.fullmatch(given.get("sha256") or ""):
        return {"sha256": str(given["sha256"])}
    good: dict[str, str] = {}
    for raw_algorithm, raw_digits in given.items():
        if raw_digits is None:
            continue
        algorithm, digits = raw_algorithm.lower(), raw_digits.lower()
        if len(digits) != known.get(algorithm) or not _HEX.fullmatch(digits):
            continue
        if good.setdefault(algorithm, digits) != digits:
            raise Invalid(url, f"{where}: two different {algorithm}")
    if not good and any(digits is not None for digits in given.values()):
        shown = ", ".join(sorted(given)[:5])
        raise Invalid(url, f"{where}: no digest of a known form among {printable(shown)}")
    return {algorithm: good[algorithm] for algorithm in known if algorithm in good}


def core_metadata(given: tuple[RawMetadata, ...], where: str, url: str) -> CoreMetadata:
    """PEP 714 from the key's three spellings, preferred first; ``null`` is as absent."""
    for value in given:
        if value is None:
            continue
        if isinstance(value, bool):
            return value
        return hashes(value, where, url, PAGE_ALGORITHMS) or True
    return None


def yanked(given: bool | str | None) -> Yanked:
    """PEP 592 as JSON says it (PEP 691: truthy means yanked)."""
    return given or False


def upload_time(given: str | None, where: str, url: str) -> str | None:
    """``yyyy-mm-ddThh:mm:ss[.ffffff]Z`` (PEP 700), a real point in time; ``None`` for nothing or an empty text."""
    if not given:
        return None
    found = _TIME.fullmatch(given)
    text = f"{found[1]}T{found[2]}Z" if found else ""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(url, f"{where}: {printable(given)} is not a UTC time") from None
    return text


def status(given: str | None, url: str) -> str:
    """A project status marker (PEP 792), lower-case; ``active`` when nothing was said."""
    text = (given or "").strip().lower()
    if text and not _STATUS.fullmatch(text):
        raise Invalid(url, f"project-status: {printable(text)} is not a status")
    return text or "active"


def absolute(given: str, base: str, where: str, url: str) -> tuple[str, str]:
    """A file's URL, absolute and without fragment, and its fragment.

    Whether that URL may be fetched is for others to decide; here it only has to be one.
    """
    if _USUAL_URL.fullmatch(given):
        return given, ""
    if (own := _OWN_LINK.fullmatch(given)) and _OWN_PAGE.fullmatch(base):
        return f"file:///{own[1]}", ""
    target, _, fragment = given.partition("#")
    if not target:
        raise Invalid(url, f"{where}: empty")
    try:
        if not target.startswith(("https://", "http://")):
            target = urljoin(base, target)
        urlsplit(target)
    except ValueError as exc:
        raise Invalid(url, f"{where}: {printable(given)} is not a URL ({exc})") from None
    return target, fragment


def fragment_hashes(fragment: str, where: str, url: str) -> dict[str, str]:
    """The hashes of a link's fragment (``algorithm=hex``, perhaps beside ``egg=...``)."""
    pairs = (part.partition("=") for part in fragment.split("&", 15))
    return hashes(
        {name: value for name, _, value in pairs if name.lower() in PAGE_ALGORITHMS}, where, url, PAGE_ALGORITHMS
    )


def unique_names(filenames: list[str], url: str) -> None:
    """Raises Invalid when two entries of one page claim the same file name."""
    if len(set(filenames)) == len(filenames):
        return
    seen: dict[str, int] = {}
    for index, filename in enumerate(filenames):
        if (first := seen.setdefault(filename, index)) != index:
            raise Invalid(url, f"files[{index}].filename: {printable(filename)} is files[{first}] already")
