"""A system of values that depend on each other, and bounds on all of them. Sound in floating point.

Every node is a vector: a leaf with a box of its own, a linear map of earlier nodes, the largest of an earlier node
under windows, or a kink, a function of one earlier node between two lines. A network is such a system, and so are a
network and its difference to another. Bounds: intervals forward, then for every node that a kink reads, and for the
last, rows backward to the leaves, through the lines that the intervals found so far give.

One sample at a time: a node's ends are (size,), rows (S, size); float64. Rounding is accounted for as in
`bounds.backward`: every step adds to a slack what it can have been off by over the boxes it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from qverify.bounds.pools import pool_lines, undecided
from qverify.budget import PIECE, pieces
from qverify.errors import InternalError
from qverify.replication.products import Bilinear, Planes
from qverify.rounding import TINY, finite, gamma
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.replication.maps import Map
    from qverify.replication.relaxation import Lines

Box = tuple[Tensor, Tensor]
"""Lower and upper ends, (size,) each."""

REFINED = 2e9
"""Multiplications that the rows of one node may take for one sample; a node with more keeps its intervals."""


class Kinked(Protocol):
    """What a kink does: `lines` on an interval of what it reads, given the boxes of the nodes it also looks at."""

    def lines(self, box: Box, seen: Sequence[Box]) -> Lines:
        """Lines around the kink's value for what it reads in `box`."""

    def ends(self, box: Box, seen: Sequence[Box]) -> Box:
        """The interval of the kink's value."""


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Brief):
    """A node with a box of its own."""

    name: str
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Brief):
    """`sum of maps of earlier nodes + constant`."""

    name: str
    size: int
    parts: tuple[tuple[int, Map], ...]
    constant: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Kink(Brief):
    """A function of node `source`, whose lines also depend on the boxes of `seen`."""

    name: str
    size: int
    source: int
    kink: Kinked
    seen: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Largest(Brief):
    """The largest numbers of node `source` under windows (size, k); `difference`: by how much they exceed others of
    which node `source` is the difference, so that all that is known is that they lie between its ends."""

    name: str
    size: int
    source: int
    windows: Tensor
    difference: bool = False

    def ends(self, box: Box) -> Box:
        """The interval of the node's value, for what it reads in `box`."""
        low, high = (end[self.windows] for end in box)
        return (low.amin(1) if self.difference else low.amax(1)), high.amax(1)

    def wanted(self, box: Box) -> Tensor:
        """Mask of what it reads whose interval matters."""
        if self.difference:
            return box[1] > box[0]
        return undecided(self.windows, box[0][None], box[1][None])[0]

    def backward(self, rows: Tensor, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (S, size) on it: rows (S, n_in) on what it reads and constants (S,), below; and the largest values that
        both are made of (size,)."""
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        below = torch.zeros(len(rows), len(box[0]), dtype=rows.dtype)
        if self.difference:
            low, high = self.ends(box)
            return below, up @ low + down @ high, torch.maximum(low.abs(), high.abs())
        lines = pool_lines(self.windows, box[0][None], box[1][None])
        below = below.scatter_add(1, lines.below.expand_as(rows), up)
        below = below.scatter_add(1, lines.above.expand_as(rows), down * lines.slope)
        return below, down @ lines.intercept[0], lines.reach[0]


Node = Leaf | Linear | Kink | Largest | Bilinear


@dataclass(eq=False, repr=False)
class Bounds(Brief):
    """The boxes of the nodes of one sample, and of linear nodes the mass of what they sum."""

    boxes: list[Box] = field(default_factory=list)
    mass: dict[int, Tensor] = field(default_factory=dict)
    lines: dict[int, Lines] = field(default_factory=dict)
    planes: dict[int, Planes] = field(default_factory=dict)

    def reach(self, index: int) -> Tensor:
        """The largest absolute values of a node, (size,)."""
        return torch.maximum(self.boxes[index][0].abs(), self.boxes[index][1].abs())


@dataclass(frozen=True, eq=False, repr=False)
class System(Brief):
    """Nodes in an order in which they depend on earlier ones only. `goals`: the nodes whose bounds are wanted."""

    nodes: tuple[Node, ...]
    goals: tuple[int, ...]
    memory: int = PIECE

    def bounds(self, leaves: Sequence[Box], refined: bool = True) -> Bounds:
        """Bounds on every node, given the boxes of the leaves in order. Sound.

        `refined`: rows backward from what kinks read and from the goals; else intervals alone. Raises RadiiError where
        they overflow, InternalError where two bounds exclude each other.
        """
        found, own = Bounds(), iter(leaves)
        read = {i for node in self.nodes if isinstance(node, (Kink, Largest, Bilinear)) for i in _sources(node)}
        for index, node in enumerate(self.nodes):
            box = next(own) if isinstance(node, Leaf) else self._forward(found, index)
            finite(node.name, box[0], box[1])
            found.boxes.append(box)
            if refined and (index in read or index in self.goals) and not self._independent(index):
                self._refine(found, index, everywhere=index in self.goals)
        return found

    def _forward(self, found: Bounds, index: int) -> Box:
        """The interval of a node from those of the nodes it reads."""
        node = self.nodes[index]
        if isinstance(node, Kink):
            seen = [found.boxes[i] for i in node.seen]
            found.lines[index] = node.kink.lines(found.boxes[node.source], seen)
            return node.kink.ends(found.boxes[node.source], seen)
        if isinstance(node, Largest):
            return node.ends(found.boxes[node.source])
        if isinstance(node, Bilinear):
            found.planes[index], box = node.made(found.boxes)
            return box
        assert isinstance(node, Linear)
        middle, half, mass = node.constant, torch.zeros_like(node.constant), node.constant.abs()
        terms = len(node.parts)
        for source, each in node.parts:
            lower, upper = found.boxes[source]
            centre = 0.5 * (lower + upper)
            width = torch.maximum(upper - centre, centre - lower)
            middle = middle + each.forward(centre[None])[0]
            half = half + each.absolute(width[None])[0]
            mass = mass + each.absolute((found.reach(source) + TINY)[None])[0]
            terms += each.terms
        found.mass[index] = mass
        allowed = (mass + half) * (2.0 * gamma(terms)) + TINY
        return middle - half - allowed, middle + half + allowed

    def _independent(self, index: int) -> bool:
        """Intervals are as good as rows: the node reads nothing but leaves, or kinks of leaves."""
        node = self.nodes[index]
        if isinstance(node, Leaf):
            return True
        sources = _sources(node)
        plain = [i if isinstance(self.nodes[i], Leaf) else getattr(self.nodes[i], "source", None) for i in sources]
        return len(set(sources)) == len(sources) == len(set(plain)) and all(
            i is not None and isinstance(self.nodes[i], Leaf) for i in plain
        )

    def _refine(self, found: Bounds, index: int, everywhere: bool) -> None:
        """Intersect the interval of a node with what rows backward give."""
        lower, upper = found.boxes[index]
        wanted = torch.ones_like(lower, dtype=torch.bool) if everywhere else self._open(found, index)
        neurons = torch.nonzero(wanted)[:, 0]
        cost = sum(each.operations for node in self.nodes[: index + 1] for _, each in getattr(node, "parts", ()))
        if not everywhere and 2.0 * len(neurons) * cost > REFINED:
            return
        widest = max(node.size for node in self.nodes[: index + 1])
        lower, upper = lower.clone(), upper.clone()
        for some in torch.split(neurons, max(1, pieces(12 * widest, cost, self.memory) // 2)):
            rows = torch.nn.functional.one_hot(some, len(lower)).to(lower.dtype)
            both = self.least(found, {index: torch.cat([rows, -rows])}, index)
            lower[some] = torch.maximum(lower[some], both[: len(some)])
            upper[some] = torch.minimum(upper[some], -both[len(some) :])
        if bool((lower > upper).any()):
            raise InternalError(f"Two bounds on {self.nodes[index].name!r} exclude each other.")
        found.boxes[index] = lower, upper

    def _open(self, found: Bounds, index: int) -> Tensor:
        """Mask (size,) of the elements of a node on which the lines of a kink that reads it depend."""
        wanted = torch.zeros(self.nodes[index].size, dtype=torch.bool)
        for node in self.nodes:
            if isinstance(node, Largest) and node.source == index:
                wanted |= node.wanted(found.boxes[index])
            if isinstance(node, Bilinear) and index in node.sources:
                wanted |= found.boxes[index][1] > found.boxes[index][0]
            if isinstance(node, Kink) and node.source == index:
                if any(i >= len(found.boxes) for i in node.seen):
                    return torch.ones_like(wanted)
                low, high = node.kink.ends(found.boxes[index], [found.boxes[i] for i in node.seen])
                lines = node.kink.lines(found.boxes[index], [found.boxes[i] for i in node.seen])
                exact = (lines.lower_slope == lines.upper_slope) & (lines.lower == lines.upper)
                wanted |= (high - low > 1e-12 * (1.0 + high.abs() + low.abs())) & ~exact
        return wanted

    def least(self, found: Bounds, rows: dict[int, Tensor], last: int) -> Tensor:
        """Lower bounds (S,) on the sum of `rows` (S, size) over the nodes that they stand at, `last` at most. Sound."""
        rows = dict(rows)
        count = len(next(iter(rows.values())))
        constant = torch.zeros(count, dtype=torch.float64)
        slack = torch.zeros_like(constant)
        for index in range(last, -1, -1):
            row = rows.pop(index, None)
            if row is None:
                continue
            node, size = self.nodes[index], row.abs()
            if isinstance(node, Leaf):
                lower, upper = found.boxes[index]
                constant = constant + row.clamp(min=0) @ lower + row.clamp(max=0) @ upper
                mass, terms, tiny = found.reach(index), node.size, TINY
            elif isinstance(node, Linear):
                constant = constant + row @ node.constant
                for source, each in node.parts:
                    _add(rows, source, each.backward(row))
                mass = found.mass[index]
                terms = node.size + sum(each.terms for _, each in node.parts)
                tiny = TINY * (1.0 + float(sum(found.reach(source).sum() for source, _ in node.parts)))
            elif isinstance(node, Largest):
                below, added, mass = node.backward(row, found.boxes[node.source])
                _add(rows, node.source, below)
                constant = constant + added
                terms, tiny = node.size + 2, TINY * (1.0 + float(found.reach(node.source).sum()))
            elif isinstance(node, Bilinear):
                planes = found.planes[index]
                constant = constant + row.clamp(min=0) @ planes.lower + row.clamp(max=0) @ planes.upper
                for source, slope in zip(node.sources, (planes.first, planes.second), strict=True):
                    _add(rows, source, row * slope)
                mass, terms, tiny = planes.reach, node.size + 4, TINY * (1.0 + float(planes.reach.sum()))
            else:
                lines, source = found.lines[index], node.source
                up, down = row.clamp(min=0), row.clamp(max=0)
                constant = constant + up @ lines.lower + down @ lines.upper
                _add(rows, source, up * lines.lower_slope + down * lines.upper_slope)
                steep = torch.maximum(lines.lower_slope.abs(), lines.upper_slope.abs()).clamp(min=1.0)
                mass = steep * found.reach(source) + torch.maximum(lines.lower.abs(), lines.upper.abs())
                terms, tiny = node.size + 2, TINY * (1.0 + float(found.reach(source).sum()))
            slack = slack + (size @ (mass + TINY) + constant.abs()) * gamma(terms) + tiny
        result = constant - 2.0 * slack
        finite(self.nodes[last].name, result)
        return result


def _sources(node: Kink | Largest | Linear | Bilinear) -> list[int]:
    """The nodes that a node is made of."""
    if isinstance(node, Bilinear):
        return [*node.sources]
    return [node.source] if isinstance(node, (Kink, Largest)) else [source for source, _ in node.parts]


def _add(rows: dict[int, Tensor], index: int, row: Tensor) -> None:
    """Add rows to those that wait at a node."""
    before = rows.get(index)
    rows[index] = row if before is None else before + row
