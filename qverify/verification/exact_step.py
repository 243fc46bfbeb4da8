"""The exact step on the undecided samples of a batch: one sample a thread, `jobs` at once, each with its own solver.

A sample has the time that the cheap stages left it, and its share of the memory; a solver works in a process of its own
(exact/solvers/process.py), so that whatever becomes of it ends one sample.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from qverify.bounds.accumulators import misfits
from qverify.bounds.losses import loosest, told
from qverify.errors import SolverError
from qverify.exact.decide import Ruling
from qverify.exact.search import Search, SearchedSample, SearchSettings
from qverify.family.members import PositionChoice, Recipe
from qverify.moved import former_names
from qverify.verification.attack import attack
from qverify.verification.contradictions import refuse_contradiction
from qverify.verification.positions import Positions
from qverify.verification.verdict import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.verification.setup import Setup
    from qverify.verification.undecided import Batch

__getattr__ = former_names(
    __name__,
    {
        "in_threads": "qverify.verification.threads:in_threads",
        "program_memory": "qverify.verification.setup:program_memory",
        "solver_process": "qverify.verification.setup:solver_process",
    },
)


class ExactStep:
    """The exact step for the open samples of one batch. `trial`: seconds a sample of one in the middle of other stages,
    which says nothing of what it leaves open, or of solvers that do not work: they may not be needed."""

    def __init__(self, setup: Setup, batch: Batch, trial: float | None = None):
        self.setup, self.batch, self.options, self._trial = setup, batch, setup.options, trial

    def run(self, tell: Callable[[Verdict], None], say: Callable[[str], None] = lambda where: None) -> None:
        """Tell the verdicts on all open samples, in this thread and in any order; `say` hears how many are left."""
        left = len(self.batch.open)

        def counted(verdict: Verdict) -> None:
            nonlocal left
            left -= 1
            say(f"exact: {left} open")
            tell(verdict)

        say(f"exact: {left} open")
        self.setup.in_threads(self._one, left, counted)

    def _one(self, position: int) -> Verdict | None:
        """The verdict on one open sample; None if there is none: the run was stopped before, or a trial found none."""
        setup, batch, sample = self.setup, self.batch, int(self.batch.open[position])
        if setup.stop.is_set():
            return None
        seconds = self._seconds(sample)
        if seconds is not None and seconds <= 0.0:
            limit = self.options.seconds
            return batch.verdict(sample, Status.UNKNOWN, "exact", detail="time limit", limit=limit)
        with setup.solver_process() as lent:
            began = time.perf_counter()
            search = Search(setup.maps, self._settings(seconds), self._case(position, seconds), lent)
            try:
                ruling = search.decide()
            except SolverError:
                if self._trial is None:
                    raise
                return None
        early = self.options.method != "exact"
        if setup.stop.is_set() and (ruling is Ruling.OPEN or not early):
            return None  # without `early` the sign may be settled and the value of the margin not
        batch.lower[sample], batch.attained[sample] = search.lower, search.attained
        if search.recipe is not None:
            batch.recipes[sample] = search.recipe
        batch.seconds[sample] += time.perf_counter() - began
        refuse_contradiction(setup, batch, position)
        if self._trial is not None and ruling is Ruling.OPEN:
            return None
        return self._verdict(position, search, ruling)

    def _verdict(self, position: int, search: Search, ruling: Ruling) -> Verdict:
        batch, sample = self.batch, int(self.batch.open[position])
        status = {Ruling.HOLDS: Status.VERIFIED, Ruling.BROKEN: Status.FALSIFIED}.get(ruling, Status.UNKNOWN)
        detail = search.detail if ruling is Ruling.OPEN else ""
        if status is Status.VERIFIED:
            (detail,) = misfits(self.setup.model, batch.bounds.take(slice(position, position + 1)))
            status = Status.UNKNOWN if detail else status
        ended = search.expired() and (ruling is Ruling.OPEN or self.options.method == "exact")
        if ended and not detail:
            detail = "time limit: the worst margin is bounded, not found"
        limit = self.options.seconds if ended else None
        if ruling is Ruling.OPEN:
            detail = told(detail, self._loosest(position))
        return batch.verdict(sample, status, "exact", scope=search.scope, detail=detail, limit=limit)

    def _loosest(self, position: int) -> str:
        """The layer whose lines lose most on one open sample; see `losses.loosest`."""
        batch, model, sample = self.batch, self.setup.model, int(self.batch.open[position])
        labels = torch.as_tensor([batch.labels[sample]], device=model.device)
        bounds = batch.bounds.take(slice(position, position + 1))
        return loosest(model, bounds, labels, model.tensor(batch.lower[[sample]]))[0]

    def _seconds(self, sample: int) -> float | None:
        """Seconds that the cheap stages left to a sample; None for no limit."""
        limit = self.options.seconds
        left = None if limit is None else limit - float(self.batch.seconds[sample])
        return min((s for s in (left, self._trial) if s is not None), default=None)

    def _settings(self, seconds: float | None) -> SearchSettings:
        options = self.options
        return SearchSettings(
            solver=options.solver,
            formulation=options.formulation,
            seconds=seconds,
            early=options.method != "exact",
            stop=self.setup.stop,
            memory=self.setup.program_memory,
        )

    def _case(self, position: int, seconds: float | None) -> SearchedSample:
        batch, model = self.batch, self.setup.model
        sample = int(batch.open[position])
        x, label = batch.x[sample], int(batch.labels[sample])
        bounds, one = batch.bounds.sample(position), batch.bounds.take(slice(position, position + 1))
        family = self.setup.own_family(batch.bounds, position)
        deadline = self.setup.deadline(seconds)

        def polish(recipe: Recipe) -> Recipe:
            if not isinstance(recipe.choice, PositionChoice):
                return recipe
            start = Positions.of(model, recipe.choice, recipe.x_hat, one)
            labels = torch.as_tensor([label], device=model.device)
            found = attack(model, one, labels, model.tensor(batch.lower[[sample]]), start, deadline)
            return found.recipe(family, x, label, 0) if bool(found.margin.isfinite().all()) else recipe

        return SearchedSample(
            family=family,
            x=x,
            label=label,
            bounds=bounds,
            lower=batch.lower[sample],
            recipe=batch.recipes.get(sample),
            polish=polish,
        )
