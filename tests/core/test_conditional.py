"""Ranges and conditions as a pure function; the table over HTTP stands in ``support.web_cases``."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat.service.conditional import answer

sizes = st.integers(0, 10**12)
numbers = st.integers(0, 2 * 10**12) | st.integers(0, 20)


@given(size=sizes, first=numbers, length=numbers)
def test_a_range_is_what_lies_inside_the_file(size: int, first: int, length: int) -> None:
    part = answer({"Range": f"bytes={first}-{first + length}"}, size=size, mtime=0)
    if first >= size:
        assert (part.status, part.length) == (416, 0)
    else:
        assert (part.status, part.start, part.length) == (206, first, min(length + 1, size - first))


@given(size=sizes, count=numbers)
def test_a_suffix_is_the_end_of_the_file(size: int, count: int) -> None:
    part = answer({"Range": f"bytes=-{count}"}, size=size, mtime=0)
    if size == 0 or count == 0:
        assert part.status == 416
    else:
        assert (part.status, part.start + part.length, part.length) == (206, size, min(size, count))


@given(size=sizes, text=st.text() | st.from_regex(r"bytes=[0-9,\- ]*"))
def test_any_text_as_a_range_stays_inside_the_file(size: int, text: str) -> None:
    part = answer({"Range": text}, size=size, mtime=0)
    assert part.status in (200, 206, 416)
    assert 0 <= part.start <= part.start + part.length <= size
    assert part.status != 200 or part.length == size


@given(size=sizes, before=st.integers(0, 2**32), after=st.integers(0, 2**32))
def test_validators_change_with_the_second(size: int, before: int, after: int) -> None:
    old = answer({}, size=size, mtime=before).headers
    for name, condition in (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since")):
        assert answer({condition: old[name]}, size=size, mtime=before + 0.5).status == 304
        assert answer({condition: old[name]}, size=size, mtime=after).status == (304 if after == before else 200)


def test_several_ranges_and_malformed_ones_give_the_whole_file() -> None:
    for text in (
        "bytes=0-1,3-4",
        "bytes=5-2",
        "bytes=",
        "bytes=a-b",
        "bytes=-",
        "bytes=" + "9" * 5000 + "-",
        "bytes=\u0661-\u0662",
    ):
        assert answer({"Range": text}, size=10, mtime=0).status == 200
