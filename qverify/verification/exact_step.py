"""The exact step on the undecided samples of a batch: one sample a thread, `jobs` at once, each with its own solver.

A sample has the time that the cheap stages left it, and its share of the memory; a solver works in a process of its own
(exact/solvers/process.py), so that whatever becomes of it ends one sample.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from qverify.bounds.accumulators import misfits
from qverify.budget import Deadline
from qverify.exact.decide import Ruling
from qverify.exact.search import Search, SearchedSample, SearchSettings
from qverify.exact.solvers.process import Lent, borrowed
from qverify.family.members import PositionChoice, Recipe
from qverify.verification.attack import Positions, attack
from qverify.verification.cascade import Cascade
from qverify.verification.undecided import Batch
from qverify.verification.verdict import Options, Status, Verdict

T = TypeVar("T")
_PROGRAMS = 0.6
"""Of the memory, that the programs of all samples under way take together, solvers included."""
_HOST = 64 << 20
"""Bytes that the process of a solver takes before it has a program (measured: 47 MiB)."""


def in_threads(
    options: Options, stop: threading.Event, work: Callable[[int], T | None], count: int, tell: Callable[[T], None]
) -> None:
    """Tell what `work(0)` to `work(count - 1)` return, in this thread and as it comes; None is passed over.

    A single worker is this thread itself.
    """
    if options.workers == 1:
        for position in range(count):
            if (result := work(position)) is not None:
                tell(result)
        return
    with ThreadPoolExecutor(options.workers) as pool:
        futures = [pool.submit(work, position) for position in range(count)]
        try:
            for future in as_completed(futures):
                if (result := future.result()) is not None:
                    tell(result)
        except BaseException:  # also Ctrl-C: end the solves under way, then let it through
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def program_memory(options: Options, memory: int) -> int:
    """Bytes for the program of one sample, of the `memory` for all at once."""
    return max(_HOST // 4, int(_PROGRAMS * memory / options.workers) - (_HOST if options.isolated else 0))


def solver_process(options: Options, memory: int) -> contextlib.AbstractContextManager[Lent | None]:
    """Where the solver of one sample works: another process, or here if the options say so."""
    if not options.isolated:
        return contextlib.nullcontext()
    return borrowed(program_memory(options, memory))


class ExactStep:
    """The exact step for the open samples of one batch."""

    def __init__(self, cascade: Cascade, batch: Batch):
        self.cascade, self.batch, self.options = cascade, batch, cascade.options

    def run(self, tell: Callable[[Verdict], None]) -> None:
        """Decide all that is open."""
        cascade, left = self.cascade, len(self.batch.open)

        def counted(verdict: Verdict) -> None:
            nonlocal left
            left -= 1
            cascade.where = f"exact: {left} open"
            tell(verdict)

        cascade.where = f"exact: {left} open"
        in_threads(self.options, cascade.stop, self._one, left, counted)

    def _one(self, position: int) -> Verdict | None:
        """The verdict on one open sample; None if the run was stopped before there was one."""
        cascade, batch, sample = self.cascade, self.batch, int(self.batch.open[position])
        if cascade.stop.is_set():
            return None
        seconds = self._seconds(sample)
        if seconds is not None and seconds <= 0.0:
            limit = self.options.seconds
            return batch.verdict(sample, Status.UNKNOWN, "exact", detail="time limit", limit=limit)
        with solver_process(self.options, cascade.memory) as lent:
            began = time.perf_counter()
            search = Search(cascade.maps, self._settings(seconds), self._case(position, seconds), lent)
            ruling = search.decide()
        early = self.options.method != "exact"
        if cascade.stop.is_set() and (ruling is Ruling.OPEN or not early):
            return None  # without `early` the sign may be settled and the value of the margin not
        batch.lower[sample], batch.best[sample] = search.lower, search.attained
        if search.recipe is not None:
            batch.recipes[sample] = search.recipe
        batch.seconds[sample] += time.perf_counter() - began
        cascade._check(batch, slice(position, position + 1))
        return self._verdict(position, search, ruling)

    def _verdict(self, position: int, search: Search, ruling: Ruling) -> Verdict:
        batch, sample = self.batch, int(self.batch.open[position])
        status = {Ruling.HOLDS: Status.VERIFIED, Ruling.BROKEN: Status.FALSIFIED}.get(ruling, Status.UNKNOWN)
        detail = search.detail if ruling is Ruling.OPEN else ""
        if status is Status.VERIFIED:
            (detail,) = misfits(self.cascade.model, batch.bounds.take(slice(position, position + 1)))
            status = Status.UNKNOWN if detail else status
        ended = search.expired() and (ruling is Ruling.OPEN or self.options.method == "exact")
        if ended and not detail:
            detail = "time limit: the worst margin is bounded, not found"
        limit = self.options.seconds if ended else None
        return batch.verdict(sample, status, "exact", scope=search.scope, detail=detail, limit=limit)

    def _seconds(self, sample: int) -> float | None:
        """What the cheap stages left of the sample's time."""
        limit = self.options.seconds
        return None if limit is None else limit - float(self.batch.seconds[sample])

    def _settings(self, seconds: float | None) -> SearchSettings:
        options = self.options
        return SearchSettings(
            solver=options.solver,
            formulation=options.formulation,
            seconds=seconds,
            early=options.method != "exact",
            stop=self.cascade.stop,
            memory=program_memory(options, self.cascade.memory),
        )

    def _case(self, position: int, seconds: float | None) -> SearchedSample:
        batch, model = self.batch, self.cascade.model
        sample = int(batch.open[position])
        x, label = batch.x[sample], int(batch.labels[sample])
        bounds, one = batch.bounds.sample(position), batch.bounds.take(slice(position, position + 1))
        family = self.cascade.own_family(batch.bounds, position)
        deadline = Deadline.after(seconds, self.cascade.stop)

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
