"""Names, file names and URLs from outside become paths here, and nowhere else.

Everything in this module either returns a relative POSIX path below the mirror's directory, or raises
:class:`~heliostat.errors.Refused`.  Nothing is cleaned up or guessed: a name that is not plainly safe is refused.
"""

from __future__ import annotations

import re
from datetime import date
from typing import cast
from urllib.parse import quote, unquote, urlsplit

from heliostat.errors import Refused
from heliostat.model import ProjectName

#: The longest directory entry on the file systems that matter, in bytes.
MAX_SEGMENT = 255
#: A sidecar's name is its file's plus this, and must fit as well.
METADATA_SUFFIX = ".metadata"
#: Left alone when a file name is quoted into a URL, as the public index does.
URL_SAFE = "~!$&'()*+,;=:@"

_VALID_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VALID_LINES = re.compile(r"[A-Za-z0-9]++(?:[._-]++[A-Za-z0-9]++|\n[A-Za-z0-9]++)*+")
_NORMAL_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_SEPARATORS = re.compile(r"[-_.]+")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9._+~!-]*")
_CONTENT_URL = re.compile(r"/packages/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})/[^/]+\Z")
#: Control characters (C0, DEL, C1), bidirectional controls, line and paragraph separators, the byte order mark.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def normalise(name: str) -> ProjectName:
    """The normal form of a project name (PEP 503).

    Raises Refused for a name that is not valid, or longer than a directory entry may be.
    """
    if not _VALID_NAME.fullmatch(name):
        raise Refused("project name", name, "not a valid project name")
    normal = _SEPARATORS.sub("-", name).lower()
    if len(normal) > MAX_SEGMENT:
        raise Refused("project name", name, f"{len(normal)} bytes, where a directory entry holds {MAX_SEGMENT}")
    return ProjectName(normal)


def normalise_all(names: list[str]) -> list[ProjectName] | None:
    """What :func:`normalise` gives for each, at a fifth of the cost; None when one of them is not plainly valid."""
    if not names or max(map(len, names)) > MAX_SEGMENT:
        return None
    text = "\n".join(names)
    if not _VALID_LINES.fullmatch(text) or text.count("\n") != len(names) - 1:
        return None
    text = text.lower().replace("_", "-").replace(".", "-")
    while "--" in text:
        text = text.replace("--", "-")
    return cast(list[ProjectName], text.split("\n"))


def safe_segment(text: str, what: str = "file name", *, reserve: int = 0) -> str:
    """``text`` itself if it can be one directory entry with ``reserve`` bytes to spare; raises Refused otherwise."""
    if text in ("", ".", ".."):
        raise Refused(what, text, "not usable as a name on disk")
    if "/" in text or "\\" in text:
        raise Refused(what, text, "holds a path separator")
    if _UNPRINTABLE.search(text):
        raise Refused(what, text, "holds a control character")
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise Refused(what, text, "not encodable as UTF-8") from None
    if length + reserve > MAX_SEGMENT:
        raise Refused(what, text, f"{length} bytes, where a directory entry holds {MAX_SEGMENT - reserve}")
    return text


def safe_filename(text: str) -> str:
    """A distribution file's name, unchanged, if it can stand in ``packages/`` beside its sidecar; raises Refused."""
    safe_segment(text, reserve=len(METADATA_SUFFIX))
    if text.startswith("."):
        raise Refused("file name", text, "begins with a dot: web servers hide such files, or obey them")
    if text.endswith(METADATA_SUFFIX):
        raise Refused("file name", text, "looks like another file's metadata sidecar")
    if text.lower() in ("index.html", "index.v1_html", "index.v1_json"):
        raise Refused("file name", text, "is the name of an index page")
    return text


def _folder(name: ProjectName) -> str:
    """``name`` itself; the type already promises what is checked here once more, since all paths hang on it."""
    if not _NORMAL_NAME.fullmatch(name) or len(name) > MAX_SEGMENT:
        raise Refused("project name", name, "not in normal form")
    return name


def page_directory(name: ProjectName) -> str:
    """``web/simple/NAME``."""
    return f"web/simple/{_folder(name)}"


def document_path(name: ProjectName) -> str:
    """``web/json/NAME``."""
    return f"web/json/{_folder(name)}"


def document_link(name: ProjectName) -> str:
    """``web/pypi/NAME/json``, a symbolic link to :data:`document_link_target`."""
    return f"web/pypi/{_folder(name)}/json"


def document_link_target(name: ProjectName) -> str:
    """What ``web/pypi/NAME/json`` points at."""
    return f"../../json/{_folder(name)}"


