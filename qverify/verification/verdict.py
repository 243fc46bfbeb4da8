"""What verification is asked for (`Options`) and what it answers (`Verdict`)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.budget import LEAST
from qverify.choices import FORMULATIONS, SOLVER_CHOICES, VERIFY_METHODS
from qverify.errors import UsageError
from qverify.kinds import OPTIONS, expected, is_number, is_pair, is_word
from qverify.text.brief import Brief
from qverify.text.escapes import shown
from qverify.verification.row import Row, Status

if TYPE_CHECKING:
    from qverify.family.members import Recipe, Witness

__all__ = ["SEMANTICS", "Options", "Status", "Verdict"]

SEMANTICS = 5
"""Part of every question kept on disk. Raise it when a row no longer means what it meant, so that rows are computed
anew; 2: the exact step proves its bounds from duals, and underflow is allowed for; 3: programs are rounded outwards,
schemes tensor and channel stand for integer kernels and BatchNormalization kept apart, networks have another
hash; 5: schemes tensor and channel round at points, saturation and 0 exact."""


@dataclass(frozen=True)
class Options:
    """How to verify.

    `method`: `auto` goes from cheap to exact and stops at the first answer. `ibp` and `bp` prove by bounds
    alone. `exact` asks the solver about every sample and for the value of the worst margin, not only its sign.
    All of them search for a failing member first, unless `attack` is False: what is proved stays the same, and what
    `ibp` or `bp` leaves open is unknown. `formulation`, `solver`: of the exact step. `clip`: the quantised input stays
    in this interval. `seconds`: limit per sample for all stages together, None for none; stages that work on many
    samples at once have the sum of what these have left. `jobs`: samples the exact step works on at once, 0 for one
    a core. `device`: where bounds and attack run, as torch calls it. `memory`: bytes that the whole run may take,
    solvers included, None for half of the machine's. `isolated`: solvers work in processes of their own, so that one
    that crashes or hangs costs its sample and no more. Raises UsageError.
    """

    method: str = "auto"
    formulation: str = "relational"
    solver: str = "auto"
    clip: tuple[float, float] | None = None
    seconds: float | None = 300.0
    jobs: int = 0
    device: str = "cpu"
    attack: bool = True
    memory: int | None = None
    isolated: bool = True

    def __post_init__(self) -> None:
        choices = {"method": VERIFY_METHODS, "formulation": FORMULATIONS, "solver": SOLVER_CHOICES}
        for name, allowed in choices.items():
            if not is_word(getattr(self, name), allowed):
                raise UsageError(
                    f"There is no {name} {shown(getattr(self, name))}; choose one of: {', '.join(allowed)}."
                )
        if self.seconds is not None and not (is_number(self.seconds) and self.seconds > 0):
            raise UsageError(
                f"The time limit is {shown(self.seconds)} seconds; give a number above 0, or inf (None in Python) for"
                " no limit."
            )
        if not isinstance(self.jobs, int) or isinstance(self.jobs, bool) or self.jobs < 0:
            raise UsageError(f"The number of jobs is {shown(self.jobs)}; give 1 or more, or 0 for one a core.")
        if self.memory is not None and not (isinstance(self.memory, int) and self.memory >= LEAST):
            raise UsageError(
                f"The memory is {shown(self.memory)} bytes; give at least {LEAST} of them ({LEAST >> 20}M)."
            )
        if self.clip is not None and not is_pair(self.clip):
            raise UsageError(f"The range to clip inputs to is {shown(self.clip)}; give two numbers.")
        expected(self.device, str, "The device", "'cpu' or 'cuda'")
        for name in ("attack", "isolated"):
            expected(getattr(self, name), bool, name, "True or False")

    @staticmethod
    def given(options: Options | None, default: Options | None = None) -> Options:
        """The options that a function was called with, its default for None. Raises UsageError for anything else."""
        expected(options, (Options, type(None)), "options", OPTIONS)
        return options or default or Options()

    @property
    def workers(self) -> int:
        """The number of samples at once that `jobs` means here."""
        if self.jobs:
            return self.jobs
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Verdict(Brief):
    """The answer for one sample.

    `margin_lower`: proved lower bound on the worst margin over the family (-inf if there is none); `margin_upper`: the
    margin of a concrete member. `method` decided, one of `choices.STAGES`. `scope`: of the
    exact step, `exact`, or `independent positions` where kernels are shared, or `relaxed products` of branches (both
    sound, and cannot falsify), else empty.
    `detail`: why it is unknown. `seconds`: its share of batched steps plus its own exact step. `limit`: the time limit,
    in seconds, that ended its exact step, None if none did.
    """

    index: int
    label: int
    predicted: int
    status: Status
    margin_lower: float
    margin_upper: float
    method: str
    seconds: float
    scope: str = ""
    detail: str = ""
    limit: float | None = None
    recipe: Recipe | None = None

    def witness(self) -> Witness | None:
        """The worst member known, made anew: for `falsified` one that fails; None if only `f` itself was evaluated."""
        return None if self.recipe is None else self.recipe.witness()

    def row(self) -> Row:
        """The row that `samples.jsonl` keeps of it."""
        return Row(
            index=self.index,
            label=self.label,
            predicted=self.predicted,
            status=self.status,
            margin_lower=self.margin_lower if math.isfinite(self.margin_lower) else None,
            margin_upper=self.margin_upper if math.isfinite(self.margin_upper) else None,
            method=self.method,
            seconds=round(self.seconds, 6),
            scope=self.scope,
            detail=self.detail,
            limit=self.limit or None,
            grid=self._grid(),
        )

    def _grid(self) -> str:
        """Whether the failing member is what some quantiser makes to the last number: its grid is known, and it lies on
        it."""
        if self.status is not Status.FALSIFIED or self.recipe is None or not self.recipe.family.points:
            return ""
        family = self.recipe.family
        known = all((point.step > 0).all() for point in family.points.values())
        return "on" if known and not family.weight and not family.input.any() else "off"
