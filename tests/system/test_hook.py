"""The hook of a real daemon: what it is told, and that nothing it does harms or delays the mirror."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex
from support.cli import arun
from support.daemon_process import DaemonProcess, configure, daemon_process, until
from support.hooks import Hook
from support.small_index import publish, serving


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "beta") as server:
        yield server


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    return Hook(tmp_path / "hook")


def setting(hook: Hook, *more: str) -> str:
    return "\n".join([f'hook = ["{hook.program}", "an argument", "$HOME"]', *more])


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def told(hook: Hook) -> list[str]:
    """The projects that it was told of so far."""
    return [name for call in hook.calls for name in call.projects]


async def served(daemon: DaemonProcess, name: str) -> None:
    page = daemon.home / "pypi/web/simple" / name / "index.html"
    await until(page.exists, tell=lambda: daemon.log)


async def test_it_is_told_what_was_published(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push=setting(hook, 'secret = "0123456789abcdef"'))
    async with daemon_process(tmp_path, env={"A_SECRET": "x", "LC_ALL": "C.UTF-8"}) as daemon:
        await until(lambda: sum(len(call.changes) for call in hook.calls) >= 2, tell=lambda: daemon.log)
        seen, before = len(hook.calls), upstream.index.serial
        await daemon.says(lambda it: it["checkpoint"] == before)
        publish(upstream.index, "alpha", "2.0")
        daemon.poke()
        await until(lambda: len(hook.calls) > seen, tell=lambda: daemon.log)
        await daemon.stop()
    first, last = hook.calls[0], hook.calls[-1]
    assert {name for call in hook.calls[:seen] for name in call.projects} == {"alpha", "beta"}
    assert last.projects == ["alpha"]
    (change,) = last.changes
    assert change["what"] == "updated"
    named = [*change.get("added", []), *change.get("changed", []), *change.get("removed", [])]
    assert last.paths == [*named, ""]
    assert any(path.endswith("/alpha-2.0.tar.gz") for path in change["added"])
    web = tmp_path / "pypi/web"
    assert all((web / path).exists() for path in named)
    assert (last.cwd, last.arguments) == (str(web), ["an argument", "$HOME"])
    told = {name: value for name, value in last.environment.items() if name.startswith("HELIOSTAT_")}
    assert told == {
        "HELIOSTAT_CONFIG": str(tmp_path / "heliostat.toml"),
        "HELIOSTAT_DIRECTORY": str(tmp_path / "pypi"),
        "HELIOSTAT_CHANGES": str(tmp_path / "pypi/hook/changes.jsonl"),
        "HELIOSTAT_PATHS": str(tmp_path / "pypi/hook/paths"),
        "HELIOSTAT_SINCE": "2",
        "HELIOSTAT_TO": "3",
        "HELIOSTAT_SERIAL": str(upstream.index.serial),
        # It is told when something was published, which may be before the pass that did it moved the checkpoint.
        "HELIOSTAT_CHECKPOINT": last.environment["HELIOSTAT_CHECKPOINT"],
        "HELIOSTAT_COMPLETE": "yes",
    }
    assert before <= int(told["HELIOSTAT_CHECKPOINT"]) <= upstream.index.serial
    assert set(last.environment) - set(told) <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE"}
    assert (first.environment["HELIOSTAT_SINCE"], first.environment["HELIOSTAT_COMPLETE"]) == ("0", "yes")
    assert "hook: told of 1" in daemon.log


async def test_one_that_fails_is_told_everything_since(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    """Also by the next process; and the mirror goes on meanwhile."""
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("fail")
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged(r"^<4>.*the hook ended with exit code 3; trying again in")
        status = await daemon.says(lambda it: it["pushing"]["hook"]["failed"] >= 2)
        assert status["pushing"]["hook"]["trouble"] == "ended with exit code 3"
        assert status["pushing"]["hook"]["done"] == 0
        shown = await arun("status", cwd=tmp_path)
        assert re.search(r"push +hook fails for .*: ended with exit code 3\n", shown.stdout), shown.stdout
        publish(upstream.index, "gamma")
        daemon.poke()
        await served(daemon, "gamma")
        await daemon.stop()
    # Said once, not at each try.
    assert daemon.log.count("the hook ended with exit code 3") == 1, daemon.log
    assert all(call.environment["HELIOSTAT_SINCE"] == "0" for call in hook.calls)
    publish(upstream.index, "delta")
    hook.recover("fail")
    before = len(hook.calls)
    async with daemon_process(tmp_path) as daemon:
        await until(lambda: "delta" in [name for call in hook.calls for name in call.projects], tell=lambda: daemon.log)
        await daemon.says(lambda it: it["pushing"]["hook"]["done"] and it["pushing"]["hook"]["trouble"] is None)
        await daemon.stop()
    told = [name for call in hook.calls[before:] for name in call.projects]
    assert sorted(told) == ["alpha", "beta", "delta", "gamma"]
    assert not hook.overlapped


async def test_one_that_recovers_is_said_to(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("fail")
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged("the hook ended")
        hook.recover("fail")
        await daemon.logged("the hook goes well again")
        await daemon.stop()


@pytest.mark.parametrize("stubborn", [False, True], ids=["gentle", "stubborn"])
async def test_one_that_hangs_is_ended_with_its_children(
    tmp_path: Path, upstream: FakeIndex, hook: Hook, stubborn: bool
) -> None:
    configure(tmp_path, upstream.url, push=setting(hook, "hook-timeout = 1"))
    hook.behave("hang")
    if stubborn:
        hook.behave("stubborn")
    async with daemon_process(tmp_path) as daemon:
        call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
        publish(upstream.index, "gamma")
        daemon.poke()
        await served(daemon, "gamma")  # the mirror does not wait for it
        await daemon.logged(r"^<4>.*the hook took longer than 1 s and was ended")
        assert call.child is not None
        await until(lambda: not is_there(call.pid) and not is_there(call.child))
        (hook.folder / "runs").unlink(missing_ok=True)
        hook.recover("hang")
        await until(lambda: "gamma" in [name for call in hook.calls for name in call.projects])
        await daemon.stop()


async def test_a_missing_program_is_said(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push='hook = ["/nowhere/at-all"]')
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged(r"^<4>.*the hook cannot be started: No such file or directory; correct \[push\] hook")
        await served(daemon, "alpha")
        # Another configuration is tried at once.
        configure(tmp_path, upstream.url, push=setting(hook))
        daemon.service.process.send_signal(signal.SIGHUP)
        await until(lambda: hook.calls, tell=lambda: daemon.log)
        await daemon.stop()
    assert sorted(name for call in hook.calls for name in call.projects) == ["alpha", "beta"]


async def test_one_that_says_too_much_is_cut_short(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("flood")
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged(r"hook: and \d{7,} bytes more")
        await daemon.says(lambda it: it["pushing"]["hook"]["done"])
        await daemon.stop()
    assert all(len(line) < 700 and "\x1b" not in line for line in daemon.service.lines)
    lines = [line for line in daemon.service.lines if "hook: " in line]
    assert len(lines) <= 101 * len(hook.calls)


async def test_what_it_leaves_to_itself_costs_nothing(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    """A process in a session of its own, with the hook's output still open."""
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("leave")
    left = hook.folder / "left"
    try:
        async with daemon_process(tmp_path) as daemon:
            opened = []
            for number in range(4):
                done = await daemon.says(lambda it: it["pushing"]["hook"]["done"])
                assert done["pushing"]["hook"]["failed"] == 0
                await until(lambda: "more-" + str(number - 1) in told(hook) or not number, tell=lambda: daemon.log)  # noqa: B023
                opened.append(len(os.listdir(f"/proc/{daemon.service.process.pid}/fd")))
                publish(upstream.index, f"more-{number}")
                daemon.poke()
            await daemon.stop()
        assert opened[-1] <= opened[1] + 1, opened
    finally:
        for line in left.read_text().split():
            os.kill(int(line), signal.SIGKILL)


