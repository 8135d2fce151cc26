"""Repairs in a daemon: what a verify, or the scrub, found is put right by it, one repair at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from heliostat.errors import Refused, printable
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.verify.findings import Finding

if TYPE_CHECKING:
    from heliostat.mirror.verify.result import Repaired
    from heliostat.service.control_commands import Call
    from heliostat.service.daemon import Daemon

_Count = Annotated[int, msgspec.Meta(ge=0)]


async def repair_in(
    daemon: Daemon,
    findings: Callable[[], Iterable[Finding]],
    *,
    counters: Counters,
    fix: bool = True,
    delete: bool = False,
    **more: Any,
) -> Repaired:
    """As :meth:`heliostat.mirror.run.Mirror.repair`; projects are synchronised by the daemon's own passes.

    Nothing is deleted while a pass runs, which might be about to name it: an ordinary one makes way.
    """

    async def sync(names: list[str]) -> Summary:
        if daemon.stop.is_set():  # nobody would do it any more
            return Summary(upstream="", started=time.time(), interrupted=True)
        return await daemon.sync_now(names, counters)

    async with daemon.repairing, daemon.between_passes() if delete else _nothing():
        return await daemon.mirror.repair(
            findings, counters=counters, stop=daemon.stop, fix=fix, delete=delete, sync=sync, **more
        )


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class RepairArguments(msgspec.Struct, kw_only=True):
    """A part of what ``heliostat verify`` found."""

    what: Literal["fix", "delete"] = "fix"
    findings: list[Finding] = []
    #: Without findings: look at what earlier repairs moved aside.
    tidy: bool = False
    #: Of the whole verify: files that no page names, projects without a readable page, and how many may go.
    unreferenced: _Count = 0
    unreadable: _Count = 0
    allow_removals: _Count = 0


class RepairAnswer(msgspec.Struct, kw_only=True):
    """What became of it; ``fixed`` are the positions of the findings that are gone."""

    fixed: list[int]
    bytes_fetched: int = 0
    deleted: int = 0
    held: int = 0
    notes: list[str] = []
    interrupted: bool = False
    unreachable: str | None = None
    store_error: str | None = None


async def repair(call: Call) -> RepairAnswer:
    """Put right, or delete, what a verify found; without findings, only say that this can be done here."""
    asked = call.arguments(RepairArguments)
    for one in asked.findings:
        _check(one)
    if not asked.findings and not asked.tidy:
        return RepairAnswer(fixed=[])
    done = await repair_in(
        call.daemon, lambda: asked.findings, counters=call.counters,
        fix=asked.what == "fix", delete=asked.what == "delete", allow_removals=asked.allow_removals,
        unreadable=asked.unreadable, unreferenced=asked.unreferenced,
    )  # fmt: skip
    return RepairAnswer(
        fixed=[number for number in range(len(asked.findings)) if number in done.fixed],
        bytes_fetched=done.bytes_fetched, deleted=done.deleted, held=done.held, notes=done.notes,
        interrupted=done.interrupted, unreachable=done.unreachable, store_error=done.store_error,
    )  # fmt: skip


def _check(one: Finding) -> None:
    """A path that a verify of this mirror could have found.  Raises Refused."""
    try:
        path = one.file
    except ValueError:
        raise Refused("path", printable(one.path, 60), "its bytes are not in hexadecimal") from None
    parts = path.rstrip("/").split("/")
    if parts[0] != "web" or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise Refused("path", printable(one.path, 60), "no path below the web root")
