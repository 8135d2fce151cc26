"""PEP 691 negotiation as a pure function: the table that every server must pass, and properties."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.service.negotiation import Form, negotiate
from support.web_cases import FORMATS, NEGOTIATION

NAMES = {
    "application/vnd.pypi.simple.v1+json": {Form.V1_JSON},
    "application/vnd.pypi.simple.v1+html": {Form.V1_HTML},
    "text/html": {Form.HTML},
    "text/*": {Form.HTML},
    "application/*": {Form.V1_JSON, Form.V1_HTML},
    "*/*": set(Form),
    "image/png": set(),
}


@pytest.mark.parametrize(("accept", "media_type"), NEGOTIATION)
def test_table(accept: str | None, media_type: str) -> None:
    assert negotiate(accept).media_type == media_type.partition(";")[0]


@pytest.mark.parametrize(("query", "media_type"), FORMATS)
def test_format_in_the_query_wins(query: str, media_type: str) -> None:
    assert negotiate("text/html", query).media_type == media_type.partition(";")[0]


weights = st.dictionaries(st.sampled_from(sorted(NAMES)), st.integers(0, 1000))


def header(wanted: dict[str, int]) -> str:
    return ", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in wanted.items())


def weight_of(form: Form, wanted: dict[str, int]) -> Fraction:
    """By RFC 9110: the most specific entry that covers the form decides."""
    return next((Fraction(wanted[name], 1000) for name in NAMES if form in NAMES[name] and name in wanted), Fraction(0))


@given(wanted=weights)
def test_nothing_acceptable_weighs_more_than_the_answer(wanted: dict[str, int]) -> None:
    chosen = negotiate(header(wanted))
    best = max(weight_of(form, wanted) for form in Form)
    assert weight_of(chosen, wanted) == best or best == 0
    assert chosen is Form.HTML or best > 0


@given(wanted=weights, order=st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(wanted: dict[str, int], order: Random) -> None:
    shuffled = list(wanted.items())
    order.shuffle(shuffled)
    assert negotiate(header(wanted)) is negotiate(header(dict(shuffled)))


@given(wanted=weights, other=st.text())
def test_the_header_is_not_looked_at_when_the_query_names_a_form(wanted: dict[str, int], other: str) -> None:
    for form in Form:
        assert negotiate(header(wanted), f"format={form.media_type}&{other}") is form


@given(accept=st.text(), query=st.text())
def test_anything_gets_an_answer(accept: str, query: str) -> None:
    assert negotiate(accept, query) in Form
