"""What a verify found is handed over to the daemon that holds the mirror, which repairs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from heliostat.errors import DaemonAnswer, DaemonLost
from heliostat.mirror.report import Counters
from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.result import Repaired
from heliostat.service.control_client import ask
from heliostat.service.control_wire import MOST_REQUEST

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.verify.result import Result

COMMAND = "repair"
#: Findings, and bytes of them, that are handed over at once.
_MOST, _BYTES = 2000, MOST_REQUEST // 2
#: Notes that are kept.
_NOTES = 1000

#: Some findings with their numbers, and what is to be done about them.
_Part = tuple[str, list[tuple[int, Finding]]]


async def is_ready(config: Config) -> bool:
    """Whether a daemon of this mirror listens, and can repair.  Raises DaemonAnswer, DaemonLost, StoreError."""
    return await ask(config, COMMAND, {}) is not None


async def hand_over(
    config: Config,
    findings: Callable[[], Iterable[Finding]],
    result: Result,
    *,
    fix: bool,
    delete: bool,
    allow: int,
    counters: Counters,
    stop: Stop,
) -> Repaired | None:
    """What the daemon made of the findings, a part at a time; None when none listens.

    A signal ends it after the part that is under way, with which the daemon goes on.  Raises StoreError, and what the
    daemon refuses for all of them.
    """
    done, common = Repaired(), {
        "unreferenced": result.kinds.get("unreferenced", 0), "unreadable": result.unreadable, "allow_removals": allow,
    }  # fmt: skip
    done.total = result.findings
    if not done.total:  # what earlier repairs moved aside is to be looked at
        answer = await _unless_stopped(ask(config, COMMAND, {"tidy": True}, counters), stop)
        if answer is not None:
            _add(done, [], answer)
        done.interrupted = stop.event.is_set()
        return done if answer is not None or done.interrupted else None
    for number, (what, part) in enumerate(_parts(findings, fix=fix, delete=delete)):
        arguments = {"what": what, "findings": [one for _, one in part], **common}
        try:
            answer = await _unless_stopped(ask(config, COMMAND, arguments, counters), stop)
        except (DaemonAnswer, DaemonLost) as error:
            if not number:
                raise
            done.notes.append(f"handed over no further: {error}")
            return done
        if answer is None and not stop.event.is_set():
            if not number:
                return None
            done.notes.append("handed over no further: the daemon listens no more; run it again")
            return done
        if answer is not None:
            _add(done, part, answer)
        done.interrupted |= stop.event.is_set()
        if done.interrupted or done.store_error or done.held:
            return done
    return done


async def _unless_stopped(question: Coroutine[Any, Any, Any | None], stop: Stop) -> Any | None:
    """The answer; None when it is stopped before."""
    asking, stopped = asyncio.create_task(question), asyncio.create_task(stop.event.wait())
    try:
        await asyncio.wait((asking, stopped), return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else None
    finally:
        for task in (asking, stopped):
            task.cancel()
        await asyncio.gather(asking, stopped, return_exceptions=True)


def _add(done: Repaired, part: list[tuple[int, Finding]], answer: Any) -> None:
    for position in answer["fixed"]:
        done.fixed.add(part[position][0])
    done.bytes_fetched += answer["bytes_fetched"]
    done.deleted += answer["deleted"]
    done.held = max(done.held, answer["held"])
    done.notes += answer["notes"][: _NOTES - len(done.notes)]
    done.interrupted |= answer["interrupted"]
    done.unreachable = done.unreachable or answer["unreachable"]
    done.store_error = done.store_error or answer["store_error"]


def _parts(findings: Callable[[], Iterable[Finding]], *, fix: bool, delete: bool) -> Iterator[_Part]:
    """In the order in which they are dealt with: what is a project's, what is the whole mirror's, what is nobody's."""
    if fix:
        for ours in (True, False):
            kept = (
                item
                for item in enumerate(findings())
                if item[1].kind != "unreferenced" and ours == (item[1].kind != "root" and bool(item[1].project))
            )
            yield from (("fix", part) for part in _cut(kept))
    if delete:
        yield from (
            ("delete", part) for part in _cut(item for item in enumerate(findings()) if item[1].kind == "unreferenced")
        )


def _cut(items: Iterable[tuple[int, Finding]]) -> Iterator[list[tuple[int, Finding]]]:
    held: list[tuple[int, Finding]] = []
    size = 0
    for item in items:
        more = len(msgspec.json.encode(item[1]))
        if held and (len(held) >= _MOST or size + more > _BYTES):
            yield held
            held, size = [], 0
        held.append(item)
        size += more
    if held:
        yield held
