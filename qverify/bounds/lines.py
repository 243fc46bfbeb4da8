"""Lines around a rounding point: y >= slope v + intercept, and y <= slope v + intercept, for v within bounds [l, u].

By formula (32), y lies between `clip(v - r, low, high)` and `clip(v + r, low, high)`. Each is a rise of slope 1 between
two kinks. Below the first: to the left of its lower kink any slope from 0 up will do, to the right of its upper kink
the chord does. The line above the second is the same, turned by 180 degrees. Where bounds on y itself (zeros and the
grid are in them) cut off more than the line does at the middle of [l, u], they are taken instead, with slope 0. Sound
for every slope in [0, 1] that is taken here, up to rounding, which the caller allows for.

`dead` and `step` are used through the bounds on y alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.family.points import Point

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Line(Brief):
    """`slope v + intercept`, elementwise."""

    slope: Tensor
    intercept: Tensor


def point_lines(point: Point, radius: Tensor, v: Ends, y: Ends) -> tuple[Line, Line]:
    """A line below and one above a rounding point; `v`, `y`: bounds (..., size) on what enters and leaves it."""
    below = _below(v, radius, (point.low[0], point.high[0]))
    turned = _below((-v[1], -v[0]), radius, (-point.high[1], -point.low[1]))
    above = Line(turned.slope, -turned.intercept)
    middle = (v[0] + v[1]) / 2.0
    flat_below = y[0] > below.slope * middle + below.intercept
    flat_above = y[1] < above.slope * middle + above.intercept
    return _flat(below, flat_below, y[0]), _flat(above, flat_above, y[1])


def _flat(line: Line, where: Tensor, level: Tensor) -> Line:
    slope = torch.where(where, torch.zeros_like(line.slope), line.slope)
    return Line(slope, torch.where(where, level, line.intercept))


def _below(v: Ends, radius: Tensor, ends: Ends) -> Line:
    """A line below `clip(v - radius, *ends)`."""
    (lower, upper), (low, high) = v, ends
    kink = low + radius
    start = torch.minimum(torch.maximum(lower, kink), upper)
    level = torch.minimum(torch.maximum(start - radius, low), high)
    width = upper - start
    chord = (high - level) / torch.where(width > 0, width, torch.ones_like(width))
    slope = torch.where(upper - radius <= high, torch.ones_like(width), chord.clamp(0.0, 1.0))
    # To the left of the kink: the steeper side where more of [l, u] lies to its right.
    flat = (kink > lower) & (upper - kink <= kink - lower)
    slope = torch.where(flat | (width <= 0) & (kink > lower), torch.zeros_like(slope), slope)
    return Line(slope, level - slope * start)


def kinks(point: Point, radius: Tensor, v: Ends) -> Tensor:
    """Mask: some end of what the point gives has a kink within the bounds on what enters it, or leaves 0 there."""
    lower, upper = v
    found: Tensor = (point.low[1] == 0) & (lower < point.dead) & (point.dead < upper)
    for sign, least_low, least_high in ((1.0, point.low[0], point.high[0]), (-1.0, point.low[1], point.high[1])):
        for kink in (least_low + sign * radius, least_high + sign * radius):
            found = found | ((lower < kink) & (kink < upper))
    return found
