"""Who a ping is from: HMAC-SHA256 over its time and its body, in two headers.

``Heliostat-Timestamp`` is seconds since the epoch, with a fraction if one likes; ``Heliostat-Signature`` is
``sha256=`` and the hexadecimal HMAC-SHA256, with the shared secret, of the timestamp as it is sent, a full stop, and
the body.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

TIMESTAMP, SIGNATURE = "Heliostat-Timestamp", "Heliostat-Signature"
_PREFIX = "sha256="
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
#: Seconds that the clock of whoever pings may be behind ours when the daemon has just started.
SLACK = 5.0
#: Signatures that are remembered so that none counts twice; far more than are taken within any window.
_MOST = 100_000


def sign(secret: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a ping with that body, sent at ``now`` (seconds since the epoch)."""
    timestamp = f"{now:.6f}"
    return {TIMESTAMP: timestamp, SIGNATURE: _PREFIX + _digest(secret, timestamp, body)}


def _digest(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


class Verifier:
    """Remembers what it has seen, so that a ping that was overheard is good for nothing.

    What another process has seen before is not known: nothing counts that was signed more than ``SLACK`` seconds
    before ``started`` (seconds since the epoch), when this one began.
    """

    def __init__(self, started: float) -> None:
        self._oldest = started - SLACK
        #: When it was asked last.
        self._latest = started
        #: The timestamp of each signature that was taken, in the order in which they came.
        self._seen: dict[str, float] = {}

    def problem(
        self,
        secret: str,
        timestamps: Sequence[str],
        signatures: Sequence[str],
        body: bytes,
        *,
        now: float,
        window: float,
    ) -> str | None:
        """Why the ping is not accepted; None when it is, and then never again.

        The headers' values come as they were sent; ``window``, in seconds, is how far the timestamp may be from
        ``now``.
        """
        if len(timestamps) != 1 or len(signatures) != 1:
            return f"send {TIMESTAMP} and {SIGNATURE}, once each"
        (timestamp,), (signature,) = timestamps, signatures
        if not _SECONDS.fullmatch(timestamp):
            return f"{TIMESTAMP} is not a number of seconds since the epoch"
        expected = _PREFIX + _digest(secret, timestamp, body)
        # As bytes: text that is not ASCII cannot be compared.
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
            return f"{SIGNATURE} does not fit: another secret, or not the body and timestamp that were signed"
        if abs(now - float(timestamp)) > window:
            return f"{TIMESTAMP} is more than {window:g} s from this clock; sign anew, or set the clocks"
        if now < self._latest - SLACK:  # the clock was set back
            self._oldest = now - SLACK
        self._latest = now
        if float(timestamp) < self._oldest:
            return f"{TIMESTAMP} is from before this daemon started, or the last ping that it forgot; sign anew"
        self._forget(now - window)
        if signature in self._seen:
            return "this very ping was taken before; sign a new one"
        self._seen[signature] = float(timestamp)
        return None

    def _forget(self, before: float) -> None:
        """What was signed ``before`` is too old anyway; a longer window, later, must not make it new."""
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] >= before and len(self._seen) < _MOST:
                return
            self._oldest = max(self._oldest, self._seen.pop(oldest) + 1e-6)
