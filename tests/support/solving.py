"""Programs with optima found without a solver of qverify, and one minimisation by an adapter."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from qverify.arrays import Array
from qverify.exact.program import Objective, Products, Program
from qverify.exact.solvers.base import Limits, Outcome, Solver

PACKAGES = {"highs": "highspy", "gurobi": "gurobipy", "scip": "pyscipopt"}
INSTALLED = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]
BILINEAR = [name for name in INSTALLED if name != "highs"]
NOTHING = Limits()


def random_program(seed: int, integers: int, continuous: int, rows: int) -> tuple[Program, Objective]:
    """Mixed signs, ranged, one-sided, free and equality rows; feasible by construction."""
    rng = np.random.default_rng(seed)
    n = integers + continuous
    integer = rng.permutation(np.arange(n) < integers)
    lower = np.where(integer, rng.integers(-2, 1, n), rng.uniform(-3, 0, n))
    upper = np.where(integer, lower + rng.integers(1, 3, n), lower + rng.uniform(0.5, 4, n))
    matrix = rng.normal(size=(rows, n)) * (rng.random((rows, n)) < 0.7)
    inside = np.where(integer, lower + 1, (lower + upper) / 2)
    activity = matrix @ inside
    row_lower, row_upper = activity - rng.uniform(0, 1, rows), activity + rng.uniform(0, 1, rows)
    kind = np.arange(rows) % 5
    row_lower[kind == 0], row_upper[kind == 1] = -np.inf, np.inf
    row_lower[kind == 4], row_upper[kind == 4] = -np.inf, np.inf
    if continuous > 1:
        row_lower[kind == 3] = row_upper[kind == 3] = activity[kind == 3]
    cost = rng.normal(size=n)
    program = Program(
        lower=lower,
        upper=upper,
        integer=integer,
        rows=sparse.csr_matrix(matrix),
        row_lower=row_lower,
        row_upper=row_upper,
    )
    return program, Objective(cost, float(rng.normal()))


def linear_optimum(
    program: Program, objective: Objective, lower: Array | None = None, upper: Array | None = None
) -> float:
    """By scipy's linprog, from one-sided rows; inf if infeasible."""
    lower = program.lower if lower is None else lower
    upper = program.upper if upper is None else upper
    rows = program.rows.toarray()
    above, below = np.isfinite(program.row_upper), np.isfinite(program.row_lower)
    result = linprog(
        objective.cost,
        A_ub=np.vstack([rows[above], -rows[below]]),
        b_ub=np.concatenate([program.row_upper[above], -program.row_lower[below]]),
        bounds=list(zip(lower, upper, strict=True)),
    )
    assert result.status in (0, 2)
    return result.fun + objective.offset if result.status == 0 else np.inf


def integer_optimum(program: Program, objective: Objective) -> float:
    """By enumeration of the integers, and linprog for the rest."""
    places = np.flatnonzero(program.integer)
    ranges = [range(int(program.lower[k]), int(program.upper[k]) + 1) for k in places]
    best = np.inf
    for values in itertools.product(*ranges):
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[places] = upper[places] = values
        best = min(best, linear_optimum(program, objective, lower, upper))
    return best


def hard_program(seed: int = 1, items: int = 40, rows: int = 14, offset: float = 0.0) -> tuple[Program, Objective]:
    """A multidimensional knapsack: half a second for every solver, with a gap to close."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1, 60, (rows, items)).astype(float)
    cost = -rng.integers(20, 80, items).astype(float)
    program = Program(
        lower=np.zeros(items),
        upper=np.ones(items),
        integer=np.ones(items, dtype=bool),
        rows=sparse.csr_matrix(matrix),
        row_lower=np.full(rows, -np.inf),
        row_upper=matrix.sum(1) * 0.5,
    )
    return program, Objective(cost, offset)


HARD_OPTIMUM = -1297.0
"""Of hard_program(): three solvers agree."""


def minimise(
    solver: Solver,
    program: Program,
    objective: Objective,
    limits: Limits = NOTHING,
    relax: bool = False,
    **options: Any,
) -> Outcome:
    session = solver.open(program, **options)
    try:
        return session.minimise(objective, limits, relax)
    finally:
        session.close()


def check_point(program: Program, objective: Objective, outcome: Outcome, relaxed: bool = False) -> None:
    assert outcome.point is not None
    point, activity = outcome.point, program.rows @ outcome.point
    assert outcome.incumbent == objective.cost @ point + objective.offset
    assert (point >= program.lower - 1e-7).all() and (point <= program.upper + 1e-7).all()
    assert (activity >= program.row_lower - 1e-7).all() and (activity <= program.row_upper + 1e-7).all()
    if not relaxed:
        assert np.abs(point - np.round(point))[program.integer].max(initial=0.0) < 1e-7


def corner_program(seed: int) -> tuple[Program, Objective, float]:
    """t >= x.Q.y + c.(x, y), minimise t; or t = ..., maximise t; or -t <= ..., minimise t. And its optimum, from
    the corners of the box, where a bilinear function is extreme."""
    rng = np.random.default_rng(seed)
    a, b = 2 + seed % 2, 3
    lower, upper = -rng.uniform(0.1, 2, a + b), rng.uniform(0.1, 2, a + b)
    matrix, linear = rng.normal(size=(a, b)), rng.normal(size=a + b)
    values = [
        c[:a] @ matrix @ c[a:] + linear @ c for c in map(np.array, itertools.product(*zip(lower, upper, strict=True)))
    ]
    first, second = np.divmod(np.arange(a * b), b)
    # each coefficient in two parts, the second with its factors swapped: both must be added up
    one, other = np.concatenate([first, second + a]), np.concatenate([second + a, first])
    coefficient = np.concatenate([0.25 * matrix.ravel(), 0.75 * matrix.ravel()])
    row_limits, side, t_sign, truth = [
        ((-np.inf, 0.0), 1.0, -1.0, min(values)),
        ((0.0, 0.0), 1.0, -1.0, -max(values)),
        ((0.0, np.inf), 1.0, 1.0, -max(values)),
    ][seed % 3]
    products = Products(
        row=np.zeros(2 * a * b, dtype=np.int64), first=one, second=other, coefficient=side * coefficient
    )
    cost = np.append(np.zeros(a + b), -1.0 if seed % 3 == 1 else 1.0)
    program = Program(
        lower=np.append(lower, -50.0),
        upper=np.append(upper, 50.0),
        integer=np.zeros(a + b + 1, dtype=bool),
        rows=sparse.csr_matrix(np.append(linear, t_sign)[None, :]),
        row_lower=np.array(row_limits[:1]),
        row_upper=np.array(row_limits[1:]),
        products=products,
    )
    return program, Objective(cost, 1.5), truth + 1.5


def box_program(variables: int) -> tuple[Program, Objective]:
    program = Program(
        lower=np.zeros(variables),
        upper=np.ones(variables),
        integer=np.zeros(variables, dtype=bool),
        rows=sparse.csr_matrix(np.ones((1, variables))),
        row_lower=np.ones(1),
        row_upper=np.full(1, np.inf),
    )
    return program, Objective(np.ones(variables))
