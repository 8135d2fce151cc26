"""Bytes from upstream to verified temporaries: nothing leaves here whose digest and size were not checked.

Small files are held in memory and written by the stager; large ones are streamed into a resumable file under
``partial/``, hashed and written in threads while the next batch is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from functools import partial

import msgspec

from heliostat import names
from heliostat.errors import (
    IntegrityError,
    Invalid,
    Missing,
    Refused,
    StoreError,
    Unavailable,
    UpstreamError,
)
from heliostat.mirror.transfer import Transfer
from heliostat.mirror.wanted import Wanted, strongest
from heliostat.mirror.wheel_metadata import Read, find, part_of, unpack
from heliostat.store.disk import Operations
from heliostat.store.incoming import Incoming, digests_of
from heliostat.store.room import Room
from heliostat.store.staging import Stager
from heliostat.store.threads import in_computing_thread, in_thread
from heliostat.upstream.client import Route, Upstream
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import Checked, redacted

#: Up to here a file is taken in memory (bytes).
SMALL = 1 << 20
#: Hashed on the spot up to here, in a thread beyond (bytes).
_INLINE = 128 << 10
#: A file whose size upstream does not say ends here (bytes).
_UNDECLARED_MOST = 16 << 30
#: A try that brought this much is progress: the count of tries begins again.
_PROGRESS = 1 << 20


class Fetched(msgspec.Struct, frozen=True):
    """Verified bytes: in a temporary when they are many, else in memory."""

    content: str | bytes
    digests: dict[str, str]
    size: int


class Downloader:
    """Fetches what a project wants.  Raises UpstreamError, Refused, or StoreError."""

    def __init__(
        self,
        upstream: Upstream,
        disk: Operations,
        stager: Stager,
        *,
        tries: int,
        max_file: int | None,
        max_sidecar: int,
        room: Room,
    ) -> None:
        self.room = room
        self._upstream, self._disk, self._stager = upstream, disk, stager
        self._tries, self._max_file, self._max_sidecar = tries, max_file, max_sidecar
        self._downloading: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)
        #: Files below ``partial/`` of downloads that were begun in this pass and are to be resumed.
        self.unfinished: set[str] = set()

    async def file(self, want: Wanted, transfer: Transfer) -> Fetched:
        """One distribution file; resumes what an earlier try, or an earlier process, left."""
        if self._max_file is not None and (want.size or 0) > self._max_file:
            raise Refused("file", want.file.filename, f"{want.size} bytes, more than [upstream] max-file allows")
        url, algorithms = self._upstream.file_url(want.file.url), _algorithms(want)
        if want.size is not None and want.size <= SMALL:
            return await self._with_retries(want, algorithms, url, None, transfer)
        path = want.partial or await self._stager.put(b"")
        alone = self._downloading.get(path)
        if alone is None:
            alone = self._downloading[path] = asyncio.Lock()
        async with alone:  # files with the same bytes share their partial download, and so take turns
            return await self._large_file(want, path, algorithms, url, transfer)

    async def _large_file(
        self, want: Wanted, path: str, algorithms: tuple[str, ...], url: Checked, transfer: Transfer
    ) -> Fetched:
        incoming = Incoming(self._disk, path, algorithms)
        self.unfinished |= {path, _etag_path(path)}
        there = await self._there(path)
        # A file for which there is no room is not begun.
        reserved = await in_thread(
            self.room.reserve, want.file.filename, lambda: (want.size or 0) - max(there, incoming.size)
        )
        try:
            fetched = await self._with_retries(want, algorithms, url, incoming, transfer)
            self.unfinished -= {path, _etag_path(path)}
            return fetched
        except BaseException:
            if await in_thread(self._dropped, incoming):
                self.unfinished -= {path, _etag_path(path)}
            raise
        finally:
            self.room.release(reserved)
            await in_thread(incoming.close)

    def _dropped(self, incoming: Incoming) -> bool:
        """Whether there is nothing to be resumed; then nothing is left of it."""
        if incoming.size:
            return False
        incoming.close()
        found = self._disk.stat(incoming.path)
        if found is not None and found.size:  # not even looked at yet
            return False
        self._disk.unlink(incoming.path)
        self._disk.unlink(_etag_path(incoming.path))
        return True

    async def stage(self, body: bytes, mtime_ns: int | None) -> str:
        """Small bytes that cannot wait in memory, in a temporary."""
        return await self._stager.put(body, mtime_ns=mtime_ns)

    async def drop(self, fetched: Fetched) -> None:
        """What was fetched is not wanted after all."""
        if isinstance(fetched.content, str):
            await in_thread(self._disk.unlink, fetched.content)

    async def _there(self, path: str) -> int:
        found = await in_thread(self._disk.stat, path)
        return found.size if found else 0

    async def sidecar(self, want: Wanted, transfer: Transfer) -> Fetched:
        """A file's metadata sidecar (PEP 658), checked against every digest that upstream gives."""
        declared = want.file.core_metadata
        expected = dict(declared) if isinstance(declared, dict) else {}
        address, mark, query = want.file.url.partition("#")[0].partition("?")
        url = self._upstream.file_url(f"{address}{names.METADATA_SUFFIX}{mark}{query}")
        algorithms, route = tuple({"sha256", *expected}), self._upstream.route(url)
        wrong = 0
        while True:
            body = await self._upstream.fetch(url, limit=self._max_sidecar, route=route)
            transfer.arrived(len(body))
            digests = digests_of(body, algorithms)
            try:
                _check(url if route is None else route.url, expected, digests)
            except IntegrityError as error:
                self._upstream.traffic.broke(Kind.SIDECAR, error)
                if route is not None and route.failed(error) is None:
                    continue
                wrong += 1
                if wrong >= min(2, self._tries):
                    raise
                await self._upstream.back_off(wrong - 1, error)
                continue
            return Fetched(body, digests, len(body))

    async def metadata_within(self, want: Wanted, wheel: bytes | str) -> Fetched | None:
        """A wheel's sidecar, taken out of the wheel (its bytes, or where it lies) and verified.

        None when upstream's page gives no SHA-256 for it, or when these bytes are not in the wheel.
        """
        declared = want.file.core_metadata
        if not (isinstance(declared, dict) and "sha256" in declared and want.file.filename.endswith(".whl")):
            return None
        if isinstance(wheel, bytes) and len(wheel) <= _INLINE:
            read, size = part_of(wheel), len(wheel)
            entry = find(read, size)
            if entry is None or entry.size <= min(_INLINE, self._max_sidecar):
                return self._as_declared(declared, entry and unpack(read, entry))
        return self._as_declared(declared, await in_computing_thread(self._read_metadata, wheel))

    def _read_metadata(self, wheel: bytes | str) -> bytes | None:
        try:
            if isinstance(wheel, str):
                read: Read = partial(self._disk.read_part, wheel)
                there = self._disk.stat(wheel)
                size = there.size if there else 0
            else:
                read, size = part_of(wheel), len(wheel)
            entry = find(read, size)
            if entry is None or max(entry.packed, entry.size) > self._max_sidecar:
                return None
            return unpack(read, entry)
        except StoreError:  # the file itself is somebody else's business
            return None

    def _as_declared(self, declared: dict[str, str], body: bytes | None) -> Fetched | None:
        if body is None:
            return None
        digests = digests_of(body, tuple(declared))
        return Fetched(body, digests, len(body)) if digests == declared else None

    async def _with_retries(
        self,
        want: Wanted,
        algorithms: tuple[str, ...],
        url: Checked,
        incoming: Incoming | None,
        transfer: Transfer,
    ) -> Fetched:
        """A large file through ``incoming``, or a small one; from another source when one does not have it."""
        route = self._upstream.route(url)
        attempt = wrong = 0
        while True:
            before = incoming.size if incoming else 0
            if route is not None:
                url = route.take()
            try:
                if incoming is None:
                    fetched = await self._small(want, algorithms, url, transfer)
                else:
                    fetched = await self._large(want, url, incoming, transfer, route)
                if route is not None:
                    route.answered()
                return fetched
            except (Missing, IntegrityError, Invalid, Unavailable) as error:
                error.__traceback__ = None  # its frames hold the body
                failure: UpstreamError | None = error if route is None else route.failed(error)
            if failure is None:  # another source is worth a try at once
                continue
            if isinstance(failure, Missing):
                raise failure
            if isinstance(failure, Unavailable):
                grown = (incoming.size if incoming else 0) - before
                attempt = 0 if grown >= _PROGRESS else attempt + 1
                if attempt >= self._tries:
                    raise failure
            else:
                wrong += 1
                if wrong >= min(2, self._tries):
                    raise failure
            await self._upstream.back_off(attempt, failure)

    async def _small(self, want: Wanted, algorithms: tuple[str, ...], url: Checked, transfer: Transfer) -> Fetched:
        size = want.size
        assert size is not None
        transfer.expect(size)
        body = await self._upstream.whole(url, size)
        transfer.arrived(size)
        if size <= _INLINE:
            digests = digests_of(body, algorithms)
        else:
            digests = await in_computing_thread(digests_of, body, algorithms)
        self._check_file(url, want, digests)
        return Fetched(body, digests, size)

    def _check_file(self, url: str, want: Wanted, digests: dict[str, str]) -> None:
        try:
            _check(url, want.digests, digests)
        except IntegrityError as error:
            self._upstream.traffic.broke(Kind.FILE, error)
            raise

    async def _large(
        self, want: Wanted, url: Checked, incoming: Incoming, transfer: Transfer, route: Route | None
    ) -> Fetched:
        size = want.size
        await in_thread(incoming.close)
        offset = await in_thread(incoming.open)
        limit = size if size is not None else (self._max_file or _UNDECLARED_MOST)
        if offset > limit:
            await in_thread(incoming.restart)
            offset = 0
        if route is not None:
            route.resumes = offset > 0
        if size is None or offset < size or (size == 0 and offset == 0):
            await self._receive(url, want, incoming, offset, limit, transfer)
        digests = await in_thread(incoming.digests)
        try:
            if size is not None and incoming.size != size:
                raise IntegrityError(redacted(url), "size", str(size), str(incoming.size))
            self._check_file(url, want, digests)
        except IntegrityError:
            await in_thread(incoming.restart)
            raise
        total = incoming.size
        await in_thread(incoming.finish, want.mtime_ns)
        await in_thread(self._disk.unlink, _etag_path(incoming.path))
        # Its own name from here on: another file with the same bytes may be downloaded before this one is placed.
        staged = names.finished_path(incoming.path, next(self._numbers))
        await in_thread(self._disk.replace, incoming.path, staged)
        return Fetched(staged, digests, total)

    async def _receive(
        self, url: Checked, want: Wanted, incoming: Incoming, offset: int, limit: int, transfer: Transfer
    ) -> None:
        validator = await self._validator(incoming, url) if offset else None
        writing: asyncio.Task[None] | None = None
        got = offset
        async with self._upstream.stream(url, offset=offset, validator=validator, size=want.size) as stream:
            if stream.offset != offset:
                await in_thread(incoming.restart)
                got = 0
            transfer.expect(max(0, (want.size or 0) - got))
            if stream.etag and (got == 0 or validator is None):
                await in_thread(self._remember_validator, incoming, stream.etag, url)
            try:
                async for batch in stream:
                    got += len(batch)
                    transfer.arrived(len(batch))
                    if got > limit:
                        raise IntegrityError(redacted(url), "size", str(limit), f"more than {limit}")
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(in_computing_thread(incoming.write, batch))
            except IntegrityError:  # more than there can be: what came before is not to be built upon
                if writing is not None:
                    await writing
                await in_thread(incoming.restart)
                raise
            finally:
                if writing is not None:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([writing])
            if writing is not None:
                await writing

    async def _validator(self, incoming: Incoming, url: Checked) -> str | None:
        """The ETag that the first part came with, unless it came from another host than ``url``'s.

        Another server's ETag says nothing: there the rest is asked for without a condition, and the digest decides.
        """
        saved = await in_thread(self._disk.read, _etag_path(incoming.path))
        if not saved:
            return None
        etag, _, host = saved.decode("latin-1").partition("\n")
        return etag if host == (_host(url) if host or self._upstream.several else "") else None

    def _remember_validator(self, incoming: Incoming, etag: str, url: Checked) -> None:
        path = _etag_path(incoming.path)
        self._disk.unlink(path)
        text = f"{etag}\n{_host(url)}" if self._upstream.several else etag
        self._disk.write(path, text.encode("latin-1", "replace"))


def _host(url: Checked) -> str:
    """Scheme, host and port."""
    return url[: url.find("/", 8)]


def _etag_path(partial: str) -> str:
    return partial.removesuffix(".part") + ".etag"


def _algorithms(want: Wanted) -> tuple[str, ...]:
    """SHA-256 always (it names the file), all that the page gives, and BLAKE2b where it decides the path.

    What only the document gives beside a SHA-256 (MD5, BLAKE2b) proves nothing more, and is not computed.
    """
    chosen = {"sha256", *want.file.hashes}
    if (declared := strongest(want.digests)) is not None:
        chosen.add(declared)
    if want.candidate:
        chosen.add("blake2b_256")
    return tuple(sorted(chosen))


def _check(url: str, expected: dict[str, str], computed: dict[str, str]) -> None:
    for algorithm, digest in expected.items():
        if algorithm in computed and computed[algorithm] != digest:
            raise IntegrityError(redacted(url), algorithm, digest, computed[algorithm])
