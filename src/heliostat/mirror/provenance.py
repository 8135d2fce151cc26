"""Provenance objects (PEP 740): mutable, without a digest, but what they say about their file can be checked."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from heliostat.errors import Invalid, Refused
from heliostat.mirror.crew import first_of
from heliostat.mirror.report import Counters
from heliostat.mirror.tally import Tally
from heliostat.mirror.transfer import Transfer
from heliostat.mirror.wanted import provenance_path
from heliostat.model import DistFile, ProjectName
from heliostat.names import quote_filename
from heliostat.store.disk import Operations
from heliostat.store.obstacles import refuse_obstacle
from heliostat.store.staging import Stager
from heliostat.store.threads import in_thread
from heliostat.store.tree import Placement
from heliostat.upstream.client import Upstream
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import redacted

_LIMIT = 8 << 20
#: Objects that one project fetches side by side.
_AT_ONCE = 8
_ACCEPT = "application/vnd.pypi.integrity.v1+json, application/json;q=0.5"


class _Envelope(msgspec.Struct):
    statement: str


class _Attestation(msgspec.Struct):
    envelope: _Envelope


class _Bundle(msgspec.Struct):
    attestations: list[_Attestation]


class _Provenance(msgspec.Struct):
    attestation_bundles: list[_Bundle]
    version: int = 1


class _Subject(msgspec.Struct):
    name: str = ""
    digest: dict[str, str] = {}


class _Statement(msgspec.Struct):
    subject: list[_Subject] = []


class ProvenanceFetcher:
    """Fetches the provenance objects that a page links, once, and again when asked to refresh."""

    def __init__(self, upstream: Upstream, disk: Operations, stager: Stager, counters: Counters, tally: Tally) -> None:
        self._upstream, self._disk, self._stager = upstream, disk, stager
        self._counters, self._tally = counters, tally

    async def fetch(
        self, name: ProjectName, files: Sequence[DistFile], *, refresh: bool
    ) -> tuple[list[Placement], set[str]]:
        """Stage what is missing (or everything, to refresh); also the paths that the page accounts for.

        Raises UpstreamError, Refused, StoreError.
        """
        placements: list[Placement] = []
        paths = {
            file.filename: provenance_path(name, file.provenance, file.filename) for file in files if file.provenance
        }
        if not paths:
            return placements, set()
        missing = set(paths.values()) if refresh else await in_thread(self._missing, set(paths.values()))
        asked = [file for file in files if file.provenance and paths[file.filename] in missing]
        transfers = [Transfer(self._counters, None) for _ in asked]
        todo = iter(zip(asked, transfers, strict=True))

        async def drain() -> None:
            for file, transfer in todo:
                placement = await self._one(name, file, paths[file.filename], transfer)
                if placement is not None:
                    placements.append(placement)

        try:
            async with asyncio.TaskGroup() as crew:
                for _ in range(min(_AT_ONCE, len(asked))):
                    crew.create_task(drain())
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            for transfer in transfers:
                transfer.end()
        return placements, set(paths.values())

    def _missing(self, paths: Iterable[str]) -> set[str]:
        """Which of them are not there.  Raises InTheWay where something else is."""
        missing: set[str] = set()
        for path in paths:
            entry = self._disk.stat(path)
            if entry is None or not entry.is_file:
                refuse_obstacle(self._disk, path)
                missing.add(path)
        return missing

    async def _one(self, name: ProjectName, file: DistFile, path: str, transfer: Transfer) -> Placement | None:
        there = await in_thread(self._disk.read, path)
        assert file.provenance is not None
        url = self._source(name, file.provenance, path, file.filename)
        body = await self._checked(url, file, transfer)
        transfer.done()
        if body == there:
            return None
        self._tally.bytes_fetched += len(body)
        return Placement(await self._stager.put(body), path)

    async def _checked(self, url: str, file: DistFile, transfer: Transfer) -> bytes:
        """The object; a wrong one is asked for once more, since caches serve garbage for a moment."""
        body = await self._fetched(url, transfer)
        try:
            check_provenance(body, redacted(url), file)
        except Invalid as error:
            await self._upstream.back_off(0, error)
            body = await self._fetched(url, transfer)
            check_provenance(body, redacted(url), file)
        return body

    async def _fetched(self, url: str, transfer: Transfer) -> bytes:
        body = await self._upstream.fetch(url, limit=_LIMIT, accept=_ACCEPT, kind=Kind.PROVENANCE)
        transfer.arrived(len(body))
        return body

    def _source(self, name: ProjectName, url: str, path: str, filename: str) -> str:
        """The page's own URL, or, where that is another index's (a mirror keeps it), the same object here."""
        try:
            return self._upstream.check_url(url)
        except Refused:
            version = path.split("/")[3]
            return (
                f"{self._upstream.base}/integrity/{name}/{quote_filename(version)}/"
                f"{quote_filename(filename)}/provenance"
            )


def check_provenance(body: bytes, url: str, file: DistFile) -> None:
    """Every attestation's statement must name the file and its SHA-256.  Raises Invalid."""
    try:
        decoded = msgspec.json.decode(body, type=_Provenance)
        for bundle in decoded.attestation_bundles:
            for attestation in bundle.attestations:
                raw = base64.b64decode(attestation.envelope.statement, validate=True)
                _check_statement(msgspec.json.decode(raw, type=_Statement), url, file)
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
        raise Invalid(url, f"not a provenance object: {error}") from error


def _check_statement(statement: Any, url: str, file: DistFile) -> None:
    sha256 = file.hashes.get("sha256")
    for subject in statement.subject:
        if subject.name == file.filename and subject.digest.get("sha256") == sha256:
            return
    raise Invalid(url, f"the provenance object is not about {file.filename!r} with sha256 {sha256}")
