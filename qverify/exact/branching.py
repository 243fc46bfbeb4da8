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

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from qverify.arrays import Array
from qverify.exact.cuts import Switched
from qverify.exact.scaling import Scaled, power_of_two
from qverify.exact.solvers.base import Ending, Limits, Outcome, remaining, settled, value_at
from qverify.exact.solvers.duality import Duality
from qverify.exact.solvers.linear import Linear, Solved
from qverify.text.brief import Brief

_ROUNDS = 20
"""Rounds of rows added at the root, at most."""
_WORTH = 0.01
"""A round has to lift the bound by this share of its distance to 0, or is the last."""
_WHOLE = 1e-9
"""A binary this close to 0 or 1 is whole."""
_IDLE = 1e-9
"""A row whose dual is no larger does not bind."""
_BEYOND = 1e-7
"""A linear program may stop once its bound is this far above what is needed, in units of the cost."""
_GAP = 1e-9
"""Where the minimum itself is wanted: nodes this close to the incumbent, in units of the cost, are closed."""


@dataclass(eq=False, repr=False)
class _Node(Brief):
    """A part of the program: ranges of its binaries (k,), a bound on it, and the optimum of its relaxation."""

    lower: Array
    upper: Array
    bound: float
    point: Array | None


@dataclass(eq=False, repr=False)
class _Costs(Brief):
    """Pseudo-costs: by how much the bound rose when a binary was fixed to 0 or 1, per unit that it moved."""

    total: Array
    count: Array

    @staticmethod
    def none(binaries: int) -> _Costs:
        return _Costs(np.zeros((2, binaries)), np.zeros((2, binaries)))

    def learn(self, side: int, binary: int, rise: float, moved: float) -> None:
        if np.isfinite(rise):
            self.total[side, binary] += rise / moved
            self.count[side, binary] += 1.0

    def scores(self, fractions: Array) -> Array:
        """What fixing each binary promises: the product of the rises on its two sides."""
        everywhere = self.total.sum(1, keepdims=True) / np.maximum(self.count.sum(1, keepdims=True), 1.0)
        usual = np.where(everywhere > 0.0, everywhere, 1.0)
        cost = np.where(self.count > 0, self.total / np.maximum(self.count, 1.0), usual)
        moved = np.stack([fractions, 1.0 - fractions])
        return np.asarray(np.maximum(cost * moved, 1e-12).prod(0))


