"""Verification from cheap to exact: each sample goes as far as it must (design.md, sections 1 to 5).

    forward      the trained network itself: misclassified, or a first concrete margin
    ibp          interval bounds on the margins
    attack       descent to a member that fails; what it finds is evaluated afresh before it counts
    bp           backward bounds with the intervals of IBP
    bp-layers    backward bounds at every layer, which also leaves few binaries for
    exact        programs and a solver, one sample at a time in `jobs` threads

Where radii stand for integer kernels (schemes `tensor` and `channel`), a sample whose margins are positive is verified
only if no accumulator can overflow on it (kernels.py); else it is unknown, and its detail names the layer.

Every stage adds to two arrays a sample, the margins proved and the margins attained; should they ever cross,
something is broken and InternalError is raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from qverify.arguments import checked, usable_device
from qverify.attack import PositionChoice, Positions, attack
from qverify.bounds.accumulators import misfits
from qverify.bounds.backward import backward_margins, tightened_bounds
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.model import MEMORY_CAP, BoundModel, Bounds
from qverify.errors import DataError
from qverify.exact.decide import Known, Ruling, rule
from qverify.exact.relational import Maps, SampleBounds
from qverify.exact.scaling import gain
from qverify.exact.search import Case, Search, Settings
from qverify.members import Recipe
from qverify.network import Array, Network, margins
from qverify.quantisation import Family, Radii
from qverify.verdict import Options, Status, Verdict

_CHUNK = 1024
T = TypeVar("T")


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
    plain float64 forward pass misclassifies. Raises DataError, RadiiError, UsageError, SolverError, InternalError.
    """
    options = options or Options()
    flat, labels = checked(network, x, y)
    cascade = Cascade(network, radii, options, stop)
    found: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        found.append(verdict)
        if on_verdict is not None:
            on_verdict(verdict)

    cascade.run(flat, labels, tell)
    return sorted(found, key=lambda verdict: verdict.index)


def sample_bounds(bounds: Bounds, sample: int) -> SampleBounds:
    """One sample's bounds as numpy."""

    def numpy(tensor: torch.Tensor) -> Array:
        return np.asarray(tensor.detach().cpu().numpy())

    activation = {i: numpy(r if r.ndim == 1 else r[sample]) for i, r in bounds.activation.items()}
    return SampleBounds([numpy(t[sample]) for t in bounds.lower], [numpy(t[sample]) for t in bounds.upper], activation)


@dataclass(eq=False)
class Batch:
    """Samples on their way through the cascade.

    `lower` (N, classes): margins proved, +inf in the label's own column. `best` (N,): the worst margin attained, by
    the member of `recipes`, or by the network itself where there is none. `open`: positions of the undecided
    samples; `bounds`: on these, in this order.
    """

    start: int
    x: Array
    labels: Array
    predicted: Array
    lower: Array
    best: Array
    seconds: Array
    open: Any
    recipes: dict[int, Recipe] = field(default_factory=dict)
    bounds: Any = None

    def keep(self, mask: Any) -> None:
        """Go on with the open samples where `mask` holds."""
        self.open = self.open[mask]
        if self.bounds is not None:
            self.bounds = self.bounds.take(torch.as_tensor(np.flatnonzero(mask), device=self.bounds.lower[0].device))

    def spent(self, began: float) -> None:
        """Share the time since `began` among the open samples."""
        self.seconds[self.open] += (time.perf_counter() - began) / max(1, len(self.open))

    def verdict(self, sample: int, status: Status, method: str, **more: Any) -> Verdict:
        return Verdict(
            self.start + sample,
            int(self.labels[sample]),
            int(self.predicted[sample]),
            status,
            float(self.lower[sample].min()),
            float(self.best[sample]),
            method,
            float(self.seconds[sample]),
            recipe=self.recipes.get(sample),
            **more,
        )


