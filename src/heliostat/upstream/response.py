"""The answer to a request: status, headers, and a body that is read as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliostat.upstream.bulk import Bulk
    from heliostat.upstream.channel import Channel


#: What begins the line of a header, by its name; we ask for a handful.
_MARKS: dict[str, bytes] = {}


class Headers:
    """The header lines of one answer, looked up when they are asked for: most of them nobody ever asks for."""

    __slots__ = ("_lower", "_raw")

    def __init__(self, raw: bytes) -> None:
        """``raw`` is a head that llhttp found good, its status line included."""
        self._raw, self._lower = raw, raw.lower()

    def get(self, name: str) -> str | None:
        """The value of the first header of this ``name`` (in lower case); None when there is none."""
        mark = _MARKS.get(name)
        if mark is None:
            mark = _MARKS[name] = b"\r\n%b:" % name.encode("ascii")
        found = self._lower.find(mark)
        if found < 0:
            return None
        start = found + len(mark)
        return self._raw[start : self._raw.find(b"\r\n", start)].strip().decode("latin-1")


#: Of an answer that has not come yet.
NONE = Headers(b"")


class Response:
    """The answer to one request.  Whoever got it reads it to its end or closes it; both are the end of the exchange."""

    __slots__ = ("_channel", "content_length", "headers", "status")

    def __init__(self, channel: Channel, status: int, headers: Headers, length: int | None) -> None:
        self._channel: Channel | None = channel
        self.status = status
        self.headers = headers
        #: Bytes of the body, as declared; None when it ends with a last chunk or with the connection.
        self.content_length = length

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; RFC 9110's default where the header is missing."""
        return (self.headers.get("content-type") or "application/octet-stream").partition(";")[0].strip().lower()

    async def read(self, least: int = 1) -> bytes:
        """What has come of the body, at least one byte; nothing at its end.  Raises what faults.FAULTS names.

        Waits for ``least`` bytes, but not longer than a stall may last once there are some.
        """
        return b"" if self._channel is None else await self._channel.read(least)

    def bulk(self) -> Bulk | None:
        """The same body through memory that is used again and again; None where that is not worth it.

        Only it is read from then on.
        """
        return None if self._channel is None else self._channel.bulk()

    @property
    def at_end(self) -> bool:
        """Whether all of the body was read."""
        return self._channel is None or self._channel.drained

    def close(self) -> None:
        """The rest is not wanted: a connection that still owes some of it is closed."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.end()
