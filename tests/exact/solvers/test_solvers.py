"""One contract, every installed solver: optima against brute force, bounds, stops, duals, errors, licences."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from qverify.errors import ModelTooLarge, SolverError, UsageError
from qverify.exact import solvers
from qverify.exact.program import Products, Program
from qverify.exact.solvers import gurobi
from qverify.exact.solvers.base import Availability, Ending, Limits, bound_or_nothing, settled
from qverify.exact.solvers.duality import dual_value, usable_duals

PACKAGES = {"highs": "highspy", "gurobi": "gurobipy", "scip": "pyscipopt"}
INSTALLED = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]
BILINEAR = [name for name in INSTALLED if name != "highs"]
NOTHING = Limits()


@pytest.fixture(params=INSTALLED)
def solver(request):
    return solvers.get(request.param)


@pytest.fixture(params=BILINEAR)
def bilinear_solver(request):
    return solvers.get(request.param)


def random_program(seed: int, integers: int, continuous: int, rows: int) -> Program:
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
    return Program(lower, upper, integer, sparse.csr_matrix(matrix), row_lower, row_upper, cost, float(rng.normal()))


def linear_optimum(program: Program, lower=None, upper=None) -> float:
    """By scipy's linprog, from one-sided rows; inf if infeasible."""
    lower = program.lower if lower is None else lower
    upper = program.upper if upper is None else upper
    rows = program.rows.toarray()
    above, below = np.isfinite(program.row_upper), np.isfinite(program.row_lower)
    result = linprog(
        program.cost,
        A_ub=np.vstack([rows[above], -rows[below]]),
        b_ub=np.concatenate([program.row_upper[above], -program.row_lower[below]]),
        bounds=list(zip(lower, upper, strict=True)),
    )
    assert result.status in (0, 2)
    return result.fun + program.offset if result.status == 0 else np.inf


def integer_optimum(program: Program) -> float:
    """By enumeration of the integers, and linprog for the rest."""
    places = np.flatnonzero(program.integer)
    ranges = [range(int(program.lower[k]), int(program.upper[k]) + 1) for k in places]
    best = np.inf
    for values in itertools.product(*ranges):
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[places] = upper[places] = values
        best = min(best, linear_optimum(program, lower, upper))
    return best


