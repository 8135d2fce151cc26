"""What was asked for, from a request's target: a file of a project, its page, or something else.

Nothing here becomes a path.  A target that is not plainly one of ours is ``other``, however it is spelled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from heliostat.errors import Refused
from heliostat.names import METADATA_SUFFIX, normalise, safe_filename

#: Kinds of targets; only those of a project's have one.
FILE, SIDECAR, PAGE, DOCUMENT, PROVENANCE, ROOT, FEED, OTHER = (
    "file", "sidecar", "page", "document", "provenance", "root", "feed", "other",
)  # fmt: skip
#: The longest target that can be one of ours: a file name of 255 bytes, all quoted, below some prefix.
_LONGEST = 1200
_PACKAGE = re.compile(r"/packages/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})/([^/]+)\Z")
_PAGE = re.compile(r"/simple/([^/]+)/(?:index\.(?:html|v1_html|v1_json))?\Z")
_DOCUMENT = re.compile(r"/pypi/([^/]+)/json/?\Z|/json/([^/]+)\Z")
_PROVENANCE = re.compile(r"/integrity/([^/]+)/[^/]+/[^/]+/provenance\Z")
_ROOT = re.compile(r"/simple/(?:index\.(?:html|v1_html|v1_json))?\Z")
_FEED = re.compile(r"/changes/[^/]*\Z|/last-modified\Z")
_ARCHIVE = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|Z|lz|zst))?|tgz|tbz|zip)\Z", re.IGNORECASE)
_BUILT = re.compile(r"\.(?:exe|msi|rpm|deb|dmg|egg)\Z", re.IGNORECASE)
_PLATFORM = re.compile(r"[.-](?:win32|win-amd64|linux|macosx|noarch|src|py\d)[A-Za-z0-9._-]*\Z")
_VERSION = re.compile(r"[vV]?\d+(?:[.!+_]\w+)+")


class Target(NamedTuple):
    """``project`` is normalised; ``version`` and ``filename`` are a file's, ``digits`` its place's 64 hex digits."""

    kind: str
    project: str = ""
    version: str = ""
    filename: str = ""
    digits: str = ""


_OTHER = Target(OTHER)


def target_of(raw: str) -> Target:
    """Never fails, whatever the target is."""
    return _cached(raw) if len(raw) <= _LONGEST else _OTHER


def release_of(filename: str) -> tuple[str, str]:
    """Project (normalised) and version that a file's name tells; the version is empty where it is not clear.

    Names of old files are ambiguous; this is for counting, not for deciding.  Raises Refused for what names no project.
    """
    if filename.endswith(".whl"):
        parts = filename.split("-")
        return normalise(parts[0]), parts[1] if len(parts) > 2 else ""
    stem = _ARCHIVE.sub("", filename)
    if built := _BUILT.search(stem):
        stem = stem[: built.start()]
        while platform := _PLATFORM.search(stem):
            stem = stem[: platform.start()]
    pieces = stem.split("-")
    at = next((at for at in range(len(pieces) - 1, 0, -1) if _VERSION.fullmatch(pieces[at])), None)
    if at is None:
        at = next((at for at in range(len(pieces) - 1, 0, -1) if pieces[at][:1].isdigit()), len(pieces))
    return normalise("-".join(pieces[:at])), "-".join(pieces[at:])


@lru_cache(8192)
def _cached(raw: str) -> Target:
    path = raw.partition("?")[0]
    try:
        if "%" in path:
            path = unquote_to_bytes(path).decode()
        return _target(path)
    except (Refused, UnicodeError):
        return _OTHER


def _target(path: str) -> Target:
    if found := _PACKAGE.search(path):
        filename = found[4]
        kind = FILE
        if filename.endswith(METADATA_SUFFIX):
            kind, filename = SIDECAR, filename.removesuffix(METADATA_SUFFIX)
        safe_filename(filename)
        project, version = release_of(filename)
        if kind == SIDECAR:
            return Target(kind, project)
        return Target(kind, project, version, filename, found[1] + found[2] + found[3])
    if _ROOT.search(path):
        return Target(ROOT)
    for kind, pattern in ((PAGE, _PAGE), (DOCUMENT, _DOCUMENT), (PROVENANCE, _PROVENANCE)):
        if found := pattern.search(path):
            return Target(kind, normalise(found[1] or found[2]))
    return Target(FEED) if _FEED.search(path) else _OTHER
