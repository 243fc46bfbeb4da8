"""Linear programs that change from solve to solve, each against scipy on the program as it is then."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.program import Objective, Program
from qverify.exact.solvers.duality import dual_value, feasible_duals
from qverify.exact.solvers.linear import LinearProgram
from tests.support.solving import (
    hard_program,
    linear_optimum,
    random_program,
)


def check(linear: LinearProgram, program: Program, objective: Objective) -> None:
    solved, truth = linear.solve(None), linear_optimum(program, objective)
    assert solved.finished and not solved.above
    if np.isinf(truth):
        assert solved.infeasible and solved.point is None
        return
    assert solved.point is not None and solved.duals is not None
    assert objective.value(solved.point) == pytest.approx(truth, abs=1e-7)
    assert dual_value(program, objective, feasible_duals(program, solved.duals)) == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_objectives_ranges_and_rows_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program, objective = random_program(seed, 0, 8, 6)
    linear = LinearProgram(program)
    for step in range(12):
        objective = Objective(rng.normal(size=8), float(rng.normal()))
        linear.set_objective(objective)
        check(linear, program, objective)
        columns = rng.choice(8, 2, replace=False)
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[columns] = upper[columns] = rng.uniform(program.lower, program.upper)[columns]
        linear.set_ranges(columns, lower[columns], upper[columns])
        check(linear, replace(program, lower=lower, upper=upper), objective)
        linear.set_ranges(columns, program.lower[columns], program.upper[columns])
        if step % 3 < 2:
            rows = sparse.csr_matrix(rng.normal(size=(2, 8)))
            limits = rows @ ((program.lower + program.upper) / 2) - rng.uniform(0.0, 0.5, 2)
            linear.add_rows(rows, limits)
            program = replace(
                program,
                rows=sparse.vstack([program.rows, rows], format="csr"),
                row_lower=np.append(program.row_lower, limits),
                row_upper=np.append(program.row_upper, np.full(2, np.inf)),
            )
        else:
            gone = rng.choice(program.row_count, 2, replace=False)
            linear.drop_rows(np.sort(gone))
            kept = np.setdiff1d(np.arange(program.row_count), gone)
            program = replace(
                program,
                rows=program.rows[kept],
                row_lower=program.row_lower[kept],
                row_upper=program.row_upper[kept],
            )
        check(linear, program, objective)
    linear.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_ray_shows_that_there_is_no_point(seed: int) -> None:
    """Farkas: by the ray alone, the rows exclude the whole box."""
    program, objective = random_program(seed, 0, 6, 4)
    rows = sparse.csr_matrix(np.random.default_rng(seed).normal(size=(1, 6)))
    most = np.maximum(rows.toarray() * program.lower, rows.toarray() * program.upper).sum()
    linear = LinearProgram(program)
    linear.set_objective(objective)
    linear.add_rows(rows, np.array([most + 0.5]))
    solved = linear.solve(None)
    linear.close()
    assert solved.infeasible and solved.duals is not None
    matrix = np.vstack([program.rows.toarray(), rows.toarray()])
    lower, upper = np.append(program.row_lower, most + 0.5), np.append(program.row_upper, np.inf)
    ray = solved.duals
    ray = np.where((ray > 0) & np.isinf(lower) | (ray < 0) & np.isinf(upper), 0.0, ray)
    activity = -ray @ matrix
    least = np.minimum(activity * program.lower, activity * program.upper).sum()
    assert sum(d * (lower[i] if d > 0 else upper[i]) for i, d in enumerate(ray) if d) + least > 0.0


def test_it_stops_above_in_time_and_when_told() -> None:
    program, objective = hard_program(2, 120, 80)
    stop = threading.Event()
    linear = LinearProgram(program, stop)
    linear.set_objective(objective)
    truth = linear_optimum(program, objective)
    above = linear.solve(None, truth - 50.0)
    assert above.above or objective.value(above.point) == pytest.approx(truth, abs=1e-6)  # type: ignore[arg-type]
    assert dual_value(program, objective, feasible_duals(program, above.duals)) <= truth + 1e-9  # type: ignore[arg-type]
    linear.set_objective(Objective(-np.roll(objective.cost, 7)))
    assert not linear.solve(0.0).finished
    stop.set()
    assert not linear.solve(None).finished
    linear.close()
