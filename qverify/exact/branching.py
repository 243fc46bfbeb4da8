"""Branch and bound on the relational program, in which no bound is a solver's word (mathematics.md, section 9).

Every node is a linear program, with some binaries fixed; HiGHS solves it (solvers/linear.py), and the node's bound
is computed afresh from its row duals (`solvers.duality.Duality`), rounding taken off. A node without points is
closed by its Farkas ray in the same way. So what `minimise` proves holds for the program whatever HiGHS
did, and no integrality or feasibility tolerance leaks into it.

At the root, rows of the convex hulls of single neurons are added while they help (cuts.py). They hold for the whole
program, so they are kept for the next objective. Branching is on the binary whose two sides promised most so
far (pseudo-costs, Benichou et al., 1971), depth first with the worse side first: the next linear program is then
close to the last, and failing members are found early.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.exact.cuts import Switched
from qverify.exact.program import Box, Objective
from qverify.exact.scaling import Scaled, power_of_two
from qverify.exact.solvers.base import Ending, Limits, Outcome, reconciled, remaining
from qverify.exact.solvers.duality import Duality
from qverify.exact.solvers.linear import LinearProgram, Solved
from qverify.text.brief import Brief

if TYPE_CHECKING:
    import threading

    from qverify.arrays import Array

_ROUNDS = 20
"""The most rounds of rows added at the root."""
_WORTH = 0.01
"""The share of its distance to 0 by which a round has to lift the bound, or it is the last."""
_WHOLE = 1e-9
"""The distance to 0 or 1 up to which a binary is whole."""
_IDLE = 1e-9
"""The dual up to which a row does not bind."""
_BEYOND = 1e-7
"""The distance above the bound needed at which a linear program may stop, in units of the cost."""
_GAP = 1e-9
"""The gap to the incumbent, in units of the cost, below which nodes are closed where the minimum itself is wanted."""
_LEAST_SCORE = 1e-12
"""The least that one side of a branching counts for in its score, so that the other side still tells."""


@dataclass(kw_only=True, eq=False, repr=False)
class _Node(Brief):
    """A part of the program: ranges of its binaries (k,), a bound on it, and the optimum of its relaxation."""

    lower: Array
    upper: Array
    bound: float
    point: Array | None


@dataclass(kw_only=True, eq=False, repr=False)
class _PseudoCosts(Brief):
    """Pseudo-costs: by how much the bound rose when a binary was fixed to 0 or 1, per unit that it moved."""

    total: Array
    count: Array

    @staticmethod
    def none(binaries: int) -> _PseudoCosts:
        return _PseudoCosts(total=np.zeros((2, binaries)), count=np.zeros((2, binaries)))

    def learn(self, side: int, binary: int, rise: float, moved: float) -> None:
        if np.isfinite(rise):
            self.total[side, binary] += rise / moved
            self.count[side, binary] += 1.0

    def scores(self, fractions: Array) -> Array:
        """Scores (k,) of branching on each binary at these fractions (k,): the products of the expected rises."""
        everywhere = self.total.sum(1, keepdims=True) / np.maximum(self.count.sum(1, keepdims=True), 1.0)
        usual = np.where(everywhere > 0.0, everywhere, 1.0)
        cost = np.where(self.count > 0, self.total / np.maximum(self.count, 1.0), usual)
        moved = np.stack([fractions, 1.0 - fractions])
        return np.asarray(np.maximum(cost * moved, _LEAST_SCORE).prod(0))


@dataclass(kw_only=True, eq=False, repr=False)
class _Minimisation(Brief):
    """One minimisation under way. `closed`: the least bound among the closed nodes; `gap`: see `_GAP`."""

    objective: Objective
    limits: Limits
    until: float | None
    costs: _PseudoCosts
    gap: float
    closed: float = np.inf
    incumbent: float | None = None
    point: Array | None = None
    nodes: int = 0
    open: list[_Node] = field(default_factory=list)

    @property
    def cutoff(self) -> float:
        """The bound above which a node need not be looked at."""
        above = np.inf if self.limits.stop_above is None else self.limits.stop_above
        return above if self.incumbent is None else min(above, self.incumbent - self.gap)

    @property
    def bound(self) -> float:
        """The dual bound of the whole program: the least among open and closed nodes."""
        return min([self.closed, *(node.bound for node in self.open)])


class Tree:
    """The `Session` of a relational program by branch and bound, in the units of the original program.

    Its dual bounds are proved from row duals. Binary variables only; raises SolverError if HiGHS is missing.
    """

    def __init__(self, scaled: Scaled, stop: threading.Event | None = None):
        self.scaled, self.stop = scaled, stop
        self.program = scaled.original
        self.switched = Switched.of_program(self.program)
        self.binaries = np.flatnonzero(self.program.integer)
        self._linear = LinearProgram(scaled.program, stop)
        self._units, self._duals = scaled.row_unit, np.zeros(self.program.row_count)
        self._rows, self._lower = self.program.rows, self.program.row_lower
        self._duality = Duality(self._rows, self._lower, self.program.row_upper)

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        """See `Session.minimise`."""
        began = time.perf_counter()
        until = None if limits.seconds is None else time.monotonic() + limits.seconds
        scaled, self._one = self.scaled.objective(objective)
        self._linear.set_objective(scaled)
        run = _Minimisation(
            objective=objective,
            limits=limits,
            until=until,
            costs=_PseudoCosts.none(len(self.binaries)),
            gap=_GAP * self._one,
        )
        low, high = self.program.lower[self.binaries], self.program.upper[self.binaries]
        if relax:  # the relaxation itself is wanted, not whether it settles the question
            run.limits = Limits(seconds=limits.seconds)
        root, finished = self._solve(run, low, high, -np.inf)
        if relax or not finished:
            status = Ending.OPTIMAL if finished and root.point is not None else self._cut_off(run) or Ending.FAILED
            value = None if root.point is None else objective.value(root.point)
            return Outcome(
                status=status,
                dual_bound=root.bound,
                incumbent=value,
                point=root.point,
                seconds=time.perf_counter() - began,
            )
        run.open.append(self._add_cuts(run, root))
        status = self._explore(run)
        status, bound = reconciled(status, run.bound, run.incumbent, limits)
        seconds = time.perf_counter() - began
        return Outcome(
            status=status,
            dual_bound=bound,
            incumbent=run.incumbent,
            point=run.point,
            seconds=seconds,
            nodes=run.nodes,
            message="a linear program unsolved",
        )

    def close(self) -> None:
        """See `Session.close`."""
        self._linear.close()

    # -- the tree ---------------------------------------------------------------------------------

    def _explore(self, run: _Minimisation) -> Ending:
        """The ending of the search over open nodes; those not looked at stay in `run.open`."""
        while run.open:
            if (status := self._cut_off(run)) is not None:
                return status
            node = run.open.pop()
            if node.bound > run.cutoff or node.bound == np.inf:
                run.closed = min(run.closed, node.bound)
                continue
            binary = self._branching(run, node)
            if binary is None:
                self._leaf(run, node)
                below = run.limits.stop_below
                if below is not None and run.incumbent is not None and run.incumbent <= below:
                    return Ending.TARGET_REACHED
            elif not self._branch(run, node, binary):
                run.open.append(node)  # cut off in the middle: nothing of it is done with
        above = run.limits.stop_above
        if above is not None and run.closed > above:
            return Ending.BOUND_REACHED
        return Ending.OPTIMAL if run.incumbent is not None else Ending.FAILED

    def _cut_off(self, run: _Minimisation) -> Ending | None:
        if self.stop is not None and self.stop.is_set():
            return Ending.INTERRUPTED
        return Ending.TIME_LIMIT if run.until is not None and time.monotonic() >= run.until else None

    def _branching(self, run: _Minimisation, node: _Node) -> int | None:
        """The binary to branch on; None if all are whole at the node's point."""
        free = node.lower < node.upper
        if node.point is None:  # the linear program failed: any binary will do
            return int(np.argmax(free)) if free.any() else None
        fractions = node.point[self.binaries]
        apart = free & (np.minimum(fractions, 1.0 - fractions) > _WHOLE)
        if not apart.any():
            return None
        return int(np.argmax(np.where(apart, run.costs.scores(fractions), -1.0)))

    def _leaf(self, run: _Minimisation, node: _Node) -> None:
        run.closed = min(run.closed, node.bound)
        if node.point is None:
            return
        value = run.objective.value(node.point)
        if run.incumbent is None or value < run.incumbent:
            run.incumbent, run.point = value, node.point

    def _branch(self, run: _Minimisation, node: _Node, binary: int) -> bool:
        """Put the two children of a node on the pile, the worse on top; False if time ran out before that."""
        run.nodes += 1
        sides = []
        for side in (0, 1):
            lower, upper = node.lower.copy(), node.upper.copy()
            lower[binary] = upper[binary] = float(side)
            child, finished = self._solve(run, lower, upper, node.bound)
            if not finished:
                return False
            if node.point is not None:
                fraction = float(node.point[self.binaries[binary]])
                moved = max(fraction if side == 0 else 1.0 - fraction, _WHOLE)
                run.costs.learn(side, binary, child.bound - node.bound, moved)
            sides.append(child)
        run.open += sorted(sides, key=lambda child: -child.bound)
        return True

    # -- linear programs --------------------------------------------------------------------------

    def _solve(self, run: _Minimisation, lower: Array, upper: Array, known: float) -> tuple[_Node, bool]:
        """The relaxation with these ranges of the binaries; the bound is at least `known`. False if it was cut off."""
        self._linear.set_ranges(self.binaries, lower, upper)
        low, high = self.program.lower.copy(), self.program.upper.copy()
        low[self.binaries], high[self.binaries] = lower, upper
        solved = self._linear.solve(remaining(run.until), run.cutoff / self._one + _BEYOND)
        bound = self._dual_bound(run, solved, Box(lower=low, upper=high))
        if solved.above and bound <= run.cutoff:  # rounding: the duals at hand fall short of what HiGHS saw
            solved = self._linear.solve(remaining(run.until))
            bound = max(bound, self._dual_bound(run, solved, Box(lower=low, upper=high)))
        point = solved.point
        if point is not None:
            point = np.clip(self.scaled.shift + self.scaled.unit * point, low, high)
        return _Node(lower=lower, upper=upper, bound=max(known, bound), point=point), solved.finished

    def _dual_bound(self, run: _Minimisation, solved: Solved, box: Box) -> float:
        """The dual bound proved by the row duals: inf by a Farkas ray, -inf without duals."""
        if solved.duals is None:
            return -np.inf
        self._duals = solved.duals
        duals = self._duality.feasible(solved.duals / self._units)
        if not solved.infeasible:
            return self._duality.bound(box, run.objective, duals * self._one)
        nothing = Objective(np.zeros_like(run.objective.cost))
        return np.inf if self._duality.bound(box, nothing, duals) > 0.0 else -np.inf

    def _add_cuts(self, run: _Minimisation, root: _Node) -> _Node:
        """Add rows of convex hulls at the root while they help, and let go of those that do not."""
        for _ in range(_ROUNDS):
            if root.point is None or root.bound > run.cutoff or self._cut_off(run) is not None:
                break
            rows, limits = self.switched.violated(root.point)
            if not len(limits):
                break
            self._add_rows(rows, limits)
            better, finished = self._solve(run, root.lower, root.upper, root.bound)
            if not finished:
                break
            little = better.bound - root.bound < _WORTH * abs(root.bound)
            root = better
            if little:
                break
        self._let_go()
        return root

    def _add_rows(self, rows: Any, lower: Array) -> None:
        """Rows `rows @ v >= lower` of the original program, from now on and for every objective."""
        scaled = sparse.csr_matrix(rows @ sparse.diags(self.scaled.unit))
        units = power_of_two(abs(scaled).max(axis=1).toarray().ravel())
        self._linear.add_rows(
            sparse.csr_matrix(sparse.diags(1.0 / units) @ scaled), (lower - rows @ self.scaled.shift) / units
        )
        self._units = np.concatenate([self._units, units])
        self._rows = sparse.vstack([self._rows, rows], format="csr")
        self._lower = np.concatenate([self._lower, lower])
        self._duals = np.concatenate([self._duals, np.zeros(len(lower))])
        self._renew()

    def _let_go(self) -> None:
        """Drop the rows that were added and do not bind at the last point."""
        idle = np.abs(self._duals) <= _IDLE
        idle[: self.program.row_count] = False
        if idle.any():
            self._linear.drop_rows(np.flatnonzero(idle))
            self._units, self._rows, self._lower = self._units[~idle], self._rows[~idle], self._lower[~idle]
            self._duals = self._duals[~idle]
            self._renew()

    def _renew(self) -> None:
        added = np.full(len(self._lower) - self.program.row_count, np.inf)
        self._duality = Duality(self._rows, self._lower, np.concatenate([self.program.row_upper, added]))
