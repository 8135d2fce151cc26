"""The XML-RPC change feed: requests written, answers parsed as a stream with bounded size, depth and memory.

Faults come with status 200; what they mean is in :func:`fault`.  The body is XML from the network: document types and
entities are refused, nothing is kept that was not asked for.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any, cast
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from heliostat.errors import FeedUnsupported, Invalid, RateLimited, Unavailable, UpstreamError
from heliostat.model import Event, Listed

#: The public index answers at most 50,000 rows, some 15 MB; four times that is accepted of other servers.
MOST_ROWS = 200_000
MOST_FEED = 64 << 20
#: Elements within elements; a changelog has ten.
_MOST_DEPTH = 24
#: Characters of one value, and values beside each other that are not rows.
_MOST_TEXT = 64 << 10
_MOST_ITEMS = 64
_MOST_SERIAL = (1 << 63) - 1
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)

Value = Any


def request(method: str, *parameters: int) -> bytes:
    """The body of a call."""
    params = "".join(f"<param><value><int>{value:d}</int></value></param>" for value in parameters)
    return (
        f"<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
    ).encode("ascii")


def fault(url: str, code: Value, text: Value) -> UpstreamError:
    """What a fault of the server means, by code and text."""
    said = str(text)
    shown = re.sub(r"[^ -~]", "?", said)[:200]
    if said.startswith("HTTPTooManyRequests"):
        found = re.search(r"reset in ([0-9]{1,9}) second", said, re.ASCII)
        wait = max(1.0, float(found[1])) if found else None
        return RateLimited(url, f"the change feed's rate limit: {shown}", retry_after=wait)
    removed = re.search(
        r"no longer supports|not supported|not found|unknown method|no such method", said, re.IGNORECASE
    )
    if code == -32601 or removed or (code == -32500 and said.startswith(("RuntimeError:", "ValueError:"))):
        return FeedUnsupported(url, f"no such call (fault {code}: {shown})")
    if code in (-32403, -32500):
        return Unavailable(url, f"the change feed failed (fault {code}: {shown})")
    return Invalid(url, f"the change feed refused the call (fault {code}: {shown})")


class _Bad(Exception):
    """What is wrong with an answer."""


class _Answer:
    """The target of the parser: keeps the values of the answer, except those of the outermost container.

    The elements of an outermost array, or the pairs of an outermost struct, go to ``item`` one by one instead.
    """

    def __init__(self, item: Callable[[Value], None]) -> None:
        self._item = item
        self._depth = 0
        self._text: list[str] = []
        self._length = 0
        #: Open containers: an array's elements, or a struct's names and values in turn.
        self._open: list[list[Value]] = []
        #: Whether the value that is open has had a type or not; without one it is a string.
        self._untyped: list[bool] = []
        self._result: list[Value] = []
        self.is_fault = self.ended = False

    # What follows is called by the parser, in this form.

    def xml(self, _encoding: str | None, _standalone: int | None) -> None:
        pass

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise _Bad(f"nested deeper than {_MOST_DEPTH}")
        self._text.clear()
        self._length = 0
        if tag == "value":
            self._untyped.append(True)
            return
        if self._untyped and tag not in ("data", "member", "name"):
            self._untyped[-1] = False
        if tag in ("array", "struct"):
            self._open.append([])
        elif tag == "fault":
            self.is_fault = True
        elif self._depth == 1 and tag != "methodResponse":
            raise _Bad("not an XML-RPC answer")

    def data(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MOST_TEXT:
            raise _Bad(f"a value of more than {_MOST_TEXT} characters")
        self._text.append(text)

    def end(self, tag: str) -> None:
        self._depth -= 1
        if ending := _ENDINGS.get(tag):
            ending(self)
        elif tag == "value":
            if not self._untyped:
                raise _Bad("elements out of order")
            if self._untyped.pop():
                self._add("".join(self._text))
        elif tag == "methodResponse":
            self.ended = True
        elif tag not in ("methodResponse", "params", "param", "data", "member", "fault"):
            raise _Bad("an element that XML-RPC does not have")
        self._text.clear()
        self._length = 0

    def close(self) -> None:
        pass

    # Values.

    def _integer(self) -> None:
        text = "".join(self._text)
        if not _INTEGER.fullmatch(text) or abs(value := int(text)) > _MOST_SERIAL:
            raise _Bad("a number that is none")
        self._add(value)

    def _string(self) -> None:
        self._add("".join(self._text))

    def _nothing(self) -> None:
        self._add(None)

    def _truth(self) -> None:
        self._add("".join(self._text).strip() == "1")

    def _container(self) -> None:
        if not self._open:
            raise _Bad("elements out of order")
        self._add(self._open.pop())

    def _add(self, value: Value) -> None:
        if not self._open:
            self._result.append(value)
            if len(self._result) > 1:
                raise _Bad("more than one value")
            return
        container = self._open[-1]
        container.append(value)
        if len(self._open) == 1 and not self.is_fault:
            self._item(value)
            container.clear()
        elif len(container) > _MOST_ITEMS:
            raise _Bad(f"more than {_MOST_ITEMS} values in one row")

    def result(self) -> Value:
        """The answer's one value; raises _Bad if it has not ended properly."""
        if not self.ended or len(self._result) != 1:
            raise _Bad("not an XML-RPC answer")
        return self._result[0]