def hard_program(seed: int = 1, items: int = 40, rows: int = 14, offset: float = 0.0) -> Program:
    """A multidimensional knapsack: half a second for every solver, with a gap to close."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1, 60, (rows, items)).astype(float)
    cost = -rng.integers(20, 80, items).astype(float)
    box = (np.zeros(items), np.ones(items), np.ones(items, dtype=bool))
    free = np.full(rows, -np.inf)
    return Program(*box, sparse.csr_matrix(matrix), free, matrix.sum(1) * 0.5, cost, offset)


HARD_OPTIMUM = -1297.0
"""Of hard_program(): three solvers agree."""


def minimise(solver, program: Program, limits: Limits = NOTHING, relax: bool = False, **options):
    session = solver.open(program, **options)
    try:
        return session.minimise(program.cost, program.offset, limits, relax)
    finally:
        session.close()


def check_point(program: Program, outcome, relaxed: bool = False) -> None:
    point, activity = outcome.point, program.rows @ outcome.point
    assert outcome.incumbent == program.cost @ point + program.offset
    assert (point >= program.lower - 1e-7).all() and (point <= program.upper + 1e-7).all()
    assert (activity >= program.row_lower - 1e-7).all() and (activity <= program.row_upper + 1e-7).all()
    if not relaxed:
        assert np.abs(point - np.round(point))[program.integer].max(initial=0.0) < 1e-7


@pytest.mark.parametrize("seed", range(6))
def test_linear_optimum_and_duals(solver, seed):
    program = random_program(seed, 0, 7 + seed, 5 + 2 * seed)
    outcome, truth = minimise(solver, program), linear_optimum(program)
    assert outcome.status is Ending.OPTIMAL
    check_point(program, outcome)
    assert outcome.incumbent == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-7)
    check_duals(solver, program, outcome, truth)


def check_duals(solver, program: Program, outcome, truth: float) -> None:
    """Signs as base.py says, and weak duality recomputed here from scratch gives the optimum back."""
    if solver.name == "scip":
        assert outcome.row_duals is None
        return
    duals = outcome.row_duals
    reduced = program.cost - program.rows.T @ duals
    at_lower, at_upper = outcome.point < program.lower + 1e-7, outcome.point > program.upper - 1e-7
    assert (reduced[at_lower] >= -1e-7).all() and (reduced[at_upper] <= 1e-7).all()
    assert np.abs(reduced[~at_lower & ~at_upper]).max(initial=0.0) < 1e-7
    assert not (duals[np.isinf(program.row_lower)] > 0).any() and not (duals[np.isinf(program.row_upper)] < 0).any()
    limits = np.where(duals > 0, program.row_lower, np.where(duals < 0, program.row_upper, 0.0))
    best = np.where(reduced > 0, program.lower, program.upper)
    assert program.offset + duals @ limits + reduced @ best == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_integer_optimum(solver, seed):
    program = random_program(100 + seed, 4, (0, 1, 2, 3, 5)[seed], 4 + seed)
    outcome, truth = minimise(solver, program), integer_optimum(program)
    assert outcome.status is Ending.OPTIMAL and np.isfinite(truth)
    check_point(program, outcome)
    assert outcome.incumbent == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound <= truth + 1e-8
    assert outcome.row_duals is None


@pytest.mark.parametrize("seed", range(3))
def test_relaxation(solver, seed):
    """An LP over the same rows, its duals included; the integers are back afterwards."""
    program = random_program(200 + seed, 4, 4, 6)
    session = solver.open(program)
    whole = session.minimise(program.cost, program.offset, NOTHING)
    relaxed = session.minimise(program.cost, program.offset, NOTHING, relax=True)
    again = session.minimise(program.cost, program.offset, NOTHING)
    session.close()
    truth = linear_optimum(program)
    check_point(program, relaxed, relaxed=True)
    check_point(program, again)
    assert relaxed.dual_bound == pytest.approx(truth, abs=1e-7)
    check_duals(solver, program, relaxed, truth)
    assert again.incumbent == pytest.approx(whole.incumbent, abs=1e-8) and whole.incumbent > truth - 1e-8


def test_no_rows_and_zero_cost(solver):
    program = Program(
        -np.ones(3), np.ones(3), np.arange(3) < 1, sparse.csr_matrix((0, 3)), np.zeros(0), np.zeros(0), np.zeros(3), 2.0
    )
    outcome = minimise(solver, program)
    assert (outcome.status, outcome.incumbent, outcome.dual_bound) == (Ending.OPTIMAL, 2.0, 2.0)
    outcome = minimise(solver, program.objective(np.array([1.0, -2.0, 0.0]), -1.0))
    assert (outcome.incumbent, outcome.dual_bound) == pytest.approx((-4.0, -4.0))


@pytest.mark.parametrize("integer", [False, True])
def test_small_and_duplicate_coefficients_count(solver, integer):
    """Solvers drop coefficients of 1e-9 by default, and keep one of two equal entries; a proof needs them all."""
    rows = sparse.csr_matrix((np.array([0.5, 0.5, 5e-10]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    box = (np.array([-10.0, 0.0]), np.array([10.0, 1e4]), np.array([False, integer]))
    program = Program(*box, rows, np.zeros(1), np.full(1, np.inf), np.array([1.0, 0.0]))
    assert minimise(solver, program).dual_bound == pytest.approx(-5e-6, abs=2e-9)


def corner_program(seed: int) -> tuple[Program, float]:
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
    entries = (np.concatenate([first, second + a]), np.concatenate([second + a, first]))
    coefficient = np.concatenate([0.25 * matrix.ravel(), 0.75 * matrix.ravel()])
    row_limits, side, t_sign, truth = [
        ((-np.inf, 0.0), 1.0, -1.0, min(values)),
        ((0.0, 0.0), 1.0, -1.0, -max(values)),
        ((0.0, np.inf), 1.0, 1.0, -max(values)),
    ][seed % 3]
    products = Products(np.zeros(2 * a * b, dtype=np.int64), *entries, side * coefficient)
    cost = np.append(np.zeros(a + b), -1.0 if seed % 3 == 1 else 1.0)
    program = Program(
        np.append(lower, -50.0),
        np.append(upper, 50.0),
        np.zeros(a + b + 1, dtype=bool),
        sparse.csr_matrix(np.append(linear, t_sign)[None, :]),
        np.array(row_limits[:1]),
        np.array(row_limits[1:]),
        cost,
        1.5,
        products,
    )
    return program, truth + 1.5


@pytest.mark.parametrize("seed", range(6))
def test_bilinear_optimum(bilinear_solver, seed):
    program, truth = corner_program(seed)
    outcome = minimise(bilinear_solver, program)
    assert outcome.status is Ending.OPTIMAL and outcome.row_duals is None
    assert outcome.incumbent == pytest.approx(truth, abs=1e-6)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)


def test_products_in_a_row_without_linear_part(bilinear_solver):
    """x y <= -1 and x y + t in [2, 3] on a box: two product rows, one of them ranged, one purely quadratic."""
    products = Products(np.array([0, 1]), np.array([0, 0]), np.array([1, 1]), np.ones(2))
    program = Program(
        np.array([-2.0, -2.0, -10.0]),
        np.array([2.0, 2.0, 10.0]),
        np.zeros(3, dtype=bool),
        sparse.csr_matrix(np.array([[0.0, 0, 0], [0, 0, 1]])),
        np.array([-np.inf, 2.0]),
        np.array([-1.0, 3.0]),
        np.array([0.0, 0.0, 1.0]),
        products=products,
    )
    assert minimise(bilinear_solver, program).dual_bound == pytest.approx(3.0, abs=1e-6)
    highest = minimise(bilinear_solver, program.objective(np.array([0.0, 0.0, -1.0]), 0.0))
    assert highest.dual_bound == pytest.approx(-7.0, abs=1e-6)


def test_changing_objectives(solver):
    """One session, several objectives, relaxed in between: the same as a fresh session each."""
    program = random_program(300, 5, 4, 7)
    session, rng = solver.open(program), np.random.default_rng(5)
    for k in range(5):
        asked = program.objective(rng.normal(size=program.variables) * (rng.random(program.variables) < 0.8), k - 2.5)
        kept = session.minimise(asked.cost, asked.offset, NOTHING, relax=k % 2 == 1)
        fresh = minimise(solver, asked, relax=k % 2 == 1)
        assert kept.status is fresh.status is Ending.OPTIMAL
        assert (kept.incumbent, kept.dual_bound) == pytest.approx((fresh.incumbent, fresh.dual_bound), abs=1e-8)
    session.close()


@pytest.mark.parametrize("offset", [0.0, 1297.5])
def test_stop_above(solver, offset):
    """The second offset makes the optimum 0.5 and the question `stop_above=0`, as a verifier asks it."""
    truth = HARD_OPTIMUM + offset
    program = hard_program(offset=offset)
    outcome = minimise(solver, program, Limits(stop_above=truth - 25.0))
    assert outcome.status is Ending.BOUND_REACHED
    assert truth - 25.0 < outcome.dual_bound < truth - 0.5  # early
    session = solver.open(program)
    assert session.minimise(program.cost, offset, Limits(stop_above=truth + 1.0)).status is Ending.OPTIMAL
    session.close()


@pytest.mark.parametrize("below", range(12, 40, 3))
def test_a_bound_that_only_equals_stop_above_is_not_reached(solver, below):
    """The costs are integers, so bounds land on integers, where a solver's own stop fires on equality."""
    stop = HARD_OPTIMUM - below
    outcome = minimise(solver, hard_program(), Limits(stop_above=stop))
    assert outcome.status is Ending.BOUND_REACHED and stop < outcome.dual_bound <= HARD_OPTIMUM


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
def test_an_outcome_is_no_more_optimistic_than_its_numbers(status, bound, incumbent, expected):
    assert settled(status, bound, incumbent, Limits(stop_above=1.0, stop_below=0.0)) == expected


