"""Permits: how many at once, who is next, what large files may hold, and when nobody may send."""

import asyncio

import pytest

from heliostat.errors import Missing, RateLimited, Unavailable
from heliostat.upstream.faults import TimedOut
from heliostat.upstream.gate import Gate
from heliostat.upstream.limit import Limit
from heliostat.upstream.pace import Pace
from heliostat.upstream.pauses import Pauses
from support.scripted import HandClock

URL = "https://index.example/x"


def gate(limit: int) -> Gate:
    clock = HandClock()
    return Gate(Pauses(clock, first=1, most=60), Limit(limit, start=limit), clock)


async def settle() -> None:
    """Let everything happen that can happen without time."""
    for _ in range(20):
        await asyncio.sleep(0)


class Users:
    """Tasks that each take one permit and keep it until they are told to go."""

    def __init__(self, one: Gate) -> None:
        self._gate = one
        self.running: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str, large: bool = False) -> None:
        for name in names:
            self._go[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._use(name, large))
        await settle()

    async def _use(self, name: str, large: bool) -> None:
        async with self._gate.permit(large=large):
            self.running.append(name)
            await self._go[name].wait()
            self.running.remove(name)

    async def go(self, *names: str) -> None:
        for name in names:
            self._go[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()

    async def end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def test_no_more_than_the_limit_in_the_order_they_came() -> None:
    one = gate(2)
    users = Users(one)
    await users.start("a", "b", "c", "d")
    assert users.running == ["a", "b"]
    assert one.figures()[:4] == (2, 2, 2, 2)
    await users.go("b")
    assert users.running == ["a", "c"]
    await users.go("a", "c")
    assert users.running == ["d"]
    await users.go("d")
    assert one.figures()[:5] == (2, 2, 0, 0, 2)


async def test_large_files_leave_one_permit_to_small_ones() -> None:
    users = Users(gate(3))
    await users.start("L1", "L2", "L3", large=True)
    assert users.running == ["L1", "L2"]
    await users.start("s1", "s2")
    assert users.running == ["L1", "L2", "s1"]
    await users.go("s1")
    assert users.running == ["L1", "L2", "s2"]
    await users.go("L1")
    assert users.running == ["L2", "s2", "L3"]
    await users.end()


async def test_small_ones_pass_a_large_one_that_waits_but_do_not_starve_it() -> None:
    users = Users(gate(2))
    await users.start("L1", large=True)
    await users.start("s1")
    await users.start("L2", large=True)
    await users.start("s2", "s3", "s4")
    assert users.running == ["L1", "s1"]
    await users.go("s1")
    assert users.running == ["L1", "s2"]
    await users.go("L1")
    assert users.running == ["s2", "L2"]
    await users.go("s2")
    assert users.running == ["L2", "s3"]
    await users.end()


async def test_neither_size_is_preferred() -> None:
    users = Users(gate(3))
    await users.start("a", "b", "c", "s1")
    await users.start("L1", large=True)
    await users.start("s2")
    for name in ("a", "b", "c"):
        await users.go(name)
    assert users.running == ["s1", "L1", "s2"]
    await users.end()


async def test_with_one_permit_a_large_file_has_it_like_any_other() -> None:
    users = Users(gate(1))
    await users.start("L", large=True)
    await users.start("s")
    assert users.running == ["L"]
    await users.go("L")
    assert users.running == ["s"]
    await users.end()


async def test_a_file_that_turns_out_to_be_small_frees_the_place_of_a_large_one() -> None:
    one = gate(2)
    users = Users(one)
    async with one.permit(large=True) as permit:
        await users.start("L", large=True)
        assert users.running == []
        permit.is_large(large=False)
        await settle()
        assert users.running == ["L"]
        await users.start("s")
        assert users.running == ["L"]
    await settle()
    assert users.running == ["L", "s"]
    await users.go("L", "s")
    assert one.in_flight == 0
    await users.start("L1", "L2", large=True)
    assert users.running == ["L1"]
    await users.end()


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    one = gate(1)
    users = Users(one)
    await users.start("a", "b", "c")
    await users.cancel("b")
    await users.go("a")
    assert users.running == ["c"]
    await users.end()
    assert one.in_flight == 0


async def test_who_gives_up_in_the_instant_of_being_served_passes_the_permit_on() -> None:
    one = gate(1)
    users = Users(one)
    first = one.permit()
    await first.__aenter__()
    await users.start("b", "c")
    await first.__aexit__(None, None, None)  # b has it now, but has not run yet
    await users.cancel("b")
    assert users.running == ["c"]
    await users.end()
    assert one.in_flight == 0


async def test_a_limit_that_fell_lets_nobody_in_until_enough_have_left() -> None:
    one = gate(4)
    users = Users(one)
    await users.start("a", "b", "c", "d", "e")
    one.limit.overloaded(0.0, 1.0)
    assert one.limit.value == 2
    await users.go("a", "b")
    assert users.running == ["c", "d"]
    await users.go("c")
    assert users.running == ["d", "e"]
    await users.end()


async def test_everyone_waits_for_the_instant_that_upstream_named() -> None:
    clock = HandClock()
    pace, started = Pace(4, 4, clock=clock), []

    async def use(one: Gate, name: str) -> None:
        async with one.permit():
            started.append((name, clock.now()))

    pace.hold(30.0)
    tasks = [asyncio.create_task(use(pace.metadata, "page")), asyncio.create_task(use(pace.files, "file"))]
    await clock.asleep(2)
    clock.move(29.0)
    await settle()
    assert started == []
    pace.hold(5.0)  # later than what was said before
    pace.hold(1.0)  # never shortens
    clock.move(1.0)
    await clock.asleep(2)
    assert started == []
    assert pace.figures().held == 4.0
    clock.move(4.0)
    await asyncio.gather(*tasks)
    assert started == [("page", 34.0), ("file", 34.0)]
    assert pace.figures().held == 0.0


async def test_who_gives_up_while_all_wait_gives_the_permit_back() -> None:
    clock = HandClock()
    pace = Pace(1, 1, clock=clock)
    pace.hold(10.0)
    users = Users(pace.metadata)
    await users.start("a")
    await users.cancel("a")
    assert pace.metadata.in_flight == 0


async def fail(one: Gate, error: BaseException, *, answered: bool = False) -> None:
    async def use() -> None:
        async with one.permit() as permit:
            if answered:
                permit.answered()
            raise error

    with pytest.raises(type(error)):
        await use()


async def test_rate_limits_without_a_time_hold_longer_each_round_until_one_is_answered() -> None:
    clock = HandClock()
    pace = Pace(8, 8, first=1.0, most=5.0, clock=clock)
    held = []
    for _ in range(4):
        clock.move(100.0)
        await fail(pace.metadata, RateLimited(URL, "status 429"))
        held.append(pace.figures().held)
    assert held == [1.0, 2.0, 4.0, 5.0]
    assert pace.rate_limited == 4
    clock.move(100.0)
    async with pace.files.permit() as permit:
        permit.answered()
    clock.move(100.0)
    await fail(pace.metadata, RateLimited(URL, "status 429"))
    assert pace.figures().held == 1.0


async def test_several_rate_limits_of_one_round_count_as_one() -> None:
    clock = HandClock()
    pace = Pace(8, 8, first=1.0, most=60.0, clock=clock)
    clock.move(1.0)

    async def limited() -> None:
        async with pace.metadata.permit():
            await asyncio.sleep(0)
            raise RateLimited(URL, "status 429")

    await asyncio.gather(*(limited() for _ in range(4)), return_exceptions=True)
    assert pace.figures().held == 1.0
    assert pace.metadata.limit.value == 2


async def test_a_hostile_retry_after_does_not_stop_the_mirror_for_good() -> None:
    clock = HandClock()
    pace = Pace(8, 8, clock=clock)
    await fail(pace.metadata, RateLimited(URL, "status 429", retry_after=1e9))
    assert pace.figures().held == 600.0


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (RateLimited(URL, "status 429"), 2),
        (Unavailable(URL, "status 503", status=503), 4),
        (TimedOut(URL, "stalled"), 2),
        (Unavailable(URL, "status 500", status=500), 4),
        (Unavailable(URL, "reset"), 4),
        (Missing(URL, "status 404"), 4),
        (asyncio.CancelledError(), 4),
    ],
)
async def test_what_makes_the_limit_fall(error: BaseException, limit: int) -> None:
    clock = HandClock()
    clock.move(1.0)
    pace = Pace(8, 8, clock=clock)
    await fail(pace.metadata, error)
    assert pace.metadata.limit.value == limit
    assert pace.files.limit.value == 4
    assert pace.metadata.in_flight == 0


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_server_that_has_too_much_to_do_says_so_more_than_once(status: int) -> None:
    clock = HandClock()
    clock.move(1.0)
    pace = Pace(8, 8, clock=clock)
    for expected in (4, 2):
        await fail(pace.metadata, Unavailable(URL, f"status {status}", status=status))
        assert pace.metadata.limit.value == expected


