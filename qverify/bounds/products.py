"""Bounds on the product of two layers, `z = x y`, for x and y within bounds (mathematics.md, section 4.6).

McCormick's planes hold for all x in [l, u] and y in [m, v], since products of distances to the ends are not negative:

    z >= m x + l y - l m,    z >= v x + u y - u v,    z <= v x + l y - l v,    z <= m x + u y - u m.

Any mixture of the two planes on one side holds as well. Of a square every tangent is below, which is above the mixture
of those at the ends: z >= 2 t x - t^2 for any t. Sound up to rounding, which the caller allows for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.backward_pass import BackwardPass

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


def tangent(x: Ends, share: Tensor) -> Plane:
    """The plane below a square that touches it at a share of the lower end, and the rest of the upper one."""
    t = torch.minimum(torch.maximum(share * x[0] + (1.0 - share) * x[1], x[0]), x[1])
    return _touching(t, t)


def product_backward(state: BackwardPass, index: int, a: Tensor) -> None:
    """Rows `a` (B, S, size) of what is bounded below, taken back through a product."""
    first, second = state.model.network.layers[index].inputs
    x, y = state.ends(first), state.ends(second)
    state.lose_noise(index, a.abs())
    share = state.share(index, torch.full_like(a, 0.5))
    below, above = a.clamp(min=0), a.clamp(max=0)
    parts = [*zip((above * share, above * (1.0 - share)), planes_above(x, y), strict=True)]
    if first == second:
        parts.append((below, tangent(x, share)))
    else:
        parts += zip((below * share, below * (1.0 - share)), planes_below(x, y), strict=True)
    for part, plane in parts:
        state.add(first, part * plane.first)
        state.add(second, part * plane.second)
        state.constant = state.constant + (part * plane.constant).sum(2)
    if state.tracks:
        tiny = state.model.rounding.tiny
        reach = torch.maximum(x[0].abs(), x[1].abs()) + tiny, torch.maximum(y[0].abs(), y[1].abs()) + tiny
        state.err(3.0 * (a.abs() * reach[0] * reach[1]).sum(2) + state.constant.abs(), a.shape[2] + 8, first)
        state.err(torch.zeros_like(state.constant), 1, second)