@pytest.mark.parametrize("offset", [0.0, 1297.5])
def test_stop_below(solver, offset):
    truth = HARD_OPTIMUM + offset
    program = hard_program(offset=offset)
    outcome = minimise(solver, program, Limits(stop_below=truth + 300.0))
    assert outcome.status is Ending.TARGET_REACHED
    check_point(program, outcome)
    assert truth < outcome.incumbent <= truth + 300.0
    assert outcome.dual_bound < truth - 0.5
    full = minimise(solver, program, Limits(stop_below=truth - 1.0))
    assert full.status is Ending.OPTIMAL
    assert (full.incumbent, full.dual_bound) == pytest.approx((truth, truth))


def test_time_limit_is_per_call(solver):
    """Three calls in one session each get their time, and keep a bound that is one."""
    program = hard_program(2, 70, 40)
    session = solver.open(program)
    for _ in range(3):
        outcome = session.minimise(program.cost, program.offset, Limits(seconds=0.4))
        assert outcome.status is Ending.TIME_LIMIT
        assert outcome.incumbent is None or outcome.dual_bound < outcome.incumbent
        assert 0.3 < outcome.seconds < 3.0
    session.close()


def test_time_limit_of_relaxations_is_per_call(solver):
    """Short linear programs that together take longer than the limit of each: none of them is cut off."""
    program, rng, spent = hard_program(2, 120, 80), np.random.default_rng(0), 0.0
    session = solver.open(program)
    while spent < 0.6:
        cost = rng.normal(size=program.variables)
        outcome = session.minimise(cost, 0.0, Limits(seconds=0.4), relax=True)
        spent += outcome.seconds
        assert outcome.status is Ending.OPTIMAL
    session.close()


