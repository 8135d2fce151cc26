"""The static change feed over HTTP, of servers that know ranges and of one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from heliostat.errors import FeedUnsupported, Invalid
from heliostat.mirror.segments import write_changes
from heliostat.pages.changes import SEGMENT_ROWS, Head
from heliostat.state.changelog import Entry
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Tree
from heliostat.upstream import changes
from heliostat.upstream.changes import Place
from heliostat.upstream.client import Upstream
from support.plainserver import plainly_served
from support.served import static_server
from support.upstreams import upstream as upstream_for

ROWS = SEGMENT_ROWS + 2500


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed of one full segment and a part of another, of many MiB."""
    directory = tmp_path_factory.mktemp("feed")
    tree, ledger = Tree(Disk(str(directory))), Ledger(str(directory / "heliostat.db"))
    tree.prepare()
    paths = [f"packages/{'a' * 60}/{number}" for number in range(10)]
    with ledger.transaction():
        ledger.changelog.write([Entry(f"p{n}", n, "added", added=paths) for n in range(1, ROWS + 1)], 1.0)
    write_changes(tree, ledger)
    ledger.close()
    return directory / "web"


@contextmanager
def with_ranges(web: Path) -> Iterator[str]:
    with static_server(web) as served:
        yield served.url


@contextmanager
def without_ranges(web: Path) -> Iterator[str]:
    with plainly_served(web) as url:
        yield url


@pytest.fixture(params=[with_ranges, without_ranges])
async def upstream(web: Path, request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    serving: Callable[[Path], AbstractContextManager[str]] = request.param
    with serving(web) as url:
        async with upstream_for(url) as made:
            yield made


async def head_of(upstream: Upstream) -> Head:
    answer = await upstream.changes_head()
    assert answer is not None
    return answer.head


async def numbers_after(upstream: Upstream, head: Head, place: Place) -> list[int]:
    numbers: list[int] = []
    while place.number < head.number:
        answer = await upstream.changes_after(head, place)
        assert answer.rows
        assert answer.place.number == answer.rows[-1].number
        numbers += [row.number for row in answer.rows]
        place = answer.place
    return numbers


@pytest.mark.parametrize("number", [0, 1, 3, 9_999, SEGMENT_ROWS, SEGMENT_ROWS + 1, ROWS - 1, ROWS])
async def test_reading_goes_on_from_any_row(upstream: Upstream, number: int) -> None:
    """Also where nobody knows at which byte it ends."""
    head = await head_of(upstream)
    assert await numbers_after(upstream, head, Place(number, -1)) == list(range(number + 1, ROWS + 1))


async def test_an_answer_is_a_few_thousand_rows_at_most(upstream: Upstream, web: Path) -> None:
    head = await head_of(upstream)
    assert (web / "changes/000000000001.jsonl").stat().st_size > changes.PIECE
    first = await upstream.changes_after(head, Place(0, 0))
    assert 1000 < len(first.rows) < SEGMENT_ROWS - 1000


async def test_a_head_that_did_not_change(upstream: Upstream) -> None:
    answer = await upstream.changes_head()
    assert answer is not None
    again = await upstream.changes_head(answer.etag)
    assert again is None or answer.etag is None


async def test_a_head_that_tells_of_more_than_there_is(upstream: Upstream) -> None:
    head = await head_of(upstream)
    longer = Head(
        mirror=head.mirror, serial=1, number=ROWS + 5, first=1, listed=0, segment=head.segment, size=head.size + 100
    )
    place = (await upstream.changes_after(head, Place(ROWS - 1, -1))).place
    answer = await upstream.changes_after(longer, place)
    assert (answer.rows, answer.place) == ([], place)


async def test_rows_that_are_not_the_next_ones_are_refused(upstream: Upstream) -> None:
    head = await head_of(upstream)
    with pytest.raises(Invalid, match="row 1 follows row 7"):
        await upstream.changes_after(head, Place(7, 0))


async def test_where_there_is_no_feed(tmp_path: Path) -> None:
    with static_server(tmp_path) as served:
        async with upstream_for(served.url) as upstream:
            with pytest.raises(FeedUnsupported, match="no static change feed"):
                await upstream.changes_head()
