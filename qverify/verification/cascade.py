"""Verification from cheap to exact: each sample goes as far as it must (mathematics.md, sections 1 to 5).

    forward      the trained network itself: misclassified, or a first concrete margin
    ibp          interval bounds on the margins
    attack       descent to a member that fails; what it finds is evaluated afresh before it counts
    ties         of integer files: runtimes one by one, where a few values near ties are all that is open
    bp           backward bounds with the intervals of IBP
    attack       again, from where bounds fear a member
    bp-layers    backward bounds at every layer
    bp-optimised the same with optimised lines, then under the assumption that a counterexample exists
    attack       again, from where these bounds fear a member, then by many short steps
    bp-branched  branch and bound in batches, then halves, and a trial of the exact step between them
    exact        programs and a solver, one sample at a time in `jobs` threads

Where radii stand for integer kernels (schemes `tensor` and `channel`), a sample whose margins are positive is verified
only if no accumulator can overflow on it (kernels.py); else it is unknown, and its detail names the layer.

Every stage adds to two arrays a sample, the margins proved and the margins attained; should they ever cross,
something is broken and InternalError is raised. All stages together obey one time limit a sample: work on a batch has
the time that is left to its open samples, is cut off between two pieces, and hands on what it has (budget.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qverify.bounds import pairs
from qverify.bounds.accumulators import misfits
from qverify.bounds.interval import OutOfTime, interval_margins
from qverify.bounds.losses import loosest, told
from qverify.bounds.refinement import backward_margins, tightened_bounds
from qverify.bounds.shrinking import shrunk
from qverify.bounds.splits import targets
from qverify.bounds.ties import enumerable
from qverify.choices import BOUNDS
from qverify.family.rules import not_in_programs, only_bounds
from qverify.verification import hints
from qverify.verification.arguments import callbacks, checked
from qverify.verification.attack import FIRST, GUIDED, THOROUGH, Pace, attack
from qverify.verification.branching import PairStages, Plan
from qverify.verification.contradictions import refuse_contradictions
from qverify.verification.exact_step import ExactStep
from qverify.verification.forward import forwarded
from qverify.verification.setup import Setup
from qverify.verification.ties import tied_margins
from qverify.verification.undecided import too_little
from qverify.verification.verdict import Options, Status, Verdict

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.budget import Deadline
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.verification.undecided import Batch

_LEAST_TOGETHER, _MOST_TOGETHER, _OPERATIONS = 64, 256, 1e8
"""Samples whose layers are refined together by BP: few, so that what they prove is told before the next ones, unless
passes are short (multiplications of a forward pass of all): then more of them share one."""


def verify(
    network: Network,
    x: Any,
    y: Any,
    radii: Radii,
    options: Options | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Verdict]:
    """The verdict on every sample: whether all members of its quantised family answer right.

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
    """The verdicts of `verify`, without its remarks: for whoever asks about the same data many times."""
    flat, labels = checked(network, x, y)
    cascade = Cascade(network, radii, options, stop)
    found: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        found.append(verdict)
        if on_verdict is not None:
            on_verdict(verdict)

    cascade.run(flat, labels, tell)
    return sorted(found, key=lambda verdict: verdict.index)


