"""The changelog in the ledger: numbers, kinds of paths, parts of large rows, what is pruned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.state.changelog import MOST_PATHS, Change, Entry
from heliostat.state.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(str(tmp_path / "heliostat.db"))
    yield made
    made.close()


def test_rows_come_back_as_they_were_written_in_order(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.changelog.write(
            [
                Entry("alpha", 5, "added", added=["simple/alpha/index.html", "packages/aa/-+*.whl"]),
                Entry("beta", None, "updated", changed=["json/beta"], removed=["pypi/beta/json"]),
            ],
            12.5,
        )
        ledger.changelog.write([Entry("alpha", 6, "removed")], 13.0)
    first, second, third = (
        Change(1, 12.5, 5, "alpha", "added", added=["simple/alpha/index.html", "packages/aa/-+*.whl"]),
        Change(2, 12.5, None, "beta", "updated", changed=["json/beta"], removed=["pypi/beta/json"]),
        Change(3, 13.0, 6, "alpha", "removed"),
    )
    assert ledger.changelog.after(0, 10) == [first, second, third]
    assert ledger.changelog.after(1, 1) == [second]
    assert ledger.changelog.after(3, 10) == []
    assert (ledger.changelog.first, ledger.changelog.last) == (1, 3)


def test_a_transaction_that_fails_leaves_no_row(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.transaction():
            ledger.changelog.write([Entry("alpha", 5, "added")], 1.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ledger.changelog.last == 0


def test_a_project_with_very_many_paths_makes_several_rows(ledger: Ledger) -> None:
    paths = [f"packages/{number}" for number in range(2 * MOST_PATHS + 1)]
    ledger.changelog.write([Entry("many", 1, "updated", added=paths, removed=["json/many"])], 1.0)
    rows = ledger.changelog.after(0, 10)
    assert [len(row.added) + len(row.removed) for row in rows] == [MOST_PATHS, MOST_PATHS, 2]
    assert [path for row in rows for path in row.added] == paths
    assert rows[-1].removed == ["json/many"]


def test_numbers_are_never_given_twice_also_when_all_rows_may_go(ledger: Ledger, tmp_path: Path) -> None:
    ledger.changelog.write([Entry("alpha", 1, "added"), Entry("beta", 2, "added")], 1.0)
    ledger.changelog.prune(2)
    assert (ledger.changelog.first, ledger.changelog.last) == (2, 2)
    ledger.close()
    again = Ledger(str(tmp_path / "heliostat.db"))
    again.changelog.write([Entry("gamma", 3, "added")], 1.0)
    again.changelog.prune(2)
    assert [row.number for row in again.changelog.after(0, 10)] == [3]
    again.close()


def test_what_is_begun_is_known_until_it_is_recorded(ledger: Ledger) -> None:
    ledger.changelog.begin(["alpha", "beta"])
    ledger.changelog.begin(["alpha"])
    ledger.changelog.end(["alpha"])
    assert (ledger.changelog.begun("alpha"), ledger.changelog.begun("beta")) == (False, True)