async def test_a_404_is_an_answer_and_a_lost_connection_is_none() -> None:
    clock = HandClock()
    pace = Pace(8, 8, clock=clock)
    await fail(pace.metadata, Missing(URL, "status 404"), answered=True)
    assert pace.metadata.limit.successes == 1
    await fail(pace.metadata, Unavailable(URL, "cut"), answered=True)
    await fail(pace.metadata, asyncio.CancelledError(), answered=True)
    assert pace.metadata.limit.successes == 1


async def test_a_limit_that_grew_lets_more_in() -> None:
    clock = HandClock()
    pace = Pace(64, 64, clock=clock)
    most = 0

    async def use() -> None:
        nonlocal most
        async with pace.metadata.permit() as permit:
            most = max(most, pace.metadata.in_flight)
            for _ in range(3):
                await asyncio.sleep(0)
            clock.move(0.001 / pace.metadata.in_flight)
            permit.answered()

    await asyncio.gather(*(use() for _ in range(1000)))
    assert most == pace.metadata.limit.value == 64


async def test_what_one_server_asks_for_holds_back_no_other() -> None:
    """Not even where it has all permits: who waits for it gives them to the others meanwhile."""
    pace = Pace(1, 1)
    with pytest.raises(RateLimited):
        async with pace.metadata.permit(server="one"):
            raise RateLimited("one", "too many requests", retry_after=500.0)
    waiting = [asyncio.create_task(_take(pace, "one")) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await _take(pace, "two")
    assert not any(task.done() for task in waiting)
    assert pace.figures().held > 400
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert pace.metadata.in_flight == 0


async def _take(pace: Pace, server: str) -> None:
    async with pace.metadata.permit(server=server):
        pass
