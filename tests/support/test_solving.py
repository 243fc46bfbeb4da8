"""The programs of the solver tests, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.program import Objective, Program
from tests.support.solving import (
    corner_program,
    integer_optimum,
    linear_optimum,
)


def test_optima_by_hand() -> None:
    """x + y >= 1.5 on [0, 2]^2, minimise x + 2 y + 1: at (1.5, 0), or with integers at (2, 0)."""
    program = Program(
        lower=np.zeros(2),
        upper=np.full(2, 2.0),
        integer=np.ones(2, dtype=bool),
        rows=sparse.csr_matrix(np.ones((1, 2))),
        row_lower=np.array([1.5]),
        row_upper=np.full(1, np.inf),
    )
    objective = Objective(np.array([1.0, 2.0]), 1.0)
    assert linear_optimum(program, objective) == pytest.approx(2.5)
    assert integer_optimum(program, objective) == pytest.approx(3.0)
    assert linear_optimum(replace(program, row_lower=np.array([4.5])), objective) == np.inf


@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_box_is_below_the_corners(seed: int) -> None:
    """The optimum of `corner_program`, against random points: t at its limit."""
    program, objective, truth = corner_program(seed)
    rng, p = np.random.default_rng(seed), program.products
    for _ in range(200):
        point = rng.uniform(program.lower, program.upper)
        point[-1] = 0.0
        rest = float((program.rows @ point)[0] + (p.coefficient * point[p.first] * point[p.second]).sum())
        point[-1] = -rest / program.rows[0, -1]
        assert objective.value(point) >= truth - 1e-9
