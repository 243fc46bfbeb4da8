"""Verification from cheap to exact: each sample goes as far as it must (mathematics.md, sections 1 to 5).

    forward      the trained network itself: misclassified, or a first concrete margin
    ibp          interval bounds on the margins
    attack       descent to a member that fails; what it finds is evaluated afresh before it counts
    bp           backward bounds with the intervals of IBP
    bp-layers    backward bounds at every layer, which also leaves few binaries for
    exact        programs and a solver, one sample at a time in `jobs` threads

Where radii stand for integer kernels (schemes `tensor` and `channel`), a sample whose margins are positive is verified
only if no accumulator can overflow on it (kernels.py); else it is unknown, and its detail names the layer.

Every stage adds to two arrays a sample, the margins proved and the margins attained; should they ever cross,
something is broken and InternalError is raised. All stages together obey one time limit a sample: work on a batch has
the time that is left to its open samples, is cut off between two pieces, and hands on what it has (budget.py).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qverify.arrays import Array
from qverify.bounds.accumulators import misfits
from qverify.bounds.backward import backward_margins, tightened_bounds
from qverify.bounds.interval import OutOfTime, interval_bounds, interval_margins
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.budget import Deadline, pieces, working_memory
from qverify.errors import DataError
from qverify.exact.decide import Known, rule
from qverify.exact.gain import gain
from qverify.exact.relational import Maps
from qverify.family.family import Family, Radii
from qverify.kinds import NETWORK, OPTIONS, expected
from qverify.layers import Conv, Dense
from qverify.network import Network, margins
from qverify.verification import hints
from qverify.verification.arguments import callbacks, checked, usable_device
from qverify.verification.attack import attack
from qverify.verification.undecided import Batch
from qverify.verification.verdict import Options, Status, Verdict

_CHUNK = 1024
_TOGETHER = 64
"""Samples whose layers are refined together by BP; what they prove is told before the next ones."""
_TEMPORARY = 0.35
"""Of the memory, that temporary tensors of one piece of work take; programs and solvers have the rest."""
_SMALL = 5_000_000
"""Weights times positions up to which the layers are at hand as matrices without a second thought."""


def verify(
    network: Network,
    x: Any,
    y: Any,
    radii: Radii,
    options: Options | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Verdict]:
    """Decide for every sample whether all members of the quantised family answer right.

    x (N, *input_shape) or (N, n_in), y (N,) integers. `on_verdict` is called in this thread as soon as
    a sample is decided, in any order; the list is in the order of the samples. Setting `stop` from another thread
    ends the run soon, and the list then holds what was decided.

    `verified` is proved up to the trust in the solver's bound (decide.py); `falsified` comes with a member that a
    plain float64 forward pass misclassifies. What a person should know before believing it, such as data in wrong
    units, is a QVerifyWarning. Raises DataError, RadiiError, UsageError, SolverError, InternalError.
    """
    options = Options.given(options)
    callbacks(stop, on_verdict=on_verdict)
    flat, labels = checked(network, x, y)
    hints.remark_on(network, radii, flat, labels)
    return verdicts(network, flat, labels, radii, options, on_verdict, stop)


def verdicts(
    network: Network,
    x: Any,
    y: Any,
    radii: Radii,
    options: Options,
    on_verdict: Callable[[Verdict], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Verdict]:
    """What `verify` gives, without its remarks: for whoever asks about the same data many times."""
    flat, labels = checked(network, x, y)
    cascade = Cascade(network, radii, options, stop)
    found: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        found.append(verdict)
        if on_verdict is not None:
            on_verdict(verdict)

    cascade.run(flat, labels, tell)
    return sorted(found, key=lambda verdict: verdict.index)


def _held(network: Network) -> int:
    """Bytes that a family and its bounds take for as long as they live, and while they are made (measured)."""
    sizes = [layer.weight.size for layer in network.layers if isinstance(layer, (Dense, Conv))]
    return 40 * sum(sizes) + 32 * max(sizes, default=0)


class Cascade:
    """All stages for one family; `run` takes samples through them. `where` says what is being done, for people."""

    def __init__(self, network: Network, radii: Radii, options: Options, stop: threading.Event | None = None):
        expected(options, Options, "options", OPTIONS)
        expected(network, Network, "The network", NETWORK)
        self.network, self.options = network, options
        self.memory = working_memory(options.memory, _held(network))
        self.family = Family.of(network, radii, options.clip)
        self.model = BoundModel.of(self.family, usable_device(options.device), int(_TEMPORARY * self.memory))
        self.stop = stop or threading.Event()
        self.maps = Maps(self.family)
        self.where = ""

    @property
    def chunk(self) -> int:
        """Samples taken through the stages together."""
        sizes = sum(layer.size for layer in self.network.layers)
        return min(_CHUNK, pieces(16 * sizes, 8 * self.model.operations, self.model.memory))

    def run(self, x: Array, labels: Array, tell: Callable[[Verdict], None]) -> None:
        """Decide all samples; x (N, n_in), labels (N,)."""
        step = self.chunk
        for start in range(0, len(x), step):
            if not self.stop.is_set():
                self.exact(self.bounded(start, x[start : start + step], labels[start : start + step], tell), tell)

    def bounded(
        self, start: int, x: Array, labels: Array, tell: Callable[[Verdict], None], spent: float = 0.0
    ) -> Batch:
        """Every stage but the exact step on one chunk; the batch returned holds the undecided samples.

        `spent`: seconds that each of the samples took before.
        """
        batch = self._forward(start, (x, labels, np.full(len(x), spent)), tell)
        try:
            self._bounds(batch, tell)
        except OutOfTime:
            if not self.stop.is_set():
                batch.cut = True
                self._give_up(batch, tell, "ibp", "time limit: not even interval bounds could be computed")
            batch.open = batch.open[:0]
        return batch

    def exact(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """The exact step on the undecided samples."""
        from qverify.verification.exact_step import ExactStep

        ExactStep(self, batch).run(tell)

    def deadline(self, batch: Batch) -> Deadline:
        """When a stage on this batch has to end."""
        return Deadline.after(batch.left(self.options.seconds), self.stop)

    def _decide(self, batch: Batch, mask: Any, tell: Callable[[Verdict], None], what: tuple[Status, str]) -> None:
        """Report the open samples where `mask` holds, and go on with the others."""
        for sample in batch.open[mask]:
            tell(batch.verdict(int(sample), *what))
        batch.keep(~mask)

    def _proved(self, batch: Batch, mask: Any, tell: Callable[[Verdict], None], stage: str) -> None:
        """Report the open samples where `mask` holds, whose margins are positive: verified if integer kernels agree."""
        positions = np.flatnonzero(mask)
        chosen = torch.as_tensor(positions, device=self.model.device)
        for position, reason in zip(positions, misfits(self.model, batch.bounds.take(chosen)), strict=True):
            status = Status.UNKNOWN if reason else Status.VERIFIED
            tell(batch.verdict(int(batch.open[position]), status, stage, detail=reason))
        batch.keep(~mask)

    def _give_up(self, batch: Batch, tell: Callable[[Verdict], None], stage: str, detail: str) -> None:
        """Report all open samples as unknown."""
        limit = self.options.seconds if batch.cut else None
        for sample in batch.open:
            tell(batch.verdict(int(sample), Status.UNKNOWN, stage, detail=detail, limit=limit))
        if batch.bounds is not None:
            batch.keep(np.zeros(len(batch.open), dtype=bool))

    # -- stages -----------------------------------------------------------------------------------

    def _forward(self, start: int, samples: tuple[Array, Array, Array], tell: Callable[[Verdict], None]) -> Batch:
        """`samples`: x, labels, seconds."""
        began, (x, labels, seconds) = time.perf_counter(), samples
        outputs, count = self.network.evaluate(x), np.arange(len(x))
        lower = np.full(outputs.shape, -np.inf)
        lower[count, labels] = np.inf
        best = margins(outputs, labels)
        if not np.isfinite(outputs).all():
            raise DataError("The network's outputs overflow on these samples; check the scale of the data.")
        batch = Batch(start, x, labels, outputs.argmax(1), lower, best, seconds, count)
        batch.spent(began)
        self._decide(batch, best <= 0, tell, (Status.MISCLASSIFIED, "forward"))
        return batch

    def _bounds(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """IBP, attack, BP, BP at every layer on what is open; leaves the tightest bounds in `batch.bounds`."""
        method = self.options.method
        self._stage(batch, tell, "ibp", self._interval)
        if batch.bounds is None and len(batch.open):  # the time was up before it began
            raise OutOfTime
        if self.options.attack:
            self._attack(batch, tell)
        if method != "ibp":
            self._stage(batch, tell, "bp", self._backward)
        if method not in ("ibp", "bp") and len(batch.open):
            parts = batch.parts(_TOGETHER)
            for part in parts:
                self._stage(part, tell, "bp-layers", self._layers)
            batch.join(parts)
        if method in ("ibp", "bp") and not self.stop.is_set():
            sought = "found" if self.options.attack else "looked for"
            little = f"{method.upper()} proves too little and no failing member was {sought}"
            reason = "time limit" if batch.cut else f"{little}; --method auto decides more"
            self._give_up(batch, tell, method, reason)

    def _stage(
        self, batch: Batch, tell: Callable[[Verdict], None], name: str, stage: Callable[[Batch, Deadline], Tensor]
    ) -> None:
        """One kind of bounds on the margins of the open samples, and what it decides."""
        deadline = self._begun(batch, name)
        if deadline is None:
            return
        began = time.perf_counter()
        try:
            proved = stage(batch, deadline).cpu().numpy()
        finally:
            batch.spent(began)
        batch.lower[batch.open] = np.maximum(batch.lower[batch.open], proved)
        batch.cut = batch.cut or deadline.left <= 0.0
        self._check(batch)
        if self.options.method != "exact":
            self._proved(batch, (batch.lower[batch.open] > 0).all(1), tell, name)

    def _begun(self, batch: Batch, name: str) -> Deadline | None:
        """The deadline of a stage that begins now; None if there is nothing to do, or no time to do it in."""
        self.where = f"{name}: {len(batch.open)} open"
        deadline = self.deadline(batch)
        return None if not len(batch.open) or deadline.passed() else deadline

    def _labels(self, batch: Batch) -> Tensor:
        return torch.as_tensor(batch.labels[batch.open], device=self.model.device)

    def _interval(self, batch: Batch, deadline: Deadline) -> Tensor:
        batch.bounds = self.intervals(batch.x[batch.open], deadline)
        return interval_margins(self.model, batch.bounds, self._labels(batch))

    def intervals(self, x: Array, deadline: Deadline | None = None) -> Bounds:
        """IBP on every layer for samples x (N, n_in). Raises OutOfTime."""
        low, high = self.family.box(x)
        return interval_bounds(self.model, self.model.tensor(low), self.model.tensor(high), deadline)

    def _backward(self, batch: Batch, deadline: Deadline) -> Tensor:
        return backward_margins(self.model, batch.bounds, self._labels(batch), deadline)

    def _layers(self, batch: Batch, deadline: Deadline) -> Tensor:
        batch.bounds = tightened_bounds(self.model, batch.bounds, deadline)
        return self._backward(batch, deadline)

    def _attack(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """Descend; what seems to fail is made and evaluated afresh, the rest keeps its recipe for later."""
        deadline = self._begun(batch, "attack")
        if deadline is None:
            return
        began = time.perf_counter()
        rivals = self.model.tensor(batch.lower[batch.open])
        found = attack(self.model, batch.bounds, self._labels(batch), rivals, deadline=deadline)
        margin = found.margin.cpu().numpy()
        for position in np.flatnonzero(margin < batch.best[batch.open]).tolist():
            if self.stop.is_set():
                return
            sample = int(batch.open[position])
            recipe = found.recipe(
                self.own_family(batch.bounds, position), batch.x[sample], int(batch.labels[sample]), position
            )
            batch.recipes[sample] = recipe
            batch.best[sample] = margin[position] if margin[position] > 0 else recipe.witness().margin
        self._check(batch)
        batch.spent(began)
        batch.cut = batch.cut or deadline.left <= 0.0
        self._decide(batch, batch.best[batch.open] <= 0, tell, (Status.FALSIFIED, "attack"))

    def _check(self, batch: Batch, positions: slice = slice(None)) -> None:
        """Raise InternalError if a member of an open sample lies below a bound that was proved."""
        chosen = batch.open[positions]
        crossing = batch.lower[chosen].min(1) > batch.best[chosen]
        for position in np.arange(len(batch.open))[positions][crossing].tolist():
            sample = int(batch.open[position])
            worst = int(batch.lower[sample].argmin())
            row = np.zeros(batch.lower.shape[1])
            row[batch.labels[sample]], row[worst] = 1.0, -1.0
            known = Known(lower=float(batch.lower[sample, worst]), upper=float(batch.best[sample]))
            scale = math.inf
            if self.model.operations <= _SMALL:
                scale = gain(self.maps, batch.bounds.sample(position), row).magnitudes
            rule(known, scale)

    def own_family(self, bounds: Bounds, position: int) -> Family:
        """The family of the sample at `position` of `bounds`: its own activation radii where the scheme clips."""
        if not self.family.per_sample:
            return self.family
        return self.family.with_activation(bounds.sample(position).activation)
