"""Worst-case discrepancy: how far each output can move over the family (mathematics.md, section 12).

Per sample and output i the interval of `f_hat(x_hat)_i - f(x)_i`, f(x) being the float64 forward pass: by IBP, by
BP, by BP with optimised lines, or exact, with the solver asked for both ends of every output. Where a solve is cut off,
or positions of a convolution are taken as independent, proved and attained ends differ, and both are given.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.bounds.accumulators import misfits
from qverify.bounds.interval import OutOfTime
from qverify.bounds.pairs import optimised_bounds
from qverify.bounds.refinement import backward_outputs, tightened_bounds
from qverify.choices import DISCREPANCY_METHODS
from qverify.errors import UsageError
from qverify.exact.search import Search, SearchedSample, SearchSettings
from qverify.family.rules import not_in_programs
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.arguments import callbacks, checked_inputs
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.tensors import Bounds
    from qverify.budget import Deadline
    from qverify.family.radii import Radii
    from qverify.network import Network

_BEFORE_PROGRAMS = 0.3
"""The share of the time that bounds on all layers have where the exact step follows."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
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

    `options.method` is `ibp`, `bp`, `bp-optimised` or `exact`; `options.seconds` limits all of it per sample.
    `on_result` is called in this thread as results come, in any order. Raises what `verify` raises.
    """
    options = Options.given(options, Options(method="bp"))
    callbacks(stop, on_result=on_result)
    if options.method not in DISCREPANCY_METHODS:
        offered = ", ".join(DISCREPANCY_METHODS)
        raise UsageError(f"The discrepancy has no method {options.method!r}; choose one of: {offered}.")
    flat = checked_inputs(network, x)
    if network.smooth and options.method == "exact":
        raise not_in_programs(network.layers[network.smooth[0]])
    hints.remark_on(network, radii, flat)
    work = _Discrepancies(Setup(network, radii, options, stop))
    found: list[Discrepancy] = []

    def tell(result: Discrepancy) -> None:
        found.append(result)
        if on_result is not None:
            on_result(result)

    for start in range(0, len(flat), work.setup.chunk):
        if not work.setup.stop.is_set():
            work.run(start, flat[start : start + work.setup.chunk], tell)
    return sorted(found, key=lambda result: result.index)


@dataclass(frozen=True, eq=False, repr=False)
class _Bounded(Brief):
    """A chunk of samples after the bounds: x (N, n_in), `nominal` f(x) (N, n_out), the `bounds` on all layers.

    `misfits[i]`: why integer kernels may not compute sample i in real arithmetic. `seconds`: spent on each so far.
    """

    x: Array
    nominal: Array
    bounds: Bounds
    misfits: list[str]
    seconds: float


class _Discrepancies:
    """The discrepancies of samples, chunk by chunk."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.network, self.options = setup.network, setup.options

    def run(self, start: int, x: Array, tell: Callable[[Discrepancy], None]) -> None:
        """Tell the discrepancies of samples x (N, n_in), numbered from `start`."""
        began, setup, limit = time.perf_counter(), self.setup, self.options.seconds
        nominal = self.network.evaluate(x)
        try:
            bounds = self._bounds(x, setup.deadline(None if limit is None else limit * len(x)))
        except OutOfTime:
            if setup.stop.is_set():
                return
            message = f"Not even interval bounds could be computed in {limit:g} s a sample; give a longer time limit."
            raise UsageError(message) from None
        reasons = misfits(setup.model, bounds)
        seconds = (time.perf_counter() - began) / len(x)
        chunk = _Bounded(x=x, nominal=nominal, bounds=bounds, misfits=reasons, seconds=seconds)
        if self.options.method == "exact":
            self._exact(start, chunk, tell)
        else:
            self._bounded(start, chunk, tell)

    def _bounds(self, x: Array, deadline: Deadline) -> Bounds:
        """Bounds on all layers; those on the outputs by the method asked for. Raises OutOfTime."""
        bounds = self.setup.intervals(x, deadline)
        method, model = self.options.method, self.setup.model
        if method in ("bp-optimised", "exact"):
            before = deadline.share(_BEFORE_PROGRAMS) if method == "exact" else deadline
            bounds = tightened_bounds(model, bounds, before)
            if model.dynamic is None:
                bounds = optimised_bounds(model, bounds, before)
        if method != "ibp":
            bounds.lower[-1], bounds.upper[-1] = backward_outputs(model, bounds, deadline)
        return bounds

    def _bounded(self, start: int, chunk: _Bounded, tell: Callable[[Discrepancy], None]) -> None:
        """The discrepancies that the bounds alone prove."""
        lower, upper = (side[-1].cpu().numpy() for side in (chunk.bounds.lower, chunk.bounds.upper))
        for i, (nominal, low, high) in enumerate(zip(chunk.nominal, lower, upper, strict=True)):
            found = Discrepancy(
                index=start + i,
                nominal=nominal,
                lower=np.nextafter(low - nominal, -np.inf),
                upper=np.nextafter(high - nominal, np.inf),
                attained_lower=None,
                attained_upper=None,
                method=self.options.method,
                seconds=chunk.seconds,
                complete=False,
                detail=chunk.misfits[i],
            )
            tell(found)

    def _exact(self, start: int, chunk: _Bounded, tell: Callable[[Discrepancy], None]) -> None:
        """The exact step on every sample of a chunk."""

        def work(position: int) -> Discrepancy | None:
            if self.setup.stop.is_set():
                return None
            found = self._one(chunk, position)
            said = [chunk.misfits[position], found.detail] if found else []
            return found and replace(found, index=start + position, detail="; ".join(filter(None, said)))

        self.setup.in_threads(work, len(chunk.x), tell)

    def _one(self, chunk: _Bounded, position: int) -> Discrepancy | None:
        """The exact step on one sample; None if the run was stopped before both ends of every output were asked."""
        nominal, setup, options, spent = chunk.nominal[position], self.setup, self.options, chunk.seconds
        own = chunk.bounds.sample(position)
        family = setup.own_family(chunk.bounds, position)
        lower, upper, attained = own.lower[-1].copy(), own.upper[-1].copy(), np.zeros((2, len(nominal)))
        centre = setup.centre(chunk.x[position : position + 1])[0]  # f(x) itself need be no member
        no_margins = np.full(len(nominal), -np.inf)
        case = SearchedSample(
            family=family, x=chunk.x[position], label=int(nominal.argmax()), bounds=own, lower=no_margins
        )
        left = None if options.seconds is None else max(0.0, options.seconds - spent)
        reason = ""
        with setup.solver_process() as lent:
            began = time.perf_counter()
            settings = SearchSettings(
                solver=options.solver,
                formulation=options.formulation,
                seconds=left,
                early=False,
                stop=setup.stop,
                memory=setup.program_memory,
            )
            with closing(Search(setup.maps, settings, case, lent)) as search:
                for i, sign in [(i, sign) for i in range(len(nominal)) for sign in (1.0, -1.0)]:
                    if setup.stop.is_set():
                        return None
                    known = search.minimum(sign * np.eye(len(nominal))[i])
                    if not search.answered(known):
                        reason = reason or search.detail or "time limit"
                    if sign > 0:
                        lower[i], attained[0, i] = max(lower[i], known.lower), min(centre[i], known.upper)
                    else:
                        upper[i], attained[1, i] = min(upper[i], -known.lower), max(centre[i], -known.upper)
            seconds = spent + time.perf_counter() - began
        low_seen, high_seen = attained - nominal
        return Discrepancy(
            index=0,
            nominal=nominal,
            lower=np.nextafter(lower - nominal, -np.inf),
            upper=np.nextafter(upper - nominal, np.inf),
            attained_lower=low_seen,
            attained_upper=high_seen,
            method="exact",
            seconds=seconds,
            complete=not reason,
            detail=reason,
        )