class Cascade:
    """All stages for one family; `run` takes samples through them."""

    def __init__(self, network: Network, radii: Radii, options: Options, stop: threading.Event | None = None):
        self.network, self.options = network, options
        self.family = Family.of(network, radii, options.clip)
        self.model = BoundModel.of(self.family, usable_device(options.device))
        self.stop = stop or threading.Event()
        self.maps = Maps(self.family)

    @property
    def chunk(self) -> int:
        """Samples taken through the stages together: bounds on all layers stay well below the memory cap."""
        return max(1, min(_CHUNK, MEMORY_CAP // (8 * 16 * sum(layer.size for layer in self.network.layers))))

    def run(self, x: Array, labels: Array, tell: Callable[[Verdict], None]) -> None:
        """Decide all samples; x (N, n_in), labels (N,)."""
        step = self.chunk
        for start in range(0, len(x), step):
            if not self.stop.is_set():
                self.exact(self.bounded(start, x[start : start + step], labels[start : start + step], tell), tell)

    def bounded(self, start: int, x: Array, labels: Array, tell: Callable[[Verdict], None]) -> Batch:
        """Every stage but the exact step on one chunk; the batch returned holds open what is left to that."""
        batch = self._forward(start, x, labels, tell)
        self._bounds(batch, tell)
        return batch

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

    # -- stages -----------------------------------------------------------------------------------

    def _forward(self, start: int, x: Array, labels: Array, tell: Callable[[Verdict], None]) -> Batch:
        began = time.perf_counter()
        outputs, count = self.network.evaluate(x), np.arange(len(x))
        lower = np.full(outputs.shape, -np.inf)
        lower[count, labels] = np.inf
        best = margins(outputs, labels)
        if not np.isfinite(outputs).all():
            raise DataError("The network's outputs overflow on these samples; check the scale of the data.")
        batch = Batch(start, x, labels, outputs.argmax(1), lower, best, np.zeros(len(x)), count)
        batch.spent(began)
        self._decide(batch, best <= 0, tell, (Status.MISCLASSIFIED, "forward"))
        return batch

    def _bounds(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """IBP, attack, BP, BP at every layer on what is open; leaves the tightest bounds in `batch.bounds`."""
        method = self.options.method
        stages = [("ibp", self._interval), ("bp", self._backward), ("bp-layers", self._layers)]
        for name, stage in stages[: {"ibp": 1, "bp": 2}.get(method, 3)]:
            if not len(batch.open) or self.stop.is_set():
                return
            began = time.perf_counter()
            proved = stage(batch).cpu().numpy()
            batch.lower[batch.open] = np.maximum(batch.lower[batch.open], proved)
            self._check(batch)
            batch.spent(began)
            if method != "exact":
                held = (batch.lower[batch.open] > 0).all(1)
                self._proved(batch, held, tell, name)
            if name == "ibp" and len(batch.open) and self.options.attack:
                self._attack(batch, tell)
        if method in ("ibp", "bp"):
            for sample in batch.open:
                sought = "found" if self.options.attack else "looked for"
                detail = (
                    f"{method.upper()} proves too little and no failing member was {sought}; --method auto decides more"
                )
                tell(batch.verdict(int(sample), Status.UNKNOWN, method, detail=detail))
            batch.keep(np.zeros(len(batch.open), dtype=bool))

    def _labels(self, batch: Batch) -> Tensor:
        return torch.as_tensor(batch.labels[batch.open], device=self.model.device)

    def _interval(self, batch: Batch) -> Tensor:
        batch.bounds = self.intervals(batch.x[batch.open])
        return interval_margins(self.model, batch.bounds, self._labels(batch))

    def intervals(self, x: Array) -> Bounds:
        """IBP on every layer for samples x (N, n_in)."""
        low, high = self.family.box(x)
        return interval_bounds(self.model, self.model.tensor(low), self.model.tensor(high))

    def _backward(self, batch: Batch) -> Tensor:
        return backward_margins(self.model, batch.bounds, self._labels(batch))

    def _layers(self, batch: Batch) -> Tensor:
        batch.bounds = tightened_bounds(self.model, batch.bounds)
        return self._backward(batch)

    def _attack(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """Descend; what seems to fail is made and evaluated afresh, the rest keeps its recipe for later."""
        began = time.perf_counter()
        rivals = self.model.tensor(batch.lower[batch.open])
        found = attack(self.model, batch.bounds, self._labels(batch), rivals)
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
            known = Known(float(batch.lower[sample, worst]), float(batch.best[sample]))
            rule(known, gain(self.maps, sample_bounds(batch.bounds, position), row).magnitudes)

    def own_family(self, bounds: Bounds, position: int) -> Family:
        """The family of the sample at `position` of `bounds`: its own activation radii where the scheme clips."""
        if not self.family.per_sample:
            return self.family
        return self.family.with_activation(sample_bounds(bounds, position).activation)

    # -- the exact step ---------------------------------------------------------------------------

    def exact(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """The exact step: one open sample a thread, `jobs` at once: solvers work outside Python's lock."""
        options = self.options
        early = options.method != "exact"
        settings = Settings(options.solver, options.formulation, options.seconds, early, self.stop)
        self.in_threads(lambda position: self._exact_one(batch, position, settings), len(batch.open), tell)

    def in_threads(self, work: Callable[[int], T | None], count: int, tell: Callable[[T], None]) -> None:
        """Tell what `work(0)` to `work(count - 1)` return, in this thread and as it comes; None is passed over."""
        with ThreadPoolExecutor(self.options.workers) as pool:
            futures = [pool.submit(work, position) for position in range(count)]
            try:
                for future in as_completed(futures):
                    if (result := future.result()) is not None:
                        tell(result)
            except BaseException:  # also Ctrl-C: end the solves under way, then let it through
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _exact_one(self, batch: Batch, position: int, settings: Settings) -> Verdict | None:
        """The verdict on one open sample; None if the run was stopped before there was one."""
        if self.stop.is_set():
            return None
        began = time.perf_counter()
        sample = int(batch.open[position])
        search = Search(self.maps, settings, self._case(batch, position))
        ruling = search.margins()
        if self.stop.is_set() and (ruling is Ruling.OPEN or not settings.early):
            return None  # without `early` the sign may be settled and the value of the margin not
        batch.lower[sample], batch.best[sample] = search.lower, search.best
        if search.recipe is not None:
            batch.recipes[sample] = search.recipe
        batch.seconds[sample] += time.perf_counter() - began
        self._check(batch, slice(position, position + 1))
        status = {Ruling.HOLDS: Status.VERIFIED, Ruling.BROKEN: Status.FALSIFIED}.get(ruling, Status.UNKNOWN)
        detail = search.detail if ruling is Ruling.OPEN else ""
        if status is Status.VERIFIED:
            (detail,) = misfits(self.model, batch.bounds.take(slice(position, position + 1)))
            status = Status.UNKNOWN if detail else status
        ended = search.expired() and (ruling is Ruling.OPEN or not settings.early)
        if ended and not detail:
            detail = "time limit: the worst margin is bounded, not found"
        limit = settings.seconds if ended else None
        return batch.verdict(sample, status, "exact", scope=search.scope, detail=detail, limit=limit)

    def _case(self, batch: Batch, position: int) -> Case:
        sample = int(batch.open[position])
        x, label = batch.x[sample], int(batch.labels[sample])
        bounds = sample_bounds(batch.bounds, position)
        family = self.own_family(batch.bounds, position)
        one = batch.bounds.take(slice(position, position + 1))

        def polish(recipe: Recipe) -> Recipe:
            if not isinstance(recipe.choice, PositionChoice):
                return recipe
            start = Positions.of(self.model, recipe.choice, recipe.x_hat, one)
            labels = torch.as_tensor([label], device=self.model.device)
            found = attack(self.model, one, labels, self.model.tensor(batch.lower[[sample]]), start)
            return found.recipe(family, x, label, 0)

        return Case(family, x, label, bounds, batch.lower[sample], batch.recipes.get(sample), polish)
