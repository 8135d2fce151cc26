"""METADATA is found in whatever :mod:`zipfile` writes, and whatever else comes in is harmless."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heliostat.mirror.wheel_metadata import find, part_of, unpack

INFO = "demo-1.0.dist-info"
NAMES = st.sampled_from([
    f"{INFO}/WHEEL", f"{INFO}/RECORD", f"{INFO}/METADATA.txt", f"{INFO}/licenses/METADATA", "demo/__init__.py",
    "demo/_vendor/other-2.0.dist-info/METADATA", "METADATA", "dist-info/METADATA", "ünï/cöde.py", "PK\1\2",
])  # fmt: skip
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


def taken(data: bytes) -> bytes | None:
    read = part_of(data)
    entry = find(read, len(data))
    return unpack(read, entry) if entry is not None else None


def archive(members: list[tuple[str, bytes]], method: int, comment: bytes = b"") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as writer:
        for name, data in members:
            writer.writestr(name, data)
        writer.comment = comment
    return target.getvalue()


@given(
    before=st.dictionaries(NAMES, st.binary(max_size=5000)),
    after=st.integers(0, 300),
    metadata=st.binary(max_size=20_000),
    method=METHODS,
    comment=st.binary(max_size=300).filter(lambda one: b"PK" not in one),
)
def test_what_zipfile_wrote(before: dict[str, bytes], after: int, metadata: bytes, method: int, comment: bytes) -> None:
    members = [*before.items(), (f"{INFO}/METADATA", metadata)]
    members += [(f"demo/{number}.py", b"") for number in range(after)]
    assert taken(archive(members, method, comment)) == metadata


@given(others=st.dictionaries(NAMES, st.binary(max_size=100)), method=METHODS)
def test_only_the_wheels_own(others: dict[str, bytes], method: int) -> None:
    assert taken(archive(list(others.items()), method)) is None


@given(data=st.data(), method=METHODS)
def test_damaged_archives_do_no_harm(data: st.DataObject, method: int) -> None:
    whole = bytearray(archive([("demo.py", b"x" * 50), (f"{INFO}/METADATA", b"Name: demo\n" * 20)], method))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut]), bytes(whole[cut:])):
        found = taken(damaged)
        assert found is None or isinstance(found, bytes)


@given(st.binary(max_size=3000))
def test_anything_at_all(data: bytes) -> None:
    for one in (data, data + b"PK\5\6" + bytes(18), b"PK\1\2" + data):
        taken(one)


def test_a_bomb_is_unpacked_no_further_than_it_says() -> None:
    """Its entry says ten bytes, and holds a hundred million."""
    honest = archive([(f"{INFO}/METADATA", bytes(10**8))], zipfile.ZIP_DEFLATED)
    size = (10**8).to_bytes(4, "little")
    bomb = honest.replace(size, (10).to_bytes(4, "little"))
    assert bomb != honest
    tracemalloc.start()
    try:
        assert taken(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_the_list_is_longer_than_the_tail_that_is_read() -> None:
    members = [(f"{INFO}/METADATA", b"Name: demo\n"), *((f"demo/module_{n:05}.py", b"") for n in range(5000))]
    whole = archive(members, zipfile.ZIP_DEFLATED)
    reads: list[tuple[int, int]] = []

    def read(start: int, size: int) -> bytes:
        reads.append((start, size))
        return whole[start : start + size]

    entry = find(read, len(whole))
    assert entry is not None
    assert unpack(read, entry) == b"Name: demo\n"
    assert len(reads) == 4


def test_a_hostile_list_is_looked_through_in_bounded_steps() -> None:
    """Thousands of names that end as METADATA's does, none of them an entry's: what is looked at is counted."""

    class Counting(bytes):
        looked = 0

        def rfind(self, *arguments: Any) -> int:
            _, start, stop = arguments
            type(self).looked += stop - start
            return super().rfind(*arguments)

    entries = Counting(b".dist-info/METADATA" * 20_000)
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, len(entries), 0, 0)
    whole = entries + end

    def read(start: int, size: int) -> bytes:
        return entries if (start, size) == (0, len(entries)) else whole[start : start + size]

    assert find(read, len(whole)) is None
    assert 0 < Counting.looked < 1_000_000
