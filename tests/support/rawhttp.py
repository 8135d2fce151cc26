"""Plain HTTP for tests: the request target exactly as written, no redirects followed, every header seen."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """One answer; header names in lower case, several lines of one header joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def vary(self) -> set[str]:
        return {word.strip().lower() for word in self.headers.get("vary", "").split(",") if word.strip()}


class Client:
    """One connection, kept alive.  Sends only the headers it is given, and Host."""

    def __init__(self, base_url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, target: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> Answer:
        self._connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        response = self._connection.getresponse()
        joined: dict[str, str] = {}
        for name, value in response.getheaders():
            key = name.lower()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        return Answer(response.status, joined, response.read())


def get(base_url: str, target: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> Answer:
    """One request on a connection of its own."""
    with Client(base_url) as client:
        return client.get(target, headers, method=method)
