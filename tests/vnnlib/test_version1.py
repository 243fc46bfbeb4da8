"""The reader of VNN-LIB 1.0."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from qverify.errors import UsageError
from qverify.properties.formula import holds
from qverify.vnnlib.version1 import parse

DECLARED = "(declare-const X_0 Real)\n(declare-const Y_0 Real) ; an output\n(declare-fun Y_1 () Real)\n"


def met(assertion: str, x: str, y0: str, y1: str = "0") -> bool:
    query = parse(f"{DECLARED}(assert {assertion})", "q.vnnlib")
    return holds(query.formula, [Fraction(x)], [Fraction(y0), Fraction(y1)])


@pytest.mark.parametrize(
    ("assertion", "y0", "wanted"),
    [
        ("(<= Y_0 0.1)", "0.1", True),
        ("(< Y_0 0.1)", "0.1", False),
        ("(>= Y_0 1e-3)", "0.001", True),
        ("(> Y_0 1E-3)", "0.001", False),
        ("(= Y_0 -2.5e+1)", "-25", True),
        ("(not (<= Y_0 0.1))", "0.1", False),
        ("(not (or (< Y_0 0) (> Y_0 0)))", "0", True),
        ("(and (<= Y_0 1) (or (>= Y_0 1) (<= Y_0 -1)))", "1", True),
        ("(<= (+ (* 2 Y_0) (- X_0) (* 3 (- Y_1 X_0 1))) -3)", "0", True),
        ("(<= (* 2 (+ Y_0 1) 3) 6)", "0", True),
        ("true", "0", True),
        ("(not true)", "0", False),
    ],
)
def test_assertions_mean_what_they_say(assertion: str, y0: str, wanted: bool) -> None:
    assert met(assertion, "0", y0) is wanted


def test_several_assertions_hold_together() -> None:
    query = parse(f"{DECLARED}(assert (<= Y_0 1))(assert (>= Y_0 1))", "q")
    assert [holds(query.formula, [Fraction(0)], [Fraction(v), Fraction(0)]) for v in (0, 1, 2)] == [False, True, False]
    assert (query.input_size, query.output.size, query.input_name(0)) == (1, 2, "X_0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(declare-const X_1 Real)(declare-const Y_0 Real)(assert true)", "q declares no input X_0"),
        ("(declare-const X_0 Real)(assert true)", "q declares no output Y_0"),
        (DECLARED, "q asserts nothing"),
        (f"{DECLARED}\n(assert (<= Y_7 1))", "q, line 5: 'Y_7' is not declared"),
        (f"{DECLARED}(assert (<= Y_0 1.x))", "q, line 4, has '1.x' where a number is wanted"),
        (f"{DECLARED}(assert (<= Y_0 1e400))", "q, line 4, has '1e400', beyond 1e+30"),
        (f"{DECLARED}(assert (<= Y_0 -1e31))", "q, line 4, has '-1e31', beyond 1e+30"),
        (f"{DECLARED}(assert (<= Y_0 1e999999999))", "q, line 4, has '1e999999999', an exponent of no number"),
        (f"{DECLARED}(assert (<= Y_0 1)", "q, line 4: a bracket is never closed"),
        (f"{DECLARED})", "q, line 4: a closing bracket without an opening one"),
        (f"{DECLARED}(assert (<= (* Y_0 Y_1) 1))", "q, line 4, multiplies variables"),
        (f"{DECLARED}(assert (=> (<= Y_0 1) (<= Y_1 1)))", "q, line 4: an assertion of and, or, not"),
        (f"{DECLARED}(assert (<= (/ Y_0 2) 1))", "q, line 4: a sum of numbers and variables"),
        (f"{DECLARED}(declare-const X_0 Real)", "q, line 4: X_0 is declared again, first in line 1"),
        (f"{DECLARED}(declare-const Z Real)", "q, line 4: a declaration that is not of X_0, Y_0"),
        (f"{DECLARED}(declare-const X_1 Int)", "q, line 4: a declaration that is not of X_0, Y_0"),
        (f"{DECLARED}(push 1)", "q, line 4: 'push' is no command"),
        ("hello", "q, line 1: 'hello' stands outside of brackets"),
        ("(" * 300, "more than 200 brackets"),
    ],
)
def test_what_is_no_query_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as error:
        parse(text, "q")
    assert "\n" not in str(error.value)
