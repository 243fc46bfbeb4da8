"""The runtimes of an integer file one by one: branch and bound over what ties leave open (mathematics.md, section 16).

Sound, and given time exact.

Weights of a file are fixed and every rounding point is on its grid, so all that runtimes may do differently is where a
value falls that is near a tie. At a sample such values are few. So intervals are computed layer by layer; in the first
layer that has a rounding point with two numbers or more, some entries are cut in two between numbers of their grid; and
all layers behind are computed again. Where no entry is open, every number is known, and what answers wrong then is a
runtime that does.

Shapes: N nodes, each of one of the samples that were given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.interval import Ends, interval_margins, interval_step
from qverify.bounds.tensors import Bounds
from qverify.family.points import multiples
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel
    from qverify.budget import Deadline

_CUT = 3
"""Entries of a node that are cut at once."""
_OPERATIONS, _FEWEST, _MOST = 1e9, 16, 512
"""Nodes that a sample may take: so many that they cost these multiplications of forward passes, within two ends. Where
ties are few that is plenty; in deep networks they are a few in every layer, which no number of nodes gets through."""
_SHARE = 0.05
"""Of the time that is left."""
_TOGETHER, _COPIES, _PASSES = 64, 8, 4
"""Nodes computed at once; the tensors of all layers that one takes, and the forward passes that it costs."""


@dataclass(eq=False, repr=False)
class Ties(Brief):
    """`margins` (S, classes): margins proved of the samples all of whose nodes are closed, else -inf. `leaves`: by the
    position of a sample the values of all layers, each (size,), where every rounding point has its number and the
    margins are not positive."""

    margins: Tensor
    leaves: dict[int, list[Tensor]] = field(default_factory=dict)


def enumerable(model: BoundModel) -> bool:
    """Whether nothing may move but what rounding points of known grids give."""
    moved = any(bool(affine.radius.any() or affine.bias_radius.any()) for affine in model.affine.values())
    fixed = not moved and model.dynamic is None and not model.cuts
    return fixed and bool(model.points) and all(_on_grid(model, i) for i in model.activation)


def _on_grid(model: BoundModel, index: int) -> bool:
    point = model.points.get(index)
    if point is None:
        return not bool(model.activation[index].any())
    return bool((point.step > 0).all())


def ties(model: BoundModel, bounds: Bounds, labels: Tensor, deadline: Deadline) -> Ties:
    """Nodes of all samples of `bounds`, with labels (S,), until each is closed, ends in a leaf, or takes too long."""
    return _Search(model, bounds, labels).run(deadline.share(_SHARE))


def halves(low: Tensor, high: Tensor, places: list[int]) -> Ends:
    """Whole numbers in [low, high] (size,), cut in two at each of k places: the ends (2^k, size) of all parts."""
    lows, highs = [], []
    for uppers in product((False, True), repeat=len(places)):
        least, most = low.clone(), high.clone()
        for place, upper in zip(places, uppers, strict=True):
            middle = torch.floor((low[place] + high[place]) / 2)
            if upper:
                least[place] = middle + 1
            else:
                most[place] = middle
        lows.append(least)
        highs.append(most)
    return torch.stack(lows), torch.stack(highs)


class _Search:
    """The nodes that wait, the deepest last, with the positions of their samples."""

    def __init__(self, model: BoundModel, bounds: Bounds, labels: Tensor):
        self.model, self.labels = model, labels
        self.waiting = [(bounds, torch.arange(len(labels), device=labels.device))]
        self.left = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        self.nodes = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
        self.most = int(min(_MOST, max(_FEWEST, _OPERATIONS / model.operations)))
        floats = sum(layer.size for layer in model.network.layers)
        self.together = min(_TOGETHER, model.rows_that_fit(_COPIES, floats, _PASSES))
        classes = model.network.output_size
        self.worst = torch.full((len(labels), classes), torch.inf, dtype=model.dtype, device=labels.device)
        self.leaves: dict[int, list[Tensor]] = {}

    def run(self, deadline: Deadline) -> Ties:
        while self.waiting and not deadline.passed():
            bounds, owner = self.waiting.pop()
            if len(owner) > self.together:
                later = torch.arange(self.together, len(owner), device=owner.device)
                self.waiting.append((bounds.take(later), owner[later]))
                bounds, owner = bounds.take(slice(self.together)), owner[: self.together]
            asked = torch.nonzero(~self.left[owner]).squeeze(1)
            if len(asked):
                self._step(bounds.take(asked), owner[asked])
        for _, owner in self.waiting:
            self.left[owner] = True
        self.worst[self.left] = -torch.inf
        return Ties(self.worst, self.leaves)

    def _step(self, bounds: Bounds, owner: Tensor) -> None:
        """Margins of nodes; those that these leave open are cut, or given up with their sample."""
        self.nodes.index_add_(0, owner, torch.ones_like(owner))
        margins = interval_margins(self.model, bounds, self.labels[owner])
        closed = (margins > 0).all(1)
        for row in torch.nonzero(closed).squeeze(1).tolist():
            self.worst[owner[row]] = torch.minimum(self.worst[owner[row]], margins[row])
        self.left |= self.nodes > self.most
        rest = torch.nonzero(~closed & ~self.left[owner]).squeeze(1)
        bounds, owner = bounds.take(rest), owner[rest]
        for index in self.model.network.roundings:
            if not len(owner):
                return
            first, last = self._counts(bounds, index)
            is_open = (last > first).any(1)
            rows = torch.nonzero(is_open).squeeze(1)
            if len(rows):
                self._cut(bounds.take(rows), owner[rows], index, (first[rows], last[rows]))
            rest = torch.nonzero(~is_open).squeeze(1)
            bounds, owner = bounds.take(rest), owner[rest]
        for row, sample in enumerate(owner.tolist()):
            self.left[sample] = True
            self.leaves.setdefault(sample, [values[row] for values in bounds.lower])

    def _counts(self, bounds: Bounds, index: int) -> Ends:
        """The least and the largest number (N, size) of steps that rounding point `index` may give."""
        return multiples(torch, self.model.points[index].step, bounds.lower[index], bounds.upper[index])

    def _cut(self, bounds: Bounds, owner: Tensor, index: int, counts: Ends) -> None:
        """Push the halves of nodes (N) in those entries of rounding point `index` that matter most."""
        step, parents, lows, highs = self.model.points[index].step, [], [], []
        weight = self._influence(index)
        for row in range(len(owner)):
            low, high = (ends[row] for ends in counts)
            gap = (high - low) * step * weight
            places = torch.argsort(gap, descending=True)[: min(_CUT, int((gap > 0).sum()))].tolist()
            least, most = halves(low, high, places)
            parents += [row] * len(least)
            lows.append(least * step)
            highs.append(most * step)
        some = torch.tensor(parents, device=owner.device)
        self.waiting.append((self._behind(bounds.take(some), index, torch.cat(lows), torch.cat(highs)), owner[some]))

    def _influence(self, index: int) -> Tensor:
        """How much (size,) what a rounding point gives may matter: the weights of the dense layers that read it."""
        step = self.model.points[index].step
        total = torch.full_like(step, 1e-12)
        for reader in self.model.network.consumers[index]:
            affine = self.model.affine.get(reader)
            if affine is None or affine.is_conv:
                return torch.ones_like(step)
            total = total + affine.weight.abs().sum(0)
        return total

    def _behind(self, bounds: Bounds, index: int, low: Tensor, high: Tensor) -> Bounds:
        """The bounds with layer `index` between these ends, and all layers behind it computed again."""
        lower, upper = [*bounds.lower[:index], low], [*bounds.upper[:index], high]
        found = Bounds(lower=lower, upper=upper, activation=bounds.activation)
        for i in range(index + 1, len(self.model.network.layers)):
            ends = interval_step(self.model, found, i)
            lower.append(ends[0])
            upper.append(ends[1])
        return found
