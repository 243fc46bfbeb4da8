"""JSON read strictly, against Python's own reader and against what may not stand in a file."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.files import strict_json
from qverify.files.strict_json import parsed

DEEPEST = 16

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def depth(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(record=st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_it_reads_what_json_wrote(record: dict[str, Any]) -> None:
    content = json.dumps(record, ensure_ascii=False).encode()
    if depth(record) > DEEPEST:
        with pytest.raises(ValueError, match="nested too deep"):
            parsed(content)
    else:
        again = parsed(content)
        assert again == json.loads(content) == record and repr(again) == repr(record)  # 1.0 is not 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no JSON"),
        (b"{", "it is no JSON"),
        (b"{} {}", "it is no JSON"),
        (b"{'a': 1}", "it is no JSON"),
        (b"[1]", "it is no JSON object"),
        (b"null", "it is no JSON object"),
        (b'{"a": "\xff"}', "it is no UTF-8"),
        (b'{"a": NaN}', "it has NaN for a number"),
        (b'{"a": [-Infinity]}', "it has -Infinity for a number"),
        (b'{"a": 1e999}', "1e999' is too large"),
        (b'{"a": 9223372036854775808}', "'9223372036854775... is too large"),
        (b'{"a": -9223372036854775809}', "'-922337203685477... is too large"),
        (b'{"a": ' + 5000 * b"1" + b"}", "is too large"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        (b'{"x": {"a": 1, "a": 2}}', "the key 'a' stands twice"),
        (b'{"a": ' + 200_000 * b"[" + 200_000 * b"]" + b"}", "it is nested too deep"),
    ],
)
def test_what_qverify_would_not_write_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refusal:
        parsed(content)
    assert len(str(refusal.value)) < 100


def test_objects_may_be_nested_so_deep_and_no_deeper() -> None:
    nested: Any = 1
    for level in range(1, DEEPEST + 2):
        nested = {"a": nested} if level % 2 else [nested]
        content = json.dumps({"a": nested}).encode()
        if level + 1 <= DEEPEST:
            assert parsed(content) == {"a": nested}
        else:
            with pytest.raises(ValueError, match="nested too deep"):
                parsed(content)


def test_values_in_messages_are_those_of_json() -> None:
    for value in (None, True, False, 5, 0.25):
        assert strict_json.written(value) == json.dumps(value)
    assert len(strict_json.written("x" * 1000)) <= 40


POOL: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**53 - 1,
    2**53,
    -0.5,
    0.0,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "a",
    "b",
    [],
    {},
]
"""Values of every type; each check below takes those at some positions of it, named by hand."""

TAKEN = [
    (strict_json.text, ["", "a", "b"]),
    (strict_json.truth, [True, False]),
    (strict_json.whole, [0, 1, 2**53 - 1]),
    (strict_json.number, [-1, 0, 1, 2**53 - 1, 2**53, -0.5, 0.0, 0.5]),
    (strict_json.positive, [1, 2**53 - 1, 2**53, 0.5]),
    (strict_json.at_least_0, [0, 1, 2**53 - 1, 2**53, 0.0, 0.5]),
    (strict_json.word("a", "c"), ["a"]),
    (strict_json.optional(strict_json.truth), [None, True, False]),
    (strict_json.every(strict_json.text), [[]]),
    (strict_json.mapping(strict_json.text), [{}]),
]


@pytest.mark.parametrize(("fits", "taken"), TAKEN)
def test_a_check_takes_its_own_values_alone(fits: strict_json.Fits, taken: list[Any]) -> None:
    assert [repr(value) for value in POOL if fits(value)] == list(map(repr, taken))


def test_lists_and_objects_are_checked_inside() -> None:
    numbers = strict_json.every(strict_json.number)
    assert numbers([1, 2.5]) and not numbers([1, "a"]) and not numbers((1, 2))
    pair = strict_json.ascending(strict_json.number)
    assert pair([0, 1]) and not any(map(pair, ([1, 0], [1, 1], [0, 1, 2], [0], ["a", "b"])))
    named = strict_json.mapping(strict_json.whole, "a", "b")
    assert named({}) and named({"a": 1}) and named({"a": 1, "b": 2})
    assert not named({"c": 1}) and not named({"a": "x"}) and not named([])
    assert strict_json.mapping(strict_json.whole)({"anything": 1})


def test_faults_name_the_keys() -> None:
    table = {"a": strict_json.whole, "b": strict_json.optional(strict_json.text), "c": strict_json.truth}
    assert strict_json.faults({"a": 1, "b": None, "c": True, "d": 5}, table) == []
    assert strict_json.faults({"a": -1, "c": 1}, table) == ["a", "c"]
    assert strict_json.faults({}, table, needed=("a", "b")) == ["a"]  # an absent one counts as null, which b may be
    assert strict_json.faults("no object", table, needed=("c",)) == ["c"]
