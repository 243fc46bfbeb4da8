"""Branch and bound against enumeration of the binaries, HiGHS's own, and a HiGHS that lies."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from qverify.exact import solvers
from qverify.exact.branching import Tree
from qverify.exact.cuts import Switched
from qverify.exact.program import Objective, Program
from qverify.exact.relational import Relational
from qverify.exact.scaling import InUnits, Scaled
from qverify.exact.solvers.base import Ending, Limits
from qverify.exact.solvers.linear import LinearProgram, Solved
from qverify.family.family import Family
from tests.support.networks import mlp, random_radii
from tests.support.programs import relational, with_binaries

NOTHING = Limits()


def asked(seed: int, *sizes: int, radius: float = 0.1) -> tuple[Relational, Objective]:
    """A relational program of a random network, and the objective `first output minus second`."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, *sizes)
    family = Family.of(network, random_radii(network, rng, radius))
    program = relational(family, rng.normal(size=sizes[0]))
    row = np.zeros(sizes[-1])
    row[:2] = 1.0, -1.0
    return program, program.combination(row)


def enumerated(program: Program, objective: Objective) -> float:
    choices = itertools.product((0.0, 1.0), repeat=int(program.integer.sum()))
    values = [with_binaries(program, objective.cost, np.array(choice)) for choice in choices]
    return float(min(v for v in values if v is not None) + objective.offset)


SMALL = [(seed, sizes) for seed in range(6) for sizes in ((3, 4, 3), (2, 3, 3, 2))]


