"""Comparisons as people write them: what they mean, against Python's own arithmetic, and what is refused."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.errors import UsageError
from qverify.properties.expressions import LABEL, comparisons
from qverify.properties.formula import All, holds

CLASSES = ("cat", "sports car", "dog")
Y = [Fraction("1.5"), Fraction(-2), Fraction("0.1")]


def met(text: str) -> bool:
    return holds(All(tuple(comparisons(text, "f", CLASSES))), [], Y)


@pytest.mark.parametrize(
    "text",
    [
        "y[0] >= 1.5",
        "y[0] > 1.5",
        "y[0] - y[1] >= 3.5",
        "y[0] - (y[1] - 2) * 3 < 13.6",
        "-y[1] / 4 + 1e-1 <= .6",
        "2 * (y[0] + y[1]) / 4 > -(y[2])",
        "-3 <= y[1] < y[2] <= 0.1",
        "1 >= y[2] > y[1]",
        "y[2] <= 0.1",
        "y[2] < 0.1",
        "0.3 - 2 * y[2] <= y[2]",
        "+y[0] > 0",
    ],
)
def test_comparisons_mean_what_python_computes(text: str) -> None:
    """With every number as a fraction, as it is written."""
    exact = re.sub(r"(?<![\w\[.])(\d*\.?\d+(?:e-?\d+)?)(?![\w\]])", r"Fraction('\1')", text)
    assert met(text) is eval(exact, {"Fraction": Fraction, "y": Y})


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(1, 9), st.integers(0, 1)), min_size=1, max_size=6))
def test_any_sum_is_added_up(parts: list[tuple[str, int, int]]) -> None:
    text = "y[2] " + " ".join(f"{sign} {factor} * y[{place}]" for sign, factor, place in parts)
    total = Y[2] + sum((1 if sign == "+" else -1) * factor * Y[place] for sign, factor, place in parts)
    limit = f"{total.numerator} / {total.denominator}" if total >= 0 else f"-({-total.numerator}) / {total.denominator}"
    assert met(f"{text} >= {limit}") is True
    assert met(f"{text} > {limit}") is False


@given(st.text(alphabet="y[]0123.e+-*/()<>= labx", max_size=40))
def test_any_text_states_comparisons_or_is_refused_in_a_sentence(text: str) -> None:
    with contextlib.suppress(UsageError):
        found = comparisons(text, "f")
        assert found and all(one.terms for one in found)


def test_outputs_have_names() -> None:
    assert met("y[sports car] < y['cat']") and met('y["cat"] >= y[ dog ]') and not met("y[cat] < y[dog]")
    (one,) = comparisons("y[label] > y[1]", "f")
    assert {v.place for v in one.terms} == {LABEL, 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y[0]", "compares nothing; write"),
        ("", "ends where a number or an output is wanted"),
        ("1 >= 0", "compares nothing that depends on an output"),
        ("y[0] - y[0] >= 0", "compares nothing that depends on an output"),
        ("y[0] * y[1] >= 0", "multiplies variables"),
        ("1 / y[0] >= 0", "divides by an output or by 0"),
        ("y[0] / 0 >= 0", "divides by an output or by 0"),
        ("y[0] == 1", "states an equation"),
        ("y[0] = 1", "states an equation"),
        ("0 <= y[0] >= 1", "mixes signs of both directions"),
        ("y[0] >= 1 y[1]", "has 'y[1]' where it should go on"),
        ("y[0]**2 >= 1", "has '*' where a number or an output is wanted"),
        ("max(y[0], y[1]) >= 1", "has 'max(y[0], y['"),
        ("x[0] >= 1", "names inputs"),
        ("(y[0] >= 1", "does not close a bracket"),
        ("y[bird] >= 1", "names the output 'bird', but classes are 'cat', 'sports car', 'dog'"),
        ("y[-1] >= 1", "names the output '-1'"),
        ("y[0] >= 1e99", "beyond 1e+30"),
        ("y[0] >= " + "(" * 60 + "1" + ")" * 60, "more than 50 brackets"),
    ],
)
def test_what_is_no_linear_comparison_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        comparisons(text, "p.toml", CLASSES)
    assert str(caught.value).startswith("p.toml: ")