_ENDINGS: dict[str, Callable[[_Answer], None]] = {
    "int": _Answer._integer,  # noqa: SLF001
    "i4": _Answer._integer,  # noqa: SLF001
    "i8": _Answer._integer,  # noqa: SLF001
    "ex:i8": _Answer._integer,  # noqa: SLF001
    "string": _Answer._string,  # noqa: SLF001
    "double": _Answer._string,  # noqa: SLF001
    "dateTime.iso8601": _Answer._string,  # noqa: SLF001
    "base64": _Answer._string,  # noqa: SLF001
    "name": _Answer._string,  # noqa: SLF001
    "boolean": _Answer._truth,  # noqa: SLF001
    "nil": _Answer._nothing,  # noqa: SLF001
    "ex:nil": _Answer._nothing,  # noqa: SLF001
    "array": _Answer._container,  # noqa: SLF001
    "struct": _Answer._container,  # noqa: SLF001
}


class AnswerParser:
    """Parses one answer as it comes.  Methods raise Invalid, or what a fault in it means (see :func:`fault`)."""

    def __init__(self, url: str, item: Callable[[Value], None] | None = None) -> None:
        self._url = url
        self._answer = _Answer(item or _no_items)
        self._parser = DefusedExpatParser(cast(Any, self._answer), forbid_dtd=True)

    def feed(self, piece: bytes) -> None:
        self._guarded(lambda: self._parser.feed(piece))

    def close(self) -> Value:
        """The value of the answer; a container is empty here, since its items were handed over."""
        self._guarded(self._parser.close)
        value = self._guarded(self._answer.result)
        if self._answer.is_fault:
            pairs = dict(zip(value[::2], value[1::2], strict=False)) if isinstance(value, list) else {}
            raise fault(self._url, pairs.get("faultCode"), pairs.get("faultString"))
        return value

    def _guarded(self, step: Callable[[], Value]) -> Value:
        try:
            return step()
        except DefusedXmlException:
            raise Invalid(self._url, "the change feed's XML has a document type or entities") from None
        except ExpatError as error:
            raise Invalid(self._url, f"the change feed's XML is not well-formed (line {error.lineno})") from None
        except (_Bad, ValueError, LookupError) as error:  # the last two: an encoding that expat does not have
            reason = str(error) if isinstance(error, _Bad) else "not readable"
            raise Invalid(self._url, f"wrong content of the change feed: {reason}") from None


def _no_items(_value: Value) -> None:
    raise _Bad("a list where a number was expected")


class SerialParser(AnswerParser):
    """The answer to ``changelog_last_serial``."""

    def serial(self) -> int:
        value = self.close()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise Invalid(self._url, "wrong content of the change feed: the serial is not a number")
        return value


class ChangelogParser(AnswerParser):
    """The answer to ``changelog_since_serial``."""

    def __init__(self, url: str) -> None:
        super().__init__(url, self._row)
        self._events: list[Event] = []

    def _row(self, row: Value) -> None:
        if len(self._events) >= MOST_ROWS:
            raise _Bad(f"more than {MOST_ROWS} rows")
        self._events.append(event(row))

    def events(self) -> list[Event]:
        """All rows, in the order they came."""
        if not isinstance(self.close(), list):
            raise Invalid(self._url, "wrong content of the change feed: not a list of rows")
        return self._events


def event(row: Value) -> Event:
    """One row of the changelog: name, version, time, action, serial."""
    if not isinstance(row, list) or len(row) < 5:
        raise _Bad("a row that has not five values")
    name, version, time, action, serial = row[:5]
    if not isinstance(serial, int) or isinstance(serial, bool) or serial <= 0:
        raise _Bad("a row without a serial")
    if not isinstance(name, str | None) or not isinstance(version, str | None):
        raise _Bad("a row whose name or version is not text")
    if not isinstance(time, int | None) or not isinstance(action, str | None):
        raise _Bad("a row whose time or action is of the wrong type")
    # The action was escaped once more by the server, for characters outside ASCII.
    return Event(name or "", version, time or 0, html.unescape(action or ""), serial)


class ProjectsParser(AnswerParser):
    """The answer to ``list_packages_with_serial``: all projects, which :meth:`take` hands over as they come."""

    def __init__(self, url: str) -> None:
        super().__init__(url, self._value)
        self._name: str | None = None
        self._listed: list[Listed] = []

    def _value(self, value: Value) -> None:
        if self._name is None:
            if not isinstance(value, str):
                raise _Bad("a project's name that is not text")
            self._name = value
        else:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise _Bad("a project's serial that is not a number")
            self._listed.append(Listed(self._name, value))
            self._name = None

    def take(self) -> list[Listed]:
        """What came since the last call."""
        taken, self._listed = self._listed, []
        return taken
