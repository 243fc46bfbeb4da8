"""Worst-case discrepancy: how far each output can move over the family (mathematics.md, section 12).

Per sample and output i the interval of `f_hat(x_hat)_i - f(x)_i`, f(x) being the float64 forward pass: by IBP, by
BP, or exact, with the solver asked for both ends of every output. Where a solve is cut off, or positions of a
convolution are taken as independent, proved and attained ends differ, and both are given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.bounds.accumulators import misfits
from qverify.bounds.backward import backward_outputs, tightened_bounds
from qverify.bounds.interval import OutOfTime
from qverify.bounds.tensors import Bounds
from qverify.budget import Deadline
from qverify.choices import DISCREPANCY_METHODS
from qverify.errors import UsageError
from qverify.exact.search import Search, SearchedSample, SearchSettings
from qverify.family.family import Radii
from qverify.network import Network
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.arguments import callbacks, checked_inputs
from qverify.verification.cascade import Cascade
from qverify.verification.exact_step import in_threads, program_memory, solver_process
from qverify.verification.verdict import Options


@dataclass(frozen=True, eq=False, repr=False)
class Discrepancy(Brief):
    """One sample's interval of `f_hat(x_hat) - f(x)` per output; arrays (n_out,).

    `lower`, `upper`: proved for every member. `attained_lower`, `attained_upper`: of concrete members (exact only).
    `complete`: whether the two agree up to the solver's tolerance, for which both have to be there. `detail`: why
    integer kernels may not compute this sample in real arithmetic, and so be further off; and why the exact step is not
    complete; else empty.
    """

    index: int
    nominal: Array
    lower: Array
    upper: Array
    attained_lower: Array | None
    attained_upper: Array | None
    method: str
    seconds: float
    complete: bool
    detail: str = ""

    @property
    def worst(self) -> float:
        """The largest |f_hat(x_hat)_i - f(x)_i| that cannot be excluded."""
        return float(np.maximum(np.abs(self.lower), np.abs(self.upper)).max())

    def to_json(self) -> dict[str, Any]:
        """The object of a line (formats.md, section 7)."""
        found = {"index": self.index, "method": self.method, "complete": self.complete, "worst": self.worst}
        for name in ("nominal", "lower", "upper", "attained_lower", "attained_upper"):
            values = getattr(self, name)
            found[name] = None if values is None else values.tolist()
        found |= {"detail": self.detail} if self.detail else {}
        return found | {"seconds": round(self.seconds, 6)}


def worst_case_discrepancy(
    network: Network,
    x: Any,
    radii: Radii,
    options: Options | None = None,
    on_result: Callable[[Discrepancy], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Discrepancy]:
    """The discrepancy of every sample, x (N, *input_shape) or (N, n_in); in the order of the samples.

    `options.method` is `ibp`, `bp` or `exact`; `options.seconds` limits all of it per sample. `on_result` is
    called in this thread as results come, in any order. Raises what `verify` raises.
    """
    options = Options.given(options, Options(method="bp"))
    callbacks(stop, on_result=on_result)
    if options.method not in DISCREPANCY_METHODS:
        offered = ", ".join(DISCREPANCY_METHODS)
        raise UsageError(f"The discrepancy has no method {options.method!r}; choose one of: {offered}.")
    flat = checked_inputs(network, x)
    hints.remark_on(network, radii, flat)
    work = _Discrepancies(Cascade(network, radii, options, stop))
    found: list[Discrepancy] = []

    def tell(result: Discrepancy) -> None:
        found.append(result)
        if on_result is not None:
            on_result(result)

    for start in range(0, len(flat), work.cascade.chunk):
        if not work.cascade.stop.is_set():
            work.run(start, flat[start : start + work.cascade.chunk], tell)
    return sorted(found, key=lambda result: result.index)


class _Discrepancies:
    def __init__(self, cascade: Cascade):
        self.cascade = cascade
        self.network, self.options = cascade.network, cascade.options

    def run(self, start: int, x: Array, tell: Callable[[Discrepancy], None]) -> None:
        began, cascade = time.perf_counter(), self.cascade
        limit = self.options.seconds
        deadline = Deadline.after(None if limit is None else limit * len(x), cascade.stop)
        cascade.where = f"bounds: {len(x)} samples"
        nominal = self.network.evaluate(x)
        try:
            bounds = self._bounds(x, deadline)
        except OutOfTime:
            if cascade.stop.is_set():
                return
            message = f"Not even interval bounds could be computed in {limit:g} s a sample; give a longer time limit."
            raise UsageError(message) from None
        reasons = misfits(cascade.model, bounds)
        seconds = (time.perf_counter() - began) / len(x)
        if self.options.method == "exact":
            cascade.where = f"exact: {len(x)} samples"
            self._exact(start, (x, nominal), (bounds, reasons, seconds), tell)
            return
        lower, upper = (side[-1].cpu().numpy() for side in (bounds.lower, bounds.upper))
        for i, (f, low, high) in enumerate(zip(nominal, lower, upper, strict=True)):
            low, high = np.nextafter(low - f, -np.inf), np.nextafter(high - f, np.inf)
            found = Discrepancy(start + i, f, low, high, None, None, self.options.method, seconds, False, reasons[i])
            tell(found)

    def _bounds(self, x: Array, deadline: Deadline) -> Bounds:
        """On all layers; those on the outputs by the method asked for. Raises OutOfTime."""
        bounds = self.cascade.intervals(x, deadline)
        if self.options.method == "exact":
            bounds = tightened_bounds(self.cascade.model, bounds, deadline)
        if self.options.method != "ibp":
            bounds.lower[-1], bounds.upper[-1] = backward_outputs(self.cascade.model, bounds, deadline)
        return bounds

    def _exact(
        self,
        start: int,
        samples: tuple[Array, Array],
        known: tuple[Bounds, list[str], float],
        tell: Callable[[Discrepancy], None],
    ) -> None:
        """The exact step on samples (x, f(x)), of which (bounds, misfits, seconds each) are known."""
        (x, nominal), (bounds, reasons, seconds) = samples, known

        def work(position: int) -> Discrepancy | None:
            if self.cascade.stop.is_set():
                return None
            found = self._one((x[position], nominal[position]), bounds, position, seconds)
            said = [reasons[position], found.detail] if found else []
            return found and replace(found, index=start + position, detail="; ".join(filter(None, said)))

        in_threads(self.options, self.cascade.stop, work, len(x), tell)

    def _one(self, sample: tuple[Array, Array], bounds: Bounds, position: int, spent: float) -> Discrepancy | None:
        (x, nominal), options, stop = sample, self.options, self.cascade.stop
        own = bounds.sample(position)
        family = self.cascade.own_family(bounds, position)
        lower, upper, attained = own.lower[-1].copy(), own.upper[-1].copy(), np.zeros((2, len(nominal)))
        case = SearchedSample(
            family=family, x=x, label=int(nominal.argmax()), bounds=own, lower=np.full(len(nominal), -np.inf)
        )
        left = None if options.seconds is None else max(0.0, options.seconds - spent)
        memory = program_memory(options, self.cascade.memory)
        reason = ""
        with solver_process(options, self.cascade.memory) as lent:
            began = time.perf_counter()
            settings = SearchSettings(
                solver=options.solver,
                formulation=options.formulation,
                seconds=left,
                early=False,
                stop=stop,
                memory=memory,
            )
            with closing(Search(self.cascade.maps, settings, case, lent)) as search:
                for i, sign in [(i, sign) for i in range(len(nominal)) for sign in (1.0, -1.0)]:
                    if stop.is_set():
                        return None
                    known = search.minimum(sign * np.eye(len(nominal))[i])
                    if not search.answered(known):
                        reason = reason or search.detail or "time limit"
                    if sign > 0:
                        lower[i], attained[0, i] = max(lower[i], known.lower), min(nominal[i], known.upper)
                    else:
                        upper[i], attained[1, i] = min(upper[i], -known.lower), max(nominal[i], -known.upper)
            seconds = spent + time.perf_counter() - began
        low, high = np.nextafter(lower - nominal, -np.inf), np.nextafter(upper - nominal, np.inf)
        low_seen, high_seen = attained - nominal
        return Discrepancy(0, nominal, low, high, low_seen, high_seen, "exact", seconds, not reason, reason)
