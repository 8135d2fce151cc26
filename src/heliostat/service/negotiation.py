"""Which form of an index page a request asks for (PEP 691, RFC 9110 section 12.5.1).  Pure.

The same rules stand in ``configs/nginx.conf`` as maps; a test asks both and compares.
"""

from __future__ import annotations

import re
from enum import Enum


class Form(Enum):
    """One form of an index page: its file and the media type of the answer (``latest`` is answered as ``v1``)."""

    HTML = ("index.html", "text/html")
    V1_HTML = ("index.v1_html", "application/vnd.pypi.simple.v1+html")
    V1_JSON = ("index.v1_json", "application/vnd.pypi.simple.v1+json")

    @property
    def filename(self) -> str:
        return self.value[0]

    @property
    def media_type(self) -> str:
        return self.value[1]


#: Media types and ranges by name -> what they cover, with its rank among what has the same weight.  Named outright,
#: JSON goes first; under a wildcard (browsers, curl) plain HTML does; and a name beats a wildcard.
_COVERS: dict[str, dict[Form, int]] = {  # from specific to general
    "application/vnd.pypi.simple.v1+json": {Form.V1_JSON: 5},
    "application/vnd.pypi.simple.v1+html": {Form.V1_HTML: 4},
    "text/html": {Form.HTML: 3},
    "text/*": {Form.HTML: 2},
    "application/*": {Form.V1_HTML: 1, Form.V1_JSON: 0},
    "*/*": {Form.HTML: 2, Form.V1_HTML: 1, Form.V1_JSON: 0},
}
_WEIGHT = re.compile(r"1(?:\.0*)?|0(?:\.([0-9]{0,3})[0-9]*)?")
_FORMAT_ARGUMENT = re.compile(r"(?:^|&)format=([^&]*)", re.IGNORECASE)
_FORMATS = (
    (re.compile(r"application(?:/|%2f)vnd\.pypi\.simple\.(?:v1|latest)(?:\+|%2b)json", re.IGNORECASE), Form.V1_JSON),
    (re.compile(r"application(?:/|%2f)vnd\.pypi\.simple\.(?:v1|latest)(?:\+|%2b)html", re.IGNORECASE), Form.V1_HTML),
    (re.compile(r"text(?:/|%2f)html", re.IGNORECASE), Form.HTML),
)


def negotiate(accept: str | None, query: str = "") -> Form:
    """The form to answer with, for an ``Accept`` header (None: there is none) and a query string as it was sent.

    ``format=`` in the query wins if it names a known type.  Else the greatest weight wins; at equal weights see
    ``_COVERS``.  Nothing acceptable gives HTML, as at the public index, never 406.
    """
    argument = _FORMAT_ARGUMENT.search(query)
    if argument:
        for pattern, form in _FORMATS:
            if pattern.fullmatch(argument[1]):
                return form
    best = max(_scores(accept or ""), default=None)
    return best[2] if best and best[0] > 0 else Form.HTML


def _scores(accept: str) -> list[tuple[int, int, Form]]:
    """(weight, rank, form) of every form that the header covers, by the most specific entry that covers it."""
    weights = _weights(accept)
    found: dict[Form, tuple[int, int, Form]] = {}
    for name, covered in _COVERS.items():
        if name in weights:
            for form, rank in covered.items():
                found.setdefault(form, (weights[name], rank, form))
    return list(found.values())


def _weights(accept: str) -> dict[str, int]:
    """Media range (lower case, no parameters, ``latest`` as ``v1``) -> weight in thousandths.

    Entries whose weight is not a number from 0 to 1 are left out.  Of several for one range, one of full weight counts,
    else the first.
    """
    weights: dict[str, int] = {}
    for entry in accept.split(","):
        name, *parameters = (part.strip(" \t") for part in entry.split(";"))
        name = name.lower().replace("simple.latest+", "simple.v1+")
        weight = _weight(parameters)
        if weight is not None and (weight == 1000 or name not in weights):
            weights[name] = weight
    return weights


def _weight(parameters: list[str]) -> int | None:
    """The weight among a media range's parameters, in thousandths; None if it is malformed."""
    for parameter in parameters:
        key, separator, value = parameter.partition("=")
        if separator and key.lower() == "q":
            number = _WEIGHT.fullmatch(value)
            if number is None:
                return None
            return 1000 if value.startswith("1") else int((number[1] or "").ljust(3, "0"))
    return 1000
