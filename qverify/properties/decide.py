"""Decides whether some input of some case violates its property, for every member of a quantised family.

Cases with the same clauses share a network with the property behind it (stated.py), whose margins the cascade decides,
from bounds to the exact step. Where few inputs are free, boxes are halved as well (splitting.py). `unsat` is proved;
`sat` is said once a member was confirmed by whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qverify.bounds.interval import OutOfTime
from qverify.budget import Deadline
from qverify.family.family import inner_interval
from qverify.family.members import PositionChoice, Recipe, Witness
from qverify.family.radius_arrays import radius_array
from qverify.properties.splitting import Splitting
from qverify.properties.stated import stated
from qverify.rounding import UNIT
from qverify.text.brief import Brief
from qverify.verification.attack import attack
from qverify.verification.cascade import verdicts
from qverify.verification.positions import Positions
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.family.family import Family
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.properties.cases import Case, Clause

_FREE = 12
"""Inputs that are free, at most, where boxes are halved."""
_FIRST = 0.15
"""The share of the time that the cascade has before boxes are halved."""
_FIRST_SECONDS = 15.0
"""The same in seconds, at most."""
_DEEPER = (1e-2, 1e-3, 1e-4, 1e-6)
"""How far beyond its limits a violation is looked for where one is not confirmed, in units of the outputs."""


class Answer(Enum):
    """Whether a property can be violated."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer, and in a few words what decided it or what is missing.

    `method`: the stage (`choices.STAGES`) that decided it, or was the last to try. `margin_lower` is proved to lie
    below the margins of all members, `margin_upper` is that of one; above 0 the property holds, whatever their unit.
    """

    answer: Answer
    detail: str = ""
    method: str = "forward"
    margin_lower: float = -np.inf
    margin_upper: float = np.inf


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Candidate(Brief):
    """An input (n_in,) of a case that seems to violate it: `member` of the family at `entry`, the quantised input.

    `outputs` (n_out,): those of the member at `entry`, in float64. `family`: what it was made from, its input radius
    that of the whole box; None for the network itself.
    """

    case: Case
    input: Array
    member: Network
    entry: Array
    outputs: Array
    family: Family | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Question(Brief):
    """A network, its radii, and who confirms candidates. `options`: device, memory, solver and jobs; its time limit is
    not looked at."""

    network: Network
    radii: Radii
    options: Options
    confirmed: Callable[[Candidate], bool]

    @cached_property
    def reach(self) -> Array:
        """(n_in,): how far a quantised input may be from the input."""
        return radius_array(self.radii.input, self.network.input_shape, "input").ravel()


def decide(question: Question, cases: list[Case], deadline: Deadline) -> Decision:
    """The answer over all cases: sat if one is violated, unsat if it is proved that none is.

    Raises RadiiError, UsageError, SolverError, InternalError.
    """
    groups: dict[tuple[Clause, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.clauses, []).append(case)
    found = []
    for number, (clauses, own) in enumerate(groups.items()):
        share = deadline.share(1.0 / (len(groups) - number))
        found.append(_Group(question, clauses, own).decide(share))
        if found[-1].answer is Answer.SAT:
            return found[-1]
    for answer in (Answer.TIMED_OUT, Answer.UNKNOWN):
        for decision in found:
            if decision.answer is answer:
                return decision
    return found[0] if len(found) == 1 else Decision(answer=Answer.UNSAT, detail="every case is proved")


class _Group:
    """The cases of one property."""

    def __init__(self, question: Question, clauses: tuple[Clause, ...], cases: list[Case]):
        self.question, self.clauses, self.cases = question, clauses, cases
        self.refused = 0

    def decide(self, deadline: Deadline) -> Decision:
        """The answer over these cases."""
        if not all(self.clauses):
            return self._anything()
        self.stated = stated(self.question.network, self.clauses)
        few = 0 < max(map(self._free, self.cases)) <= _FREE and not self._rounds
        if few and len(self.cases) > 1:
            return self._halved(self.cases, deadline)
        open_: list[tuple[Case, Decision]] = []
        for number, case in enumerate(self.cases):
            share = deadline.share(1.0 / (len(self.cases) - number))
            decision = self._cascade(case, _first(share) if few else share)
            if decision.answer is Answer.SAT:
                return decision
            if decision.answer is not Answer.UNSAT:
                open_.append((case, decision))
        if not open_:
            return decision
        if few and not deadline.passed():
            return self._halved([case for case, _ in open_], deadline)
        return open_[0][1]

    def _free(self, case: Case) -> int:
        """Inputs of a case that are not fixed."""
        low, high = case.box()
        return int(((low < high) | (self.question.reach > 0)).sum())

    @property
    def _rounds(self) -> bool:
        return bool(self.question.radii.points or self.question.radii.saturations or self.question.network.rounds)

    def _anything(self) -> Decision:
        """Some clause is met by every output: any input will do."""
        network, case = self.question.network, self.cases[0]
        low, high = case.box()
        middle = low + (high - low) / 2.0
        outputs = network.evaluate(middle[None])[0]
        candidate = Candidate(case=case, input=middle, member=network, entry=middle, outputs=outputs)
        if self.question.confirmed(candidate):
            return Decision(answer=Answer.SAT, detail="any input of the box will do", margin_upper=-np.inf)
        return Decision(answer=Answer.UNKNOWN, detail="no input of the box could be confirmed")

    # -- the cascade ------------------------------------------------------------------------------

    def _cascade(self, case: Case, deadline: Deadline) -> Decision:
        """The answer on one box: a sample in its middle, with a radius that reaches its ends."""
        low, high = case.box()
        middle, radii = self._around(low, high)
        seconds = None if deadline.left == np.inf else deadline.left
        if seconds is not None and seconds <= 0.0:
            return Decision(answer=Answer.TIMED_OUT)
        options = replace(self.question.options, seconds=seconds)
        (verdict,) = verdicts(self.stated.network, middle[None], np.zeros(1, np.int64), radii, options)
        by: dict[str, Any] = {name: getattr(verdict, name) for name in ("method", "margin_lower", "margin_upper")}
        if verdict.status is Status.VERIFIED:
            return Decision(answer=Answer.UNSAT, detail=f"by {verdict.method}", **by)
        if verdict.status is not Status.UNKNOWN and self._failing(case, verdict, middle, deadline):
            return Decision(answer=Answer.SAT, detail=f"by {verdict.method}", **by)
        by = {name: value for name, value in by.items() if name != "margin_upper"}  # of no member that was confirmed
        if verdict.limit is not None or deadline.passed():
            return Decision(answer=Answer.TIMED_OUT, **by)
        return Decision(answer=Answer.UNKNOWN, detail=verdict.detail or self._unconfirmed(), **by)

    def _unconfirmed(self) -> str:
        return f"{self.refused} violations were found that the model itself does not confirm"

    def _around(self, low: Array, high: Array) -> tuple[Array, Radii]:
        """The middle (n_in,) of a box, and the radii with which its family has all members at all inputs of it."""
        middle = low + (high - low) / 2.0
        reach = np.maximum(np.maximum(middle - low, high - middle) * (1.0 + 4.0 * UNIT), 0.0)
        own = self.question.reach
        total = np.where(own > 0, (reach + own) * (1.0 + 4.0 * UNIT), reach)
        return middle, self.stated.radii(self.question.radii, total)

    def _failing(self, case: Case, verdict: Verdict, middle: Array, deadline: Deadline) -> bool:
        """Whether the failing member of a verdict, or one deeper in the violation, is confirmed."""
        recipe = verdict.recipe
        if recipe is None:
            if self._confirmed_at(case, self.stated.network, middle):
                return True
        elif self._confirmed(case, recipe):
            return True
        return self._deeper(case, recipe, deadline)

    def _deeper(self, case: Case, recipe: Recipe | None, deadline: Deadline) -> bool:
        """Whether descent to a violation by more than rounding can undo finds a member that is confirmed."""
        network = self.question.network
        low, high = case.box()
        middle, radii = self._around(low, high)
        size = float(abs(network.evaluate(middle[None])).max()) or 1.0
        for share in _DEEPER:
            if deadline.passed():
                return False
            sharper = stated(network, self.clauses, share * size)
            setup = Setup(sharper.network, radii, self.question.options)
            try:
                bounds = setup.intervals(middle[None], deadline)
            except OutOfTime:
                return False
            start = None
            if recipe is not None and isinstance(recipe.choice, PositionChoice):
                start = Positions.of(setup.model, recipe.choice, recipe.x_hat, bounds)
            nothing = torch.zeros(1, 1 + len(self.clauses), dtype=torch.float64)
            label = torch.zeros(1, dtype=torch.int64)
            found = attack(setup.model, bounds, label, nothing, start, deadline)
            if float(found.margin[0]) <= 0 and self._confirmed(case, found.recipe(setup.family, middle, 0, 0)):
                return True
        return False

    def _confirmed(self, case: Case, recipe: Recipe) -> bool:
        witness: Witness = recipe.witness()
        return self._confirmed_at(case, witness.network, witness.input, recipe.family)

    def _confirmed_at(self, case: Case, member: Network, entry: Array, family: Family | None = None) -> bool:
        x = np.clip(entry, *case.box())
        if not self.question.radii.points:  # the box that it was found in is a little wider
            entry = np.clip(entry, *inner_interval(x, self.question.reach))
        outputs = self.stated.outputs(member, entry)
        candidate = Candidate(case=case, input=x, member=member, entry=entry, outputs=outputs, family=family)
        found = self.question.confirmed(candidate)
        self.refused += not found
        return found

    # -- halves -----------------------------------------------------------------------------------

    def _halved(self, cases: list[Case], deadline: Deadline) -> Decision:
        """The answer on boxes by halving them."""
        radii = self.question.radii
        own = self.question.reach
        setup = Setup(self.stated.network, self.stated.radii(radii, own), self.question.options)
        ends = [case.box() for case in cases]
        boxes = [(_less(low, own), -_less(-high, own)) for low, high in ends]

        def confirmed(recipe: Recipe) -> bool:
            near = [case for case, (low, high) in zip(cases, ends, strict=True) if _holds_point(low, high, own, recipe)]
            return any(self._confirmed(case, recipe) for case in near)

        result = Splitting(setup, confirmed).run(boxes, deadline)
        looked, by = f"{result.count} boxes", "halving"
        if result.found:
            detail, attained = f"by halving, {looked}", result.attained
            return Decision(answer=Answer.SAT, detail=detail, method=by, margin_upper=attained)
        if not result.open:
            detail, proved = f"by halving, {looked}", result.proved
            return Decision(answer=Answer.UNSAT, detail=detail, method=by, margin_lower=proved)
        if result.given_up:
            return Decision(answer=Answer.UNKNOWN, detail=self._unconfirmed(), method=by)
        if result.full:
            detail = f"{result.open} open boxes take the memory; more: --memory"
            return Decision(answer=Answer.UNKNOWN, detail=detail, method=by)
        if result.stuck < result.open:
            return Decision(answer=Answer.TIMED_OUT, detail=f"{result.open} of {looked} are open", method=by)
        detail = f"{result.stuck} boxes are too narrow to be halved"
        return Decision(answer=Answer.UNKNOWN, detail=detail, method=by)


def _first(deadline: Deadline) -> Deadline:
    """The deadline of the cascade where boxes are halved after it."""
    return Deadline.after(min(_FIRST_SECONDS, _FIRST * deadline.left), deadline.stop)


def _less(end: Array, radius: Array) -> Array:
    """Numbers at or below `end - radius`."""
    return np.where(radius > 0, np.nextafter(end - radius, -np.inf), end)


def _holds_point(low: Array, high: Array, radius: Array, recipe: Recipe) -> bool:
    x: Any = recipe.x_hat
    return bool(((x >= low - radius) & (x <= high + radius)).all())