class Cascade:
    """The stages for one family, from cheap to exact; `run` takes samples through them. `where`: progress, for people.
    `only_bounds`: the network's steps are dynamic, which no member and no program can follow. `programs`: exact
    programs can follow it, which have no smooth activations either.

    Raises what `Setup` raises.
    """

    def __init__(self, network: Network, radii: Radii, options: Options, stop: threading.Event | None = None):
        self.setup = Setup(network, radii, options, stop)
        if network.dynamic and options.method == "exact":
            raise only_bounds(network.layers[network.dynamic[0]])
        if network.smooth and options.method == "exact":
            raise not_in_programs(network.layers[network.smooth[0]])
        self.options, self.model, self.stop = options, self.setup.model, self.setup.stop
        self.only_bounds = self.model.dynamic is not None
        self.programs = not (self.only_bounds or network.smooth)
        self.attacks = options.attack and not self.only_bounds
        last = "bp-layers" if self.only_bounds else BOUNDS[-1]
        if options.method in BOUNDS:
            last = min(last, options.method, key=BOUNDS.index)
        self.stages = BOUNDS[: BOUNDS.index(last) + 1]
        self.where = ""

    def run(self, x: Array, labels: Array, tell: Callable[[Verdict], None]) -> None:
        """Tell the verdicts on samples x (N, n_in) with labels (N,), in this thread and in any order."""
        step = self.setup.chunk
        for start in range(0, len(x), step):
            if not self.stop.is_set():
                some = slice(start, start + step)
                self.exact_stage(self.cheap_stages(start, x[some], labels[some], tell), tell)

    def cheap_stages(
        self, start: int, x: Array, labels: Array, tell: Callable[[Verdict], None], spent: float = 0.0
    ) -> Batch:
        """The undecided samples of one chunk, numbered from `start`, after every stage but the exact step.

        `spent`: seconds that each of the samples took before.
        """
        batch, wrong = forwarded(self.setup, start, x, labels, np.full(len(x), spent))
        self._report(batch, wrong, tell, Status.MISCLASSIFIED, "forward")
        try:
            self._bound_stages(batch, tell)
        except OutOfTime:
            if not self.stop.is_set():
                batch.cut = True
                reason = "time limit: not even interval bounds could be computed"
                self._give_up(batch, tell, "ibp", [reason] * len(batch.open))
            batch.open = batch.open[:0]
        return batch

    def exact_stage(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """Tell the verdicts of the exact step on the undecided samples."""
        ExactStep(self.setup, batch).run(tell, self._say)

    def _say(self, where: str) -> None:
        self.where = where

    def _report(self, batch: Batch, mask: Any, tell: Callable[[Verdict], None], status: Status, stage: str) -> None:
        """Report the open samples where `mask` holds, and go on with the others."""
        for sample in batch.open[mask]:
            tell(batch.verdict(int(sample), status, stage))
        batch.keep(~mask)

    def _proved(self, batch: Batch, mask: Any, tell: Callable[[Verdict], None], stage: str) -> None:
        """Report the open samples where `mask` holds, whose margins are positive: verified if integer kernels agree."""
        positions = np.flatnonzero(mask)
        chosen = torch.as_tensor(positions, device=self.model.device)
        for position, reason in zip(positions, misfits(self.model, batch.bounds.take(chosen)), strict=True):
            status = Status.UNKNOWN if reason else Status.VERIFIED
            tell(batch.verdict(int(batch.open[position]), status, stage, detail=reason))
        batch.keep(~mask)

    def _give_up(self, batch: Batch, tell: Callable[[Verdict], None], stage: str, details: list[str]) -> None:
        """Report all open samples as unknown, each with its detail."""
        limit = self.options.seconds if batch.cut else None
        for sample, detail in zip(batch.open, details, strict=True):
            tell(batch.verdict(int(sample), Status.UNKNOWN, stage, detail=detail, limit=limit))
        if batch.bounds is not None:
            batch.keep(np.zeros(len(batch.open), dtype=bool))

    # -- stages -----------------------------------------------------------------------------------

    def _bound_stages(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """IBP, attack, BP, BP at every layer on what is open; leaves the tightest bounds in `batch.bounds`."""
        self._stage(batch, tell, "ibp", self._interval)
        if batch.bounds is None and len(batch.open):  # the time was up before it began
            raise OutOfTime
        if self.attacks:
            self._attack(batch, tell, FIRST)
        if self.options.method == "auto" and enumerable(self.model):
            self._stage(batch, tell, "ties", self._tied)
            self._report(batch, batch.attained[batch.open] <= 0, tell, Status.FALSIFIED, "ties")
        if "bp" in self.stages:
            self._stage(batch, tell, "bp", self._backward)
        if self.attacks:
            self._attack(batch, tell, GUIDED)
        if "bp-layers" in self.stages and len(batch.open):
            parts = batch.parts(self._together)
            for part in parts:
                self._stage(part, tell, "bp-layers", self._layered)
                if "bp-optimised" in self.stages:
                    self._optimised_stages(part, tell)
            batch.join(parts)
        if self.stop.is_set():
            return
        if self.options.method in BOUNDS or not self.programs:
            self._leave_open(batch, tell)

    @property
    def _together(self) -> int:
        return max(_LEAST_TOGETHER, min(_MOST_TOGETHER, int(_OPERATIONS / self.model.operations)))

    def _leave_open(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """Report what bounds, where these are the last word, leave open, and where they lose most."""
        dynamic = self.only_bounds and "bp-layers" in self.stages
        little = too_little(self.options.method, self.attacks, dynamic)
        reasons = ["time limit" if batch.cut else little] * len(batch.open)
        if reasons and "bp-optimised" in self.stages:
            lower = self.model.tensor(batch.lower[batch.open])
            layers = loosest(self.model, batch.bounds, self._labels(batch), lower)
            reasons = [told(reason, layer) for reason, layer in zip(reasons, layers, strict=True)]
        self._give_up(batch, tell, self.stages[-1], reasons)

    def _optimised_stages(self, batch: Batch, tell: Callable[[Verdict], None]) -> None:
        """Optimised BP on the open samples, on the intervals of neurons too where that is cheap enough."""
        if not len(batch.open) or not targets(self.model):
            return
        cost = pairs.cost(self.model, batch.bounds).cpu().numpy()
        level = (cost <= pairs.MOST).astype(int) + (cost <= pairs.MOST_OF_ROUND)
        parts = [batch.part(level == one) for one in range(3)]
        for one, part in enumerate(parts):
            self._stage(part, tell, "bp-optimised", self._optimised_margins)
            if one:
                self._stage(part, tell, "bp-optimised", self._optimised)
            if self.attacks and len(part.open):  # now that is known which rivals are the hardest
                self._attack(part, tell, THOROUGH)
            if self.options.method != "exact":  # there the margin itself is wanted, however far above 0
                self._pair_stages(part, tell, rounds=one == 2)
        batch.join(parts)

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
        refuse_contradictions(self.setup, batch)
        if self.options.method != "exact":
            self._proved(batch, (batch.lower[batch.open] > 0).all(1), tell, name)

    def _begun(self, batch: Batch, name: str) -> Deadline | None:
        """The deadline of a stage that begins now; None if there is nothing to do, or no time to do it in."""
        self.where = f"{name}: {len(batch.open)} open"
        deadline = self.setup.deadline(batch.left(self.options.seconds))
        return None if not len(batch.open) or deadline.passed() else deadline

    def _labels(self, batch: Batch) -> Tensor:
        return torch.as_tensor(batch.labels[batch.open], device=self.model.device)

    def _interval(self, batch: Batch, deadline: Deadline) -> Tensor:
        batch.bounds = self.setup.intervals(batch.x[batch.open], deadline)
        return interval_margins(self.model, batch.bounds, self._labels(batch))

    def _tied(self, batch: Batch, deadline: Deadline) -> Tensor:
        return tied_margins(self.setup, batch, self._labels(batch), deadline)

    def _backward(self, batch: Batch, deadline: Deadline) -> Tensor:
        return backward_margins(self.model, batch.bounds, self._labels(batch), deadline)

    def _layered(self, batch: Batch, deadline: Deadline) -> Tensor:
        batch.bounds = tightened_bounds(self.model, batch.bounds, deadline)
        return self._backward(batch, deadline)

    def _optimised(self, batch: Batch, deadline: Deadline) -> Tensor:
        batch.bounds = shrunk(self.model, batch.bounds, pairs.NEURONS, deadline.share(0.5))
        return self._optimised_margins(batch, deadline)

    def _optimised_margins(self, batch: Batch, deadline: Deadline) -> Tensor:
        proved = self.model.tensor(batch.lower[batch.open])
        return pairs.optimised_margins(self.model, batch.bounds, self._labels(batch), proved, deadline)

    def _pair_stages(self, batch: Batch, tell: Callable[[Verdict], None], rounds: bool) -> None:
        """Rounds under the assumption of a counterexample, if these pay, and branch and bound."""
        deadline = self._begun(batch, "bp-optimised")
        if deadline is None:
            return

        def proved(mask: Any, stage: str) -> None:
            self._proved(batch, mask, tell, stage)

        def attack_part(part: Batch, pace: Pace, share: float) -> None:
            if self.attacks:
                self._attack(part, tell, pace, share)

        follows = self.programs and self.options.method not in BOUNDS
        plan = Plan(rounds=rounds, branches="bp-branched" in self.stages, programs=follows)
        PairStages(self.setup, batch, plan, proved, tell, self._say, attack_part).run(deadline)
        batch.cut = batch.cut or deadline.left <= 0.0

    def _attack(self, batch: Batch, tell: Callable[[Verdict], None], pace: Pace, share: float = 1.0) -> None:
        """Descend; what seems to fail is made and evaluated afresh, the rest keeps its recipe for later."""
        deadline = self._begun(batch, "attack")
        if deadline is None:
            return
        began = time.perf_counter()
        rivals = self.model.tensor(batch.lower[batch.open])
        found = attack(self.model, batch.bounds, self._labels(batch), rivals, deadline=deadline.share(share), pace=pace)
        margin = found.margin.cpu().numpy()
        for position in np.flatnonzero(margin < batch.attained[batch.open]).tolist():
            if self.stop.is_set():
                return
            sample = int(batch.open[position])
            recipe = found.recipe(
                self.setup.own_family(batch.bounds, position), batch.x[sample], int(batch.labels[sample]), position
            )
            batch.recipes[sample] = recipe
            batch.attained[sample] = margin[position] if margin[position] > 0 else recipe.witness().margin
        refuse_contradictions(self.setup, batch)
        batch.spent(began)
        batch.cut = batch.cut or deadline.left <= 0.0
        self._report(batch, batch.attained[batch.open] <= 0, tell, Status.FALSIFIED, "attack")
