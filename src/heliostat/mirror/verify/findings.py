"""What a verify finds, and what is to be done about it."""

from __future__ import annotations

import os
import re
from typing import Literal

import msgspec

Kind = Literal[
    "missing",
    "size",
    "digest",
    "provenance",
    "obstacle",
    "unreadable",
    "page",
    "html",
    "document",
    "link",
    "disagreement",
    "ledger",
    "root",
    "feed",
    "behind",
    "unreferenced",
]

#: What each kind of finding means; the order is that of reports.
KINDS: dict[Kind, str] = {
    "missing": "files that pages name are there",
    "size": "files have the size that pages give",
    "digest": "files have the digest that pages give",
    "provenance": "provenance objects are about their files",
    "obstacle": "nothing but plain files and directories lies in the tree",
    "unreadable": "files and directories can be read by whoever can read the web root",
    "page": "projects have a JSON page, and it can be read",
    "html": "the HTML page is the JSON page's equal",
    "document": "the JSON document is there and can be read",
    "link": "pypi/NAME/json leads to json/NAME",
    "disagreement": "page and document agree",
    "ledger": "pages are as the ledger says",
    "root": "the root index names the projects that are there",
    "feed": "the change feed is whole, and tells what the ledger tells",
    "behind": "pages are as upstream's",
    "unreferenced": "nothing lies in the tree that no page names",
}

_ADVICE: dict[Kind, str] = {
    "missing": "--repair fetches it",
    "size": "--repair fetches it anew",
    "digest": "--repair fetches it anew",
    "provenance": "--repair fetches it anew",
    "obstacle": "look at it; --repair moves it aside where a file belongs",
    "unreadable": "--repair sets its mode; look at the disk if it was an I/O error",
    "page": "--repair writes it anew from what upstream says",
    "html": "--repair writes it anew from the JSON page",
    "document": "--repair fetches it anew",
    "link": "--repair makes it",
    "disagreement": "--repair reads both anew from upstream",
    "ledger": "--repair reads the project anew from upstream",
    "root": "--repair writes it anew",
    "feed": "--repair mends it from the ledger, or begins the feed anew",
    "behind": "--repair brings the project up to date, as the next pass would",
    "unreferenced": "--delete-unreferenced removes it",
}

#: The same of a site that is looked at over HTTP, and what is to be done there.
SITE_KINDS: dict[Kind, str] = {
    "missing": "files and sidecars that pages name are there",
    "size": "files have the right size",
    "digest": "files that were read have the right digest",
    "unreadable": "everything that is asked for is answered",
    "page": "projects have a JSON page, it can be read, and its links stay on the site",
    "disagreement": "pages of one serial say the same",
    "root": "the root index names the projects that are there",
    "behind": "pages have the serial that they should have",
    "unreferenced": "no project is served that should not be there",
}

SITE_ADVICE: dict[Kind, str] = {
    "missing": "copy it to the site",
    "size": "copy it to the site anew",
    "digest": "copy it to the site anew, by digest and not by size and time",
    "unreadable": "look at the site's web server",
    "page": "copy it to the site anew",
    "disagreement": "copy the project's pages to the site anew",
    "root": "copy the root index to the site anew",
    "behind": "let the site catch up, or look why it does not",
    "unreferenced": "remove it there",
}

_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]*")


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong."""

    kind: Kind
    #: Below the mirror's directory, in printable form.
    path: str
    #: Empty where it is nobody's.
    project: str
    problem: str
    #: The bytes of the path in hexadecimal where :attr:`path` is not just it.
    raw: str = ""
    #: What to do, where it is not what the kind says.
    remedy: str = ""

    @property
    def advice(self) -> str:
        """What to do."""
        return self.remedy or _ADVICE[self.kind]

    @property
    def file(self) -> str:
        """The path as the file system knows it."""
        return os.fsdecode(bytes.fromhex(self.raw)) if self.raw else self.path


def finding(kind: Kind, path: str | bytes, project: str, problem: str, remedy: str = "") -> Finding:
    """A finding at ``path`` (below the mirror's directory), whatever bytes it is made of."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    if _PLAIN.fullmatch(text):
        return Finding(kind, text, project, problem, remedy=remedy)
    raw = text.encode("utf-8", "surrogateescape")
    return Finding(kind, ascii(text)[1:-1], project, problem, raw.hex(), remedy)


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(Finding)


def as_line(one: Finding) -> bytes:
    """To be sorted: by project, then by path; without the line break."""
    return b"%s\t%s\t" % (one.project.encode(), one.path.encode()) + _ENCODER.encode(one)


def from_line(line: bytes) -> Finding:
    """What :func:`as_line` made."""
    return _DECODER.decode(line.split(b"\t", 2)[2])


class Marks:
    """A set of the numbers of findings, a bit for each."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, number: int) -> None:
        at = number >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        if number not in self:
            self._bits[at] |= 1 << (number & 7)
            self._count += 1

    def __contains__(self, number: int) -> bool:
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (number & 7) & 1)

    def __len__(self) -> int:
        return self._count
