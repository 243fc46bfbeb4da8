"""Branch and bound on margins of pairs, many subproblems at once (mathematics.md, section 4.9). Sound.

A node is the part of a pair's family on one side of some splits (splits.py). Its bound is optimised BP's with the
multipliers of the splits, proved in float64 whatever the search found; children start from what their parent found. A
node is closed when its bound is above the limit of the pair, or when an interval of it is empty; a pair whose nodes are
all closed has a positive margin.

Where to split: neurons are ranked by what their lines lose, the first few tried both ways, and that is taken whose two
children promise most. Pairs that took the least time go first, of each its lowest bounds.

Shapes: P pairs, Q nodes, B of them worked on together, D splits of each at most.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.backward_pass import Notes
from qverify.bounds.optimised import Choice, Effort, Quantities, bound_with, noted, rows_at_once, searched
from qverify.bounds.shrinking import empty
from qverify.bounds.splits import Candidates, Splits, candidates, narrowed
from qverify.budget import pieces
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.pairs import Pairs
    from qverify.bounds.tensors import BoundModel
    from qverify.budget import Deadline

_EFFORT = Effort(steps=12, length=0.25, decay=0.95)
"""Of a search for the bound of a node."""
_TRIED = 6
"""Neurons that are tried both ways before one of them is split."""
_TOGETHER = 256
"""Nodes worked on together at most: more are no faster on a processor."""
_LARGEST = 1e30
"""Bounds below which float32 has some room."""
_LEAST = 1e-6
"""The least that a child's gain counts for in a score, so that the other child's still tells."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Nodes(Brief):
    """Q subproblems: their pairs (Q,), bounds proved (Q,), splits, and what the search for these bounds found."""

    pair: Tensor
    proved: Tensor
    splits: Splits
    choice: Choice

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, chosen: Tensor) -> Nodes:
        """Some of them."""
        return Nodes(
            pair=self.pair[chosen],
            proved=self.proved[chosen],
            splits=self.splits.take(chosen),
            choice=self.choice.mapped(lambda t: t[chosen]),
        )

    def join(self, more: Nodes) -> Nodes:
        """These and more, with as many places for splits as either has."""
        depth = max(self.splits.depth, more.splits.depth)
        one, other = self.deepened(depth), more.deepened(depth)
        tensors = [torch.cat(both) for both in zip(one.choice.tensors(), other.choice.tensors(), strict=True)]
        return Nodes(
            pair=torch.cat([one.pair, other.pair]),
            proved=torch.cat([one.proved, other.proved]),
            splits=Splits.join([one.splits, other.splits]),
            choice=one.choice.of_tensors(tensors),
        )

    def deepened(self, depth: int) -> Nodes:
        """The same with so many places for splits."""
        more, multipliers = depth - self.splits.depth, self.choice.multipliers
        assert multipliers is not None
        if not more:
            return self
        return Nodes(
            pair=self.pair,
            proved=self.proved,
            splits=self.splits.deepened(more),
            choice=Choice(shares=self.choice.shares, multipliers=torch.nn.functional.pad(multipliers, (0, more))),
        )


