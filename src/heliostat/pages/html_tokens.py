"""The little of HTML that index pages need, read in linear time whatever the input.

The standard library's parser takes quadratic time on some broken input, and quietly accepts a page that was cut
off; a mirror would lose files either way.  So this one refuses everything that ends in the middle of something.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import msgspec

_NAME = re.compile(r"[A-Za-z][^ \t\n\r\f/>]*+")
_BEFORE_ATTRIBUTE = re.compile(r"[ \t\n\r\f/]*+")
_ATTRIBUTE = re.compile(r"[^ \t\n\r\f/>][^ \t\n\r\f/>=]*+")
_EQUALS = re.compile(r"[ \t\n\r\f]*+=[ \t\n\r\f]*+")
_UNQUOTED = re.compile(r"[^ \t\n\r\f>]*+")
#: Only whole references: ``?a=1&copy=2`` in an attribute is not a copyright sign.
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,40});")
#: Their content is text up to the end tag, never tags.
_RAW = {
    name: re.compile(rf"</{name}(?=[ \t\n\r\f/>])", re.IGNORECASE)
    for name in ("title", "script", "style", "textarea", "xmp", "iframe", "noembed", "noframes")
}


class Truncated(ValueError):
    """The text ends inside a tag, a comment, or an element whose content is raw; ``str()`` says which."""


class Tag(msgspec.Struct, gc=False):
    """A start tag, its name and attribute names in lower case."""

    name: str
    #: The first of each name counts; ``None`` for an attribute without a value.
    attributes: dict[str, str | None]
    #: What follows up to the next tag (for ``title`` and the like: all its content).
    text: str


class Comment(msgspec.Struct, gc=False):
    """``<!--text-->``."""

    text: str


def tokens(text: str) -> Iterator[Tag | Comment]:
    """All start tags and comments, in order.  Raises Truncated."""
    at = text.find("<")
    while at >= 0:
        after = text[at + 1 : at + 2]
        if text.startswith("<!--", at):
            end = _find(text, "-->", at + 2, "a comment")
            yield Comment(text[at + 4 : max(end, at + 4)])
            at = end + 3
        elif after in ("!", "?", "/"):
            at = _find(text, ">", at + 1, "a tag") + 1
        elif name := _NAME.match(text, at + 1):
            tag, at = _start_tag(text, name[0].lower(), name.end())
            yield tag
        elif not after:
            raise Truncated("a tag")
        else:
            at += 1
        at = text.find("<", at)


def unescape(text: str) -> str:
    """``text`` with its character references resolved."""
    return _REFERENCE.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


def _start_tag(text: str, name: str, at: int) -> tuple[Tag, int]:
    """The tag whose name ends at ``at``, and where its text ends."""
    attributes: dict[str, str | None] = {}
    while True:
        at = _skip(_BEFORE_ATTRIBUTE, text, at)
        if text.startswith(">", at):
            break
        found = _ATTRIBUTE.match(text, at)
        if not found:
            raise Truncated("a tag")
        value, at = _value(text, found.end())
        attributes.setdefault(found[0].lower(), value)
    start = at + 1
    if raw := _RAW.get(name):
        end = raw.search(text, start)
        if not end:
            raise Truncated(f"<{name}>")
        return Tag(name, attributes, unescape(text[start : end.start()])), end.start()
    at = text.find("<", start)
    at = len(text) if at < 0 else at
    return Tag(name, attributes, unescape(text[start:at])), at


def _value(text: str, at: int) -> tuple[str | None, int]:
    """The value of the attribute whose name ends at ``at``, and where it ends."""
    equals = _EQUALS.match(text, at)
    if not equals:
        return None, at
    at = equals.end()
    quote = text[at : at + 1]
    if quote in ('"', "'") and quote:
        end = _find(text, quote, at + 1, "an attribute")
        return unescape(text[at + 1 : end]), end + 1
    end = _skip(_UNQUOTED, text, at)
    return unescape(text[at:end]), end


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _find(text: str, what: str, at: int, inside: str) -> int:
    found = text.find(what, at)
    if found < 0:
        raise Truncated(inside)
    return found
