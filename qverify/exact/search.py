"""The exact step for one sample: programs solved, points turned into members, until every question is settled.

A question is a row over the outputs, `min row . output` over the family; verification asks one a rival
class, `e_label - e_j`, hardest first. For each: the linear relaxation, whose bound is recomputed
from its duals; then the mixed-integer program, by our own branch and bound (branching.py) unless another solver
than HiGHS was chosen, ended as soon as its dual bound is positive or an incumbent negative (`early`). A point is
worth what the member made from it is worth. Where that falls short because |x_j| of straddling coordinates was
bounded by chords, or a rounding point gave what it cannot, those coordinates get binaries (overstated.py) and the
question is asked again (mathematics.md, sections 3, 6 and 15).

Convolutions: the relational program takes positions as independent, so its bounds hold and its points
may be no members. What it leaves open goes to the bilinear program if that is small enough.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelTooLarge, SolverError
from qverify.exact import decide, solvers
from qverify.exact.decide import Known, Ruling
from qverify.exact.gain import Gain, gain
from qverify.exact.loaded import Loaded
from qverify.exact.size import count_coefficients, count_products
from qverify.exact.solvers.base import Ending, Limits, Outcome, remaining
from qverify.exact.solvers.host import TREE
from qverify.exact.witness import follow
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.sample import SampleBounds
    from qverify.exact.bilinear import Bilinear
    from qverify.exact.maps import Maps
    from qverify.exact.relational import Relational
    from qverify.exact.solvers.process import Lent
    from qverify.family.family import Family
    from qverify.family.members import Recipe, Witness

BILINEAR_PRODUCTS = 5_000
"""The most products of a bilinear program that is asked where the relational one leaves the sample open."""
_BYTES = 200
"""Bytes a coefficient takes in the program, on its way to the solver and there (measured, HiGHS)."""
_RATE = 2e6
"""Coefficients a second at which programs are made and loaded."""
_ROUNDS = 12
"""The most rounds in which binaries are added."""
_ROUNDED, _UNDERFLOW = 1e-12, 1e-200
"""The gap between bounds up to which a minimum is known, however small the tolerance is: that of rounding, relative to
what is added up, and that of what underflows."""
_CLEAR = (1e-7, 1e-9)
"""How far a point stays clear of the jumps of rounding points, in their radii: more than solvers keep rows, and, where
that costs more than the tolerance, less."""
_PARTS = 4
"""Coefficients that a product of a bilinear program counts for: its own, and those of the cuts and rows around it."""
INDEPENDENT = "independent positions"
"""The scope of a bound that is sound and not exact (mathematics.md, section 6)."""
RELAXED = "relaxed products"
"""The scope of a bound where products of branches lie between planes (mathematics.md, section 4.6)."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Solver, formulation and limits of a search. `seconds` is a limit per sample; `early`: stop at the sign of the
    margin, not at its value; `memory`: bytes for programs and solver, None for no limit."""

    solver: str = "auto"
    formulation: str = "relational"
    seconds: float | None = None
    early: bool = True
    stop: threading.Event = field(default_factory=threading.Event)
    memory: int | None = None


class _TooMuch(Exception):
    """A program too large to be made; the message says for what."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SearchedSample(Brief):
    """One sample: x (n_in,), its bounds on every layer, and `lower` (classes,), the margins proved before.

    `recipe` is the worst member known, None for the network itself; `polish` descends from one member to a worse one.
    """

    family: Family
    x: Array
    label: int
    bounds: SampleBounds
    lower: Array
    recipe: Recipe | None = None
    polish: Callable[[Recipe], Recipe] | None = None


