"""Answers and bodies made wrong, for :mod:`heliostat.fakeindex.faults`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

from heliostat.fakeindex.content import Content, Literal
from heliostat.fakeindex.http import Answer


class Flipped(Content):
    """Another content with one byte changed."""

    __slots__ = ("_at", "_inner")

    def __init__(self, inner: Content, offset: int | None) -> None:
        super().__init__()
        self._inner, self.size = inner, inner.size
        self._at = inner.size // 2 if offset is None else offset

    def read(self, start: int, stop: int) -> bytes:
        data = bytearray(self._inner.read(start, stop))
        if start <= self._at < start + len(data):
            data[self._at - start] ^= 0x20
        return bytes(data)


class Resized(Content):
    """Another content with more or fewer bytes at its end."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Content, extra: int) -> None:
        super().__init__()
        self._inner, self.size = inner, max(0, inner.size + extra)

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        data = self._inner.read(start, min(stop, self._inner.size)) if start < self._inner.size else b""
        return data + bytes(stop - start - len(data))


def with_content(answer: Answer, change: Callable[[Content], Content]) -> Answer:
    old = answer.content or Literal(answer.body)
    new = change(old)
    stop = new.size if answer.stop == old.size else min(answer.stop, new.size)
    return changed(answer, content=new, stop=stop)


def changed(answer: Answer, **changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "headers": answer.headers, "content": answer.content, "start": answer.start,
        "stop": answer.stop, "compress": answer.compress,
    }  # fmt: skip
    fields.update(changes)
    if fields["content"] is not None:
        fields["compress"] = False
    return Answer(answer.status, answer.body, **fields)


def part(answer: Answer, start: int, stop: int) -> bytes:
    return answer.content.read(start, stop) if answer.content else answer.body[start:stop]


def whole(answer: Answer) -> bytes:
    return part(answer, answer.start, answer.stop)


def gzip_bomb(lead: bytes, size: int) -> Iterator[bytes]:
    """A gzip stream of ``lead`` and spaces, ``size`` bytes unpacked, in pieces."""
    step = 1 << 20
    spaces = b" " * step
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    block = packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packer.compress(lead) + packer.flush(zlib.Z_FULL_FLUSH)
    check, total = zlib.crc32(lead), len(lead)
    while total < size:
        yield block
        check, total = zlib.crc32(spaces, check), total + step
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    yield end + check.to_bytes(4, "little") + (total & 0xFFFFFFFF).to_bytes(4, "little")


def xml_bomb(kind: str) -> bytes:
    if kind == "entities":
        entities = "".join(
            f'<!ENTITY e{level + 1} "{f"&e{level};" * 10}">' if level else '<!ENTITY e1 "ha">' for level in range(10)
        )
        return (
            f'<?xml version="1.0"?><!DOCTYPE bomb [{entities}]><methodResponse><params><param><value><string>&e10;'
            "</string></value></param></params></methodResponse>"
        ).encode()
    if kind == "external":
        return (
            b'<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY e SYSTEM "file:///etc/hostname">]><methodResponse><params>'
            b"<param><value><string>&e;</string></value></param></params></methodResponse>"
        )
    if kind == "nesting":
        depth = 100_000
        inside = "<value><array><data>" * depth + "</data></array></value>" * depth
        return (
            f"<?xml version='1.0'?><methodResponse><params><param>{inside}</param></params></methodResponse>".encode()
        )
    raise ValueError(kind)