async def test_a_second_signal_does_not_wait_for_it(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("hang")
    hook.behave("stubborn")
    async with daemon_process(tmp_path) as daemon:
        call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
        for _ in range(2):
            daemon.service.process.send_signal(signal.SIGTERM)
            await daemon.service.until_said("STOPPING")
        assert await daemon.service.process.wait() in (0, 143), daemon.log
        await until(lambda: not is_there(call.pid))
        assert "Traceback" not in daemon.log


async def test_a_daemon_that_ends_ends_it(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("hang")
    async with daemon_process(tmp_path) as daemon:
        call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
        await daemon.stop()
    assert call.child is not None
    assert not is_there(call.pid)
    assert not is_there(call.child)
    hook.recover("hang")
    (hook.folder / "runs").unlink()
    async with daemon_process(tmp_path) as daemon:
        await until(lambda: len(hook.calls) > 1, tell=lambda: daemon.log)
        await daemon.stop()
    assert hook.calls[1].environment["HELIOSTAT_SINCE"] == "0"


async def test_it_never_runs_twice_at_once(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    """Its daemon was killed, and it lives on: the next daemon waits for it, and tells it everything again."""
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("hang")
    async with daemon_process(tmp_path) as daemon:
        call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
        await daemon.kill()
    assert is_there(call.pid)
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged("the hook was not run: it still runs since before this process")
        assert len(hook.calls) == 1
        assert call.child is not None
        os.kill(call.child, signal.SIGKILL)
        hook.recover("hang")
        await until(lambda: len(hook.calls) > 1, tell=lambda: daemon.log)
        await daemon.says(lambda it: it["pushing"]["hook"]["done"])
        await daemon.stop()
    assert hook.calls[1].changes[: len(call.changes)] == call.changes
    assert not hook.overlapped


async def test_what_a_daemon_that_was_killed_left_has_its_time_limit_too(
    tmp_path: Path, upstream: FakeIndex, hook: Hook
) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("stubborn")
    hook.behave("hang")
    async with daemon_process(tmp_path) as daemon:
        call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
        await daemon.kill()
    assert call.child is not None
    configure(tmp_path, upstream.url, push=setting(hook, "hook-timeout = 1"))
    async with daemon_process(tmp_path) as daemon:
        await until(lambda: not is_there(call.pid), tell=lambda: daemon.log)
        assert not is_there(call.child)
        hook.recover("hang")
        (hook.folder / "runs").unlink(missing_ok=True)  # it could not do that itself
        await until(lambda: len(hook.calls) > 1, tell=lambda: daemon.log)
        await daemon.logged("still ran since before this process, for longer than 1 s, and was ended")
        await daemon.stop()


async def test_its_folder_is_made_anew_when_somebody_removed_it(
    tmp_path: Path, upstream: FakeIndex, hook: Hook
) -> None:
    configure(tmp_path, upstream.url, push=setting(hook))
    async with daemon_process(tmp_path) as daemon:
        await until(lambda: sum(len(call.changes) for call in hook.calls) >= 2, tell=lambda: daemon.log)
        await daemon.says(lambda it: not it["pushing"]["running"])
        shutil.rmtree(tmp_path / "pypi/hook")
        publish(upstream.index, "later")
        daemon.poke()
        await until(lambda: "later" in told(hook), tell=lambda: daemon.log)
        await daemon.stop()


async def test_what_it_left_behind_is_not_waited_for(tmp_path: Path, upstream: FakeIndex, hook: Hook) -> None:
    """A process in a session of its own, which inherited whatever the hook did, of a daemon that was killed."""
    configure(tmp_path, upstream.url, push=setting(hook))
    hook.behave("hang")
    hook.behave("leave")
    left = hook.folder / "left"
    try:
        async with daemon_process(tmp_path) as daemon:
            call = (await until(lambda: hook.calls, tell=lambda: daemon.log))[0]
            await until(left.exists)
            await daemon.kill()
        assert call.child is not None
        os.kill(call.child, signal.SIGKILL)
        hook.recover("hang")
        hook.recover("leave")
        await until(lambda: not is_there(call.pid))
        async with daemon_process(tmp_path) as daemon:
            await daemon.says(lambda it: it["pushing"]["hook"]["done"])
            await daemon.stop()
        assert is_there(int(left.read_text()))
        assert "was not run" not in daemon.log
        assert not hook.overlapped
    finally:
        for line in left.read_text().split():
            os.kill(int(line), signal.SIGKILL)


async def test_a_new_hook_learns_that_it_was_not_told_everything(
    tmp_path: Path, upstream: FakeIndex, hook: Hook
) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["checkpoint"] == upstream.index.serial)
        configure(tmp_path, upstream.url, push=setting(hook))
        daemon.service.process.send_signal(signal.SIGHUP)
        (call,) = await until(lambda: hook.calls, tell=lambda: daemon.log)
        assert (call.environment["HELIOSTAT_COMPLETE"], call.changes, call.paths) == ("no", [], [""])
        publish(upstream.index, "gamma")
        await daemon.says(lambda it: it["pushing"]["hook"]["done"] == 1)
        daemon.poke()
        _, call = await until(lambda: len(hook.calls) > 1 and hook.calls, tell=lambda: daemon.log)
        assert (call.environment["HELIOSTAT_COMPLETE"], call.projects) == ("yes", ["gamma"])
        await daemon.stop()
