"""Halves of a pair's family, with bounds on neurons found anew for each (mathematics.md, section 4.9). Sound.

Branch and bound (branched.py) splits thousands of times, and all its nodes keep the intervals of the pair. Where much
is lost in intervals that does not help. Here a family is halved at the neuron that promises most, a round (pairs.py) is
made for either half, and branch and bound has it for as long as that took. Such a part costs some hundred times as much
as a node, and some dozens of them often close what a hundred thousand nodes do not.

Shapes: P pairs; here parts of one, by the same sample and rival.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qverify.bounds.branched import Branching
from qverify.bounds.pairs import tightened
from qverify.bounds.shrinking import open_neurons
from qverify.budget import pieces

if TYPE_CHECKING:
    from qverify.bounds.pairs import Pairs
    from qverify.bounds.tensors import BoundModel
    from qverify.budget import Deadline

_TOGETHER, _ROWS = 16, 1500
"""Parts halved together at most, and rows of neurons in a round of these: more are no faster."""
_ENDS = 4
"""Tensors of the size of all layers that the bounds of a part take."""
_LEAST = 0.02
"""Seconds that branch and bound has a half for at least."""


class Tightening:
    """The open parts of a single pair, which `step` works on. `parts`: none are left once the margin is proved
    positive. `stuck`: nothing is left to split in one of them, or the memory is full."""

    def __init__(self, model: BoundModel, pair: Pairs):
        self.model, self.parts, self.stuck = model, pair, False
        self._room = pieces(_ENDS * sum(layer.size for layer in model.network.layers), 1.0, model.memory)

    @property
    def bound(self) -> float:
        """A lower bound on the margin, for the members within the limit; inf if there are none."""
        return float(self.parts.margin.min()) if len(self.parts) else torch.inf

    def step(self, deadline: Deadline) -> None:
        """Halve the parts with the lowest bounds."""
        order = torch.argsort(self.parts.margin)
        neurons = int(open_neurons(self.model, self.parts.bounds)[order[0]])
        count = max(1, min(_TOGETHER, _ROWS // max(1, 4 * neurons)))
        lowest, rest = self.parts.take(order[:count]), self.parts.take(order[count:])
        tree = Branching(self.model, lowest, torch.full((len(lowest),), torch.inf, dtype=torch.float64))
        halves, done = tree.halves()
        kept = torch.nonzero(~done.to(order.device)).squeeze(1)
        self.stuck = bool(len(kept)) or len(self.parts) > self._room
        began = time.perf_counter()
        halves = tightened(self.model, halves, deadline)
        self.parts = rest.join(self._branched(halves, time.perf_counter() - began, deadline)).join(lowest.take(kept))

    def _branched(self, halves: Pairs, seconds: float, deadline: Deadline) -> Pairs:
        """Those that branch and bound does not close in so many seconds together, with its bounds."""
        if not len(halves):
            return halves
        each = max(_LEAST, seconds / len(halves))
        tree = Branching(self.model, halves, torch.full((len(halves),), each, dtype=torch.float64))
        while len(tree.nodes) and not deadline.passed():
            tree.step(deadline)
        left = torch.nonzero(~tree.closed).squeeze(1).to(self.model.device)
        found = torch.maximum(halves.margin, tree.bound().clamp(max=torch.finfo(self.model.dtype).max))
        return replace(halves, margin=found).take(left)