class Branching:
    """The open nodes of some pairs, which `add` takes in and `step` works on.

    `closed` (P,): pairs whose margin is proved positive; `left` (P,): those that are still under way; `used` (P,):
    seconds that each took, of `seconds` (P,) that it has.
    """

    def __init__(self, model: BoundModel, pairs: Pairs, seconds: Tensor):
        self.model, self.pairs, self.seconds = model, pairs, seconds
        self._last = len(model.network.layers) - 1
        self._together = min(_TOGETHER, rows_at_once(model, self._last))
        sizes = sum(layer.size for layer in model.network.layers)
        self._room = max(self._together, pieces(sizes, 1.0, model.memory))
        self._near = pairs.bounds.to(torch.float32)
        self.used = torch.zeros(len(pairs), dtype=torch.float64)
        self.closed = torch.zeros(len(pairs), dtype=torch.bool)
        self.left = torch.ones(len(pairs), dtype=torch.bool)
        self._reached = pairs.margin
        self.nodes = self._roots(torch.arange(len(pairs), device=model.device))
        self._settle()

    @staticmethod
    def possible(pairs: Pairs) -> bool:
        """Whether float32, in which is searched, has all their numbers."""
        ends = (*pairs.bounds.lower, *pairs.bounds.upper)
        return all(bool((one.abs() < _LARGEST).all()) for one in ends)

    def add(self, pairs: Pairs, seconds: Tensor) -> None:
        """Work on some more pairs as well, with so many seconds (K,) each."""
        before, count = len(self.pairs), len(pairs)
        self.pairs, self.seconds = self.pairs.join(pairs), torch.cat([self.seconds, seconds])
        self._near = type(self._near).concatenate([self._near, pairs.bounds.to(torch.float32)])
        self.used = torch.cat([self.used, self.used.new_zeros(count)])
        self.closed = torch.cat([self.closed, torch.zeros(count, dtype=torch.bool)])
        self.left = torch.cat([self.left, torch.ones(count, dtype=torch.bool)])
        self._reached = torch.cat([self._reached, pairs.margin])
        self.nodes = self.nodes.join(self._roots(before + torch.arange(count, device=self.model.device)))
        self._settle()

    def step(self, deadline: Deadline | None = None) -> None:
        """Split some nodes, and bound the children."""
        began = time.perf_counter()
        chosen = self._chosen()
        parents, rest = self.nodes.take(chosen), self.nodes.take(_others(chosen, len(self.nodes)))
        place, at, unit, whole = self._branching(parents)
        # Where nothing is left to split, the pair is not decided here.
        self.left[parents.pair[whole].cpu()] = False
        some = torch.nonzero(~whole & self.left.to(whole.device)[parents.pair]).squeeze(1)
        self.nodes = rest
        if len(some):
            parents = parents.take(some)
            right, left = self._sides(parents, place[some], at[some], unit[some])
            self.nodes = rest.join(self._bounded(right.join(left), deadline))
            self._charge(parents.pair, time.perf_counter() - began)
        self._settle()

    def bound(self) -> Tensor:
        """Lower bounds (P,) on the margins, for the members within the limits: those of the open nodes, or of those
        that were open when a pair was given up."""
        found = torch.full_like(self.pairs.margin, torch.inf)
        found = found.scatter_reduce(0, self.nodes.pair, self.nodes.proved, "amin")
        dropped = ~(self.left | self.closed).to(found.device)
        return torch.where(dropped, torch.minimum(found, self._reached), found)

    def halves(self) -> tuple[Pairs, Tensor]:
        """Either side of the split that promises most, of every pair that has an open node and was not split yet, with
        bounds narrowed to it; and a mask (P,) of the pairs whose members these are, or that are closed."""
        done = self.closed.clone()
        if not len(self.nodes):
            return self.pairs.take(self.nodes.pair), done
        place, at, unit, whole = self._branching(self.nodes)
        some = torch.nonzero(~whole).squeeze(1)
        right, left = self._sides(self.nodes.take(some), place[some], at[some], unit[some])
        both = right.join(left)
        bounds = narrowed(self.model, self.pairs.bounds.take(both.pair), both.splits)
        halves = replace(self.pairs.take(both.pair), bounds=bounds, margin=both.proved)
        done[self.nodes.pair[some].cpu()] = True
        return halves.take(torch.nonzero(~empty(bounds)).squeeze(1)), done

    # -- nodes ------------------------------------------------------------------------------------

    def _roots(self, pair: Tensor) -> Nodes:
        """The pairs themselves, with the usual lines."""
        splits = Splits.none(len(pair), self.pairs.margin)
        asked = self._asked(pair, splits, torch.float32)
        notes = noted(self.model.searching, self._near.take(pair), asked, Choice(shares={}))
        shares = {i: t.expand(len(pair), 1, t.shape[2]).contiguous() for i, t in notes.shares.items()}
        choice = Choice(shares=shares, multipliers=torch.zeros(len(pair), 1, 0, device=pair.device))
        return self._bounded(Nodes(pair=pair, proved=self.pairs.margin[pair], splits=splits, choice=choice), None)

    def _chosen(self) -> Tensor:
        """The nodes (B,) to work on next."""
        order = torch.argsort(self.nodes.proved)
        order = order[torch.argsort(self.used.to(order.device)[self.nodes.pair[order]], stable=True)]
        return order[: self._together // 2]

    def _settle(self) -> None:
        """See which pairs are closed, and drop the nodes of those that are given up."""
        count = torch.bincount(self.nodes.pair, minlength=len(self.left)).cpu()
        done = self.left & (count == 0)
        self.closed |= done
        self.left &= ~done & (self.used < self.seconds)
        if len(self.nodes) > self._room:  # the memory is full
            self.left[int(count.argmax())] = False
        self._reached = self.bound()
        kept = self.left.to(self.nodes.pair.device)[self.nodes.pair]
        if not bool(kept.all()):
            self.nodes = self.nodes.take(torch.nonzero(kept).squeeze(1))

    def _charge(self, pairs: Tensor, seconds: float) -> None:
        """Share the time among the pairs that it was spent on."""
        count = torch.bincount(pairs, minlength=len(self.left)).cpu().to(torch.float64)
        self.used += seconds * count / count.sum().clamp(min=1.0)

    # -- bounds -----------------------------------------------------------------------------------

    def _asked(self, pair: Tensor, splits: Splits, dtype: torch.dtype) -> Quantities:
        rows = self.pairs.rows[pair].unsqueeze(1).to(dtype)
        return Quantities(rows={self._last: rows}, splits=splits.to(dtype))

    def _bounded(self, nodes: Nodes, deadline: Deadline | None) -> Nodes:
        """The same nodes with bounds proved by a search that begins where it stands; without those that are closed."""
        bounds = narrowed(self.model, self.pairs.bounds.take(nodes.pair), nodes.splits)
        asked = self._asked(nodes.pair, nodes.splits, self.model.dtype)
        proved, choice = searched(self.model, bounds, asked, _EFFORT, deadline, nodes.choice)
        proved = torch.maximum(proved.squeeze(1), nodes.proved)
        open_ = ~(empty(bounds) | (proved > self.pairs.limit[nodes.pair]))
        nodes = Nodes(pair=nodes.pair, proved=proved, splits=nodes.splits, choice=choice)
        return nodes.take(torch.nonzero(open_).squeeze(1))

    # -- branching --------------------------------------------------------------------------------

    @torch.no_grad()
    def _branching(self, parents: Nodes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The neuron (B,) to split of each node, where (B,), the unit of its multiplier (B,), and a mask (B,) of the
        nodes in which none is left."""
        model, notes = self.model.searching, Notes()
        bounds = narrowed(model, self._near.take(parents.pair), parents.splits.to(torch.float32))
        asked = self._asked(parents.pair, parents.splits, torch.float32)
        before = bound_with(model, bounds, asked, parents.choice, notes).squeeze(1)
        found = candidates(model, bounds, notes.rows, notes.shares)
        best = torch.topk(found.gain, min(_TRIED, found.gain.shape[1]), 1)
        one = best.indices.gather(1, self._tried(parents, found, best.indices, before).unsqueeze(1))
        whole = found.gain.gather(1, one).squeeze(1) < 0
        return one.squeeze(1), found.at.gather(1, one).squeeze(1), found.unit.gather(1, one).squeeze(1), whole

    def _tried(self, parents: Nodes, found: Candidates, tried: Tensor, before: Tensor) -> Tensor:
        """Which (B,) of the neurons `tried` (B, K) promises most: both children bounded with what their parent has."""
        count, model = tried.shape[1], self.model.searching
        repeated = torch.arange(len(parents), device=tried.device).repeat_interleave(count)
        many = parents.take(repeated)
        at, unit = (t.gather(1, tried).reshape(-1) for t in (found.at, found.unit))
        gains = []
        for children in self._sides(many, tried.reshape(-1), at, unit):
            splits = children.splits.to(torch.float32)
            bounds = narrowed(model, self._near.take(children.pair), splits)
            asked = self._asked(children.pair, splits, torch.float32)
            after = bound_with(model, bounds, asked, children.choice).reshape(-1, count)
            after = torch.where(empty(bounds).reshape(-1, count), torch.inf, after)
            gains.append((after - before.unsqueeze(1)).clamp(min=0.0))
        limit = (-before).clamp(min=0.0).unsqueeze(1)  # above 0 a child is closed, however far
        least, most = torch.minimum(*gains).minimum(limit), torch.maximum(*gains).minimum(limit)
        score = least.clamp(min=_LEAST) * most.clamp(min=_LEAST)
        score = torch.where(found.gain.gather(1, tried) >= 0, score, -1.0)
        return score.argmax(1)

    def _sides(self, parents: Nodes, place: Tensor, at: Tensor, unit: Tensor) -> list[Nodes]:
        """The children on either side of one more split (B,) of each node, with what their parents found."""
        found, multipliers = [], parents.choice.multipliers
        assert multipliers is not None
        longer = torch.nn.functional.pad(multipliers, (0, 1))
        for side in (1.0, -1.0):
            splits = parents.splits.with_one(place, torch.full_like(at, side), at, unit)
            choice = Choice(shares=parents.choice.shares, multipliers=longer)
            found.append(Nodes(pair=parents.pair, proved=parents.proved, splits=splits, choice=choice))
        return found


def _others(chosen: Tensor, count: int) -> Tensor:
    """The numbers (count - B,) that are not chosen."""
    mask = torch.ones(count, dtype=torch.bool, device=chosen.device)
    mask[chosen] = False
    return torch.nonzero(mask).squeeze(1)
