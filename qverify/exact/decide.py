"""Rulings on questions: the one place that maps a solver's status, dual bound and incumbent to a verdict.

Nothing a solver says is believed beyond this:

- a *dual bound* counts as a lower bound if the status admits one and it is a number. That of a linear relaxation, and
  that of our own branch and bound (branching.py), is recomputed from the duals of linear programs, rounding taken off,
  and programs are made so that no rounding cuts off a member (relational.py): it counts as it is. That of any other
  program is the solver's word, and an allowance is taken off for what its tolerances can leak through the network
  (scaling.py; mathematics.md, section 9);
- an *incumbent* counts for nothing. The point is turned into a member of the family, and the margin
  of that member by a plain forward pass decides;
- *infeasible* is never an answer: the trained network itself is a point of every program;
- a bound above the value of a concrete member refutes the bound: InternalError, nothing is concluded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from qverify.errors import InternalError
from qverify.exact.solvers.base import Ending, Outcome

if TYPE_CHECKING:
    from qverify.exact.gain import Gain

TOLERANCE = 1e-8
"""Ten times the tolerance that solvers are set to. This times the network's gain is taken off their bounds."""
_CROSSING = 1e-9
"""The error granted to a float64 forward pass, relative to what it adds up; the real one is much smaller."""

_BOUNDED = {
    Ending.OPTIMAL,
    Ending.BOUND_REACHED,
    Ending.TARGET_REACHED,
    Ending.TIME_LIMIT,
    Ending.INTERRUPTED,
}


class Ruling(Enum):
    """The state of one question `min row . output > 0 over the family`: HOLDS proved, BROKEN by a member, else OPEN."""

    HOLDS = "holds"
    BROKEN = "broken"
    OPEN = "open"


@dataclass(frozen=True)
class Known:
    """Bounds on a minimum: `lower` is proved, `upper` attained by a concrete member (inf: none yet)."""

    lower: float
    upper: float = math.inf


def tolerance(gain: Gain, bilinear: bool) -> float:
    """The allowance taken off a dual bound that is a solver's word, by kind of program. Heuristic."""
    return TOLERANCE * (gain.magnitudes if bilinear else gain.ranges)


def proved_bound(outcome: Outcome, allowed: float) -> float:
    """The dual bound of an outcome, less `allowed`; -inf if none.

    Sound with `allowed` 0 where it was computed from duals; less `tolerance` where it is a solver's word, heuristic.
    """
    if outcome.status not in _BOUNDED or math.isnan(outcome.dual_bound) or outcome.dual_bound == math.inf:
        return -math.inf
    return float(outcome.dual_bound) - allowed


def rule(known: Known, scale: float) -> Ruling:
    """The ruling on one question. Raises InternalError if bound and member contradict each other.

    `scale`: the sizes that a forward pass adds up for it (`Gain.magnitudes`); small outputs need a small tolerance.
    """
    if known.lower > known.upper + _CROSSING * min(1.0 + abs(known.upper), scale):
        raise InternalError(
            f"A concrete member has the value {known.upper:.9g}, below the bound {known.lower:.9g} that was proved for"
            " the whole family. Please report this with the model and the sample; nothing of this run may be trusted."
        )
    if known.upper <= 0.0:
        return Ruling.BROKEN
    return Ruling.HOLDS if known.lower > 0.0 else Ruling.OPEN


def reason(outcome: Outcome, known: Known, allowed: float) -> str:
    """The reason, in words for the user, why a question is still open after this outcome.

    `known`: bounds on its minimum since; `allowed`: the `tolerance` of the program that was solved.
    """
    if outcome.status in (Ending.INFEASIBLE, Ending.UNBOUNDED):
        return f"the solver calls a program {outcome.status.value} that has a solution; try another --solver"
    if outcome.status is Ending.FAILED:
        return f"the solver failed ({outcome.message}); try another --solver"
    if outcome.status is Ending.TIME_LIMIT:
        return "time limit"
    if outcome.status is Ending.INTERRUPTED:
        return "interrupted"
    if known.lower >= -2.0 * allowed or known.upper <= 2.0 * allowed:
        return "the worst case is within the solver's tolerance of 0"
    return f"the program's worst case is {known.lower:.3g}, of which members were found to reach {known.upper:.3g}"
