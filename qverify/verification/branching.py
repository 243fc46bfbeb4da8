"""The last stages of bounds: rounds under the assumption of a counterexample, branch and bound, and halves. Sound.

Of each sample the margin over one rival after the other is taken on, the lowest first: all of them have to be positive.
Rounds (bounds/pairs.py) while they pay, then many subproblems of many samples at once (bounds/branched.py), and what
these leave open is halved with new intervals (bounds/tightening.py), each sample within its own time. What is left over
goes on to the exact step, which gets its share of the time, and tries each sample before that is halved.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qverify.bounds.branched import Branching
from qverify.bounds.pairs import Rounds
from qverify.bounds.shrinking import open_neurons
from qverify.bounds.tightening import Tightening
from qverify.verification.attack import SLOW, THOROUGH
from qverify.verification.contradictions import refuse_contradictions
from qverify.verification.exact_step import ExactStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qverify.bounds.pairs import Pairs
    from qverify.budget import Deadline
    from qverify.verification.attack import Pace
    from qverify.verification.setup import Setup
    from qverify.verification.undecided import Batch
    from qverify.verification.verdict import Verdict

_ROUNDS = 0.5
"""Share of the time left that rounds take at most."""
_BEFORE_PROGRAMS = 0.8
"""Share of the time left after rounds that branching takes of a sample, where an exact step may follow."""
_FEW = 64
"""Neurons whose lines depend on their intervals, up to which the exact step is the quicker one: measured, it decides
samples with up to 45 in 0.1 s, falsified ones too, and hardly any with more than 100."""
_WITH_FEW = 0.1
"""Seconds that branching takes of a sample with so few, if the exact step is exact."""
_SHALLOW, _SHALLOW_SECONDS = 0.25, 1.0
"""The share of its time, and seconds at most, that branching takes of a pair before it is halved, and before the exact
step tries its sample: some are falsified there at once that no attack breaks."""
_TRIAL, _LEAST_TRIAL = 0.5, 0.5
"""Seconds of that trial, in units of those, and at least."""
_OF_SLOW = 0.15
"""The share of the time left that the slow attack has."""
_UNTIMED = 120.0
"""Seconds that branching takes of a sample where no time limit was set and an exact step may follow."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`rounds`: whether they pay, and so halves; `branches`: whether branch and bound is asked for; `programs`: whether
    an exact step may follow."""

    rounds: bool
    branches: bool
    programs: bool


class PairStages:
    """Rounds, branching and halves for the open samples of a batch, whose bounds are `batch.bounds`, attacks between
    them, and trials of the exact step.

    `proved(mask, stage)` is told the open samples whose margins are all positive, one entry each, and what proved them;
    `tell` the verdicts of trials, `say(where)` how far it is. `attack` decides some samples of a part of the batch.
    """

    def __init__(
        self,
        setup: Setup,
        batch: Batch,
        plan: Plan,
        proved: Callable[[Any, str], None],
        tell: Callable[[Verdict], None],
        say: Callable[[str], None],
        attack: Callable[[Batch, Pace, float], None],
    ):
        self.setup, self.batch, self.plan = setup, batch, plan
        self._proved, self._tell_verdict, self._say, self._attack = proved, tell, say, attack
        self.model, self._samples = setup.model, batch.open.copy()
        relaxed = setup.family.shares_weights or setup.family.network.products
        self._exact = plan.programs and not relaxed
        labels = torch.as_tensor(batch.labels[batch.open], device=self.model.device)
        lower = self.model.tensor(batch.lower[batch.open])
        self._rounds = Rounds(self.model, batch.bounds, labels, lower, plan.rounds)
        self._were_tried = np.zeros(0, dtype=batch.open.dtype)

    def run(self, deadline: Deadline) -> None:
        """All stages; the deadline is that of all samples together."""
        self._say(f"bp-optimised: {len(self.batch.open)} open")
        everything = torch.nonzero((self._rounds.lower <= 0).any(1)).squeeze(1)
        stuck = self._stuck(everything, "bp-optimised", deadline.share(_ROUNDS))
        if stuck is None:
            return
        stuck = self._attacked(stuck)
        if not self.plan.branches or not Branching.possible(stuck):
            return
        while stuck is not None and len(stuck) and not deadline.passed():
            left = self._without_decided(self._branched(stuck, deadline))
            if not self.plan.rounds:
                return
            stuck = self._parted(self._tried(left), deadline)

    def _branched(self, stuck: Pairs, deadline: Deadline) -> Pairs:
        """Branch and bound on pairs, and on the next ones of the samples whose pairs it closes; what it leaves over."""
        tree = Branching(self.model, stuck, self._shallow(stuck))
        charged = tree.used.clone()
        while len(tree.nodes) and not deadline.passed():
            count = len(torch.unique(tree.nodes.pair))
            self._say(f"bp-branched: {count} open, {len(tree.nodes)} nodes")
            tree.step(deadline)
            charged = self._charge(tree, charged)
            done = torch.nonzero(tree.closed.to(self.model.device) & (self._known(tree) <= 0)).squeeze(1)
            if not len(done):
                continue
            closed = tree.pairs.take(done)
            self._rounds.prove(closed, torch.full_like(closed.margin, torch.inf))
            more = self._next(closed.samples, deadline)
            if more is not None and not deadline.passed():
                tree.add(more, self._shallow(more))
                charged = torch.cat([charged, charged.new_zeros(len(more))])
        self._rounds.prove(tree.pairs, tree.bound())
        self._tell("bp-branched")
        return tree.pairs.take(torch.nonzero(~tree.closed.to(self.model.device)).squeeze(1))

    def _parted(self, left: Pairs, deadline: Deadline) -> Pairs | None:
        """Halve the pairs, one after the other; the next ones of the samples whose pairs are closed."""
        done: list[Tensor] = []
        for place in torch.argsort(left.margin, descending=True).tolist():
            pair = left.take(torch.tensor([place], device=self.model.device))
            began, tightening = time.perf_counter(), Tightening(self.model, pair)
            own = self.setup.deadline(min(float(self._seconds(pair)), deadline.left))
            while len(tightening.parts) and not tightening.stuck and not own.passed():
                self._say(f"bp-branched: {len(left)} open, {len(tightening.parts)} parts")
                tightening.step(own)
            self.batch.seconds[self._samples[int(pair.samples)]] += time.perf_counter() - began
            self._rounds.prove(pair, torch.full_like(pair.margin, tightening.bound))
            if not len(tightening.parts):
                done.append(pair.samples)
        if not done:
            self._tell("bp-branched")
            return None
        return self._next(torch.cat(done), deadline)

    def _next(self, samples: Tensor, deadline: Deadline) -> Pairs | None:
        """Tell what is proved of some samples, and go on to the next rivals of those that are open."""
        again = samples[(self._rounds.lower[samples] <= 0).any(1)]
        return self._stuck(again, "bp-branched", deadline)

    def _tried(self, left: Pairs) -> Pairs:
        """Let the exact step try the samples of some pairs, once each; those that it does not decide."""
        new = np.setdiff1d(self._samples[left.samples.cpu().numpy()], self._were_tried)
        if not self._exact or not len(new):
            return left
        self._were_tried = np.union1d(self._were_tried, new)
        self._say(f"exact: {len(new)} tried")
        self._try_exact(new, max(_LEAST_TRIAL, _TRIAL * float(self._shallow(left).max())))
        return self._without_decided(left)

    def _without_decided(self, pairs: Pairs) -> Pairs:
        """The pairs of samples that are open."""
        still = np.isin(self._samples[pairs.samples.cpu().numpy()], self.batch.open)
        return pairs.take(torch.as_tensor(np.flatnonzero(still), device=self.model.device))

    def _try_exact(self, samples: Any, seconds: float) -> None:
        """A trial of the exact step on some open samples."""
        decided: list[int] = []

        def hear(verdict: Verdict) -> None:
            decided.append(verdict.index - self.batch.start)
            self._tell_verdict(verdict)

        ExactStep(self.setup, self.batch.part(np.isin(self.batch.open, samples)), seconds).run(hear)
        self.batch.keep(~np.isin(self.batch.open, decided))

    def _attacked(self, pairs: Pairs) -> Pairs:
        """Attack the samples of the pairs, one of each, from where the bounds of these fear them, and slowly those that
        the exact step does not decide soon; the pairs of those still open."""
        numbers, batch = self._samples[pairs.samples.cpu().numpy()], self.batch
        part = batch.part(np.isin(batch.open, numbers))
        order = np.argsort(numbers)[np.searchsorted(np.sort(numbers), part.open)]
        part.bounds = pairs.bounds.take(torch.as_tensor(order, device=self.model.device))
        first = part.open
        self._attack(part, THOROUGH, 1.0)
        slow = part.part(np.isin(part.open, numbers[~self._soon(pairs).cpu().numpy()]))
        second = slow.open
        self._attack(slow, SLOW, _OF_SLOW)
        broken = np.union1d(np.setdiff1d(first, part.open), np.setdiff1d(second, slow.open))
        batch.keep(~np.isin(batch.open, broken))
        return self._without_decided(pairs)

    def _stuck(self, samples: Tensor, stage: str, deadline: Deadline) -> Pairs | None:
        """Take the lowest margins of some samples through rounds, and tell what is proved; the pairs left over."""
        began = time.perf_counter()
        self._rounds.begin(samples)
        self._rounds.run(deadline)
        if len(samples):
            numbers = self._samples[samples.cpu().numpy()]
            self.batch.seconds[numbers] += (time.perf_counter() - began) / len(samples)
        self._tell(stage)
        return self._rounds.take_stuck()

    def _tell(self, stage: str) -> None:
        """Tell which samples are proved by now."""
        batch, proved = self.batch, self._rounds.lower.cpu().numpy()
        batch.lower[self._samples] = np.maximum(batch.lower[self._samples], proved)
        refuse_contradictions(self.setup, batch)
        done = (batch.lower[batch.open] > 0).all(1)
        if done.any():
            self._proved(done, stage)

    def _charge(self, tree: Branching, charged: Tensor) -> Tensor:
        """Add what pairs took since it was `charged` (P,) to the time of their samples; what they took in all."""
        numbers = self._samples[tree.pairs.samples.cpu().numpy()]
        np.add.at(self.batch.seconds, numbers, (tree.used - charged).numpy())
        return tree.used.clone()

    def _seconds(self, pairs: Pairs) -> Tensor:
        """Seconds (P,) for branching on each of some pairs."""
        limit, spent = self.setup.options.seconds, self.batch.seconds[self._samples[pairs.samples.cpu().numpy()]]
        if limit is None:
            return torch.full((len(pairs),), _UNTIMED if self.plan.programs else torch.inf, dtype=torch.float64)
        share = _BEFORE_PROGRAMS if self.plan.programs else 1.0
        return torch.as_tensor(share * np.maximum(0.0, limit - spent))

    def _shallow(self, pairs: Pairs) -> Tensor:
        """Seconds (P,) for it before pairs are halved, or all of them."""
        found = self._seconds(pairs)
        if self.plan.rounds:
            found = torch.clamp(_SHALLOW * found, max=_SHALLOW_SECONDS)
        return torch.where(self._soon(pairs).cpu(), found.clamp(max=_WITH_FEW), found)

    def _soon(self, pairs: Pairs) -> Tensor:
        """Mask (P,) of the pairs that the exact step decides soon."""
        return (open_neurons(self.model, pairs.bounds) <= _FEW) & self._exact

    def _known(self, tree: Branching) -> Tensor:
        """What is known (P,) of the margins of the pairs in a tree."""
        return self._rounds.lower[tree.pairs.samples, tree.pairs.rivals]
