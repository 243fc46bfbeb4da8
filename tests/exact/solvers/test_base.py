"""The small rules that all adapters share, by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.program import Program
from qverify.exact.solvers.base import (
    Ending,
    Limits,
    bound_or_nothing,
    just_above,
    reconciled,
    remaining,
    summed_rows,
)


@pytest.mark.parametrize(
    ("status", "bound", "incumbent", "expected"),
    [
        (Ending.BOUND_REACHED, 1.5, 2.0, (Ending.BOUND_REACHED, 1.5)),
        (Ending.BOUND_REACHED, 1.0, None, (Ending.FAILED, 1.0)),  # not above stop_above
        (Ending.BOUND_REACHED, 1.5, 0.5, (Ending.FAILED, 0.5)),  # contradicted by a solution
        (Ending.OPTIMAL, 2.0 + 1e-9, 2.0, (Ending.OPTIMAL, 2.0)),
        (Ending.TARGET_REACHED, -3.0, None, (Ending.FAILED, -3.0)),
        (Ending.TARGET_REACHED, -3.0, -1.0, (Ending.TARGET_REACHED, -3.0)),
        (Ending.TIME_LIMIT, -np.inf, None, (Ending.TIME_LIMIT, -np.inf)),
    ],
)
def test_an_outcome_is_no_more_optimistic_than_its_numbers(
    status: Ending, bound: float, incumbent: float | None, expected: tuple[Ending, float]
) -> None:
    assert reconciled(status, bound, incumbent, Limits(stop_above=1.0, stop_below=0.0)) == expected


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 1e20, -1e20, -1e100])
def test_no_bound(nothing: float) -> None:
    assert bound_or_nothing(nothing) == -np.inf


@pytest.mark.parametrize("limit", [0.0, 1e-6, -1.0, 1e9, -1e12])
def test_a_stop_lies_behind_the_limit(limit: float) -> None:
    assert limit < just_above(limit) <= limit + 1e-7 * max(1.0, abs(limit))


def test_time_that_remains() -> None:
    assert remaining(None) is None
    assert remaining(time.monotonic() - 5.0) == 0.0
    left = remaining(time.monotonic() + 9.0)
    assert left is not None and 8.0 < left <= 9.0


def test_entries_of_one_place_are_summed() -> None:
    rows = sparse.csr_matrix((np.array([0.5, 0.25, 2.0]), np.array([1, 1, 0]), np.array([0, 3])), shape=(1, 2))
    program = Program(
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.zeros(2, dtype=bool),
        rows=rows,
        row_lower=np.zeros(1),
        row_upper=np.ones(1),
    )
    summed = summed_rows(program)
    assert summed.nnz == 2 and summed.toarray().tolist() == [[2.0, 0.75]]
    assert program.rows.nnz == 3
    assert summed_rows(replace(program, rows=summed)) is summed
