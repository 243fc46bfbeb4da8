"""Formulas, their disjunctive normal form and the cases they make: judged by exact evaluation at drawn points."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qverify.errors import UsageError
from qverify.properties.cases import Case, cases, rounded
from qverify.properties.formula import All, Formula, Linear, Some, Variable, conjunctions

X0, Y0, Y1 = Variable(False, 0), Variable(True, 0), Variable(True, 1)


def at_most(variable: Variable, limit: Any, factor: Any = 1, strict: bool = False) -> Linear:
    return Linear({variable: Fraction(factor)}, Fraction(limit), strict)


def true(formula: Formula, point: dict[Variable, Fraction]) -> bool:
    """An evaluation of its own."""
    if isinstance(formula, Linear):
        left = sum((c * point[v] for v, c in formula.terms.items()), Fraction(0))
        return left < formula.limit or (left == formula.limit and not formula.strict)
    found = [true(part, point) for part in formula.parts]
    return all(found) if isinstance(formula, All) else any(found)


def drawn(rng: np.random.Generator, depth: int) -> Formula:
    kind = int(rng.integers(3 if depth else 1))
    if kind == 0:
        chosen = [v for v in (Y0, Y1) if rng.random() < 0.6]
        terms = {v: Fraction(int(rng.integers(1, 4)) * (-1) ** int(rng.integers(2))) for v in chosen}
        return Linear(terms, Fraction(int(rng.integers(-3, 4))), bool(rng.integers(2)))
    parts = tuple(drawn(rng, depth - 1) for _ in range(int(rng.integers(0, 4))))
    return All(parts) if kind == 1 else Some(parts)


def test_the_normal_form_says_the_same() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        formula = drawn(rng, 3)
        clauses = conjunctions(formula)
        for _ in range(10):
            point = {v: Fraction(int(rng.integers(-4, 5))) for v in (Y0, Y1)}
            wanted = true(formula, point)
            assert any(all(true(one, point) for one in clause) for clause in clauses) == wanted
            seen.add(wanted)
    assert seen == {True, False}


def test_a_formula_too_large_is_refused() -> None:
    either = Some((at_most(Y0, 0), at_most(Y1, 0)))
    with pytest.raises(UsageError, match="split it into several queries"):
        conjunctions(All((either,) * 30))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_rounding_of_ends_is_exact(kind: Any) -> None:
    rng = np.random.default_rng(1)
    numbers = [Fraction(int(rng.integers(-(10**9), 10**9)), int(rng.integers(1, 10**9))) for _ in range(50)]
    numbers += [Fraction(1, 10), Fraction(0), Fraction(1, 2), Fraction(-1, 3), Fraction(1, 10**60)]
    low, high = (rounded(tuple(numbers), side, kind) for side in (-1, 1))
    for number, below, above in zip(numbers, low, high, strict=True):
        assert Fraction(float(below)) <= number <= Fraction(float(above))
        assert Fraction(float(np.nextafter(below, kind(np.inf)))) > number
        assert Fraction(float(np.nextafter(above, kind(-np.inf)))) < number


def cases_of(*parts: Formula) -> list[Case]:
    return cases(All(parts), 1, lambda i: f"X_{i}")


def test_cases_are_boxes_with_their_clauses() -> None:
    inside = (at_most(X0, 2, 2), at_most(X0, 3, -3))
    either = Some((at_most(Y0, 1), All((at_most(Y1, 1), at_most(X0, Fraction(1, 2))))))
    found = cases_of(*inside, either)
    assert [list(map(float, (*case.lower, *case.upper))) for case in found] == [[-1.0, 1.0], [-1.0, 0.5]]
    assert [[len(clause) for clause in case.clauses] for case in found] == [[1], [1]]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([at_most(X0, 1), at_most(Y0, 1)], "X_0 has no lower limit"),
        ([at_most(X0, -1), at_most(X0, -1, -1)], "No input meets the query.*it wants X_0 >= 1 and <= -1"),
        ([at_most(X0, 1), at_most(X0, 1, -1), Linear({}, Fraction(-1))], "No input meets the query.*is false"),
        ([Linear({X0: Fraction(1), Y0: Fraction(1)}, Fraction(1))], "ties the input X_0 to an output"),
    ],
)
def test_what_is_no_box_is_refused(parts: list[Formula], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cases_of(*parts)
