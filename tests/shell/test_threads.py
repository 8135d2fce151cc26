"""Threads that cannot be had: whoever asks is told, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from heliostat.store.disk import Disk
from heliostat.store.staging import Stager
from heliostat.store.threads import Workers


@contextmanager
def no_more_threads() -> Iterator[None]:
    before = threading.stack_size(1 << 60)  # which is more than can be addressed
    try:
        yield
    finally:
        threading.stack_size(before)


def slowly(number: int) -> int:
    time.sleep(0.01)
    return number


async def test_the_first_one_that_cannot_be_had_is_an_error_and_the_next_call_tries_again() -> None:
    workers = Workers("of-a-test", 2)
    with no_more_threads():
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await workers.run(int)
    assert await workers.run(int, "7") == 7
    workers.close()


async def test_those_that_there_are_do_what_more_would_have_done() -> None:
    workers = Workers("of-a-test", 4)
    await workers.run(int)
    with no_more_threads():
        done = await asyncio.gather(*(workers.run(slowly, number) for number in range(9)))
    assert done == [*range(9)]
    workers.close()


async def test_what_is_to_be_staged_fails_with_it(tmp_path: object) -> None:
    stager = Stager(Disk(str(tmp_path)))
    with no_more_threads():
        assert {type(one) for one in await asyncio.gather(*map(stager.put, (b"1", b"2")), return_exceptions=True)} == {
            RuntimeError
        }
    assert await stager.put(b"3")
    await stager.close()
