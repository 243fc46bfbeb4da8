"""Arguments of the wrong kind."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import kinds
from qverify.errors import ModelError, UsageError

POOL: dict[str, Any] = {
    "0": 0,
    "-2**63": -(2**63),
    "2**63": 2**63,
    "10**400": 10**400,
    "np.int32": np.int32(5),
    "0.5": 0.5,
    "inf": math.inf,
    "nan": math.nan,
    "np.float32": np.float32(0.5),
    "Fraction": Fraction(1, 3),
    "Decimal": Decimal(1),
    "True": True,
    "np.bool": np.bool_(True),
    "text": "5",
    "None": None,
    "array": np.array([5]),
}
WHOLE = {"0", "-2**63", "np.int32"}
NUMBERS = WHOLE | {"2**63", "0.5", "inf", "np.float32", "Fraction"}


@pytest.mark.parametrize("name", POOL)
def test_numbers_are_told_from_what_looks_like_one(name: str) -> None:
    value = POOL[name]
    assert kinds.is_whole(value) is (name in WHOLE)
    assert kinds.is_number(value) is (name in NUMBERS)
    assert kinds.is_pair((value, 0)) is kinds.is_pair([0, value]) is (name in NUMBERS)
    assert not kinds.is_pair((value, 0, 0)) and not kinds.is_pair({value: 0} if name == "0" else value)


def test_words_are_text() -> None:
    assert kinds.is_word("a", ("a", "b")) and not kinds.is_word("c", ("a", "b"))
    assert not kinds.is_word(np.array(["a"]), ("a",)) and not kinds.is_word(["a"], ("a",))


def test_a_truth_value_is_a_number_for_nobody() -> None:
    kinds.expected(5, int, "n", "a number")
    kinds.expected(True, bool, "n", "a truth value")
    with pytest.raises(UsageError, match=r"^n is True; give a number\.$"):
        kinds.expected(True, int, "n", "a number")
    with pytest.raises(ModelError, match=r"^p is the int 5; give a path\.$"):
        kinds.path_like(5, "p", "a path", ModelError)
    kinds.path_like(Path("x"), "p", "a path")
    kinds.path_like("x", "p", "a path")


@pytest.mark.parametrize(
    ("value", "length", "fits"),
    [
        ((1, 2), None, True),
        ([1, 2], 2, True),
        ((), 0, True),
        ((1, 2), 3, False),
        ((1.0,), None, False),
        (5, None, False),
    ],
)
def test_shapes_are_whole_numbers(value: Any, length: int | None, fits: bool) -> None:
    if fits:
        kinds.whole_numbers(value, "s", length=length)
    else:
        with pytest.raises(UsageError, match=f"give a tuple of {'' if length is None else f'{length} '}whole numbers"):
            kinds.whole_numbers(value, "s", length=length)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, None),
        ((0, 1), None),
        ([-math.inf, 0.5], None),
        ((1, 0), "1 to 0, is empty"),
        ((1, 1), "1 to 1, is empty"),
        ((math.nan, 1), "nan to 1, is empty"),
        ((0,), "give two numbers"),
        ("01", "give two numbers"),
        ((0, "1"), "give two numbers"),
        ((False, True), "give two numbers"),
    ],
)
def test_ranges_to_clip_to(value: Any, words: str | None) -> None:
    if words is None:
        kinds.clipping_range(value, UsageError)
    else:
        with pytest.raises(UsageError, match=words):
            kinds.clipping_range(value, UsageError)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (5, "the int 5"),
        ("a", "the str 'a'"),
        (math, "the module 'math'"),
        (int, "the class int"),
        (ModelError, "the class qverify.errors.ModelError"),
        (np.zeros(10**6), "an object of type numpy.ndarray"),
    ],
)
def test_what_came_is_said_shortly(value: Any, words: str) -> None:
    assert kinds.described(value) == words
    assert len(kinds.described(["x"] * 10**4)) < 200


def test_numbers_in_messages_are_as_people_write_them() -> None:
    assert kinds.number_as_is(0.5) == "0.5" and kinds.number_as_is(math.nan) == "nan" and kinds.number_as_is(3) == "3"
    assert kinds.number_as_is("3") == "the str '3'" and kinds.number_as_is(True) == "True"
