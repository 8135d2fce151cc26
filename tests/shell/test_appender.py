"""A file that grows at its end, in steps that meet the places where what there is goes on to the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.store.disk import Disk

MIB = 1 << 20
STEPS = st.lists(st.integers(0, 9 * MIB) | st.sampled_from([8 * MIB - 1, 8 * MIB, 8 * MIB + 1, -1, -2]), max_size=6)
BYTES = bytes(range(251)) * (9 * MIB // 251 + 1)


@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_it_holds_what_was_appended_since_it_was_made_empty(steps: list[int]) -> None:
    """-1 is a truncation, -2 a process that begins anew."""
    with tempfile.TemporaryDirectory() as folder:
        disk, expected = Disk(folder), b""
        file = disk.append("partial/one")
        for number, step in enumerate(steps):
            if step == -1:
                file.truncate()
                expected = b""
            elif step == -2:
                file.close()
                file = disk.append("partial/one")
            else:
                data = BYTES[number : number + step]
                file.write(data)
                expected += data
            assert file.size == len(expected)
        assert b"".join(file.read_all()) == expected
        file.close()
        disk.sync()
        assert (Path(folder) / "partial" / "one").read_bytes() == expected
