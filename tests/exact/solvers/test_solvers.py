"""One contract, every installed solver: optima against brute force, bounds, stops, duals, errors, and the choice."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse

from qverify.errors import SolverError, UsageError
from qverify.exact import solvers
from qverify.exact.program import Objective, Products, Program
from qverify.exact.solvers import gurobi
from qverify.exact.solvers.base import Availability, Ending, Limits, Outcome, Solver
from tests.support.solving import (
    BILINEAR,
    HARD_OPTIMUM,
    INSTALLED,
    NOTHING,
    PACKAGES,
    box_program,
    check_point,
    corner_program,
    hard_program,
    integer_optimum,
    linear_optimum,
    minimise,
    random_program,
)


@pytest.fixture(params=INSTALLED)
def solver(request: pytest.FixtureRequest) -> Solver:
    return solvers.adapter(request.param)


@pytest.fixture(params=BILINEAR)
def bilinear_solver(request: pytest.FixtureRequest) -> Solver:
    return solvers.adapter(request.param)


@pytest.mark.parametrize("seed", range(6))
def test_linear_optimum_and_duals(solver: Solver, seed: int) -> None:
    program, objective = random_program(seed, 0, 7 + seed, 5 + 2 * seed)
    outcome, truth = minimise(solver, program, objective), linear_optimum(program, objective)
    assert outcome.status is Ending.OPTIMAL
    check_point(program, objective, outcome)
    assert outcome.incumbent == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-7)
    check_duals(solver, program, objective, outcome, truth)


def check_duals(solver: Solver, program: Program, objective: Objective, outcome: Outcome, truth: float) -> None:
    """Signs as base.py says, and weak duality recomputed here from scratch gives the optimum back."""
    if solver.name == "scip":
        assert outcome.row_duals is None
        return
    duals = outcome.row_duals
    assert duals is not None and outcome.point is not None
    reduced = objective.cost - program.rows.T @ duals
    at_lower, at_upper = outcome.point < program.lower + 1e-7, outcome.point > program.upper - 1e-7
    assert (reduced[at_lower] >= -1e-7).all() and (reduced[at_upper] <= 1e-7).all()
    assert np.abs(reduced[~at_lower & ~at_upper]).max(initial=0.0) < 1e-7
    assert not (duals[np.isinf(program.row_lower)] > 0).any() and not (duals[np.isinf(program.row_upper)] < 0).any()
    limits = np.where(duals > 0, program.row_lower, np.where(duals < 0, program.row_upper, 0.0))
    best = np.where(reduced > 0, program.lower, program.upper)
    assert objective.offset + duals @ limits + reduced @ best == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_integer_optimum(solver: Solver, seed: int) -> None:
    program, objective = random_program(100 + seed, 4, (0, 1, 2, 3, 5)[seed], 4 + seed)
    outcome, truth = minimise(solver, program, objective), integer_optimum(program, objective)
    assert outcome.status is Ending.OPTIMAL and np.isfinite(truth)
    check_point(program, objective, outcome)
    assert outcome.incumbent == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-7)
    assert outcome.dual_bound <= truth + 1e-8
    assert outcome.row_duals is None


@pytest.mark.parametrize("seed", range(3))
def test_relaxation(solver: Solver, seed: int) -> None:
    """An LP over the same rows, its duals included; the integers are back afterwards."""
    program, objective = random_program(200 + seed, 4, 4, 6)
    session = solver.open(program)
    whole = session.minimise(objective, NOTHING)
    relaxed = session.minimise(objective, NOTHING, relax=True)
    again = session.minimise(objective, NOTHING)
    session.close()
    truth = linear_optimum(program, objective)
    check_point(program, objective, relaxed, relaxed=True)
    check_point(program, objective, again)
    assert relaxed.dual_bound == pytest.approx(truth, abs=1e-7)
    check_duals(solver, program, objective, relaxed, truth)
    assert whole.incumbent is not None
    assert again.incumbent == pytest.approx(whole.incumbent, abs=1e-8) and whole.incumbent > truth - 1e-8


def test_no_rows_and_zero_cost(solver: Solver) -> None:
    program = Program(
        lower=-np.ones(3),
        upper=np.ones(3),
        integer=np.arange(3) < 1,
        rows=sparse.csr_matrix((0, 3)),
        row_lower=np.zeros(0),
        row_upper=np.zeros(0),
    )
    objective = Objective(np.zeros(3), 2.0)
    outcome = minimise(solver, program, objective)
    assert (outcome.status, outcome.incumbent, outcome.dual_bound) == (Ending.OPTIMAL, 2.0, 2.0)
    outcome = minimise(solver, program, Objective(np.array([1.0, -2.0, 0.0]), -1.0))
    assert (outcome.incumbent, outcome.dual_bound) == pytest.approx((-4.0, -4.0))


@pytest.mark.parametrize("integer", [False, True])
def test_small_and_duplicate_coefficients_count(solver: Solver, integer: bool) -> None:
    """Solvers drop coefficients of 1e-9 by default, and keep one of two equal entries; a proof needs them all."""
    rows = sparse.csr_matrix((np.array([0.5, 0.5, 5e-10]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    program = Program(
        lower=np.array([-10.0, 0.0]),
        upper=np.array([10.0, 1e4]),
        integer=np.array([False, integer]),
        rows=rows,
        row_lower=np.zeros(1),
        row_upper=np.full(1, np.inf),
    )
    objective = Objective(np.array([1.0, 0.0]))
    assert minimise(solver, program, objective).dual_bound == pytest.approx(-5e-6, abs=2e-9)


@pytest.mark.parametrize("seed", range(6))
def test_bilinear_optimum(bilinear_solver: Solver, seed: int) -> None:
    program, objective, truth = corner_program(seed)
    outcome = minimise(bilinear_solver, program, objective)
    assert outcome.status is Ending.OPTIMAL and outcome.row_duals is None
    assert outcome.incumbent == pytest.approx(truth, abs=1e-6)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)


@pytest.mark.slow
def test_products_in_a_row_without_linear_part(bilinear_solver: Solver) -> None:
    """x y <= -1 and x y + t in [2, 3] on a box: two product rows, one of them ranged, one purely quadratic."""
    products = Products(row=np.array([0, 1]), first=np.array([0, 0]), second=np.array([1, 1]), coefficient=np.ones(2))
    program = Program(
        lower=np.array([-2.0, -2.0, -10.0]),
        upper=np.array([2.0, 2.0, 10.0]),
        integer=np.zeros(3, dtype=bool),
        rows=sparse.csr_matrix(np.array([[0.0, 0, 0], [0, 0, 1]])),
        row_lower=np.array([-np.inf, 2.0]),
        row_upper=np.array([-1.0, 3.0]),
        products=products,
    )
    last = np.array([0.0, 0.0, 1.0])
    assert minimise(bilinear_solver, program, Objective(last)).dual_bound == pytest.approx(3.0, abs=1e-6)
    highest = minimise(bilinear_solver, program, Objective(-last))
    assert highest.dual_bound == pytest.approx(-7.0, abs=1e-6)


def test_changing_objectives(solver: Solver) -> None:
    """One session, several objectives, relaxed in between: the same as a fresh session each."""
    program, _ = random_program(300, 5, 4, 7)
    session, rng = solver.open(program), np.random.default_rng(5)
    for k in range(5):
        asked = Objective(rng.normal(size=program.variable_count) * (rng.random(program.variable_count) < 0.8), k - 2.5)
        kept = session.minimise(asked, NOTHING, relax=k % 2 == 1)
        fresh = minimise(solver, program, asked, relax=k % 2 == 1)
        assert kept.status is fresh.status is Ending.OPTIMAL
        assert (kept.incumbent, kept.dual_bound) == pytest.approx((fresh.incumbent, fresh.dual_bound), abs=1e-8)
    session.close()


@pytest.mark.parametrize("offset", [0.0, 1297.5])
def test_stop_above(solver: Solver, offset: float) -> None:
    """The second offset makes the optimum 0.5 and the question `stop_above=0`, as a verifier asks it."""
    truth = HARD_OPTIMUM + offset
    program, objective = hard_program(offset=offset)
    outcome = minimise(solver, program, objective, Limits(stop_above=truth - 25.0))
    assert outcome.status is Ending.BOUND_REACHED
    assert truth - 25.0 < outcome.dual_bound < truth - 0.5  # early
    session = solver.open(program)
    assert session.minimise(objective, Limits(stop_above=truth + 1.0)).status is Ending.OPTIMAL
    session.close()


@pytest.mark.parametrize("below", range(12, 40, 3))
def test_a_bound_that_only_equals_stop_above_is_not_reached(solver: Solver, below: int) -> None:
    """The costs are integers, so bounds land on integers, where a solver's own stop fires on equality."""
    stop = HARD_OPTIMUM - below
    outcome = minimise(solver, *hard_program(), Limits(stop_above=stop))
    assert outcome.status is Ending.BOUND_REACHED and stop < outcome.dual_bound <= HARD_OPTIMUM