class Search:
    """The questions of one sample, over programs that are built and loaded once; solvers work in the process `lent`,
    or here without one.

    After `decide`: `lower`, `upper` (classes,) are the margins proved and attained, `recipe` the worst member and
    `attained` its margin, `scope` whether the last program was exact, `detail` why something is open.
    """

    def __init__(self, maps: Maps, settings: SearchSettings, case: SearchedSample, lent: Lent | None = None):
        self.maps, self.settings, self.case = maps, settings, case
        self.lower, self.upper = case.lower.copy(), np.full(len(case.lower), math.inf)
        self.recipe: Recipe | None = None
        self.attained = math.inf
        self._take_in(maps.family.network.evaluate(maps.family.centre(case.x[None]))[0])
        if case.recipe is not None:
            self._consider(case.recipe, case.recipe.witness())
        self.detail = ""
        self._loaded = Loaded(maps, case.bounds, settings.solver, settings.stop, lent)
        self._loaded.bilinear = settings.formulation == "bilinear"
        self._until = None if settings.seconds is None else time.monotonic() + settings.seconds
        self._gain = Gain(ranges=0.0, magnitudes=0.0)

    # -- what is asked ----------------------------------------------------------------------------

    def decide(self) -> Ruling:
        """The ruling on whether every margin is positive over the family.

        Raises InternalError where bound and member contradict each other, SolverError without a usable solver,
        ModelTooLarge where its licence does not admit the program.
        """
        closed = self.lower > 0.0
        closed[self.case.label] = True
        try:
            self._check_size()
            ruling = self._decide_rivals(closed)
            if ruling is Ruling.OPEN and self._goes_on_bilinear():
                try:
                    ruling = self._decide_rivals(closed)
                except ModelTooLarge as error:  # the relational answer stands
                    self.detail, self._loaded.bilinear = str(error), False
            return ruling
        except _TooMuch as reason:
            self.detail = str(reason)
            return Ruling.BROKEN if self.attained <= 0.0 else Ruling.OPEN
        finally:
            self.close()

    def _decide_rivals(self, closed: Any) -> Ruling:
        for rival in np.argsort(self.lower, kind="stable"):
            skip = closed[rival] if self.settings.early else self.lower[rival] >= self.attained
            if skip or rival == self.case.label:
                continue
            row = np.zeros(len(self.lower))
            row[self.case.label], row[rival] = 1.0, -1.0
            known = self._minimise(row, Known(lower=float(self.lower[rival]), upper=float(self.upper[rival])))
            self.lower[rival], self.upper[rival] = known.lower, min(known.upper, self.upper[rival])
            ruling = decide.rule(known, self._gain.magnitudes)
            if ruling is Ruling.BROKEN or self.attained <= 0.0:
                return Ruling.BROKEN
            closed[rival] |= ruling is Ruling.HOLDS
            if self.expired():
                break
        return Ruling.HOLDS if closed.all() else Ruling.OPEN

    def minimum(self, row: Array) -> Known:
        """The minimum of `row . output` over the family: proved and attained, equal up to tolerance unless cut off.

        Programs stay loaded for the next row; `close` gives them back.
        """
        try:
            self._check_size()
        except _TooMuch as reason:
            self.detail = str(reason)
            return Known(lower=-math.inf)
        known = self._minimise(row, Known(lower=-math.inf))
        if not self.answered(known) and self._goes_on_bilinear():
            try:
                known = self._minimise(row, known)
            except ModelTooLarge as error:
                self.detail, self._loaded.bilinear = str(error), False
                self.close()
        decide.rule(known, self._gain.magnitudes)
        return known

    def close(self) -> None:
        """Unload program and solver; the next question loads them again."""
        self._loaded.close()

    @property
    def bilinear(self) -> bool:
        """Whether the bilinear program is asked."""
        return self._loaded.bilinear

    @property
    def scope(self) -> str:
        """`exact`, or how the last program relaxed: INDEPENDENT positions of a convolution, RELAXED products."""
        if self.bilinear:
            return "exact"
        return (
            INDEPENDENT
            if self.maps.family.shares_weights
            else RELAXED
            if self.maps.family.network.products
            else "exact"
        )

    # -- one row ----------------------------------------------------------------------------------

    def _minimise(self, row: Array, known: Known) -> Known:
        self._gain = gain(self.maps, self.case.bounds, row)
        for number in range(_ROUNDS):
            if not self.bilinear:
                known, _ = self._ask(row, known, relax=True)
            if self.answered(known):
                break
            try:
                known, outcome = self._ask(row, known)
            except ModelTooLarge as error:
                if not number:
                    raise
                self._loaded.undo()  # what was proved before the last binaries stands
                self.detail = str(error)
                break
            if self.answered(known) or self.expired():
                break
            if outcome.point is not None and self._loaded.refine(outcome.point):
                continue
            known = self._cleared(row, known)
            if outcome.status is Ending.TARGET_REACHED and self.scope == "exact" and not self.answered(known):
                known, _ = self._ask(row, known, target=False)
            break
        return known

    def _cleared(self, row: Array, known: Known) -> Known:
        """Bounds on the minimum after a member was made from a point clear of the jumps of rounding points.

        The program's minimum often lies where a value is at the end of what becomes 0: as near to it as one likes a
        member is not 0, and at it, where the solver goes, it is. Only the member counts.
        """
        keep_zero = any((point.dead >= 0).any() for point in self.maps.family.points.values())
        if not keep_zero or self.bilinear or self.scope != "exact":
            return known
        said = self.detail
        for share in _CLEAR:
            with self._loaded.cleared(share):
                found, _ = self._ask(row, Known(lower=-math.inf, upper=known.upper))
            known = Known(lower=known.lower, upper=found.upper)
            if self.answered(known):
                break
        self.detail = said
        return known

    def _ask(self, row: Array, known: Known, relax: bool = False, target: bool = True) -> tuple[Known, Outcome]:
        """Bounds on the minimum after one solve, and its outcome. `target`: end at an incumbent that looks negative."""
        program, name, session = self._loaded.session(relax)
        early = self.settings.early and not relax
        allowed = 0.0 if name == TREE else decide.tolerance(self._gain, self.bilinear)
        limits = Limits(
            seconds=remaining(self._until),
            stop_above=allowed if early else None,
            stop_below=-allowed if early and target else None,
        )
        outcome = session.minimise(program.combination(row), limits, relax)
        upper = known.upper
        if outcome.point is not None and np.isfinite(outcome.point).all():
            upper = min(upper, self._member(program, outcome.point, row, not relax))
        known = Known(lower=max(known.lower, decide.proved_bound(outcome, allowed)), upper=upper)
        self.detail = decide.reason(outcome, known, decide.tolerance(self._gain, self.bilinear))
        return known, outcome

    def answered(self, known: Known) -> bool:
        """Whether a question is answered: the sign of the margin (`early`), or the minimum itself up to tolerance."""
        if self.settings.early:
            return known.lower > 0.0 or self.attained <= 0.0
        rounded = _ROUNDED * self._gain.magnitudes + _UNDERFLOW
        return known.upper - known.lower <= 2.0 * decide.tolerance(self._gain, self.bilinear) + rounded

    def expired(self) -> bool:
        """Whether the time of the sample is up, or the run was stopped."""
        return self.settings.stop.is_set() or (self._until is not None and time.monotonic() >= self._until)

    # -- members ----------------------------------------------------------------------------------

    def _member(self, program: Relational | Bilinear, point: Array, row: Array, polish: bool) -> float:
        """The value of `row` at the member that follows `point`; a worse member than any before is kept."""
        case = self.case
        recipe, witness = follow(case.family, program, x=case.x, label=case.label, point=point, row=row)
        value = float(row @ self._consider(recipe, witness))
        if polish and self.settings.early and self.attained > 0.0 and case.polish is not None and not self.bilinear:
            better = case.polish(recipe)
            value = min(value, float(row @ self._consider(better, better.witness())))
        return value

    def _consider(self, recipe: Recipe, witness: Witness) -> Array:
        """The outputs of a member; it is kept if it is the worst so far."""
        output: Array = witness.network.evaluate(witness.input[None])[0]
        if self._take_in(output):
            self.recipe = recipe
        return output

    def _take_in(self, output: Array) -> bool:
        """Take the margins of a member into `upper`; whether its worst is below all before."""
        margin = output[self.case.label] - output
        margin[self.case.label] = np.inf
        self.upper = np.minimum(self.upper, margin)
        before, self.attained = self.attained, min(self.attained, float(margin.min()))
        return self.attained < before

    # -- programs ---------------------------------------------------------------------------------

    def _check_size(self) -> None:
        """Raises _TooMuch if the program is too large for the memory, or would not be there before the time is up."""
        size = _PARTS * count_products(self.maps.family) if self.bilinear else count_coefficients(self.maps.family)
        memory, left = self.settings.memory, remaining(self._until)
        if memory is not None and size * _BYTES > memory:
            share = f"its share of the memory is {memory / 2**30:.2g}; more: --memory, fewer --jobs"
            raise _TooMuch(f"the program needs about {size * _BYTES / 2**30:.2g} GiB and {share}")
        if left is not None and size / _RATE > left:
            self._until = time.monotonic()
            raise _TooMuch(f"time limit: to set up the program alone takes about {size / _RATE:.1g} s")

    def _goes_on_bilinear(self) -> bool:
        """Switch to the bilinear program if that can say more, is small enough, and the solver wanted takes it."""
        if self.scope == "exact" or self.expired():
            return False
        products = count_products(self.maps.family)
        if products > BILINEAR_PRODUCTS:
            self.detail = f"open with positions taken as independent; {products} products are too many to go further"
            return False
        try:
            solvers.choose(self.settings.solver, True)
        except SolverError as error:
            self.detail = f"open with positions taken as independent; {error}"
            return False
        self.close()
        self._loaded.bilinear = True
        return True
