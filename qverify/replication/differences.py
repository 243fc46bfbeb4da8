"""Lines around what a rounding point or a Relu makes of a *difference* between two networks. Sound.

One network has v in [l, u] and the other v + d; the first gives v, or max(v, 0), and the second y' within the radius r
of v + d, clipped. The difference y' - y lies between functions of d alone (mathematics.md, section 17): with

    g(v, d') = clip(v + d', low, high) - v, or - max(v, 0) behind a Relu (low = 0),

over v the largest g(v, d + r) is that of v = l, or of the v nearest to 0 behind a Relu, and the least g(v, d - r) that
of v = u, behind a Relu of l or u. Both rise with d and are linear between a few points, so the intercept of a line of
any slope comes from their values there. Chord, slope 0 and slope 1 are tried. Grids are left out: with v unknown they
hardly help.
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

    def lines(
        self, lower: Tensor, upper: Tensor, v: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor] | None = None
    ) -> Lines:
        """Lines on differences in [lower, upper] between values of the first in `v`.

        `slopes`: those of the lower and the upper line, any, else the best of a few.
        """
        radius, scale = self.stairs.radius, self._scale(lower, upper, v)
        under, over = (None, None) if slopes is None else slopes
        above, highest = self._line(lower + radius, upper + radius, self._most_at(v), over)
        below, lowest = self._line(lower - radius, upper - radius, self._least_at(v), under, below=True)
        return Lines(
            upper_slope=above,
            upper=highest + above * radius + scale,
            lower_slope=below,
            lower=lowest - below * radius - scale,
        )

    def ends(self, lower: Tensor, upper: Tensor, v: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The interval of the difference behind, for differences in [lower, upper]."""
        radius, scale = self.stairs.radius, self._scale(lower, upper, v)
        least = torch.stack([self._gap(at, lower - radius) for at in self._least_at(v)]).amin(0)
        most = torch.stack([self._gap(at, upper + radius) for at in self._most_at(v)]).amax(0)
        return least - scale, most + scale

    def _scale(self, lower: Tensor, upper: Tensor, v: tuple[Tensor, Tensor]) -> Tensor:
        """What the few operations here may be off by."""
        return (lower.abs() + upper.abs() + self.stairs.radius + v[0].abs() + v[1].abs()) * _ULPS + TINY

    def _most_at(self, v: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Values of the first at one of which the gap is the largest, whatever the difference."""
        return [torch.minimum(v[0].clamp(min=0), v[1])] if self.behind_relu else [v[0]]

    def _least_at(self, v: tuple[Tensor, Tensor]) -> list[Tensor]:
        return list(v) if self.behind_relu else [v[1]]

    def _gap(self, v: Tensor, d: Tensor) -> Tensor:
        """`g(v, d)`."""
        first = v.clamp(min=0) if self.behind_relu else v
        return torch.minimum(torch.maximum(v + d, self.stairs.low), self.stairs.high) - first

    def _line(
        self, lower: Tensor, upper: Tensor, at: list[Tensor], slope: Tensor | None, below: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Slope and intercept of a line above, or below, the gaps at values of the first, for d' in [lower, upper]."""
        kinks = [[lower, upper, self.stairs.low - v, self.stairs.high - v] for v in at]
        places = torch.stack([torch.stack(each).clamp(lower, upper) for each in kinks])
        gaps = torch.stack([self._gap(v, place) for v, place in zip(at, places, strict=True)])

        def line(slope: Tensor) -> tuple[Tensor, Tensor]:
            over = gaps - slope * places
            return slope, over.amin((0, 1)) if below else over.amax((0, 1))

        if slope is not None:
            return line(slope)
        ends = gaps.amin(0) if below else gaps.amax(0)
        width = upper - lower
        steep = torch.where(width > 0, (ends[1] - ends[0]) / torch.where(width > 0, width, 1.0), 0.0).clamp(0.0, 1.0)
        lines = [line(each) for each in (steep, 0.0 * steep, 0.0 * steep + 1.0)]
        if below:
            slope, intercept = least_in_the_middle(-upper, -lower, [(a, -b) for a, b in lines])
            return slope, -intercept
        return least_in_the_middle(lower, upper, lines)