@pytest.mark.parametrize(("seed", "sizes"), SMALL)
def test_the_minimum_is_that_of_all_assignments(seed: int, sizes: tuple[int, ...]) -> None:
    program, objective = asked(seed, *sizes, radius=0.3)
    truth = enumerated(program.program, objective)
    outcome = Tree(Scaled.of(program.program)).minimise(objective, NOTHING)
    assert outcome.status is Ending.OPTIMAL
    assert outcome.dual_bound <= truth + 1e-9
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)
    assert outcome.incumbent == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_it_agrees_with_the_tree_of_highs(seed: int) -> None:
    program, objective = asked(seed, 6, 14, 12, 9, 3)
    scaled = Scaled.of(program.program)
    other = InUnits(scaled, solvers.adapter("highs").open(scaled.program)).minimise(objective, NOTHING)
    outcome = Tree(scaled).minimise(objective, NOTHING)
    assert program.program.integer.sum() >= 8
    assert outcome.dual_bound == pytest.approx(other.dual_bound, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rows_kept_from_one_objective_hold_for_the_next(seed: int) -> None:
    program, _ = asked(seed, 5, 12, 10, 3)
    scaled = Scaled.of(program.program)
    tree = Tree(scaled)
    for row in (np.eye(3)[0] - np.eye(3)[1], np.eye(3)[2], -np.eye(3)[2], np.eye(3)[0] - np.eye(3)[1]):
        objective = program.combination(row)
        fresh = Tree(scaled).minimise(objective, NOTHING)
        assert tree.minimise(objective, NOTHING).dual_bound == pytest.approx(fresh.dual_bound, abs=1e-6)


def one_neuron() -> Program:
    """x <= relu-like maximum of v1 + v2 - 0.5 and 0.1, v in [-1, 1]^2, by big-M."""
    rows = sparse.csr_matrix(np.array([[1.0, 1.0, -1.0, -2.5], [0.0, 0.0, -1.0, 1.4]]))
    return Program(
        lower=np.array([-1.0, -1.0, 0.0, 0.0]),
        upper=np.array([1.0, 1.0, 1.5, 1.0]),
        integer=np.array([False, False, False, True]),
        rows=rows,
        row_lower=np.array([-2.5 + 0.5, -0.1]),
        row_upper=np.full(2, np.inf),
    )


def test_rows_of_one_neuron_are_its_convex_hull() -> None:
    """With them no binary is left to branch on, whatever the direction; without them some directions need it."""
    scaled, split = Scaled.of(one_neuron()), 0
    for angle in np.linspace(0.1, 1.5, 15):
        objective = Objective(np.array([np.cos(angle), np.sin(angle) ** 2, -1.0, 0.0]))
        truth = enumerated(one_neuron(), objective)
        with_rows = Tree(scaled).minimise(objective, NOTHING)
        assert with_rows.nodes == 0 and with_rows.dual_bound == pytest.approx(truth, abs=1e-7)
        bare = Tree(scaled)
        bare.switched = Switched.of_program(replace(one_neuron(), integer=np.zeros(4, dtype=bool)))
        without = bare.minimise(objective, NOTHING)
        assert without.dual_bound == pytest.approx(truth, abs=1e-7)
        split += without.nodes
    assert split > 0


# -- stops ----------------------------------------------------------------------------------------


def hard() -> tuple[Scaled, Objective]:
    program, objective = asked(3, 12, 40, 40, 30, 3, radius=0.06)
    return Scaled.of(program.program), objective


def test_stops() -> None:
    program, objective = asked(1, 6, 14, 12, 9, 3)
    scaled = Scaled.of(program.program)
    optimum = Tree(scaled).minimise(objective, NOTHING).dual_bound
    above = Tree(scaled).minimise(objective, Limits(stop_above=optimum - 0.1))
    assert above.status is Ending.BOUND_REACHED and optimum - 0.1 < above.dual_bound <= optimum + 1e-6
    below = Tree(scaled).minimise(objective, Limits(stop_above=optimum + 0.1, stop_below=optimum + 0.05))
    assert below.status is Ending.TARGET_REACHED
    assert below.incumbent is not None and below.incumbent <= optimum + 0.05
    assert below.dual_bound <= optimum + 1e-6
    neither = Tree(scaled).minimise(objective, Limits(stop_above=optimum + 0.1, stop_below=optimum - 0.1))
    assert neither.status is Ending.OPTIMAL and neither.dual_bound == pytest.approx(optimum, abs=1e-6)


def test_time_limit_and_stop_keep_a_bound() -> None:
    scaled, objective = hard()
    tree = Tree(scaled)
    relaxed = tree.minimise(objective, NOTHING, relax=True)
    for _ in range(2):  # a limit counts from each call
        cut_off = tree.minimise(objective, Limits(seconds=0.3))
        assert cut_off.status is Ending.TIME_LIMIT
        assert cut_off.dual_bound >= relaxed.dual_bound - 1e-6
    stop = threading.Event()
    tree = Tree(scaled, stop)
    threading.Timer(0.3, stop.set).start()
    assert tree.minimise(objective, NOTHING).status is Ending.INTERRUPTED


def test_the_time_of_relaxations_is_not_summed_up() -> None:
    """Short linear programs that together take longer than the limit of each: none of them is cut off."""
    scaled, objective = hard()
    tree, rng, spent = Tree(scaled), np.random.default_rng(0), 0.0
    while spent < 0.6:
        asked_for = replace(objective, cost=objective.cost * rng.uniform(0.5, 2.0, len(objective.cost)))
        outcome = tree.minimise(asked_for, Limits(seconds=0.4), relax=True)
        spent += outcome.seconds
        assert outcome.status is Ending.OPTIMAL


def test_no_binaries_and_no_rows() -> None:
    nothing = sparse.csr_matrix((0, 2))
    none = np.zeros(0)
    box = Program(
        lower=np.array([-1.0, 2.0]),
        upper=np.array([3.0, 5.0]),
        integer=np.zeros(2, dtype=bool),
        rows=nothing,
        row_lower=none,
        row_upper=none,
    )
    outcome = Tree(Scaled.of(box)).minimise(Objective(np.array([1.0, -2.0]), 0.5), NOTHING)
    assert outcome.status is Ending.OPTIMAL and outcome.dual_bound == pytest.approx(-10.5)


# -- a HiGHS that lies ----------------------------------------------------------------------------

LIES: dict[str, Callable[[Any, Any], Solved]] = {
    "random duals": lambda solved, rng: replace(solved, duals=rng.normal(size=len(solved.duals))),
    "huge duals": lambda solved, rng: replace(solved, duals=1e8 * rng.normal(size=len(solved.duals))),
    "no duals": lambda solved, rng: replace(solved, duals=None),
    "nan duals": lambda solved, rng: replace(solved, duals=np.full_like(solved.duals, np.nan)),
    "infeasible": lambda solved, rng: Solved(duals=rng.normal(size=len(solved.duals)), infeasible=True),
    "infeasible without a ray": lambda solved, rng: Solved(infeasible=True),
    "above": lambda solved, rng: Solved(duals=0.5 * solved.duals, above=True),
    "no point": lambda solved, rng: replace(solved, point=None),
    "points from nowhere": lambda solved, rng: replace(solved, point=rng.uniform(size=len(solved.point))),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_no_lie_of_the_solver_raises_a_bound_above_the_truth(
    monkeypatch: pytest.MonkeyPatch, lie: str, share: float
) -> None:
    rng, true = np.random.default_rng(5), LinearProgram.solve

    def solve(self: LinearProgram, *arguments: Any) -> Solved:
        solved = true(self, *arguments)
        usable = solved.point is not None and solved.duals is not None
        return LIES[lie](solved, rng) if usable and rng.random() < share else solved

    monkeypatch.setattr(LinearProgram, "solve", solve)
    for seed in range(4):
        program, objective = asked(seed, 3, 4, 3, radius=0.3)
        truth = enumerated(program.program, objective)
        tree = Tree(Scaled.of(program.program))
        for limits in (Limits(seconds=5), Limits(seconds=5, stop_above=truth + 0.1, stop_below=truth - 0.1)):
            outcome = tree.minimise(objective, limits)
            assert outcome.dual_bound <= truth + 1e-9 or outcome.dual_bound == np.inf
            assert outcome.status is not Ending.BOUND_REACHED or outcome.dual_bound > (limits.stop_above or 0.0)


def test_bounds_come_from_duals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without usable duals nothing is proved: the tree ends and says so."""
    true = LinearProgram.solve
    monkeypatch.setattr(LinearProgram, "solve", lambda self, *a: replace(true(self, *a), duals=None))
    program, objective = asked(2, 3, 4, 3, radius=0.3)
    outcome = Tree(Scaled.of(program.program)).minimise(objective, Limits(seconds=10, stop_above=-1e6))
    assert outcome.dual_bound == -np.inf
