"""Rows: as JSON and back, what is left out, and what is refused."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.verification.row import Row, Status
from tests.support.runs_on_disk import row

STAGES = {
    Status.VERIFIED: ("ibp", "bp", "bp-layers", "bp-optimised", "bp-branched", "ties", "halving", "exact"),
    Status.FALSIFIED: ("attack", "ties", "halving", "exact"),
    Status.UNKNOWN: ("ibp", "bp", "exact"),
    Status.MISCLASSIFIED: ("forward",),
}
TEXT = st.text(max_size=20)


@st.composite
def rows(draw: Any) -> Row:
    """A row that does not contradict itself, with any numbers and words that it may have."""
    status, label = draw(st.sampled_from(Status)), draw(st.integers(0, 2**53 - 1))
    size, more = draw(st.floats(5e-324, 1e300)), draw(st.floats(5e-324, 1e300))
    low, high = sorted([size, more])
    lower, upper = {
        Status.VERIFIED: (low, draw(st.sampled_from([high, None]))),
        Status.FALSIFIED: (draw(st.sampled_from([-high, None])), -low),
        Status.UNKNOWN: (draw(st.sampled_from([-low, None])), draw(st.sampled_from([high, None]))),
        Status.MISCLASSIFIED: (None, draw(st.sampled_from([0.0, -low]))),
    }[status]
    return Row(
        index=draw(st.integers(0, 2**53 - 1)),
        label=label,
        predicted=draw(st.integers(0, 99)) if status is Status.MISCLASSIFIED else label,
        status=status,
        margin_lower=lower,
        margin_upper=upper,
        method=draw(st.sampled_from(STAGES[status])),
        seconds=draw(st.floats(0, 1e9)),
        scope=draw(st.sampled_from(["", "exact", "independent positions"])),
        detail=draw(TEXT),
        limit=draw(st.none() | st.floats(5e-324, 1e300)),
        case=draw(TEXT),
        key=draw(TEXT),
    )


@given(rows())
def test_a_row_comes_back_as_it_was(one: Row) -> None:
    """By way of the bytes of a line, twice: the second line is the first."""
    line = json.dumps(one.to_json(), allow_nan=False)
    again = Row.from_json(json.loads(line))
    assert again == one and json.dumps(again.to_json(), allow_nan=False) == line


def test_every_field_is_kept() -> None:
    """With a value of its own, so that no two can be exchanged."""
    full = row(3, "unknown", "exact", label=4, predicted=4, seconds=0.5, scope="exact", detail="d", limit=2.0)
    full |= {"grid": "off", "case": "c", "key": "k"}
    one = Row.from_json(full)
    assert one.to_json() == full and list(full) == [field.name for field in fields(Row)]
    assert {field.name: getattr(one, field.name) for field in fields(Row)} == full


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    assert Row.from_json(row(0)).to_json() == row(0)
    assert Row.from_json(row(0) | {"detail": ""}).to_json() == row(0)


def test_fields_are_named_and_cannot_be_changed() -> None:
    one = Row.from_json(row(0))
    with pytest.raises(FrozenInstanceError):
        one.margin_lower = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Row(0, 1, 1, Status.VERIFIED, 1.0, 2.0, "ibp", 0.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({}, "index is missing"),
        (row(0) | {"index": -1}, "index is -1"),
        (row(0) | {"status": "fine"}, "status is 'fine'"),
        (row(0) | {"detail": None}, "detail is null"),
        (row(0) | {"limit": 0}, "limit is 0"),
        (row(0) | {"method": "attack"}, "method is 'attack', which decides no sample to be verified"),
        (row(0) | {"predicted": 2}, "status is 'verified', but predicted is not the label"),
        (row(0) | {"margin_lower": 0.0}, "status is 'verified', but margin_lower is 0.0"),
        (row(0, "falsified", "attack") | {"margin_upper": 0.5}, "status is 'falsified', but margin_upper is 0.5"),
        (row(0) | {"margin_lower": 3.0}, "margin_lower is 3.0, above margin_upper"),
    ],
)
def test_refusals_say_what_is_wrong(line: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="is") as caught:
        Row.from_json(line)
    assert str(caught.value) == words


def test_more_text_may_be_asked_for() -> None:
    with pytest.raises(ValueError, match="key is missing"):
        Row.from_json(row(0, case="c"), ("case", "key"))
    assert Row.from_json(row(0, case="c", key="k"), ("case", "key")).key == "k"
    assert Row.from_json(row(0, case=5)).case == ""  # of a run that has no cases


@pytest.mark.parametrize(
    ("limit", "now", "stands"),
    [(None, 5.0, True), (5.0, 5.0, True), (5.0, 4.0, True), (5.0, 5.1, False), (5.0, None, False), (None, None, True)],
)
def test_a_row_stands_unless_a_shorter_limit_ended_it(limit: float | None, now: float | None, stands: bool) -> None:
    assert replace(Row.from_json(row(0, "unknown", "exact")), limit=limit).settled(now) is stands