def original_path(name: ProjectName) -> str:
    """``upstream/NAME.json.gz``: upstream's own document, where the published one differs."""
    return f"upstream/{_folder(name)}.json.gz"


def package_path(digits: str, filename: str) -> str:
    """``web/packages/aa/bb/REST/FILENAME`` for 64 hex digits of a digest; raises Refused."""
    if not _HEX64.fullmatch(digits):
        raise Refused("digest", digits, "not 64 lower-case hexadecimal digits")
    return f"web/packages/{digits[:2]}/{digits[2:4]}/{digits[4:]}/{safe_filename(filename)}"


def sidecar_path(package: str) -> str:
    """The path of a distribution file's metadata sidecar (PEP 658)."""
    return package + METADATA_SUFFIX


def provenance_path(name: ProjectName, version: str, filename: str) -> str:
    """``web/integrity/NAME/VERSION/FILENAME/provenance`` (PEP 740); raises Refused."""
    return f"web/integrity/{_folder(name)}/{safe_segment(version, 'version')}/{safe_filename(filename)}/provenance"


def partial_path(algorithm: str, digits: str) -> str:
    """``partial/ALGORITHM-DIGITS.part``: a download in progress, named by the digest it must have."""
    if not re.fullmatch(r"[a-z0-9_]{1,16}", algorithm) or not re.fullmatch(r"[0-9a-f]{16,128}", digits):
        raise Refused("digest", f"{algorithm}={digits}", "not a hexadecimal digest")
    return f"partial/{algorithm}-{digits}.part"


def finished_path(partial: str, number: int) -> str:
    """``partial/ALGORITHM-DIGITS.N.part``: a finished download that waits for its place."""
    return f"{partial.removesuffix('.part')}.{number}.part"


def unfinished_path(path: str) -> str:
    """The name of the download that :func:`finished_path` renamed; ``path`` itself if it is no such name."""
    return re.sub(r"\.[0-9]+\.part\Z", ".part", path)


def withheld_path(package: str) -> str:
    """Where bytes that lie at ``package`` (``web/...``) go while they are kept out of reach."""
    root, *segments = package.split("/")
    if root != "web" or not segments:
        raise Refused("path", package, "not below web/")
    for segment in segments:
        safe_segment(segment, "path")
    return "withheld/" + package.removeprefix("web/")


def statistics_day(day: date) -> str:
    """``web/local-stats/days/YYYY-MM-DD.bz2`` (PEP 381)."""
    return f"web/local-stats/days/{day.year:04}-{day.month:02}-{day.day:02}.bz2"


def content_digits(url: str) -> str | None:
    """The 64 hex digits of a content-addressed URL (``.../packages/aa/bb/REST/FILENAME``), or None for another form."""
    try:
        found = _CONTENT_URL.search(urlsplit(url).path if "?" in url or "#" in url else url)
    except ValueError:
        return None
    return found[1] + found[2] + found[3] if found else None


def old_package_path(url: str) -> str | None:
    """Where another mirror keeps the file that its page links as ``url``: what follows the first ``/packages/``.

    That is the content-addressed form where the URL has it, and otherwise an older one, ``web/packages/...`` of up to
    eight segments.  None for a URL without such a part; raises Refused.
    """
    if (digits := content_digits(url)) is not None:
        return package_path(digits, url_filename(url))
    try:
        _, found, rest = urlsplit(url).path.partition("/packages/")
        segments = unquote(rest, errors="strict").split("/")
    except ValueError:
        raise Refused("URL", url, "not a URL of a file") from None
    if not found:
        return None
    if len(segments) > 8:
        raise Refused("URL", url, "too many folders below /packages/")
    for segment in segments[:-1]:
        safe_segment(segment, "path")
    return "/".join(("web/packages", *segments[:-1], safe_filename(segments[-1])))


def url_filename(url: str) -> str:
    """The unquoted last part of a URL's path (it must equal the file name that the page gives).

    Raises Refused for what is no URL, or does not unquote to UTF-8.
    """
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2], errors="strict")
    except ValueError:
        raise Refused("URL", url, "not a URL of a file") from None


def quote_filename(filename: str) -> str:
    """A file name as the last part of a URL, quoted once, as the public index quotes it; raises Refused."""
    if _NEEDS_NO_QUOTES.fullmatch(filename):
        return filename
    try:
        return quote(filename, safe=URL_SAFE)
    except UnicodeEncodeError:
        raise Refused("file name", filename, "not encodable as UTF-8") from None
