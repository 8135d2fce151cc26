"""The control socket of a real daemon, and the commands that hand their work over to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex
from heliostat.fakeindex.faults import Hang, Status
from support.cli import arun, command, environment, finish, start
from support.control import connection
from support.daemon_process import PATIENCE, configure, daemon_process, until
from support.small_index import publish, serving
from support.unprivileged import become_ordinary_user


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "beta", "gamma") as server:
        yield server


# --- commands --------------------------------------------------------------------------------------------------


async def test_a_named_project_is_synced_by_the_daemon(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url, mirror="reconcile-hours = 1000")
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.reset_log()
        done = await arun("mirror", "Alpha", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr + daemon.log
        summary = json.loads(done.stdout)
        assert summary["complete"] is True
        assert upstream.count("/simple/alpha/") == 1
        assert upstream.count("/simple/beta/") == 0
        words = await arun("mirror", "beta", cwd=tmp_path)
        assert words.stdout.startswith("complete: ")
        await daemon.stop()


@pytest.mark.parametrize("seconds", [300, 3000], ids=["within a pass", "between passes"])
async def test_a_long_wait_that_upstream_asks_for_is_told_and_not_waited_for(
    tmp_path: Path, upstream: FakeIndex, seconds: int
) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.fault("/*", Status(503, retry_after=seconds), times=1)
        daemon.poke()
        await daemon.says(lambda it: it["held_until"])
        for words in (("--once",), ("alpha",), ("--full",)):
            done = await arun("mirror", *words, cwd=tmp_path)
            assert done.returncode == 5, (words, done.stderr)
            assert done.stdout == ""
            (said,) = [line for line in done.stderr.splitlines() if "asks to wait until" in line]
            assert upstream.url in said
            assert "the daemon goes on with it then" in said
        told = json.loads((await arun("mirror", "--once", "--json", cwd=tmp_path)).stdout)
        assert (told["error"], told["exit_code"]) == ("Held", 5)
        # What needs nothing of upstream is carried out all the same.
        assert (await arun("reload", cwd=tmp_path)).returncode == 0


async def test_a_short_wait_that_upstream_asks_for_is_told_and_waited_for(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.fault("/*", Status(503, retry_after=12), times=1)
        daemon.poke()
        await daemon.says(lambda it: it["held_until"])
        done = await arun("mirror", "--once", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"{upstream.url} asks for it (Retry-After)" in done.stderr
        assert done.stderr.count("waiting until ") == 1
        await daemon.stop()


async def test_an_unknown_project_is_listed(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        done = await arun("mirror", "alpha", "nothing-of-that-name", cwd=tmp_path)
        assert done.returncode == 3, done.stderr + daemon.log
        assert "nothing-of-that-name" in done.stdout
        await daemon.stop()


async def test_one_that_fails_is_told_with_its_reason(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        upstream.fault("/simple/beta/", Status(500))
        publish(upstream.index, "beta", "2.0")
        done = await arun("mirror", "beta", cwd=tmp_path)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "beta" in done.stdout
        assert "500" in done.stdout
        await daemon.stop()


@pytest.mark.parametrize("arguments", [["--once"], ["--once", "--full"], ["--full"]], ids=" ".join)
async def test_a_whole_pass_is_done_by_the_daemon(tmp_path: Path, upstream: FakeIndex, arguments: list[str]) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        publish(upstream.index, "delta")
        upstream.reset_log()
        done = await arun("mirror", *arguments, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr + daemon.log
        summary = json.loads(done.stdout)
        assert (summary["added"], summary["complete"]) == (1, True)
        assert (tmp_path / "pypi/web/simple/delta/index.html").exists()
        assert (upstream.count("/simple/") > 0) == ("--full" in arguments)
        await daemon.stop()


async def test_what_waits_for_its_next_try_is_tried_now(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url, mirror="retry-first = 20000\nretry-most = 20000")
    upstream.fault("/simple/beta/", Status(500))
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting" and it["passes"])
        assert not (tmp_path / "pypi/web/simple/beta").exists()
        upstream.clear_faults()
        done = await arun("mirror", "--once", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "pypi/web/simple/beta/index.html").exists()
        await daemon.stop()


async def test_held_removals_are_approved_through_the_daemon(tmp_path: Path, upstream: FakeIndex) -> None:
    for name in ("delta", "epsilon"):
        publish(upstream.index, name)
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting" and it["passes"])
        for name in ("alpha", "beta", "gamma", "delta"):
            upstream.index.remove_project(name)
        held = await arun("mirror", "--once", cwd=tmp_path)
        assert held.returncode == 7, held.stdout + held.stderr
        done = await arun("mirror", "--allow-removals", "4", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        left = {path.name for path in (tmp_path / "pypi/web/simple").iterdir() if path.is_dir()}
        assert left == {"epsilon"}
        await daemon.stop()


async def test_while_a_pass_runs(tmp_path: Path, upstream: FakeIndex) -> None:
    """It does not have to end first; and progress is shown."""
    upstream.fault("/packages/*/gamma-*", Hang())
    reached = upstream.seen("/packages/*/gamma-*")
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        async with asyncio.timeout(PATIENCE):
            await reached
        publish(upstream.index, "delta")
        done = await arun("mirror", "delta", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr + daemon.log
        assert (tmp_path / "pypi/web/simple/delta/index.html").exists()
        assert not (tmp_path / "pypi/web/simple/gamma/index.html").exists()
        async with connection(tmp_path / "pypi/control.sock") as one:
            one.ask("mirror", names=["gamma"])
            assert (await one.line())["say"] == "accepted"
            assert (await one.line())["say"] == "progress"
            upstream.clear_faults()
            assert (await one.lines())[-1]["say"] == "done"
        await daemon.stop()


async def test_a_second_daemon_is_refused(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        pid = daemon.service.process.pid
        second = await arun("mirror", cwd=tmp_path)
        assert (second.returncode, second.stdout) == (4, "")
        assert f"locked by process {pid} since" in second.stderr
        rebuild = await arun("rebuild", cwd=tmp_path)
        assert (rebuild.returncode, rebuild.stdout) == (4, "")
        assert "end it first" in rebuild.stderr
        assert (tmp_path / "pypi/control.sock").exists()
        await daemon.stop()
    assert not (tmp_path / "pypi/control.sock").exists()


async def test_a_lock_without_a_listener_is_exit_4(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    upstream.fault("/packages/*", Hang())
    reached = upstream.seen("/packages/*")
    first = await start("mirror", "--once", cwd=tmp_path)
    async with asyncio.timeout(PATIENCE):
        await reached
    second = await arun("mirror", "--once", cwd=tmp_path)
    assert (second.returncode, second.stdout) == (4, "")
    assert f"process {first.pid}" in second.stderr
    assert (await arun("mirror", "--once", "--quiet", cwd=tmp_path)).stderr == ""
    first.terminate()
    await finish(first)


async def test_one_that_is_stopped_like_a_process_is_exit_4(tmp_path: Path, upstream: FakeIndex) -> None:
    """It took the connection, as the kernel does it, and says nothing."""
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        daemon.service.process.send_signal(signal.SIGSTOP)
        try:
            done = await arun("mirror", "alpha", cwd=tmp_path)
        finally:
            daemon.service.process.send_signal(signal.SIGCONT)
        assert (done.returncode, done.stdout) == (4, ""), done.stderr
        await daemon.stop()


async def test_ctrl_c_detaches(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        publish(upstream.index, "delta")
        upstream.fault("/packages/*/delta-*", Hang())
        reached = upstream.seen("/packages/*/delta-*")
        client = await start("mirror", "delta", cwd=tmp_path)
        async with asyncio.timeout(PATIENCE):
            await reached
        client.send_signal(signal.SIGINT)
        done = await finish(client)
        assert (done.returncode, done.stdout) == (130, "")
        assert "the daemon goes on with it" in done.stderr
        upstream.clear_faults()
        await until((tmp_path / "pypi/web/simple/delta/index.html").exists, tell=lambda: daemon.log)
        await daemon.stop()


async def test_clients_that_are_killed_leave_nothing_behind(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        publish(upstream.index, "delta")
        upstream.fault("/packages/*/delta-*", Hang())
        reached = upstream.seen("/packages/*/delta-*")
        clients = [await start("mirror", "delta", cwd=tmp_path) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            await reached
        descriptors = Path(f"/proc/{daemon.service.process.pid}/fd")
        for client in clients:
            client.kill()
            await finish(client)
        await until(lambda: sockets(descriptors, tmp_path / "pypi/control.sock") == 1, tell=lambda: daemon.log)
        upstream.clear_faults()
        done = await arun("mirror", "delta", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        await daemon.stop()


async def test_a_daemon_that_ends_tells_its_clients(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        publish(upstream.index, "delta")
        upstream.fault("/packages/*/delta-*", Hang())
        for end in ("stop", "kill"):
            reached = upstream.seen("/packages/*/delta-*")
            client = await start("mirror", "delta", cwd=tmp_path)
            async with asyncio.timeout(PATIENCE):
                await reached
            if end == "stop":
                await daemon.stop()
                done = await finish(client)
                assert done.returncode == 130, done.stdout + done.stderr
                assert done.stdout.startswith("interrupted: ")
                break
    async with daemon_process(tmp_path, ready=False) as daemon:
        await until((tmp_path / "pypi/control.sock").exists, tell=lambda: daemon.log)
        async with connection(tmp_path / "pypi/control.sock") as one:
            client = await start("mirror", "delta", cwd=tmp_path)
            one.ask("mirror", names=["delta"])
            await one.line()
            await asyncio.sleep(0)
            await until(
                lambda: sockets(Path(f"/proc/{daemon.service.process.pid}/fd"), tmp_path / "pypi/control.sock") >= 3
            )
            await daemon.kill()
            done = await finish(client)
    assert done.returncode in (3, 4), done.stderr  # it was told so, or not even that
    assert "Traceback" not in done.stderr


def sockets(descriptors: Path, path: Path) -> int:
    """How many descriptors of a process are of the socket at ``path``: the one that listens, and connections."""
    inodes = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f" {path}")}
    found = []
    for each in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(each))
    return sum(link in {f"socket:[{inode}]" for inode in inodes} for link in found)


# --- reload ----------------------------------------------------------------------------------------------------


async def test_a_daemon_that_has_too_much_to_do_is_not_said_to_be_none(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        held = [await asyncio.open_unix_connection(str(tmp_path / "pypi/control.sock")) for _ in range(16)]
        done = await arun("reload", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (4, "")
        assert f"locked by process {daemon.service.process.pid} since " in done.stderr
        assert "which does not answer" in done.stderr
        for _, writer in held:
            writer.close()
        await daemon.stop()


async def test_reload(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    file = tmp_path / "heliostat.toml"
    good = file.read_text()
    async with daemon_process(tmp_path) as daemon:
        none = await arun("reload", cwd=tmp_path)
        assert (none.returncode, none.stdout) == (0, "nothing changed\n"), none.stderr
        file.write_text(good.replace("interval = 86400", "interval = 80000"))
        done = await arun("reload", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "taken over: [mirror] interval\n"), done.stderr
        file.write_text(good.replace('"pypi"\n', '"pypi"\nstate = "pypi"\n'))
        restart = await arun("reload", "--json", cwd=tmp_path)
        assert restart.returncode == 3, restart.stderr
        assert json.loads(restart.stdout)["restart"] == ["[mirror] state"]
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            file.write_text(good.replace('http.sock"]', f'http.sock", "127.0.0.1:{taken.getsockname()[1]}"]'))
            for _ in range(2):  # it is tried again, and told again
                closed = await arun("reload", cwd=tmp_path)
                assert closed.returncode == 3, closed.stderr
                assert "did not work: [service] listen: 127.0.0.1:" in closed.stdout
                assert "nothing changed" not in closed.stdout
            assert "taken over" not in closed.stdout
        opened = await arun("reload", cwd=tmp_path)
        assert (opened.returncode, opened.stdout) == (0, "nothing changed\n")
        # The file does not lead to the daemon any more, or is no configuration at all.
        file.write_text(good)
        assert (await arun("reload", cwd=tmp_path)).returncode == 0
        file.write_text(good.replace('"pypi"', '"elsewhere"'))
        moved = await arun("reload", cwd=tmp_path)
        assert (moved.returncode, moved.stdout) == (3, "needs a restart: [mirror] directory\n"), moved.stderr
        file.write_text(good.replace('"pypi"', '"elsewhere'))
        broken = await arun("reload", cwd=tmp_path)
        assert broken.returncode == 2, broken.stderr
        assert broken.stdout.startswith("refused, the old configuration stays:\n")
        assert "not valid TOML" in broken.stdout
        await daemon.logged("configuration not reloaded: .*not valid TOML")
        # What the daemon reads is its own file, whichever the client was given.
        other = tmp_path / "other.toml"
        other.write_text(good)
        file.write_text(good.replace("interval = 86400", "interval = 0\nintervall = 5"))
        bad = await arun("reload", "--config", str(other), cwd=tmp_path)
        assert bad.returncode == 2, bad.stderr
        assert bad.stdout.startswith("refused, the old configuration stays:\n")
        assert f"{file}:" in bad.stdout
        assert "[mirror] intervall: unknown key" in bad.stdout
        here = await arun("reload", cwd=tmp_path)
        assert here.returncode == 2
        await daemon.stop()
    file.write_text(good)
    nobody = await arun("reload", cwd=tmp_path)
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert f"no daemon listens in {tmp_path / 'pypi'}" in nobody.stderr
    assert "[mirror] directory or state was probably changed since it was started" in nobody.stderr
    file.write_text(good.replace("interval = 86400", "intervall = 5"))
    nobody = await arun("reload", cwd=tmp_path)
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "[mirror] intervall: unknown key" in nobody.stderr


# --- the socket ------------------------------------------------------------------------------------------------


async def test_the_socket_is_its_owners_alone(tmp_path: Path, upstream: FakeIndex) -> None:
    (tmp_path / "state").mkdir()
    configure(tmp_path, upstream.url, mirror='state = "state"')
    path = tmp_path / "state/control.sock"
    with socket.socket(socket.AF_UNIX) as left:  # by one that was killed
        left.bind(str(path))
    async with daemon_process(tmp_path) as daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not (tmp_path / "pypi/control.sock").exists()
        async with connection(path) as one:
            one.ask("status")
            accepted, *_, done = await one.lines()
        assert accepted["say"] == "accepted"
        assert done["result"]["live"]["phase"] in ("working", "waiting")
        async with connection(path) as one:
            one.ask("poke", names=["alpha"])
            assert (await one.lines())[-1] == {"say": "done", "result": {}}
        await daemon.stop()


async def test_another_user_is_not_listened_to(tmp_path: Path, upstream: FakeIndex) -> None:
    """Even if the socket's mode were wrong."""
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        path = tmp_path / "pypi/control.sock"
        path.chmod(0o666)
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        asking = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "print(s.recv(1000).decode())  # it need not say anything to be refused"
        )
        other = await asyncio.create_subprocess_exec(
            command()[0], "-c", asking, str(path), cwd="/", env=environment(tmp_path),
            stdout=asyncio.subprocess.PIPE, preexec_fn=become_ordinary_user,
        )  # fmt: skip
        out, _ = await other.communicate()
        answer = json.loads(out)
        assert answer["say"] == "failed"
        assert "another user" in answer["message"]
        await daemon.stop()