@pytest.mark.parametrize("offset", [0.0, 1297.5])
def test_stop_below(solver: Solver, offset: float) -> None:
    truth = HARD_OPTIMUM + offset
    program, objective = hard_program(offset=offset)
    outcome = minimise(solver, program, objective, Limits(stop_below=truth + 300.0))
    assert outcome.status is Ending.TARGET_REACHED
    check_point(program, objective, outcome)
    assert outcome.incumbent is not None and truth < outcome.incumbent <= truth + 300.0
    assert outcome.dual_bound < truth - 0.5
    full = minimise(solver, program, objective, Limits(stop_below=truth - 1.0))
    assert full.status is Ending.OPTIMAL
    assert (full.incumbent, full.dual_bound) == pytest.approx((truth, truth))


def test_time_limit_is_per_call(solver: Solver) -> None:
    """Three calls in one session each get their time, and keep a bound that is one."""
    program, objective = hard_program(2, 70, 40)
    session = solver.open(program)
    for _ in range(3):
        outcome = session.minimise(objective, Limits(seconds=0.4))
        assert outcome.status is Ending.TIME_LIMIT
        assert outcome.incumbent is None or outcome.dual_bound < outcome.incumbent
        assert 0.3 < outcome.seconds < 3.0
    session.close()


@pytest.mark.slow
def test_time_limit_of_relaxations_is_per_call(solver: Solver) -> None:
    """Short linear programs that together take longer than the limit of each: none of them is cut off."""
    (program, _), rng, spent = hard_program(2, 120, 80), np.random.default_rng(0), 0.0
    session = solver.open(program)
    while spent < 0.6:
        objective = Objective(rng.normal(size=program.variable_count))
        outcome = session.minimise(objective, Limits(seconds=0.4), relax=True)
        spent += outcome.seconds
        assert outcome.status is Ending.OPTIMAL
    session.close()


