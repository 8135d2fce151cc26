"""Unpacking in pieces: whatever comes, no piece is large and nothing is held back."""

import gzip
import tracemalloc
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import Invalid, Unavailable
from heliostat.upstream import faults
from heliostat.upstream.body import PIECE, Gunzip


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=5), st.integers(1, 3000))
def test_members_in_any_chunks(contents: list[bytes], step: int) -> None:
    packed = b"".join(gzip.compress(content, 1) for content in contents)
    gunzip = Gunzip()
    found: list[bytes] = []
    for at in range(0, len(packed), step):
        found += gunzip.feed(packed[at : at + step])
    assert b"".join(found) == b"".join(contents)
    assert gunzip.complete


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_what_is_cut_off_is_not_complete(content: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(content, 1)
    gunzip = Gunzip()
    found = b"".join(gunzip.feed(packed[: data.draw(st.integers(1, len(packed) - 1))]))
    assert content.startswith(found)
    assert not gunzip.complete


@given(st.binary(max_size=300))
def test_garbage_is_an_error_or_incomplete(content: bytes) -> None:
    gunzip = Gunzip()
    try:
        list(gunzip.feed(b"\x1f\x8b" + content))
    except ValueError:
        return
    assert not gunzip.complete or content


def test_a_bomb_goes_off_one_piece_at_a_time() -> None:
    packed = gzip.compress(bytes(200 << 20), 9)
    assert len(packed) < 300_000
    tracemalloc.start()
    try:
        sizes = [len(piece) for piece in islice(Gunzip().feed(packed), 40)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [PIECE] * 40
    assert peak < 8 * PIECE


def fault(error: Exception, total: float | None = None) -> Exception:
    url = "https://index.example/x?token=hunter2"
    return faults.from_exception(url, error, connect=30, stall=60, total=total)


def connection(host: str) -> Any:
    return SimpleNamespace(host=host, port=443, ssl=True, is_ssl=True)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (
            aiohttp.ClientConnectorDNSError(connection("index.example"), OSError(-2, "Name or service not known")),
            faults.NotConnected,
            "cannot connect to index.example: the name does not resolve",
        ),
        (
            aiohttp.ClientConnectorError(connection("index.example"), OSError(113, "")),
            faults.NotConnected,
            "cannot connect to index.example: No route to host",
        ),
        (
            aiohttp.ClientConnectorCertificateError(connection("index.example"), ValueError("x")),
            faults.NotConnected,
            "cannot connect to index.example: certificate not accepted (handshake)",
        ),
        (aiohttp.ConnectionTimeoutError(), faults.TimedOut, "no connection within 30 s"),
        (aiohttp.SocketTimeoutError(), faults.TimedOut, "stalled: no byte for 60 s"),
        (TimeoutError(), faults.TimedOut, "timed out"),
        (ConnectionResetError(104, "x"), Unavailable, "the connection was lost: Connection reset by peer"),
        (aiohttp.ServerDisconnectedError(), Unavailable, "the connection was closed before an answer came"),
        (aiohttp.ClientPayloadError("x"), Unavailable, "the body was cut short, or garbled on the way"),
        (aiohttp.InvalidURL("https://me:hunter2@x/"), Invalid, "not a URL that can be requested"),
        (
            aiohttp.ClientHttpProxyError(cast(Any, None), (), status=407, message="hunter2"),
            Unavailable,
            "the proxy refused with status 407",
        ),
        (aiohttp.ClientResponseError(cast(Any, None), ()), Invalid, "the answer is not HTTP (ClientResponseError)"),
        (RuntimeError("Connection closed."), Unavailable, "the body was cut short"),
    ],
)
def test_what_aiohttp_reports(error: Exception, kind: type[Exception], reason: str) -> None:
    ours = fault(error)
    assert type(ours) is kind
    assert str(ours) == f"https://index.example/x?...: {reason}"


def test_a_time_limit_on_the_whole_is_named() -> None:
    assert str(fault(TimeoutError(), 300.0)).endswith(": not complete after 300 s")


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(RuntimeError, match="Session is closed"):
        fault(RuntimeError("Session is closed"))
