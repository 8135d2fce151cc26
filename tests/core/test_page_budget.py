"""How many large pages are held at the same time."""

from __future__ import annotations

import asyncio

from heliostat.mirror.budget import PageBudget

MIB = 1 << 20


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_large_one_waits_until_it_fits_and_they_enter_in_order() -> None:
    budget, order = PageBudget(64 * MIB), []
    shares = [budget.share() for _ in range(4)]

    async def enter(number: int) -> None:
        await shares[number].become_large()
        order.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(4)]
    await settle()
    assert order == [0, 1]
    shares[0].holds(60 * MIB)
    shares[1].release()
    await settle()
    assert order == [0, 1]
    assert not budget.crowded
    shares[0].holds(20 * MIB)
    await settle()
    assert order == [0, 1, 2]
    shares[0].release()
    shares[2].release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_one_at_a_time_always_may() -> None:
    budget = PageBudget(64 * MIB)
    small = budget.share()
    small.holds(100 * MIB)
    assert budget.crowded
    first, second = budget.share(), budget.share()
    await first.become_large()
    first.holds(500 * MIB)
    waiting = asyncio.create_task(second.become_large())
    await settle()
    assert not waiting.done()
    first.release()
    await waiting
    second.release()
    small.release()
    assert not budget.crowded


async def test_one_that_gives_up_waiting_takes_nothing_along() -> None:
    budget = PageBudget(64 * MIB)
    first = budget.share()
    await first.become_large()
    first.holds(64 * MIB)
    waiting = [asyncio.create_task(budget.share().become_large()) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    first.release()  # lets the others in, and the first of them has not heard yet that it is to end
    await settle()
    assert [task.cancelled() for task in waiting] == [True, False, False]
    assert all(task.done() for task in waiting)


async def test_what_lies_aside_lets_the_next_one_in_and_waits_again() -> None:
    budget, order = PageBudget(64 * MIB), []
    first, second = budget.share(), budget.share()
    await first.become_large()
    first.holds(60 * MIB)

    async def enter() -> None:
        await second.become_large()
        order.append("second")

    async def again() -> None:
        await first.become_large()
        order.append("first")

    entering = asyncio.create_task(enter())
    await settle()
    assert order == []
    first.set_aside(MIB)
    await entering
    second.holds(62 * MIB)
    assert not budget.crowded
    returning = asyncio.create_task(again())
    await settle()
    assert order == ["second"]
    second.release()
    await returning
    first.release()
    assert order == ["second", "first"]
    await asyncio.wait_for(budget.share().become_large(), 60)
