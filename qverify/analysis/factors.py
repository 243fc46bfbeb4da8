"""The largest factor on given radii at which a sample is still verified, by bisection (mathematics.md, section 12).

The families of growing factors are nested: each holds those of smaller factors. So a proof at one factor counts for
every smaller one, and a member that fails at one factor lies in the family of every larger one. That stays so with
`--clip-input` and where a scheme clips: the ranges stay as they are, and the excess above them grows with the bounds.

Factors are taken from one grid for all samples, so that samples at the same factor are verified in one batch and
each family is built once a stage. Four stages, each going on where those before it ended:

    ibp, bp    bisection by what is proved; attack: by what a failing member is found for
    exact      all of `verify` between the two

Nothing is interpolated: `lower` is a factor at which `verify` said verified, `upper` one at which it said falsified.
Where a method is not monotone, or a time limit ends it, the bracket is wider than it could be, never wrong.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.analysis.grid import Bracket, Grid
from qverify.budget import part_of
from qverify.choices import FACTOR_METHODS
from qverify.errors import InternalError, RadiiError, UsageError
from qverify.family.family import Family
from qverify.kinds import expected
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.arguments import checked, checked_question
from qverify.verification.cascade import verdicts
from qverify.verification.threads import as_they_come
from qverify.verification.verdict import Options, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network

_CHUNK = 1024
_COARSE = 3
"""Exponent of the coarsest bracket of IBP where BP follows: it stops 2^3 places of the grid apart, since BP moves its
bracket anyway, and 2^3 times fewer families are built."""

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False, repr=False)
class _Stage(Brief):
    """One round of bisection: by what is proved, or by what an attack breaks. Places 2^finest apart are told apart."""

    name: str
    options: Options
    finest: int = 0

    def upwards(self, status: Status) -> bool:
        """The bisection goes on above a factor of this status. An unknown is no proof, and no failing member either."""
        return status is not Status.FALSIFIED if self.name == "attack" else status is Status.VERIFIED


class _Chunk:
    """Samples that go through the stages together. Arrays are (N,), and hold places as in `Grid`.

    `proved`, `broken`: the ends of the brackets. `low`, `high`: those of the bisection under way, between which
    it still has to ask. `told`: the samples whose bracket was handed over.
    """

    def __init__(self, start: int, x: Array, y: IntArray, beyond: int):
        self.start, self.x, self.y = start, x, y
        self.proved, self.broken = np.zeros(len(x), np.int64), np.full(len(x), beyond, np.int64)
        self.predicted, self.seconds, self.told = np.zeros(len(x), np.int64), np.zeros(len(x)), np.zeros(len(x), bool)
        self.proved_by, self.broken_by, self.detail = [""] * len(x), [""] * len(x), [""] * len(x)
        self.begin()

    def begin(self) -> None:
        """A new bisection, between the ends of the brackets."""
        self.low, self.high = self.proved.copy(), self.broken.copy()

    @property
    def done(self) -> Any:
        """(N,): the ends of the bisection under way are neighbours."""
        return self.high - self.low <= 1

    def hear(self, sample: int, place: int, verdict: Verdict, stage: _Stage) -> None:
        """Narrow the bracket of one sample by its verdict at one place. Raises InternalError where these contradict."""
        self.predicted[sample] = verdict.predicted
        self.seconds[sample] += verdict.seconds
        if stage.upwards(verdict.status):
            self.low[sample] = place
        else:
            self.high[sample] = place
        if verdict.status is Status.VERIFIED:
            self.proved[sample], self.proved_by[sample] = place, verdict.method
        elif verdict.status is Status.FALSIFIED:
            self.broken[sample], self.broken_by[sample] = place, verdict.method
        elif verdict.status is Status.MISCLASSIFIED:  # the network itself fails, and is a member at factor 0
            self.broken[sample] = self.high[sample] = 1
            self.low[sample], self.broken_by[sample] = 0, verdict.method
        elif stage.name == "exact":
            self.detail[sample] = verdict.detail
        if self.proved[sample] >= self.broken[sample]:
            raise InternalError(
                f"Sample {self.start + sample} is proved at a factor, and a member fails at one that is no larger."
                " Please report this with the model and the sample; nothing of this run may be trusted."
            )

    def bracket(self, sample: int, grid: Grid) -> Bracket:
        """The bracket of one sample as it is now."""
        low, high = int(self.proved[sample]), int(self.broken[sample])
        return Bracket(
            index=self.start + sample,
            label=int(self.y[sample]),
            predicted=int(self.predicted[sample]),
            lower=grid.at(low),
            upper=grid.at(high),
            proved_by=self.proved_by[sample],
            broken_by=self.broken_by[sample],
            detail=self.detail[sample] if high - low > 1 else "",
            seconds=round(float(self.seconds[sample]), 6),
        )


class FactorSearch:
    """Bisection for one network and one set of radii; `run` takes samples through it.

    `options`: those of `verify`, method `ibp`, `bp` or `auto`. Without `options.attack` nothing is looked for that
    fails, and `upper` is known only where the exact step finds it. `seconds` limits the exact step at one factor.
    `where` says how far the work is, for people. At most as many families are in memory as `options.workers`, and
    one where no solver is asked. Raises RadiiError if all radii are 0 or do not fit, UsageError for another method.
    """

    def __init__(
        self, network: Network, radii: Radii, grid: Grid, options: Options, stop: threading.Event | None = None
    ):
        checked_question(network, radii, options, stop)
        expected(grid, Grid, "The grid", "qverify.analysis.grid.Grid()")
        if options.method not in FACTOR_METHODS:
            offered = ", ".join(FACTOR_METHODS)
            raise UsageError(f"Factors are not searched by method {options.method!r}; choose {offered}.")
        with np.errstate(over="ignore"):  # Family refuses what is not finite
            largest = Family.of(network, radii.scaled(grid.max_factor), options.clip).largest()
        if not any(largest.values()):
            raise RadiiError("All radii are 0, and so is every multiple of them; state radii above 0.")
        self.network, self.radii, self.grid, self.options = network, radii, grid, options
        self.stop = stop or threading.Event()
        self.where = ""

    @property
    def stages(self) -> list[_Stage]:
        """The rounds of bisection, in order."""
        options, cheap = self.options, replace(self.options, method="ibp")
        stages = [_Stage("ibp", replace(cheap, attack=False), 0 if options.method == "ibp" else _COARSE)]
        if options.method != "ibp":
            stages.append(_Stage("bp", replace(cheap, method="bp", attack=False)))
        if options.attack:
            stages.append(_Stage("attack", replace(cheap, attack=True)))
        if options.method == "auto":
            stages.append(_Stage("exact", options))
        return stages

    def run(self, x: Any, y: Any, tell: Callable[[Bracket], None], tick: Callable[[], None] = lambda: None) -> None:
        """Tell the bracket of every sample as soon as it is known, in this thread and in any order.

        x (N, *input_shape) or (N, n_in), y (N,) integers. Setting `stop` ends it soon, and brackets that were not
        finished are not told. `tick` is called now and then. Raises what `verify` raises.
        """
        flat, labels = checked(self.network, x, y)
        for start in range(0, len(flat), _CHUNK):
            end = min(start + _CHUNK, len(flat))
            chunk = _Chunk(start, flat[start:end], labels[start:end], self.grid.beyond)
            for number, stage in enumerate(self.stages, start=1):
                last = number == len(self.stages)
                self.where = f"samples {start} to {end - 1}, {stage.name} (stage {number} of {len(self.stages)})"
                self._bisect(chunk, stage, tell if last else None, tick)
                if self.stop.is_set():
                    return

    def _bisect(
        self, chunk: _Chunk, stage: _Stage, tell: Callable[[Bracket], None] | None, tick: Callable[[], None]
    ) -> None:
        """One stage. Level by level, each sample is verified at the multiple of 2^level strictly inside its interval,
        if any.

        At each level that is at most one, since a multiple of twice as much lay between two of them. So all samples
        meet at the same places, and each place is visited once.
        """
        chunk.begin()
        self._hand_over(chunk, tell)
        for level in range(self.grid.halvings, stage.finest - 1, -1):
            places = ((chunk.low >> level) + 1) << level
            asked = places < chunk.high
            groups = [(int(p), np.flatnonzero(asked & (places == p))) for p in np.unique(places[asked])]
            with contextlib.closing(self._verified(chunk, stage, groups)) as found:
                for place, samples, verdicts in found:
                    for verdict in verdicts:
                        chunk.hear(int(samples[verdict.index]), place, verdict, stage)
                    self._hand_over(chunk, tell)
                    tick()
            if self.stop.is_set():
                return

    def _hand_over(self, chunk: _Chunk, tell: Callable[[Bracket], None] | None) -> None:
        """Tell the brackets that the last stage completed and that were not told before."""
        for sample in np.flatnonzero(chunk.done & ~chunk.told) if tell is not None else ():
            chunk.told[sample] = True
            if tell is not None:
                tell(chunk.bracket(int(sample), self.grid))

    def _verified(
        self, chunk: _Chunk, stage: _Stage, groups: list[tuple[int, Any]]
    ) -> Generator[tuple[int, Any, list[Verdict]], None, None]:
        """The verdicts of each group of samples at its place; several groups at once where solvers work."""
        workers = min(self.options.workers if stage.name == "exact" else 1, len(groups))
        options = replace(stage.options, jobs=max(1, self.options.workers // max(1, workers)))
        if workers > 1:
            options = replace(options, memory=part_of(options.memory, workers))

        def work(group: tuple[int, Any]) -> list[Verdict]:
            place, samples = group
            radii = self.radii.scaled(self.grid.factors[place - 1])
            found = verdicts(self.network, chunk.x[samples], chunk.y[samples], radii, options, None, self.stop)
            return [replace(verdict, recipe=None) for verdict in found]  # a recipe holds on to its whole family

        with contextlib.closing(as_they_come(work, groups, workers, self.stop)) as results:
            yield from ((*group, found) for group, found in results)


def largest_factors(
    network: Network, x: Any, y: Any, radii: Radii, grid: Grid | None = None, options: Options | None = None
) -> list[Bracket]:
    """The brackets of all samples, in their order; see `FactorSearch` and its `run`.

    Sound: every member of the family of `radii.scaled(bracket.lower)` classifies the sample right, up to the trust in
    the solver's bound where `proved_by` is exact. At `bracket.upper` a concrete member was evaluated and fails.
    """
    found: list[Bracket] = []
    search = FactorSearch(network, radii, Grid() if grid is None else grid, Options.given(options))
    flat, labels = checked(network, x, y)
    hints.remark_on(network, radii, flat, labels)
    search.run(flat, labels, found.append)
    return sorted(found, key=lambda bracket: bracket.index)
