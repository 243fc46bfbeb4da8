"""What every stage of an integer network makes of exact tensors, and of intervals of them, under a set of rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

from qverify.runtimes.integers import Kind
from qverify.runtimes.rules import nearest, ways_of
from qverify.runtimes.sums import Made, Sums, sums_of
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.runtimes.integers import IntegerNetwork, Stage
    from qverify.runtimes.rules import Way

STORE = torch.float32
"""Type of tensors of integers between stages, which have at most 24 bits; the outputs stay in float64."""


@dataclass(frozen=True, eq=False, repr=False)
class Outputs(Brief):
    """Bounds on the outputs of N states: `low`, `high` (N, n_out); `proved` (N,): the class is the one asked about."""

    low: Tensor
    high: Tensor
    proved: Tensor


class Engine:
    """An integer network with the ways of its stages. `ways[t - 1]` are those of tensor t, `alive[t]` the tensors
    below t that a stage from t on reads."""

    def __init__(self, network: IntegerNetwork, rules: tuple[str, ...]):
        self.network, self.rules = network, rules
        self.stages = network.stages
        self.last = len(network.stages)
        self._sums = sums_of(network)
        self.ways = tuple(ways_of(stage, rules, self._signed(stage)) for stage in network.stages)
        needed: list[tuple[int, ...]] = [()]
        for stage in reversed(network.stages):
            t = self.last - len(needed) + 1
            needed.append(tuple(sorted({*needed[-1], *stage.sources} - {t})))
        self.alive = ((), *reversed(needed[1:]))
        self._margin = _Margins(network, self.ways[-1], self._sums[-1])
        self.influence = {t: self._influence(t) for t in range(1, self.last)}

    def _signed(self, stage: Stage) -> bool:
        """Whether what a stage reads may be negative."""
        return stage.sources[0] == 0 or self.stages[stage.sources[0] - 1].low < 0

    def _influence(self, t: int) -> Tensor:
        """How much an entry of tensor t (size,) may move what reads it, in steps: a guess that only orders entries."""
        total = torch.zeros(self.stages[t - 1].size)
        for stage, sums in zip(self.stages, self._sums, strict=True):
            if t in stage.sources and sums is not None:
                total += sums.influence()
        return total

    def accumulators(self, t: int, tensors: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """The exact accumulators of tensor t, float64, from exact tensors."""
        stage, sums = self.stages[t - 1], self._sums[t - 1]
        read = [tensors[source] for source in stage.sources]
        return tuple(x.double() for x in ([sums.exact(*read)] if sums else read))

    def bound(self, t: int, low: dict[int, Tensor], high: dict[int, Tensor], label: Tensor) -> Outputs:
        """Bounds on the outputs over all rules from tensor t <= `last` on, where those below it are between these ends.

        `label` (N,): the class asked about. Only the tensors in `alive[t]` are read.
        """
        low, high = dict(low), dict(high)
        for s in range(t, self.last + 1):
            lows, highs = self._interval(s, low, high)
            if s == self.last:
                break
            low[s], high[s] = self.union(s, lows, highs)
        outputs = self.union(self.last, lows, highs)
        return self._margin.decide(low, high, outputs, label)

    def run(self, rule: str, x: Tensor) -> tuple[dict[int, Tensor], tuple[int, ...]]:
        """All tensors if every stage follows one rule, x (N, n_in); and which way of each stage that is.

        Where a rule is a set, what is in it of the tensor rounded to nearest, ties to even.
        """
        tensors, chosen = {0: x}, []
        for t in range(1, self.last + 1):
            accumulators = self.accumulators(t, tensors)
            way = next(i for i, way in enumerate(self.ways[t - 1]) if rule in way.names)
            chosen.append(way)
            tensors[t] = self.stored(t, self.member(t, way, accumulators))
        return tensors, tuple(chosen)

    def member(self, t: int, way: int, accumulators: tuple[Tensor, ...]) -> Tensor:
        """A tensor t that a way may make: the only one, or the one nearest to real arithmetic."""
        one = self.ways[t - 1][way]
        low = one.low(*accumulators)
        if one.single:
            return low
        return nearest(self.stages[t - 1], *accumulators).clamp(low, one.high(*accumulators))

    def decide(self, sources: dict[int, Tensor], outputs: tuple[Tensor, Tensor], label: Tensor) -> Outputs:
        """The same for bounds on the outputs that are known, of exact tensors before them."""
        return self._margin.decide(sources, sources, outputs, label)

    def _interval(
        self, t: int, low: dict[int, Tensor], high: dict[int, Tensor]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The accumulators of tensor t at both ends of what it reads."""
        stage, sums = self.stages[t - 1], self._sums[t - 1]
        if sums is None:
            ends = (tuple(side[source].double() for source in stage.sources) for side in (low, high))
            return next(ends), next(ends)
        if all(torch.equal(low[source], high[source]) for source in stage.sources):
            exact = self.accumulators(t, low)
            return exact, exact
        below, above = sums.interval(*(side[source] for source in stage.sources for side in (low, high)))
        return (below.double(),), (above.double(),)

    def union(self, t: int, lows: tuple[Tensor, ...], highs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The least and the largest integers that any way makes of tensor t, from accumulators between two ends."""
        ways = self.ways[t - 1]
        low = reduce(torch.minimum, (way.low(*lows) for way in ways))
        if lows is highs and all(way.single for way in ways):
            high = low if len(ways) == 1 else reduce(torch.maximum, (way.high(*highs) for way in ways))
        else:
            high = reduce(torch.maximum, (way.high(*highs) for way in ways))
        return self.stored(t, low), self.stored(t, high)

    def stored(self, t: int, tensor: Tensor) -> Tensor:
        """Tensor t as it is kept."""
        return tensor if t == self.last else tensor.to(STORE)


class _Margins:
    """When a class is proved: by the bounds on the outputs, or by those on their differences before they are rounded.

    A runtime answers the first of the largest outputs, so it must be above those before it and not below those after.
    """

    def __init__(self, network: IntegerNetwork, ways: tuple[Way, ...], sums: Made | None):
        stage = network.stages[-1]
        self.stage, self.source = stage, stage.sources[0]
        self.order = torch.arange(stage.size)
        self.weight = None
        if isinstance(sums, Sums) and stage.kind is Kind.WEIGHTS and sums.weight.ndim == 2:
            unit = 1.0 if stage.step is None else torch.tensor(stage.spread(stage.steps[0])) / stage.step
            self.weight = sums.weight.double() * (unit if isinstance(unit, float) else unit[:, None])
            self.bias = sums.bias.double() * unit
            mass = 2 * float((self.weight.abs().sum(1) * network.reaches[self.source] + self.bias.abs()).max())
            self.error = 1e-9 * (1.0 + mass)
            if stage.step is not None:
                self.error += 2 * max(0.5 + way.error for way in ways)

    def decide(
        self, low: dict[int, Tensor], high: dict[int, Tensor], outputs: tuple[Tensor, Tensor], label: Tensor
    ) -> Outputs:
        """Whether the class `label` (N,) holds, given bounds on the tensors before the last and on the outputs."""
        lower, upper = outputs
        own = lower.gather(1, label[:, None])
        least = own - upper  # of the class's output above each other one
        strict = self.order < label[:, None]
        if self.weight is not None:
            gap = self._before_rounding(low[self.source], high[self.source], label)
            unclipped = (gap - self.error).ceil()
            apart = (upper < self.stage.high) & (own > self.stage.low)
            unclipped = torch.where((unclipped > 0) & ~apart, 0.0, unclipped)
            least = torch.where(unclipped >= 0, torch.maximum(least, unclipped), least)
        won = (least > 0) | ((least >= 0) & ~strict) | (self.order == label[:, None])
        return Outputs(lower, upper, won.all(1))

    def _before_rounding(self, low: Tensor, high: Tensor, label: Tensor) -> Tensor:
        """Lower bounds (N, n_out) on the class's value less every other, in steps, before these are rounded."""
        assert self.weight is not None
        middle, reach = (low + high).double() / 2, (high - low).double() / 2
        rows = self.weight[label][:, None, :] - self.weight
        fixed = self.bias[label][:, None] - self.bias
        return (rows @ middle[:, :, None] - rows.abs() @ reach[:, :, None])[:, :, 0] + fixed