def test_stop_event(solver):
    program, stop = hard_program(2, 70, 40), threading.Event()
    session = solver.open(program, stop=stop)
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    outcome = session.minimise(program.cost, program.offset, Limits(seconds=20.0))
    assert outcome.status is Ending.INTERRUPTED and 0.2 < outcome.seconds < 5.0
    assert outcome.incumbent is None or outcome.dual_bound < outcome.incumbent
    started = time.perf_counter()
    assert session.minimise(program.cost, program.offset, NOTHING).status is Ending.INTERRUPTED
    assert time.perf_counter() - started < 0.1
    stop.clear()
    assert session.minimise(program.cost, program.offset, Limits(seconds=0.2)).status is Ending.TIME_LIMIT
    session.close()


@pytest.mark.parametrize("integers", [0, 4])
def test_infeasible(solver, integers):
    program = random_program(400, integers, 6 - integers, 3)
    rows = sparse.vstack([program.rows, sparse.csr_matrix(np.ones((2, 6)))]).tocsr()
    program = dataclasses.replace(
        program,
        rows=rows,
        row_lower=np.append(program.row_lower, [0.6, -np.inf]),
        row_upper=np.append(program.row_upper, [np.inf, 0.4]),
    )
    outcome = minimise(solver, program, Limits(stop_above=-1e6, stop_below=-1e9))
    assert outcome.status is Ending.INFEASIBLE
    assert (outcome.dual_bound, outcome.incumbent, outcome.point) == (-np.inf, None, None)


def test_integer_infeasible(solver):
    """Feasible without integrality, so that branching has to find it: 2 (x + y + z) = 3 and a little more."""
    rows = sparse.csr_matrix(np.array([[2.0, 2.0, 2.0], [3.0, -1.0, 2.0]]))
    limits = (np.array([2.9, -np.inf]), np.array([3.1, np.inf]))
    program = Program(np.zeros(3), np.ones(3), np.ones(3, dtype=bool), rows, *limits, np.ones(3))
    assert minimise(solver, program, Limits(stop_above=-100.0)).dual_bound != np.inf
    assert minimise(solver, program).status is Ending.INFEASIBLE


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_in_threads(solver, threads):
    """Two threads, each with its session; then another number of threads in this very thread."""
    program, outcomes = random_program(300, 5, 4, 7), []

    def work() -> None:
        outcomes.append(minimise(solver, program, threads=threads))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    outcomes += [minimise(solver, program, threads=2), minimise(solver, program, threads=1)]
    assert [o.status for o in outcomes] == [Ending.OPTIMAL] * 4
    assert np.ptp([o.dual_bound for o in outcomes]) < 1e-8


def test_any_duals_give_a_bound():
    """Weak duality: random row duals never exceed the optimum, nor do those of the wrong sign, once cleaned."""
    program, rng = random_program(7, 0, 8, 9), np.random.default_rng(0)
    truth = linear_optimum(program)
    for _ in range(50):
        duals = usable_duals(program, rng.normal(size=program.row_count))
        assert dual_value(program, program.cost, program.offset, duals) <= truth + 1e-12


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 1e20, -1e20, -1e100])
def test_no_bound(nothing):
    assert bound_or_nothing(nothing) == -np.inf


def test_highs_refuses_products():
    program, _ = corner_program(0)
    with pytest.raises(SolverError, match=r"--solver scip.*--solver gurobi"):
        solvers.get("highs").open(program)
    with pytest.raises(SolverError, match="scip"):
        solvers.choose("highs", program_needs_products=True)


def box_program(variables: int) -> Program:
    rows = sparse.csr_matrix(np.ones((1, variables)))
    box = (np.zeros(variables), np.ones(variables), np.zeros(variables, dtype=bool))
    return Program(*box, rows, np.ones(1), np.full(1, np.inf), np.ones(variables))


@pytest.fixture
def small_licence():
    if "gurobi" not in INSTALLED or solvers.get("gurobi").full_licence():
        pytest.skip("gurobi: needs the size-limited licence")


