"""What can be asked of a running daemon by its control socket; further commands add themselves to HANDLERS."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec

from heliostat.errors import Refused
from heliostat.mirror.report import Counters
from heliostat.service.daemon import Daemon, Wish
from heliostat.service.deletion import delete as delete_entries
from heliostat.service.deletion import restore as restore_entries
from heliostat.service.reload import ReloadResult

T = TypeVar("T")
_Name = Annotated[str, msgspec.Meta(max_length=300)]


@dataclasses.dataclass
class Call:
    """One request: to whom, with what; ``counters`` are shown to the client while it runs.

    ``waits`` for upstream: the client is told when that asks to wait.
    """

    daemon: Daemon
    raw: bytes
    counters: Counters = dataclasses.field(default_factory=Counters)
    waits: bool = False

    def shows(self, counters: Counters) -> None:
        """From now on these are shown."""
        self.counters = counters

    def arguments(self, kind: type[T]) -> T:
        """Its arguments; raises Refused."""
        try:
            return msgspec.json.decode(self.raw, type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused("arguments", "of this command", str(error)) from None


#: Carries out one command; what it returns becomes JSON.  Raises HeliostatError where a command would.
Handler = Callable[[Call], Awaitable[object]]


class Names(msgspec.Struct):
    names: list[_Name] = []


class MirrorArguments(Names, kw_only=True):
    """Those of ``heliostat mirror --once``."""

    full: bool = False
    allow_removals: Annotated[int, msgspec.Meta(ge=0)] = 0


async def mirror(call: Call) -> object:
    """Projects by name, or a whole pass; its summary."""
    asked = call.arguments(MirrorArguments)
    call.waits = True
    if not asked.names:
        wish = Wish(full=asked.full, allow_removals=asked.allow_removals)
        return await call.daemon.pass_now(wish, call.shows)
    if asked.full or asked.allow_removals:
        raise Refused("option", "--full or --allow-removals", "goes without names while a daemon holds the mirror")
    return await call.daemon.sync_now(asked.names, call.counters)


class DeleteArguments(msgspec.Struct, kw_only=True):
    """Those of ``heliostat delete`` and ``heliostat restore``."""

    entries: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    purge: bool = False


async def delete(call: Call) -> object:
    """Projects and releases go, and stay away; what became of each."""
    asked = call.arguments(DeleteArguments)
    return await delete_entries(
        call.daemon, asked.entries, reason=asked.reason, purge=asked.purge, counters=call.counters
    )


async def restore(call: Call) -> object:
    """They come back; what became of each."""
    asked = call.arguments(DeleteArguments)
    return await restore_entries(call.daemon, asked.entries, counters=call.counters)


async def reload(call: Call) -> ReloadResult:
    """What came of reading the configuration anew."""
    return await call.daemon.reload()


async def poke(call: Call) -> dict[str, Any]:
    """A poll begins at once; the answer does not wait for it."""
    call.daemon.poke(call.arguments(Names).names)
    return {}


async def status(call: Call) -> dict[str, Any]:
    """What ``/status.json`` says."""
    from heliostat.service.gathering import Gathering

    return await Gathering(call.daemon).status()


async def repair(call: Call) -> object:
    """What a verify found is put right; see :mod:`heliostat.service.repairing`."""
    from heliostat.service.repairing import repair

    return await repair(call)


HANDLERS: dict[str, Handler] = {
    "mirror": mirror, "reload": reload, "poke": poke, "status": status, "delete": delete, "restore": restore,
    "repair": repair,
}  # fmt: skip
