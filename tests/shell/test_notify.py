"""The notification socket's messages, on real sockets."""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.mirror.report import Counters, Summary
from heliostat.service.health import Health
from heliostat.service.notify import Notifier
from heliostat.service.notifying import Rate, starting, status_line


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(0)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(listener.recv(65536).decode())
    except BlockingIOError:
        return found


@contextlib.contextmanager
def notifier_to(listener: socket.socket, **environ: str) -> Iterator[Notifier]:
    with contextlib.closing(Notifier({"NOTIFY_SOCKET": listener.getsockname(), **environ})) as notifier:
        yield notifier


def test_the_messages(listener: socket.socket) -> None:
    with notifier_to(listener, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid())) as notifier:
        assert notifier
        assert notifier.watchdog_limit == 30
        notifier.status("one\nREADY=1\ttwo")
        notifier.status("one\nREADY=1\ttwo")
        notifier.ready()
        notifier.watchdog()
        notifier.extend(1.5)
        notifier.stopping(2)
        notifier.stopping(3)
        notifier.close()
        notifier.status("nobody is told any more")
        assert heard(listener) == [
            "STATUS=one READY=1 two",
            "READY=1",
            "WATCHDOG=1",
            "EXTEND_TIMEOUT_USEC=1500000",
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000",
        ]


def test_a_reload_has_the_monotonic_time(listener: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with notifier_to(listener) as notifier:
        notifier.reloading()
    (message,) = heard(listener)
    kind, _, moment = message.partition("\nMONOTONIC_USEC=")
    assert kind == "RELOADING=1"
    assert before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_children_do_not_inherit_it(listener: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier(environ).close()
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},  # meant for another process
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": ""},
        {},
    ],
    ids=str,
)
def test_nobody_watches(listener: socket.socket, environ: dict[str, str]) -> None:
    with notifier_to(listener, **environ) as notifier:
        assert notifier.watchdog_limit is None
        notifier.watchdog()
        assert heard(listener) == []


@pytest.mark.parametrize(
    "address", ["", "/", "@", "notify", "vsock:2:1234", "/nowhere/at/all", "@nobody", "/" + 200 * "x"]
)
def test_an_address_that_leads_nowhere_harms_nobody(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    for _ in range(20):
        notifier.ready()
        notifier.reloading()
    notifier.status("x")
    notifier.watchdog()
    notifier.stopping(1)
    notifier.close()


def test_what_matters_is_told_once_the_supervisor_listens_again(listener: socket.socket) -> None:
    with notifier_to(listener) as notifier:
        waiting = 0
        while is_full(listener) is False:  # messages that are not read stay
            notifier.extend(waiting)
            waiting += 1
        notifier.ready()  # does not fit
        notifier.status("dropped")
        assert len(heard(listener)) == waiting
        notifier.status("next")
        assert heard(listener) == ["READY=1", "STATUS=next"]


def is_full(listener: socket.socket) -> bool:
    """Whether one more message would not be taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(listener.getsockname())
        return not select.select([], [probe], [], 0)[1]


def test_a_long_status_is_cut_between_characters(listener: socket.socket) -> None:
    with notifier_to(listener) as notifier:
        notifier.status("ü" * 1000)
    (message,) = heard(listener)
    assert message == "STATUS=" + "ü" * 200


async def test_a_start_that_gets_on_asks_for_more_time(listener: socket.socket) -> None:
    counters = Counters(phase="rebuilding", projects_total=70)
    with notifier_to(listener) as notifier:
        listening = asyncio.get_running_loop().sock_recv
        async with starting(notifier, counters, every=0.001):
            assert await listening(listener, 1000) == b"STATUS=opening the mirror"
            counters.projects_done = 7
            assert await listening(listener, 1000) == b"EXTEND_TIMEOUT_USEC=300000000"
            assert await listening(listener, 1000) == b"STATUS=rebuilding: 7 of 70 projects"
            await asyncio.sleep(0.05)  # nothing moves: nothing is asked for
            assert heard(listener) == []
        counters.projects_done = 8
        await asyncio.sleep(0.01)
        assert heard(listener) == []


def test_the_status_line() -> None:
    health = Health(started=0)
    assert status_line(health, 0) == "complete to serial 0; upstream unknown; starting"
    health.upstream_serial, health.checkpoint, health.phase = 120, 100, "working"
    health.counters = Counters(phase="projects", projects_total=9, projects_done=4)
    health.last = Summary(upstream="x", started=0, owed_by_state={"failing": 2, "held": 1})
    assert status_line(health, 12_340_000) == (
        "complete to serial 100; 20 behind; 3 owed; projects; 4 of 9 projects, 12.3 MB/s"
    )
    health.phase, health.trouble, health.trouble_text = "stopping", "unreachable", "refused"
    assert status_line(health, 0) == "complete to serial 100; 20 behind; 3 owed; unreachable: refused; stopping"
    health.phase, health.next_poll, health.trouble = "waiting", 0.0, None
    assert status_line(health, 0).startswith("complete to serial 100; 20 behind; 3 owed; next poll at ")
    health.held_by, health.held_until = "https://index.example", 100.0
    until = time.strftime("%H:%M:%S", time.localtime(100))
    assert f"; https://index.example asks to wait until {until}; next poll" in status_line(health, 0)


def test_the_rate_is_of_one_pass() -> None:
    rate, first = Rate(), Counters(bytes_done=1000)
    assert rate.feed(first, 10.0) == 0
    first.bytes_done = 5000
    assert rate.feed(first, 12.0) == 2000
    assert rate.feed(first, 12.0) == 0
    assert rate.feed(Counters(bytes_done=300), 15.0) == 100