async def test_a_long_path_is_no_obstacle(tmp_path: Path, upstream: FakeIndex) -> None:
    state = tmp_path / ("s" * 200)
    state.mkdir()
    configure(tmp_path, upstream.url, mirror=f'state = "{state.name}"')
    async with daemon_process(tmp_path) as daemon:
        assert stat.S_ISSOCK((state / "control.sock").stat().st_mode)
        done = await arun("mirror", "alpha", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        await daemon.stop()
    assert not (state / "control.sock").exists()


async def test_what_is_no_socket_stays(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    path = tmp_path / "pypi/control.sock"
    path.write_text("precious")
    async with daemon_process(tmp_path) as daemon:
        await daemon.logged("^<3>.*no control socket at .*something that is no socket is in the way")
        assert (await arun("mirror", "alpha", cwd=tmp_path)).returncode == 4
        await daemon.stop()
    assert path.read_text() == "precious"


HOSTILE: list[tuple[bytes, str]] = [
    (b"\n", "no request"),
    (b"{}\n", "no request"),
    (b"\x00\xff\xfe\n", "no request"),
    (b"[" * 100_000 + b"\n", "no request"),
    (b'{"protocol": "1", "command": "poke"}\n', "no request"),
    (b'{"protocol": 1, "command": ["poke"]}\n', "no request"),
    (b'{"protocol": 2, "command": "poke"}\n', "protocol 2 is not spoken"),
    (b'{"protocol": 1, "command": "\\u001b[2J"}\n', "not known to the running daemon"),
    (b'{"protocol": 1, "command": "poke", "arguments": []}\n', "arguments"),
    (b'{"protocol": 1, "command": "mirror", "arguments": {"names": "alpha"}}\n', "arguments"),
    (b'{"protocol": 1, "command": "mirror", "arguments": {"allow_removals": -1}}\n', "arguments"),
    (b'{"protocol": 1, "command": "mirror", "arguments": {"names": ["../x"]}}\n', "project name"),
    (b'{"protocol": 1, "command": "mirror", "arguments": {"names": ["x"], "full": true}}\n', "--full"),
    (b"x" * (3 << 20), "at most 1048576 bytes"),
]


async def test_hostile_bytes(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        path = tmp_path / "pypi/control.sock"
        for data, expected in HOSTILE:
            async with connection(path) as one:
                one.send(data)
                said = await one.lines()
            if said or len(data) < 1 << 20:  # what is too long may be cut off before it hears of it
                assert said[-1]["say"] == "failed", data[:80]
                assert expected in said[-1]["message"], (data[:80], said)
                assert "\x1b" not in said[-1]["message"]
                assert len(said[-1]["message"]) < 500
        generator = random.Random(5)
        for _ in range(50):
            async with connection(path) as one:
                one.send(generator.randbytes(generator.randrange(2000)) + b"\n")
                assert all(line["say"] == "failed" for line in await one.lines())
        for _ in range(50):  # and away
            async with connection(path) as one:
                one.send(b'{"protocol": 1, "comm')
        await daemon.stop()


async def test_clients_that_only_sit_there(tmp_path: Path, upstream: FakeIndex) -> None:
    """More of them than are served: what comes then is told to wait, and the daemon goes on, and ends, as ever."""
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        path = tmp_path / "pypi/control.sock"
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(16):
                await stack.enter_async_context(connection(path))
            assert (await arun("mirror", "alpha", cwd=tmp_path)).returncode == 4
            publish(upstream.index, "delta")
            daemon.poke()
            await until((tmp_path / "pypi/web/simple/delta/index.html").exists, tell=lambda: daemon.log)
            await daemon.stop()


async def test_one_that_does_not_read_holds_up_nobody(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.connect(str(tmp_path / "pypi/control.sock"))
            names = [f"unknown-{number}" for number in range(3000)]
            request: dict[str, Any] = {"protocol": 1, "command": "mirror", "arguments": {"names": names}}
            deaf.sendall(json.dumps(request).encode() + b"\n")
            done = await arun("mirror", "alpha", cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            await daemon.stop()
