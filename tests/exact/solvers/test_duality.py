"""Bounds from row duals against optima by scipy, and in exact rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.program import Objective, Program
from qverify.exact.solvers.duality import dual_value, feasible_duals
from tests.support.solving import (
    linear_optimum,
    random_program,
)


def test_any_duals_give_a_bound() -> None:
    """Weak duality: random row duals never exceed the optimum, nor do those of the wrong sign, once cleaned."""
    (program, objective), rng = random_program(7, 0, 8, 9), np.random.default_rng(0)
    truth = linear_optimum(program, objective)
    for _ in range(50):
        duals = feasible_duals(program, rng.normal(size=program.row_count))
        assert dual_value(program, objective, duals) <= truth + 1e-12


@pytest.mark.parametrize("small", [1.0, 2.0**-520, 2.0**-600])
def test_dual_value_allows_for_its_rounding(small: float) -> None:
    """A bound from random duals never exceeds the optimum, in exact arithmetic, even where sums cancel, or where
    products underflow that a large variable multiplies again."""

    rng = np.random.default_rng(5)
    for _ in range(30):
        n, m = 6, 4
        matrix = rng.normal(size=(m, n)) * 10.0 ** rng.integers(-8, 9, (m, n)) * small
        lower, upper = -(10.0 ** rng.uniform(-3, 8, n)) / small, 10.0 ** rng.uniform(-3, 8, n) / small
        limits = matrix @ ((lower + upper) / 2)
        program = Program(
            lower=lower,
            upper=upper,
            integer=np.zeros(n, bool),
            rows=sparse.csr_matrix(matrix),
            row_lower=limits,
            row_upper=np.full(m, np.inf),
        )
        duals = rng.uniform(0, 1, m) * small
        cost = matrix.T @ duals + 1e-9 * small * small * rng.normal(size=n)
        exact = sum(Fraction(d) * Fraction(b) for d, b in zip(duals, limits, strict=True))
        for j in range(n):
            reduced = Fraction(cost[j]) - sum(Fraction(matrix[i, j]) * Fraction(duals[i]) for i in range(m))
            exact += min(reduced * Fraction(lower[j]), reduced * Fraction(upper[j]))
        assert Fraction(dual_value(program, Objective(cost), duals)) <= exact