def test_stop_event(solver: Solver) -> None:
    (program, objective), stop = hard_program(2, 70, 40), threading.Event()
    session = solver.open(program, stop=stop)
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    outcome = session.minimise(objective, Limits(seconds=20.0))
    assert outcome.status is Ending.INTERRUPTED and 0.2 < outcome.seconds < 5.0
    assert outcome.incumbent is None or outcome.dual_bound < outcome.incumbent
    started = time.perf_counter()
    assert session.minimise(objective, NOTHING).status is Ending.INTERRUPTED
    assert time.perf_counter() - started < 0.1
    stop.clear()
    assert session.minimise(objective, Limits(seconds=0.2)).status is Ending.TIME_LIMIT
    session.close()


@pytest.mark.parametrize("integers", [0, 4])
def test_infeasible(solver: Solver, integers: int) -> None:
    program, objective = random_program(400, integers, 6 - integers, 3)
    rows = sparse.vstack([program.rows, sparse.csr_matrix(np.ones((2, 6)))]).tocsr()
    program = dataclasses.replace(
        program,
        rows=rows,
        row_lower=np.append(program.row_lower, [0.6, -np.inf]),
        row_upper=np.append(program.row_upper, [np.inf, 0.4]),
    )
    outcome = minimise(solver, program, objective, Limits(stop_above=-1e6, stop_below=-1e9))
    assert outcome.status is Ending.INFEASIBLE
    assert (outcome.dual_bound, outcome.incumbent, outcome.point) == (-np.inf, None, None)


