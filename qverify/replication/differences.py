"""Lines around what a rounding point or a Relu makes of a *difference* between two networks. Sound.

One network has v and the other v + d; the first gives v, or max(v, 0), and the second y' within the radius of
v + d, clipped. Over all v in an interval the difference y' - y is bounded by functions of d alone
(mathematics.md, section 17), with d' = d + r:

    identity       max(d', low - v)              convex in d', the largest at the lower end of v
    behind a Relu  max(v + d', 0) - max(v, 0)    for d' >= 0 the largest at the upper end of v, else at the lower

The upper line is the chord of that, or slope 0 or 1, which are right because it grows by no more than d does. The clip
at the upper end only lowers. The lower line is the same mirrored, with the other network in the part of the first.
Grids are left out: with v unknown they hardly help.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qverify.replication.relaxation import Lines, Staircase, least_in_the_middle
from qverify.rounding import TINY, UNIT
from qverify.text.brief import Brief

_ULPS = 32.0 * UNIT


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Deviation(Brief):
    """A rounding point (or Relu) of the second network; `behind_relu`: the first has a Relu there, else nothing.

    Ends of `v`, (size,) each, belong to the first network. With `behind_relu`, `stairs.low` is 0.
    """

    stairs: Staircase
    behind_relu: bool

    def lines(self, lower: Tensor, upper: Tensor, v: tuple[Tensor, Tensor]) -> Lines:
        """Lines on differences in [lower, upper] between values of the first in `v`."""
        low, high = lower - self.stairs.radius, upper + self.stairs.radius
        scale = (low.abs() + high.abs() + v[0].abs() + v[1].abs()) * _ULPS + TINY
        slope, above = self._above(lower + self.stairs.radius, high, v, scale)
        mirrored, below = self._below(low, upper - self.stairs.radius, v, scale)
        # The lines are in d' = d + r and d' = d - r.
        return Lines(
            upper_slope=slope,
            upper=above + slope * self.stairs.radius + scale,
            lower_slope=mirrored,
            lower=below - mirrored * self.stairs.radius - scale,
        )

    def ends(self, lower: Tensor, upper: Tensor, v: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The interval of the difference behind, for differences in [lower, upper]."""
        lines = self.lines(lower, upper, v)
        radius = self.stairs.radius
        scale = (lower.abs() + upper.abs() + v[0].abs() + v[1].abs() + radius) * _ULPS + TINY
        slope, least = self._below(lower - radius, lower - radius, v, scale)
        least = slope * (lower - radius) + least
        slope, most = self._above(upper + radius, upper + radius, v, scale)
        most = slope * (upper + radius) + most
        low, high = lines.lower_slope * lower + lines.lower, lines.upper_slope * upper + lines.upper
        return torch.maximum(low, least) - scale, torch.minimum(high, most) + scale

    def _above(self, low: Tensor, high: Tensor, v: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and intercept of a line in d' above y' - y, for d' in [low, high]."""

        def most(d: Tensor) -> Tensor:
            if not self.behind_relu:
                return torch.maximum(d, self.stairs.low - v[0])
            at = torch.where(d >= 0, v[1], v[0])
            return _relu_difference(at, d)

        return _line(low, high, (most(low), most(high)), scale)

    def _below(self, low: Tensor, high: Tensor, v: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
        """The same below."""
        saturated = torch.where(v[1] + high > self.stairs.high, self.stairs.high - v[1].clamp(min=0), torch.inf)
        if not self.behind_relu:
            saturated = torch.where(v[1] + high > self.stairs.high, self.stairs.high - v[1], torch.inf)

        def least(d: Tensor) -> Tensor:
            if self.behind_relu:
                # max(w, 0) - max(w - d', 0) for every w = v + d' that may be: concave in d'.
                at = torch.where(d >= 0, v[0] + low, v[1] + high)
                return torch.minimum(-_relu_difference(at, -d), saturated)
            return torch.minimum(d, saturated)

        slope, intercept = _line(-high, -low, (-least(high), -least(low)), scale)
        return slope, -intercept


def _relu_difference(v: Tensor, d: Tensor) -> Tensor:
    """`max(v + d, 0) - max(v, 0)`."""
    return (v + d).clamp(min=0) - v.clamp(min=0)


def _line(lower: Tensor, upper: Tensor, ends: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a line on [lower, upper] above a convex function that grows by no more than its argument,
    by its values at both ends."""
    first, last = ends
    width = upper - lower
    steep = torch.where(width > 0, (last - first) / torch.where(width > 0, width, 1.0), 0.0).clamp(0.0, 1.0)
    chord = torch.maximum(first - steep * lower, last - steep * upper)
    lines = [(steep, chord), (0.0 * steep, last), (0.0 * steep + 1.0, first - lower)]
    slope, intercept = least_in_the_middle(lower, upper, lines)
    return slope, intercept + scale
