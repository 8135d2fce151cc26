"""A root page brought up to date by splicing is, byte for byte, the one that would be rendered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.names import normalise
from heliostat.pages.render import (
    root_html,
    root_html_entry,
    root_html_head,
    root_json,
    root_json_entry,
    root_json_head,
)
from heliostat.pages.root_splice import HTML, JSON, Form, Unspliceable, splice

Shown = dict[str, int | None]

#: Long ones too, so that not only the last, linear steps of the search are taken.
NAMES = st.from_regex(r"[A-Ca-c0](?:[a-c.-]{0,3}[A-Ca-c0]){0,3}", fullmatch=True) | st.sampled_from(
    [f"long-{letter * 150}-{number}" for letter in "aim" for number in range(9)]
)
SHOWN = st.dictionaries(NAMES, st.none() | st.integers(1, 10**9), max_size=60)


def rows(shown: Shown) -> list[tuple[str, str, int | None]]:
    """Displayed, normal name, serial; one a project, in the order of the names."""
    by_name = {str(normalise(display)): (display, serial) for display, serial in shown.items()}
    return [(display, name, serial) for name, (display, serial) in sorted(by_name.items())]


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


@given(
    before=SHOWN, after=SHOWN, kept=st.sets(st.integers(0, 59)), size=st.integers(1, 5000), serial=st.integers(1, 99)
)
def test_splicing_gives_what_rendering_gives(
    before: Shown, after: Shown, kept: set[int], size: int, serial: int
) -> None:
    old = rows(before)
    new = sorted(
        {row[1]: row for row in [*(old[at] for at in kept if at < len(old)), *rows(after)]}.values(), key=by_name
    )
    by_old, by_new = {row[1]: row for row in old}, {row[1]: row for row in new}
    changed = sorted(name for name in by_old.keys() | by_new.keys() if by_old.get(name) != by_new.get(name))
    json = [(name, root_json_entry(by_new[name][0], by_new[name][2]) if name in by_new else None) for name in changed]
    html = [(name, root_html_entry(by_new[name][0], name) if name in by_new else None) for name in changed]
    page = b"".join(root_json(old, 7))
    same(page, size, JSON, root_json_head(serial), json, b"".join(root_json(new, serial)), empty=not old or not new)
    page = b"".join(root_html(old))
    same(page, size, HTML, root_html_head(), html, b"".join(root_html(new)), empty=not old or not new)


def by_name(row: tuple[str, str, int | None]) -> str:
    return row[1]


def same(
    page: bytes,
    size: int,
    form: Form,
    head: bytes,
    changes: list[tuple[str, bytes | None]],
    wanted: bytes,
    *,
    empty: bool,
) -> None:
    """Empty lists may be left to the renderer."""
    try:
        assert b"".join(splice(pieces(page, size), form, head, changes)) == wanted
    except Unspliceable:
        assert empty


def test_only_what_is_near_a_change_is_looked_at() -> None:
    """A page of many entries whose middle is not ours is spliced at its ends."""
    old = [(f"name-{number:06}", f"name-{number:06}", number) for number in range(20_000)]
    page = b"".join(root_json(old, 1))
    odd = page.replace(b'"name-012345"', b'"name-\xff12345"')
    got = b"".join(
        splice(pieces(odd, 1 << 16), JSON, root_json_head(2), [("name-000001", None), ("name-9", b'{"name":"Name.9"}')])
    )
    assert got.count(b"\xff") == 1
    assert b"name-000001" not in got
    assert got.endswith(b'"name":"name-019999"},{"name":"Name.9"}]}\n')


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"{}",
        b"x" * 10_000,
        b'{"meta":{},"projects":[{"name":"a"}]}',
        b'{"meta":{},"projects":[{"name":"a"},{"name":"b"}',
        b'{"meta":{},"projects":[{"name":"a"},{"name":"-b"}]}\n',
        b'{"meta":{},"projects":[{"name":"a"},{"nom":"b"}]}\n',
        b'{"meta":{},"projects":[{"name":"a"}, {"name":"b"}]}\n',
        b'{"meta":{},"projects":[{"name":"a\\u0062"}]}\n',
        b'{"meta":{},"projects":[]}\n',
    ],
)
def test_a_page_that_is_not_ours_is_refused(page: bytes) -> None:
    with pytest.raises(Unspliceable):
        list(splice([page], JSON, root_json_head(1), [("b", None)]))