def test_model_too_large(small_licence):
    gurobi_solver = solvers.get("gurobi")
    assert minimise(gurobi_solver, box_program(2000)).dual_bound == pytest.approx(1.0)
    with pytest.raises(ModelTooLarge, match=r"2001 variables.*2000 variables.*--solver highs.*GRB_LICENSE_FILE"):
        minimise(gurobi_solver, box_program(2001))
    product = Products(*np.array([[0], [0], [1]]), np.ones(1))
    with pytest.raises(ModelTooLarge, match=r"200 variables once products.*--solver scip"):
        minimise(gurobi_solver, dataclasses.replace(box_program(201), products=product))


@pytest.mark.parametrize("content", ["garbage", None])
def test_gurobi_without_a_licence(tmp_path, content):
    """In a process of its own: Gurobi reads the licence once. No traceback, nothing on stdout, a remedy."""
    if "gurobi" not in INSTALLED:
        pytest.skip("gurobi")
    if content is not None:
        (tmp_path / "gurobi.lic").write_text(content)
    code = (
        "from qverify.exact import solvers\n"
        "from qverify.errors import SolverError\n"
        "import sys\n"
        "state = solvers.get('gurobi').availability()\n"
        "assert not state.works and 'GRB_LICENSE_FILE' in state.remedy, state\n"
        "assert solvers.choose('auto', False).name == 'highs'\n"
        "try:\n    solvers.choose('gurobi', True)\n"
        "except SolverError as error:\n    print(error, file=sys.stderr)\n"
    )
    environment = os.environ | {"GRB_LICENSE_FILE": str(tmp_path / "gurobi.lic")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "" and "no valid licence" in run.stderr and "Traceback" not in run.stderr


def test_names():
    assert list(solvers.ADAPTERS) == ["highs", "gurobi", "scip"]
    with pytest.raises(UsageError, match=r"'nope'.*auto, highs, gurobi, scip"):
        solvers.get("nope")


def test_availability(solver):
    state = solver.availability()
    assert state.works and state.version and state.licence and state.limits and not state.remedy


@pytest.mark.parametrize(
    ("products", "full", "working", "expected"),
    [
        (False, True, {"highs", "gurobi", "scip"}, "gurobi"),
        (False, False, {"highs", "gurobi", "scip"}, "highs"),
        (False, False, {"gurobi"}, "gurobi"),
        (True, True, {"highs", "gurobi", "scip"}, "gurobi"),
        (True, False, {"highs", "gurobi", "scip"}, "scip"),
        (True, False, {"highs", "gurobi"}, "gurobi"),
        (True, False, {"highs"}, None),
    ],
)
def test_choice(monkeypatch, products, full, working, expected):
    monkeypatch.setattr(gurobi.GurobiSolver, "full_licence", lambda self: full)
    for name, solver in solvers.ADAPTERS.items():
        state = Availability(name in working, "1", "any", "none", "" if name in working else f"get {name}.")
        monkeypatch.setattr(type(solver), "availability", lambda self, state=state: state)
    if expected is None:
        with pytest.raises(SolverError, match="get scip"):
            solvers.choose("auto", products)
    else:
        assert solvers.choose("auto", products).name == expected


@pytest.mark.parametrize("name", INSTALLED)
def test_a_missing_package_is_a_remedy(monkeypatch, name):
    module = sys.modules[type(solvers.get(name)).__module__]
    module.library.cache_clear()
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    state = solvers.get(name).availability()
    assert not state.works and "pip install" in state.remedy
    with pytest.raises(SolverError, match="pip install"):
        solvers.choose(name, False)
    with pytest.raises(SolverError, match="pip install"):
        solvers.get(name).open(box_program(2))


def test_import_loads_no_solver_and_solving_prints_nothing():
    code = (
        "import sys, numpy as np\n"
        "from scipy import sparse\n"
        "from qverify.exact import solvers\n"
        "from qverify.exact.program import Program\n"
        "from qverify.exact.solvers.base import Limits\n"
        f"assert not {set(PACKAGES.values())} & set(sys.modules)\n"
        "p = Program(np.zeros(2), np.ones(2), np.ones(2, bool), sparse.csr_matrix(np.ones((1, 2))),"
        " np.ones(1), np.ones(1), np.ones(2))\n"
        f"for name in {INSTALLED}:\n"
        "    s = solvers.get(name)\n"
        "    s.availability()\n"
        "    assert s.open(p).minimise(p.cost, 0.0, Limits()).incumbent == 1.0\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
