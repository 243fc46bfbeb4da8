"""Products in systems of nodes (system.py): of two values, and what the difference of two such products is. Sound.

With centres c and half widths w of the factors' intervals, `(x - c_x)(y - c_y)` lies in `[-w_x w_y, w_x w_y]`, so

    x y  =  c_y x + c_x y - c_x c_y  +-  w_x w_y,

and the difference of two products is, with the means `m_x = x + d_x / 2` and `m_y = y + d_y / 2` of both factors,

    (x + d_x)(y + d_y) - x y  =  m_y d_x + m_x d_y.                                                           (39a)

Means and differences both lie in intervals; the widths of the means go into a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.bounds.products import product_interval
from qverify.rounding import TINY, UNIT
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Box = tuple["Tensor", "Tensor"]

_ULPS = 64.0 * UNIT


@dataclass(frozen=True, eq=False, repr=False)
class Planes(Brief):
    """`first a + second b + lower <= product <= first a + second b + upper`; (size,) each.

    `reach`: the largest absolute values of what is added up.
    """

    first: Tensor
    second: Tensor
    lower: Tensor
    upper: Tensor
    reach: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Bilinear(Brief):
    """The product of nodes `sources`; or, where `seen` are the factors of one product, by how much another is above it
    whose factors are above those by nodes `sources`."""

    name: str
    size: int
    sources: tuple[int, int]
    seen: tuple[int, ...] = ()

    def made(self, boxes: Sequence[Box]) -> tuple[Planes, Box]:
        """The planes, and the interval of the node's value, given the boxes of all nodes before."""
        one, other = (boxes[i] for i in self.sources)
        if not self.seen:
            square = self.sources[0] == self.sources[1]
            return _planes(other, one, one, other), _outwards(product_interval(one, other, square), one, other)
        first, second = (_mean(boxes[i], d) for i, d in zip(self.seen, (one, other), strict=True))
        parts = [product_interval(second, one), product_interval(first, other)]
        whole = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
        moved = _planes(second, first, one, other, means=True)
        return moved, _outwards(whole, second, one, first, other)


def _mean(box: Box, d: Box) -> Box:
    """The interval of `x + d / 2`, outwards."""
    low, high = box[0] + 0.5 * d[0], box[1] + 0.5 * d[1]
    slack = (low.abs() + high.abs() + d[0].abs() + d[1].abs()) * _ULPS + TINY
    return low - slack, high + slack


def _planes(first: Box, second: Box, one: Box, other: Box, means: bool = False) -> Planes:
    """Planes whose slopes are the centres of `first`, at node `one`, and `second`, at node `other`."""
    (c, w), (e, u) = _centred(first), _centred(second)
    sizes = [_size(box) for box in (one, other)]
    if means:
        rest, middle = w * sizes[0] + u * sizes[1], 0.0 * c
    else:
        rest, middle = w * u, -c * e
    reach = c.abs() * sizes[0] + e.abs() * sizes[1] + middle.abs() + rest
    slack = reach * _ULPS + TINY
    return Planes(c, e, middle - rest - slack, middle + rest + slack, reach)


def _centred(box: Box) -> tuple[Tensor, Tensor]:
    """Centre and half width, so that both ends are within; outwards."""
    centre = 0.5 * (box[0] + box[1])
    width = (box[1] - centre).maximum(centre - box[0])
    return centre, width * (1.0 + _ULPS) + TINY


def _size(box: Box) -> Tensor:
    return box[0].abs().maximum(box[1].abs())


def _outwards(box: Box, *factors: Box) -> Box:
    """An interval made of products of these factors, two by two, with what was rounded in it."""
    sizes = [_size(each) for each in factors]
    total = sizes[0] * sizes[1] + (sizes[2] * sizes[3] if len(sizes) > 2 else 0.0)
    slack = total * _ULPS + TINY
    return box[0] - slack, box[1] + slack