def test_integer_infeasible(solver: Solver) -> None:
    """Feasible without integrality, so that branching has to find it: 2 (x + y + z) = 3 and a little more."""
    rows = sparse.csr_matrix(np.array([[2.0, 2.0, 2.0], [3.0, -1.0, 2.0]]))
    program = Program(
        lower=np.zeros(3),
        upper=np.ones(3),
        integer=np.ones(3, dtype=bool),
        rows=rows,
        row_lower=np.array([2.9, -np.inf]),
        row_upper=np.array([3.1, np.inf]),
    )
    objective = Objective(np.ones(3))
    assert minimise(solver, program, objective, Limits(stop_above=-100.0)).dual_bound != np.inf
    assert minimise(solver, program, objective).status is Ending.INFEASIBLE


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_in_threads(solver: Solver, threads: int) -> None:
    """Two threads, each with its session; then another number of threads in this very thread."""
    (program, objective), outcomes = random_program(300, 5, 4, 7), []

    def work() -> None:
        outcomes.append(minimise(solver, program, objective, threads=threads))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    outcomes += [minimise(solver, program, objective, threads=2), minimise(solver, program, objective, threads=1)]
    assert [o.status for o in outcomes] == [Ending.OPTIMAL] * 4
    assert np.ptp([o.dual_bound for o in outcomes]) < 1e-8


def test_names() -> None:
    assert list(solvers.ADAPTERS) == ["highs", "gurobi", "scip"]
    with pytest.raises(UsageError, match=r"'nope'.*auto, highs, gurobi, scip"):
        solvers.adapter("nope")


def test_availability(solver: Solver) -> None:
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
def test_choice(
    monkeypatch: pytest.MonkeyPatch, products: bool, full: bool, working: set[str], expected: str | None
) -> None:
    monkeypatch.setattr(gurobi.GurobiSolver, "full_licence", lambda self: full)
    for name, solver in solvers.ADAPTERS.items():
        state = Availability(
            works=name in working,
            version="1",
            licence="any",
            limits="none",
            remedy="" if name in working else f"get {name}.",
        )
        monkeypatch.setattr(type(solver), "availability", lambda self, state=state: state)
    if expected is None:
        with pytest.raises(SolverError, match="get scip"):
            solvers.choose("auto", products)
    else:
        assert solvers.choose("auto", products).name == expected


@pytest.mark.parametrize("name", INSTALLED)
def test_a_missing_package_is_a_remedy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = sys.modules[type(solvers.adapter(name)).__module__]
    module.library.cache_clear()
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    state = solvers.adapter(name).availability()
    assert not state.works and "pip install" in state.remedy
    with pytest.raises(SolverError, match="pip install"):
        solvers.choose(name, False)
    with pytest.raises(SolverError, match="pip install"):
        solvers.adapter(name).open(box_program(2)[0])


def test_import_loads_no_solver_and_solving_prints_nothing() -> None:
    code = (
        "import sys, numpy as np\n"
        "from scipy import sparse\n"
        "from qverify.exact import solvers\n"
        "from qverify.exact.program import Objective, Program\n"
        "from qverify.exact.solvers.base import Limits\n"
        f"assert not {set(PACKAGES.values())} & set(sys.modules)\n"
        "p = Program(lower=np.zeros(2), upper=np.ones(2), integer=np.ones(2, bool),"
        " rows=sparse.csr_matrix(np.ones((1, 2))), row_lower=np.ones(1), row_upper=np.ones(1))\n"
        f"for name in {INSTALLED}:\n"
        "    s = solvers.adapter(name)\n"
        "    s.availability()\n"
        "    assert s.open(p).minimise(Objective(np.ones(2)), Limits()).incumbent == 1.0\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
