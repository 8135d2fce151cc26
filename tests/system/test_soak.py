"""A soak: a real daemon follows an index that changes all the time and often fails; is it right at the end, and small?"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index, Options
from support.busy import Busy, Here
from support.cli import arun
from support.daemon_process import DaemonProcess, configure, daemon_process
from support.equality import differences

#: Changes altogether; so many of them between two pokes, and two faults; seconds between two changes.
_CHANGES, _POKE_EVERY, _FAIL_EVERY, _APART = 600, 5, 7, 0.04
_MIB = 1 << 20
#: How much more memory may be resident at the end than after a third, as a share and in bytes: not what a leak for each
#: change, poll or fault would soon take.
_SHARE, _MORE = 1.25, 4 * _MIB


def _resident(daemon: DaemonProcess) -> int:
    pages = Path(f"/proc/{daemon.service.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def test_a_busy_index_with_faults(tmp_path: Path) -> None:
    async with FakeIndex(Index(), options=Options(log=False)) as upstream:
        busy = Busy(Here(upstream), projects=80, removals=30)
        configure(tmp_path, upstream.url)
        config = tmp_path / "heliostat.toml"
        config.write_text(config.read_text().replace("[upstream]\n", "[upstream]\nstall-timeout = 0.5\n"))
        third = 0
        async with daemon_process(tmp_path) as daemon:
            for number in range(_CHANGES):
                if number == _CHANGES // 3:
                    await daemon.says(lambda it: it["polls"] > 1)
                    third = _resident(daemon)
                if number % _FAIL_EVERY == 0:
                    busy.fail()
                busy.change()
                if number % _POKE_EVERY == 0:
                    daemon.poke()
                await asyncio.sleep(_APART)
            busy.recover()
            # What is owed is tried at once, by the daemon, which answers when it is through.
            done = await arun("mirror", "--once", cwd=tmp_path)
            last = _resident(daemon)
            assert done.returncode == 0, (done.stdout, done.stderr, daemon.log)
            status = await daemon.status()
            assert status["polls"] > 3  # a slow machine has few
            await daemon.stop()
    assert set(busy.done) == {"publish", "yank", "unyank", "remove", "create"}
    assert len(busy.faults) == 5
    assert differences(upstream.index, tmp_path / "pypi") == []
    assert not any((tmp_path / "pypi/partial").iterdir())
    assert "Traceback" not in daemon.log
    assert last <= third * _SHARE + _MORE, (third / _MIB, last / _MIB)
