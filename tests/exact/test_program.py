"""Programs whose parts do not fit are refused; objectives by hand."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from qverify.errors import InternalError
from qverify.exact.builder import ProgramBuilder
from qverify.exact.program import Objective


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lower", np.array([0.0, np.nan])),
        ("upper", np.array([1.0, np.inf])),
        ("upper", np.array([1.0, -1.0])),
        ("row_lower", np.array([np.nan])),
        ("row_lower", np.array([2.0])),
        ("row_upper", np.zeros(2)),
        ("rows", sparse.csr_matrix([[np.nan, 1.0]])),
        ("rows", sparse.csr_matrix([[1.0]])),
        ("rows", np.ones((1, 2))),
    ],
)
def test_programs_that_are_none(name: str, value: Any) -> None:
    builder = ProgramBuilder()
    x = builder.add_variables("x", np.zeros(2), np.ones(2))
    builder.add_rows([(np.ones((1, 2)), x)], 0.0, 1.0)
    program = builder.build()
    with pytest.raises(InternalError):
        dataclasses.replace(program, **{name: value})


def test_the_value_of_an_objective(rng: np.random.Generator) -> None:
    """Against exact rationals."""
    cost, point = rng.normal(size=20), rng.normal(size=20)
    truth = sum((Fraction(c) * Fraction(v) for c, v in zip(cost, point, strict=True)), Fraction(1.5))
    assert Objective(cost, 1.5).value(point) == pytest.approx(float(truth), abs=1e-12)
    assert Objective(np.zeros(2)).value(np.ones(2)) == 0.0
