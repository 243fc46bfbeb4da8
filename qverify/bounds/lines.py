"""Lines around a rounding point: y >= slope v + intercept, and y <= slope v + intercept, for v within bounds [l, u].

By formula (32), y lies between `clip(v - r, low, high)` and `clip(v + r, low, high)`. Each is a rise of slope 1 between
two kinks. Below the first: to the left of its lower kink any slope from 0 up will do, to the right of its upper kink
the chord does. The line above the second is the same, turned by 180 degrees. The steepest such line and the flat one at
the bound on y itself (zeros and the grid are in it) hold, and so does every mixture of the two: `backward` takes one or
the other, `optimised` the best mixture it finds. Sound up to rounding, which the caller allows for.

`dead` and `step` are used through the bounds on y alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import Bounds
    from qverify.family.points import Point

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Line(Brief):
    """Two lines on one side of a rounding point, elementwise: the steep one, `slope v + intercept`, and the flat one,
    `level`. Any mixture of both holds as well. `usual`: the usual share of the steep one, 0 or 1."""

    slope: Tensor
    intercept: Tensor
    level: Tensor
    usual: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class ReluLines(Brief):
    """Lines around a Relu of radius r, (B, 1, n) each. Below: `x >= alpha (z - r)`, alpha = `share free + active` for a
    share in [0, 1], exact where the sign of z - r is known, `usual` the share of the steeper side. Above:
    `x <= slope hi + lift`, the chord where hi is unstable, hi + r where active, r where inactive."""

    usual: Tensor
    free: Tensor
    active: Tensor
    slope: Tensor
    lift: Tensor
    radius: Tensor


def relu_lines(bounds: Bounds, index: int, source: int) -> ReluLines:
    """The lines around Relu `index`, which reads layer `source`; `hi` is that itself, or its upper end."""
    lower, upper, radius = bounds.lower[source], bounds.upper[source], bounds.activation[index]
    least = bounds.least(source)

    def made() -> ReluLines:
        active = lower - radius >= 0
        unstable = (least < 0) & (upper > 0)
        width = torch.where(unstable, upper - least, torch.ones_like(lower))
        slope = torch.where(unstable, upper / width, (least >= 0).to(lower.dtype))
        lift = radius - torch.where(unstable, slope * least, torch.zeros_like(lower))
        found = (
            (upper - radius > radius - lower).to(lower.dtype),
            (~active & (upper - radius > 0)).to(lower.dtype),
            active.to(lower.dtype),
            slope,
            lift,
            radius.expand_as(lower),
        )
        return ReluLines(*(one.unsqueeze(1) for one in found))

    return bounds.once(("relu", index), (lower, upper, least, radius), made)


def point_lines(point: Point, radius: Tensor, v: Ends, least_high: Tensor, y: Ends) -> tuple[Line, Line]:
    """The lines below and above a rounding point; `v`, `y`: bounds (..., size) on what enters and leaves it, and
    `least_high` one on the upper end of what enters, of which the lines above it are then lines in."""
    below = _below(v, radius, (point.low[0], point.high[0]), y[0])
    turned = _below((-v[1], -least_high), radius, (-point.high[1], -point.low[1]), -y[1])
    return below, Line(turned.slope, -turned.intercept, -turned.level, turned.usual)


def _below(v: Ends, radius: Tensor, ends: Ends, level: Tensor) -> Line:
    """Lines below `clip(v - radius, *ends)`, which is at least `level`."""
    (lower, upper), (low, high) = v, ends
    kink = low + radius
    start = torch.minimum(torch.maximum(lower, kink), upper)
    value = torch.minimum(torch.maximum(start - radius, low), high)
    width = upper - start
    chord = (high - value) / torch.where(width > 0, width, torch.ones_like(width))
    slope = torch.where(upper - radius <= high, torch.ones_like(width), chord.clamp(0.0, 1.0))
    slope = torch.where((width <= 0) & (kink > lower), torch.zeros_like(slope), slope)
    intercept = value - slope * start
    # To the left of the kink: the steeper side where more of [l, u] lies to its right.
    flat = (kink > lower) & (upper - kink <= kink - lower)
    flat = flat | (level > slope * ((lower + upper) / 2.0) + intercept)
    return Line(slope, intercept, level, (~flat).to(slope.dtype))


def kinks(point: Point, radius: Tensor, v: Ends) -> Tensor:
    """Mask: some end of what the point gives has a kink within the bounds on what enters it, or leaves 0 there."""
    lower, upper = v
    found: Tensor = (point.low[1] == 0) & (lower < point.dead) & (point.dead < upper)
    for sign, least_low, least_high in ((1.0, point.low[0], point.high[0]), (-1.0, point.low[1], point.high[1])):
        for kink in (least_low + sign * radius, least_high + sign * radius):
            found = found | ((lower < kink) & (kink < upper))
    return found
