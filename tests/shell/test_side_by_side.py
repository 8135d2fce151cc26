"""Operations of a slow disk wait side by side; on any other one, one comes after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from heliostat.errors import StoreError
from heliostat.store.side_by_side import SLOW, SideBySide

ROUNDS = 40


def test_on_a_slow_disk_several_wait_at_the_same_time_until_it_is_slow_no_more() -> None:
    one, slow = SideBySide(), True
    threads: list[set[int]] = []
    done: list[int] = []

    def work(number: int) -> None:
        threads[-1].add(threading.get_ident())
        done.append(number)
        if slow:
            time.sleep(10 * SLOW)

    for _ in range(ROUNDS):
        threads.append(set())
        done.clear()
        one.each(work, range(12), 12)
        assert sorted(done) == list(range(12))
    assert len(set().union(*threads[1:])) > 1
    slow = False
    for _ in range(ROUNDS):
        threads.append(set())
        one.each(work, range(12), 12)
    assert threads[-1] == {threading.get_ident()}


def test_the_first_error_comes_out_when_nothing_is_under_way_any_more() -> None:
    one = SideBySide()
    one.each(lambda _: time.sleep(10 * SLOW), range(4), 4)
    under_way: set[int] = set()
    begun: set[int] = set()

    def work(number: int) -> None:
        begun.add(number)
        under_way.add(number)
        try:
            if number == 2:
                raise StoreError("write", "partial/2", "no")
            time.sleep(10 * SLOW)
        finally:
            under_way.discard(number)

    with pytest.raises(StoreError, match="partial/2"):
        one.each(work, range(500), 500)
    assert under_way == set()
    assert len(begun) < 500


def test_where_no_thread_can_be_had_it_is_done_without() -> None:
    one = SideBySide()
    one.each(lambda _: time.sleep(10 * SLOW), range(4), 4)
    done: list[tuple[int, int]] = []
    before = threading.stack_size(1 << 60)  # which is more than can be addressed
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=int).start()
        one.each(lambda number: done.append((number, threading.get_ident())), range(40), 40)
    finally:
        threading.stack_size(before)
    assert done == [(number, threading.get_ident()) for number in range(40)]


def test_work_that_computes_is_not_slow_also_where_others_want_the_processor() -> None:
    one = SideBySide()
    threads: set[int] = set()

    def work(_: int) -> None:
        threads.add(threading.get_ident())
        sum(range(200_000))  # far longer than a slow disk would take

    burn = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        for _ in range(50):
            one.each(work, range(4), 4)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert threads == {threading.get_ident()}
