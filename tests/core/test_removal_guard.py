"""Removal needs two signs; an implausible share of removals waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import PageMissing
from heliostat.mirror.removals import Removal, Removals, plausible, split_by_guard
from heliostat.model import ProjectName
from heliostat.state.rows import Row

URL = "http://127.0.0.1/simple/one/"


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "name": ProjectName("one"), "display": "One", "wanted_serial": 10, "accepted_serial": 5, "owed_serial": 10,
        "page_serial": 5, "published": True, "due_at": 0.0, "why": "changed", "state": "pending", "attempts": 0,
        "error": None, "files": 1, "bytes": 1, "hint": None, "hint_serial": None, "absent_serial": None,
        "missing_at": None, "missing_pass": None, "page_etag": None, "document_etag": None, "named": False,
        "extra": False,
    }  # fmt: skip
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def judge(removals: Removals, it: Row, now: float = 1000.0) -> bool:
    """True if the 404 was believed."""
    return removals.judge(it, PageMissing(URL, "404"), now, now + 60) is None


def looks(**changes: object) -> Removals:
    options = {"pass_number": 7, "confirm_seconds": 120.0, "two_looks": False, **changes}
    return Removals(**options)  # type: ignore[arg-type]


def test_one_404_is_not_believed() -> None:
    removals = looks()
    failed = removals.judge(row(), PageMissing(URL, "404"), 1000, 1060)
    assert failed is not None
    assert failed.state == "failing"
    assert "second sign" in failed.error
    assert not removals.confirmed


def test_a_removal_event_that_is_the_last_event_is_a_second_sign() -> None:
    assert judge(looks(), row(hint="removed", hint_serial=10))


def test_a_removal_event_followed_by_another_event_is_not() -> None:
    assert not judge(looks(), row(hint="removed", hint_serial=9))


def test_absence_from_a_list_at_least_as_new_is_a_second_sign() -> None:
    assert judge(looks(), row(absent_serial=10))
    assert not judge(looks(), row(absent_serial=9))


def test_two_404s_count_only_without_feed_and_list_far_enough_apart_in_two_passes_while_others_answer() -> None:
    seen = row(missing_at=800.0, missing_pass=6)
    answered = looks(two_looks=True)
    answered.another_answered("two")
    assert judge(answered, seen)

    silent = looks(two_looks=True)
    silent.another_answered("one")
    assert not judge(silent, seen)

    with_feed = looks(two_looks=False)
    with_feed.another_answered("two")
    assert not judge(with_feed, seen)

    for wrong in ({"missing_at": 900.0}, {"missing_pass": 7}):
        removals = looks(two_looks=True)
        removals.another_answered("two")
        assert not judge(removals, row(**{"missing_at": 800.0, "missing_pass": 6, **wrong}))


def test_a_name_that_upstream_never_had_is_unknown_not_removed() -> None:
    never = {"published": False, "wanted_serial": 0, "page_serial": None}
    for named in (True, False):
        removals = looks(two_looks=True, followed={"two"})
        assert judge(removals, row(named=named, **never))
        assert removals.unknown == ["one"]
        assert not removals.confirmed


def test_a_name_of_the_configuration_that_upstream_does_not_have_stays_owed() -> None:
    removals = looks(two_looks=True, followed={"one"})
    assert not judge(removals, row(published=False, wanted_serial=0, page_serial=None))
    assert not removals.unknown


def test_the_guard_lets_small_numbers_pass_and_holds_implausible_ones() -> None:
    assert plausible(100, 0, 1000)
    assert not plausible(101, 0, 1000)
    assert plausible(101, 0, 20_000)
    assert not plausible(201, 0, 20_000)
    assert not plausible(3, 0, 4)
    assert plausible(2, 0, 4)
    assert plausible(3, 0, 3)


def test_the_guard_counts_a_sliding_day() -> None:
    assert plausible(50, 50, 1000)
    assert not plausible(50, 60, 1000)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 5000), st.integers(0, 500))
def test_the_guard_loses_nothing_and_never_exceeds_what_was_allowed(
    wanted: int, recent: int, published: int, allowed: int
) -> None:
    confirmed = [Removal(row(name=ProjectName(f"p{number}")), "gone") for number in range(wanted)]
    go, held, approved = split_by_guard(confirmed, recent=recent, published=published, allowed=allowed)
    assert len(go) + len(held) == wanted
    if held:
        assert len(go) == allowed
        assert approved == {removal.row.name for removal in go}


def test_an_approval_is_for_those_that_waited_for_it() -> None:
    new = [Removal(row(name=ProjectName(f"new{number}")), "gone") for number in range(3)]
    waiting = [Removal(row(name=ProjectName(f"old{number}"), state="held"), "gone") for number in range(3)]
    go, held, approved = split_by_guard(new + waiting, recent=0, published=6, allowed=3)
    assert (go, held) == (waiting, new)
    assert approved == {"old0", "old1", "old2"}


def test_what_was_approved_is_approved_also_when_it_has_become_plausible() -> None:
    waiting = [Removal(row(name=ProjectName(f"old{number}"), state="held"), "gone") for number in range(3)]
    new = [Removal(row(name=ProjectName("new")), "gone")]
    go, held, approved = split_by_guard(new + waiting, recent=0, published=20, allowed=4)
    assert len(go) == 4
    assert not held
    assert approved == {"old0", "old1", "old2"}
    assert split_by_guard(waiting, recent=0, published=20, allowed=0)[2] == frozenset()


def test_what_was_never_published_is_not_counted() -> None:
    confirmed = [Removal(row(name=ProjectName(f"p{number}"), published=False), "gone") for number in range(200)]
    go, held, _ = split_by_guard(confirmed, recent=0, published=4, allowed=0)
    assert len(go) == 200
    assert not held
