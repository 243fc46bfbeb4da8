"""The last stages of bounds: rounds under the assumption of a counterexample, then branch and bound. Sound.

Of each sample the margin over one rival after the other is taken on, the lowest first: all of them have to be positive.
Rounds (bounds/pairs.py) while they pay, then many subproblems of many samples at once (bounds/branched.py), each sample
within its own time. What is left over goes on to the exact step, which gets its share of the time.
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
_BEFORE_TRIAL, _BEFORE_TRIAL_SECONDS = 0.25, 2.0
"""The share of its time, and seconds at most, that branching takes of a sample before the exact step tries it: some are
falsified there at once that no attack breaks."""
_TRIAL = 0.5
"""Seconds of that trial, in units of what branching took."""
_OF_SLOW = 0.15
"""The share of the time left that the slow attack has."""
_UNTIMED = 120.0
"""Seconds that branching takes of a sample where no time limit was set and an exact step may follow."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`rounds`: whether they pay; `branches`: whether branch and bound is asked for; `programs`: whether an exact step
    may follow."""

    rounds: bool
    branches: bool
    programs: bool


class PairStages:
    """Rounds and branching for the open samples of a batch, whose bounds are `batch.bounds`, an attack between them,
    and trials of the exact step.

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

    def run(self, deadline: Deadline) -> None:
        """Both stages; the deadline is that of all samples together."""
        self._say(f"bp-optimised: {len(self.batch.open)} open")
        everything = torch.nonzero((self._rounds.lower <= 0).any(1)).squeeze(1)
        stuck = self._stuck(everything, "bp-optimised", deadline.share(_ROUNDS))
        if stuck is None:
            return
        stuck = self._attacked(stuck)
        if not len(stuck) or not self.plan.branches or deadline.passed() or not Branching.possible(stuck):
            return
        tree = Branching(self.model, stuck, self._seconds(stuck))
        charged, tried = tree.used.clone(), set[int]()
        while len(tree.nodes) and not deadline.passed():
            count = len(torch.unique(tree.nodes.pair))
            self._say(f"bp-branched: {count} open, {len(tree.nodes)} nodes")
            tree.step(deadline)
            charged = self._charge(tree, charged)
            self._try(tree, tried)
            done = torch.nonzero(tree.closed.to(self.model.device) & (self._known(tree) <= 0)).squeeze(1)
            if not len(done):
                continue
            closed = tree.pairs.take(done)
            self._rounds.prove(closed, torch.full_like(closed.margin, torch.inf))
            again = closed.samples[(self._rounds.lower[closed.samples] <= 0).any(1)]
            stuck = self._stuck(again, "bp-branched", deadline)
            if stuck is not None and not deadline.passed():
                tree.add(stuck, self._seconds(stuck))
                charged = torch.cat([charged, charged.new_zeros(len(stuck))])
        self._rounds.prove(tree.pairs, tree.bound())
        self._tell("bp-branched")

    def _try(self, tree: Branching, tried: set[int]) -> None:
        """Let the exact step try the samples on which branching took long enough, once each; drop what it decides."""
        if not self._exact:
            return
        waited = tree.left & (tree.used >= torch.clamp(_BEFORE_TRIAL * tree.seconds, max=_BEFORE_TRIAL_SECONDS))
        numbers = self._samples[tree.pairs.samples.cpu().numpy()]
        new = waited.numpy() & ~np.isin(numbers, list(tried))
        if not new.any():
            return
        samples = np.unique(numbers[new])
        self._say(f"exact: {len(samples)} tried")
        self._try_exact(samples, float(_TRIAL * tree.used[torch.as_tensor(new)].max()))
        tried |= set(samples.tolist())
        tree.give_up(torch.as_tensor(~np.isin(numbers, self.batch.open)))

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
        before = part.open
        self._attack(part, THOROUGH, 1.0)
        slow = part.part(np.isin(part.open, numbers[~self._soon(pairs).cpu().numpy()]))
        still = np.setdiff1d(part.open, slow.open)
        self._attack(slow, SLOW, _OF_SLOW)
        still = np.union1d(still, slow.open)
        batch.keep(~np.isin(batch.open, np.setdiff1d(before, still)))
        left = np.flatnonzero(np.isin(numbers, batch.open))
        return pairs.take(torch.as_tensor(left, device=self.model.device))

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
            found = torch.full((len(pairs),), _UNTIMED if self.plan.programs else torch.inf, dtype=torch.float64)
        else:
            share = _BEFORE_PROGRAMS if self.plan.programs else 1.0
            found = torch.as_tensor(share * np.maximum(0.0, limit - spent))
        return torch.where(self._soon(pairs).cpu(), found.clamp(max=_WITH_FEW), found)

    def _soon(self, pairs: Pairs) -> Tensor:
        """Mask (P,) of the pairs that the exact step decides soon."""
        return (open_neurons(self.model, pairs.bounds) <= _FEW) & self._exact

    def _known(self, tree: Branching) -> Tensor:
        """What is known (P,) of the margins of the pairs in a tree."""
        return self._rounds.lower[tree.pairs.samples, tree.pairs.rivals]
