"""Bytes from upstream to verified temporaries: nothing leaves here whose digest and size were not checked.

Small files are held in memory and written by the stager; large ones are streamed into a resumable file under
``partial/``, hashed and written in threads while the next batch is read.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from heliostat import names
from heliostat.errors import (
    IntegrityError,
    Invalid,
    Missing,
    RateLimited,
    Refused,
    StoreError,
    Unavailable,
    UpstreamError,
)
from heliostat.mirror.report import Counters
from heliostat.mirror.wanted import Wanted, strongest
from heliostat.store.disk import Operations
from heliostat.store.incoming import Incoming, digests_of
from heliostat.store.staging import Stager
from heliostat.store.threads import in_thread
from heliostat.upstream.client import Upstream

#: Up to here a file is taken in memory (bytes).
SMALL = 1 << 20
#: Hashed on the spot up to here, in a thread beyond (bytes).
_INLINE = 128 << 10
#: A file whose size upstream does not say ends here (bytes).
_UNDECLARED_MOST = 16 << 30
#: A try that brought this much is progress: the count of tries begins again.
_PROGRESS = 1 << 20


class Fetched(msgspec.Struct, frozen=True):
    """Verified bytes in a temporary."""

    staged: str
    digests: dict[str, str]
    size: int


class Downloader:
    """Fetches what a project wants.  Raises UpstreamError, Refused, or StoreError."""

    def __init__(
        self,
        upstream: Upstream,
        disk: Operations,
        stager: Stager,
        counters: Counters,
        *,
        tries: int,
        max_file: int | None,
        max_sidecar: int,
        reserve: float,
    ) -> None:
        self._upstream, self._disk, self._stager, self._counters = upstream, disk, stager, counters
        self._tries, self._max_file, self._max_sidecar = tries, max_file, max_sidecar
        self._reserve = reserve

    async def file(self, want: Wanted) -> Fetched:
        """One distribution file; resumes what an earlier try, or an earlier process, left."""
        if self._max_file is not None and (want.size or 0) > self._max_file:
            raise Refused("file", want.file.filename, f"{want.size} bytes, more than [upstream] max-file allows")
        self._upstream.check_url(want.file.url)
        algorithms = _algorithms(want)
        small = want.size is not None and want.size <= SMALL
        incoming = None
        if not small:
            await in_thread(None, self._refuse_too_large_for_the_disk, want)
            path = want.partial or await self._stager.put(b"")
            incoming = Incoming(self._disk, path, algorithms)
        try:
            return await self._with_retries(want, algorithms, incoming)
        finally:
            if incoming is not None:
                await in_thread(None, incoming.close)

    def _refuse_too_large_for_the_disk(self, want: Wanted) -> None:
        """A file that would leave less free than is to be kept is not begun."""
        free, total, _ = self._disk.free()
        if total and free - (want.size or 0) < total * self._reserve:
            raise StoreError(
                f"keep {want.file.filename} ({want.size} bytes) in",
                self._disk.root,
                f"only {free} bytes free, and [mirror] min-free keeps {self._reserve:.0%}",
            )

    async def sidecar(self, want: Wanted) -> Fetched:
        """A file's metadata sidecar (PEP 658), checked against every digest that upstream gives."""
        declared = want.file.core_metadata
        expected = dict(declared) if isinstance(declared, dict) else {}
        url = want.file.url.partition("#")[0] + names.METADATA_SUFFIX
        algorithms = tuple({"sha256", *expected})
        for attempt in range(self._tries):
            body = await self._upstream.fetch(url, limit=self._max_sidecar)
            digests = digests_of(body, algorithms)
            try:
                _check(url, expected, digests)
            except IntegrityError as error:
                if attempt + 1 == min(2, self._tries):
                    raise
                await self._upstream.back_off(attempt, error)
                continue
            self._counters.bytes_done += len(body)
            return Fetched(await self._stager.put(body, mtime_ns=want.mtime_ns), digests, len(body))
        raise AssertionError("unreachable")

    async def _with_retries(self, want: Wanted, algorithms: tuple[str, ...], incoming: Incoming | None) -> Fetched:
        attempt = wrong = 0
        while True:
            before = incoming.size if incoming else 0
            try:
                if incoming is None:
                    return await self._small(want, algorithms)
                return await self._large(want, incoming)
            except Missing:
                raise
            except (IntegrityError, Invalid) as error:
                wrong += 1
                if wrong >= min(2, self._tries):
                    raise
                failure: UpstreamError = error
            except (RateLimited, Unavailable) as error:
                failure = error
                grown = (incoming.size if incoming else 0) - before
                attempt = 0 if grown >= _PROGRESS else attempt + 1
                if attempt >= self._tries:
                    raise
            await self._upstream.back_off(attempt, failure)

    async def _small(self, want: Wanted, algorithms: tuple[str, ...]) -> Fetched:
        url, size = want.file.url, want.size
        assert size is not None
        batches: list[bytes] = []
        got = 0
        async with self._upstream.stream(url, size=size) as stream:
            async for batch in stream:
                got += len(batch)
                if got > size:
                    raise IntegrityError(url, "size", str(size), f"more than {size}")
                batches.append(bytes(batch))
                self._counters.bytes_done += len(batch)
        body = batches[0] if len(batches) == 1 else b"".join(batches)
        if len(body) != size:
            raise IntegrityError(url, "size", str(size), str(len(body)))
        digests = (
            digests_of(body, algorithms) if size <= _INLINE else await in_thread(None, digests_of, body, algorithms)
        )
        _check(url, want.digests, digests)
        return Fetched(await self._stager.put(body, mtime_ns=want.mtime_ns), digests, size)

    async def _large(self, want: Wanted, incoming: Incoming) -> Fetched:
        url, size = want.file.url, want.size
        await in_thread(None, incoming.close)
        offset = await in_thread(None, incoming.open)
        limit = size if size is not None else (self._max_file or _UNDECLARED_MOST)
        if offset > limit:
            await in_thread(None, incoming.restart)
            offset = 0
        if size is None or offset < size or (size == 0 and offset == 0):
            await self._receive(want, incoming, offset, limit)
        digests = await in_thread(None, incoming.digests)
        try:
            if size is not None and incoming.size != size:
                raise IntegrityError(url, "size", str(size), str(incoming.size))
            _check(url, want.digests, digests)
        except IntegrityError:
            await in_thread(None, incoming.restart)
            raise
        total = incoming.size
        await in_thread(None, incoming.finish, want.mtime_ns)
        await in_thread(None, self._disk.unlink, _etag_path(incoming.path))
        return Fetched(incoming.path, digests, total)

    async def _receive(self, want: Wanted, incoming: Incoming, offset: int, limit: int) -> None:
        url = want.file.url
        validator = await self._validator(incoming) if offset else None
        writing: asyncio.Task[None] | None = None
        got = offset
        async with self._upstream.stream(url, offset=offset, validator=validator, size=want.size) as stream:
            if stream.offset != offset:
                await in_thread(None, incoming.restart)
                got = 0
            if stream.etag and (got == 0 or validator is None):
                await in_thread(None, self._remember_validator, incoming, stream.etag)
            try:
                async for batch in stream:
                    got += len(batch)
                    if got > limit:
                        raise IntegrityError(url, "size", str(limit), f"more than {limit}")
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(in_thread(None, incoming.write, batch))
                    self._counters.bytes_done += len(batch)
            except IntegrityError:  # more than there can be: what came before is not to be built upon
                if writing is not None:
                    await writing
                await in_thread(None, incoming.restart)
                raise
            finally:
                if writing is not None:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([writing])
            if writing is not None:
                await writing

    async def _validator(self, incoming: Incoming) -> str | None:
        saved = await in_thread(None, self._disk.read, _etag_path(incoming.path))
        return saved.decode("latin-1") if saved else None

    def _remember_validator(self, incoming: Incoming, etag: str) -> None:
        path = _etag_path(incoming.path)
        self._disk.unlink(path)
        self._disk.write(path, etag.encode("latin-1", "replace"))


def _etag_path(partial: str) -> str:
    return partial.removesuffix(".part") + ".etag"


def _algorithms(want: Wanted) -> tuple[str, ...]:
    """SHA-256 always (it names the file), the strongest declared one, and BLAKE2b where it decides the path."""
    chosen = {"sha256"}
    if (declared := strongest(want.digests)) is not None:
        chosen.add(declared)
    if want.candidate:
        chosen.add("blake2b_256")
    return tuple(sorted(chosen))


def _check(url: str, expected: dict[str, str], computed: dict[str, str]) -> None:
    for algorithm, digest in expected.items():
        if algorithm in computed and computed[algorithm] != digest:
            raise IntegrityError(url, algorithm, digest, computed[algorithm])
