"""Bounds on the product of two layers, `z = x y`, for x and y within bounds (mathematics.md, section 4.6).

McCormick's planes hold for all x in [l, u] and y in [m, v], since products of distances to the ends are not negative:

    z >= m x + l y - l m,    z >= v x + u y - u v,    z <= v x + l y - l v,    z <= m x + u y - u m.

Any mixture of the two planes on one side holds as well. Sound up to rounding, which the caller allows for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qverify.text.brief import Brief

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Plane(Brief):
    """`first x + second y + constant`, element by element."""

    first: Tensor
    second: Tensor
    constant: Tensor


def product_interval(x: Ends, y: Ends, square: bool = False) -> Ends:
    """The ends of x y: the least and the largest product of two ends; of a square, at least 0."""
    corners = torch.stack([a * b for a in x for b in y])
    low = corners.amin(0)
    if square:
        low = torch.where((x[0] < 0) & (x[1] > 0), 0.0, torch.minimum(corners[0], corners[3]))
    return low, corners.amax(0)


def planes_below(x: Ends, y: Ends) -> tuple[Plane, Plane]:
    """The two planes below: those that touch at both lower, and at both upper ends."""
    return _touching(x[0], y[0]), _touching(x[1], y[1])


def planes_above(x: Ends, y: Ends) -> tuple[Plane, Plane]:
    """The two planes above: those that touch at the lower end of x and the upper of y, and the other way round."""
    return _touching(x[0], y[1]), _touching(x[1], y[0])


def _touching(a: Tensor, b: Tensor) -> Plane:
    return Plane(b, a, -a * b)
