"""The root list in JSON (PEP 691, with ``_last-serial`` where the index gives it), read as a stream.

At 700,000 projects the body is some 40 MB; neither it nor its entries are ever held as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from heliostat.errors import Invalid, printable
from heliostat.model import Listed
from heliostat.pages import fields

#: The most bytes that an entry may have, or the value of another key beside ``projects``.
LIMIT = 64 * 1024
#: More entries of the wrong form than this, and it is no root list.
_MOST_ODD = 100
#: Of an entry without a usable name, so many characters stand for one.
_SHOWN = 200
#: What a value begins with that is no object.
_NO_OBJECT = b'"[-0123456789tfn'
#: The deepest nesting inside one such value; the protocol needs two.
MAX_DEPTH = 32


class _Entry(msgspec.Struct, rename={"serial": "_last-serial"}, gc=False):
    name: str
    serial: fields.SerialOrText = None


class _Named(msgspec.Struct, gc=False):
    name: str


class _Meta(msgspec.Struct, rename={"serial": "_last-serial", "api_version": "api-version"}):
    serial: fields.SerialOrText = None
    api_version: str | None = None


_ENTRY = msgspec.json.Decoder(_Entry)
_NAMED = msgspec.json.Decoder(_Named)
_ENTRIES = msgspec.json.Decoder(list[_Entry])
_META = msgspec.json.Decoder(_Meta)
_KEY = msgspec.json.Decoder(str)
_ANY = msgspec.json.Decoder(msgspec.Raw)

_SPACE = re.compile(rb"[ \t\n\r]*+")
#: Everything up to a bracket, or up to a string that does not end in the buffer.
_PLAIN = re.compile(rb'[^"{}\[\]]*+(?:"(?:[^"\\]|\\.)*+"[^"{}\[\]]*+)*+', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+')
_SCALAR = re.compile(rb"[^ \t\n\r,}\]]*+")


class RootListParser:
    """Feed it the body in chunks of any size, then close it.

    What :meth:`feed` returned is provisional until :meth:`close` has returned: only then is it known that the list
    is complete and of a version that we read.  Both raise Invalid.  Holds one chunk and ``limit`` bytes at most.

    Blocks of entries are cut off at a ``}`` and decoded at once.  The cut is a guess; that the block decodes, and to
    as many entries as it has ``{``, proves it.  Otherwise an exact scanner finds the end of each entry, and it alone
    finds fault, so that chunking changes neither results nor messages.

    One entry of the wrong form does not spoil the others: without a usable serial it is listed without one, and
    without a usable name under its own text, which is no name, and so is refused by whoever looks at names.
    """

    def __init__(self, url: str, limit: int = LIMIT) -> None:
        self._url, self._limit = url, limit
        self._buffer = bytearray()
        self._step: Callable[[list[Listed]], bool] = self._start
        self._key = ""
        self._keys: set[str] = set()
        self._count = self._odd_ones = 0
        self._serial: int | None = None
        # How far the value at the front of the buffer has been scanned, and what the scanner was inside of.
        self._scanned = self._depth = 0
        self._in_string = False
        # Bytes still to be read by the exact scanner after a guess that failed.
        self._exact = 0

    def feed(self, chunk: bytes) -> list[Listed]:
        """The entries that ``chunk`` completed, in order."""
        self._buffer += chunk
        listed: list[Listed] = []
        while self._buffer and self._step(listed):
            pass
        return listed

    @property
    def serial(self) -> int | None:
        """The list's own serial as far as it was read; like everything provisional until the end."""
        return self._serial

    def close(self) -> int | None:
        """The list's own ``meta._last-serial``: the point up to which it is complete, where the index says one."""
        if self._step != self._end:
            raise Invalid(self._url, f"not JSON: cut off after {self._count} projects")
        if "projects" not in self._keys:
            raise Invalid(self._url, "wrong content: no `projects`")
        return self._serial

    # Each of the following handles what stands at the front of the buffer and sets the next one;
    # False asks for more input.

    def _start(self, _: list[Listed]) -> bool:
        return self._expect({b"{": self._first_key}, "an object")

    def _first_key(self, _: list[Listed]) -> bool:
        return self._expect({b"}": self._end, b'"': self._read_key}, "a key", keep=b'"')

    def _next_key(self, _: list[Listed]) -> bool:
        return self._expect({b'"': self._read_key}, "a key", keep=b'"')

    def _read_key(self, _: list[Listed]) -> bool:
        value = self._value("a key")
        if value is None:
            return False
        self._key = fields.decode(_KEY, value, self._url)
        if self._key in ("meta", "projects") and self._key in self._keys:
            raise Invalid(self._url, f"wrong content: `{self._key}` twice")
        self._keys.add(self._key if self._key in ("meta", "projects") else "")
        self._step = self._colon
        return True

    def _colon(self, _: list[Listed]) -> bool:
        return self._expect({b":": self._projects if self._key == "projects" else self._other}, "a colon")

    def _other(self, _: list[Listed]) -> bool:
        if not self._skip_space():
            return False
        value = self._value(printable(self._key, 40))
        if value is None:
            return False
        if self._key == "meta":
            meta = fields.decode(_META, value, self._url)
            fields.check_version(meta.api_version, self._url)
            self._serial = fields.serial(meta.serial, "meta._last-serial", self._url)
        else:
            fields.decode(_ANY, value, self._url)
        self._step = self._after_value
        return True

    def _after_value(self, _: list[Listed]) -> bool:
        return self._expect({b",": self._next_key, b"}": self._end}, "a comma")

    def _projects(self, _: list[Listed]) -> bool:
        return self._expect({b"[": self._first_entry}, "an array as `projects`")

    def _first_entry(self, _: list[Listed]) -> bool:
        return self._expect({b"]": self._after_value, **self._entries()}, "an entry", keep=b"{" + _NO_OBJECT)

    def _next_entry(self, _: list[Listed]) -> bool:
        return self._expect(self._entries(), "an entry", keep=b"{" + _NO_OBJECT)

    def _entries(self) -> dict[bytes, Callable[[list[Listed]], bool]]:
        choices: dict[bytes, Callable[[list[Listed]], bool]] = {bytes([b]): self._no_object for b in _NO_OBJECT}
        choices[b"{"] = self._entry
        return choices

    def _after_entry(self, _: list[Listed]) -> bool:
        return self._expect({b",": self._next_entry, b"]": self._after_value}, "a comma")

    def _entry(self, listed: list[Listed]) -> bool:
        entries = self._guess() or self._one_entry()
        if entries is None:
            return False
        for entry in entries:
            serial = entry.serial
            if isinstance(serial, str):
                serial = self._serial_of(serial)
            listed.append(Listed(entry.name, serial))
            self._count += 1
        self._step = self._after_entry
        return True

    def _serial_of(self, text: str) -> int | None:
        try:
            return fields.serial(text, "", self._url)
        except Invalid:
            self._one_more_odd(f"{printable(text)} is not a serial")
            return None

    def _one_more_odd(self, reason: str) -> None:
        self._odd_ones += 1
        if self._odd_ones > _MOST_ODD:
            what = f"projects[{self._count}]: {reason}, after {_MOST_ODD} others of the wrong form"
            raise Invalid(self._url, f"wrong content: {what}")

    def _no_object(self, listed: list[Listed]) -> bool:
        """Something that stands where an entry should."""
        value = self._value(f"projects[{self._count}]")
        if value is None:
            return False
        fields.decode(_ANY, value, self._url)
        self._one_more_odd("not an object")
        listed.append(_nameless(value))
        self._count += 1
        self._step = self._after_entry
        return True

    def _end(self, _: list[Listed]) -> bool:
        if self._skip_space():
            raise Invalid(self._url, "not JSON: more after its end")
        return False

    def _guess(self) -> list[_Entry] | None:
        """Many entries at once, if they are plain; tried only where it cannot cost more than it reads anew."""
        buffer, scanned = self._buffer, self._scanned
        if self._exact > 0 or len(buffer) < 2 * scanned:
            return None
        cut = buffer.rfind(b"}", scanned, self._limit) + 1
        block = bytes(buffer[:cut])
        if cut and b"[" not in block:
            try:
                entries = _ENTRIES.decode(b"[" + block + b"]")
                if len(entries) == block.count(b"{") and (block.isascii() or block.decode()):
                    self._drop(cut)
                    return entries
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
        self._exact = cut
        return None

    def _one_entry(self) -> list[_Entry] | None:
        value = self._value(f"projects[{self._count}]")
        if value is None:
            return None
        self._exact -= len(value)
        try:
            fields.check_utf8(value, self._url)
            try:
                return [_ENTRY.decode(value)]
            except msgspec.ValidationError as exc:
                entry = _odd(value)
                self._one_more_odd(str(exc))
                return [entry]
        except msgspec.DecodeError as exc:
            raise Invalid(self._url, f"wrong content: projects[{self._count}]: {exc}") from None

    def _expect(self, choices: dict[bytes, Callable[[list[Listed]], bool]], what: str, keep: bytes = b"") -> bool:
        """Takes the next byte that is not white space (or leaves it, if it is ``keep``) and goes where it leads."""
        if not self._skip_space():
            return False
        found = bytes(self._buffer[:1])
        if found not in choices:
            after = f" after {self._count} projects" if self._count else ""
            raise Invalid(self._url, f"wrong content: {printable(found.decode('latin-1'))} instead of {what}{after}")
        if not keep or found not in keep:
            del self._buffer[:1]
        self._step = choices[found]
        return True

    def _skip_space(self) -> bool:
        """True when something else follows."""
        if space := _SPACE.match(self._buffer):
            del self._buffer[: space.end()]
        return bool(self._buffer)

    def _value(self, what: str) -> bytes | None:
        """The whole JSON value at the front of the buffer, taken from it; None when it is not all there yet."""
        whole = self._scan(what) if self._buffer[0] in b'{["' else self._scalar()
        if max(self._scanned, whole) > self._limit:
            raise Invalid(self._url, f"wrong content: {what} has more than {self._limit} bytes")
        if not whole:
            return None
        value = bytes(self._buffer[:whole])
        self._drop(whole)
        return value

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._scanned = self._depth = 0
        self._in_string = False

    def _scalar(self) -> int:
        found = _SCALAR.match(self._buffer)
        end = found.end() if found else 0
        self._scanned = end
        # Nothing at all is passed on as one byte, for the decoder to refuse.
        return max(end, 1) if end < len(self._buffer) else 0

    def _scan(self, what: str) -> int:
        """The length of the container or string at the front, or 0; looks at each byte once, over all calls."""
        buffer, at, end = self._buffer, self._scanned, min(len(self._buffer), self._limit + 1)
        if not at and buffer[0] == 0x22:
            at, self._in_string = 1, True
        while at < end:
            found = (_IN_STRING if self._in_string else _PLAIN).match(buffer, at, end)
            at = found.end() if found else at
            if at >= end:
                break
            byte = buffer[at]
            if byte == 0x5C:
                at += 2  # a backslash takes the next byte with it, even one that is not there yet
                continue
            at += 1
            if byte == 0x22:
                self._in_string = not self._in_string
            elif byte in b"{[":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise Invalid(self._url, f"wrong content: {what} is nested deeper than {MAX_DEPTH}")
            else:
                self._depth -= 1
            if not self._depth and not self._in_string:
                return at
        self._scanned = at
        return 0


def _odd(value: bytes) -> _Entry:
    """An entry that is JSON, but not of the right form.  Raises DecodeError where it is none."""
    msgspec.json.decode(value)  # what is of the wrong form is said before the rest is looked at
    try:
        return _Entry(_NAMED.decode(value).name)
    except msgspec.ValidationError:
        return _Entry(_nameless(value).display)


def _nameless(value: bytes) -> Listed:
    """What stands for an entry from which no name can be had; in brackets, as no name is."""
    return Listed(f"({printable(value.decode('utf-8', 'replace'), _SHOWN)})", None)