@dataclass(eq=False, repr=False)
class _Run(Brief):
    """One minimisation under way. `closed`: the least bound among the parts that are done with."""

    cost: Array
    offset: float
    limits: Limits
    until: float | None
    costs: _Costs
    gap: float
    closed: float = np.inf
    incumbent: float | None = None
    point: Array | None = None
    nodes: int = 0
    open: list[_Node] = field(default_factory=list)

    @property
    def cutoff(self) -> float:
        """Parts whose bound is above this need no look."""
        above = np.inf if self.limits.stop_above is None else self.limits.stop_above
        return above if self.incumbent is None else min(above, self.incumbent - self.gap)

    @property
    def bound(self) -> float:
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
        self._linear = Linear(scaled.program, stop)
        self._units, self._duals = scaled.row_unit, np.zeros(self.program.row_count)
        self._rows, self._lower = self.program.rows, self.program.row_lower
        self._duality = Duality(self._rows, self._lower, self.program.row_upper)

    def minimise(self, cost: Array, offset: float, limits: Limits, relax: bool = False) -> Outcome:
        """See `Session.minimise`."""
        began = time.perf_counter()
        until = None if limits.seconds is None else time.monotonic() + limits.seconds
        scaled = cost * self.scaled.unit
        self._one = float(power_of_two(abs(scaled).max(initial=0.0)))
        self._linear.objective(scaled / self._one, (offset + float(cost @ self.scaled.shift)) / self._one)
        run = _Run(cost, offset, limits, until, _Costs.none(len(self.binaries)), _GAP * self._one)
        low, high = self.program.lower[self.binaries], self.program.upper[self.binaries]
        if relax:  # the relaxation itself is wanted, not whether it settles the question
            run.limits = Limits(limits.seconds)
        root, finished = self._solve(run, low, high, -np.inf)
        if relax or not finished:
            status = Ending.OPTIMAL if finished and root.point is not None else self._cut_off(run) or Ending.FAILED
            value = None if root.point is None else value_at(cost, offset, root.point)
            return Outcome(status, root.bound, value, root.point, seconds=time.perf_counter() - began)
        run.open.append(self._cut(run, root))
        status = self._explore(run)
        status, bound = settled(status, run.bound, run.incumbent, limits)
        seconds = time.perf_counter() - began
        return Outcome(status, bound, run.incumbent, run.point, None, seconds, run.nodes, "a linear program unsolved")

    def close(self) -> None:
        self._linear.close()

    # -- the tree ---------------------------------------------------------------------------------

    def _explore(self, run: _Run) -> Ending:
        """Look at open parts until the question is settled; what is left stays in `run.open`."""
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
            elif not self._split(run, node, binary):
                run.open.append(node)  # cut off in the middle: nothing of it is done with
        above = run.limits.stop_above
        if above is not None and run.closed > above:
            return Ending.BOUND_REACHED
        return Ending.OPTIMAL if run.incumbent is not None else Ending.FAILED

    def _cut_off(self, run: _Run) -> Ending | None:
        if self.stop is not None and self.stop.is_set():
            return Ending.INTERRUPTED
        return Ending.TIME_LIMIT if run.until is not None and time.monotonic() >= run.until else None

    def _branching(self, run: _Run, node: _Node) -> int | None:
        """The binary to branch on; None if all are whole at the node's point."""
        free = node.lower < node.upper
        if node.point is None:  # the linear program failed: any binary will do
            return int(np.argmax(free)) if free.any() else None
        fractions = node.point[self.binaries]
        apart = free & (np.minimum(fractions, 1.0 - fractions) > _WHOLE)
        if not apart.any():
            return None
        return int(np.argmax(np.where(apart, run.costs.scores(fractions), -1.0)))

    def _leaf(self, run: _Run, node: _Node) -> None:
        run.closed = min(run.closed, node.bound)
        if node.point is None:
            return
        value = value_at(run.cost, run.offset, node.point)
        if run.incumbent is None or value < run.incumbent:
            run.incumbent, run.point = value, node.point

    def _split(self, run: _Run, node: _Node, binary: int) -> bool:
        """Put the two sides of `binary` on the pile, the worse on top; False if time ran out before that."""
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

    def _solve(self, run: _Run, lower: Array, upper: Array, known: float) -> tuple[_Node, bool]:
        """The relaxation with these ranges of the binaries; the bound is at least `known`. False if it was cut off."""
        self._linear.ranges(self.binaries, lower, upper)
        low, high = self.program.lower.copy(), self.program.upper.copy()
        low[self.binaries], high[self.binaries] = lower, upper
        solved = self._linear.solve(remaining(run.until), run.cutoff / self._one + _BEYOND)
        bound = self._proved(run, solved, (low, high))
        if solved.above and bound <= run.cutoff:  # rounding: the duals at hand fall short of what HiGHS saw
            solved = self._linear.solve(remaining(run.until))
            bound = max(bound, self._proved(run, solved, (low, high)))
        point = solved.point
        if point is not None:
            point = np.clip(self.scaled.shift + self.scaled.unit * point, low, high)
        return _Node(lower, upper, max(known, bound), point), solved.finished

    def _proved(self, run: _Run, solved: Solved, box: tuple[Array, Array]) -> float:
        """The bound that the duals prove; -inf if there are none."""
        if solved.duals is None:
            return -np.inf
        self._duals = solved.duals
        duals = self._duality.usable(solved.duals / self._units)
        if not solved.infeasible:
            return self._duality.value(box, run.cost, run.offset, duals * self._one)
        return np.inf if self._duality.value(box, np.zeros_like(run.cost), 0.0, duals) > 0.0 else -np.inf

    def _cut(self, run: _Run, root: _Node) -> _Node:
        """Add rows of convex hulls at the root while they help, and let go of those that do not."""
        for _ in range(_ROUNDS):
            if root.point is None or root.bound > run.cutoff or self._cut_off(run) is not None:
                break
            rows, limits = self.switched.violated(root.point)
            if not len(limits):
                break
            self._add(rows, limits)
            better, finished = self._solve(run, root.lower, root.upper, root.bound)
            if not finished:
                break
            little = better.bound - root.bound < _WORTH * abs(root.bound)
            root = better
            if little:
                break
        self._let_go()
        return root

    def _add(self, rows: Any, lower: Array) -> None:
        """Rows `rows @ v >= lower` of the original program, from now on and for every objective."""
        scaled = sparse.csr_matrix(rows @ sparse.diags(self.scaled.unit))
        units = power_of_two(abs(scaled).max(axis=1).toarray().ravel())
        self._linear.add(
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
            self._linear.drop(np.flatnonzero(idle))
            self._units, self._rows, self._lower = self._units[~idle], self._rows[~idle], self._lower[~idle]
            self._duals = self._duals[~idle]
            self._renew()

    def _renew(self) -> None:
        added = np.full(len(self._lower) - self.program.row_count, np.inf)
        self._duality = Duality(self._rows, self._lower, np.concatenate([self.program.row_upper, added]))
