"""Lines around what a rounding point or a Relu can give, on an interval of what enters it. Sound.

A rounding point gives a multiple y of its step with `|y - v| <= r`, clipped to [low, high] (mathematics.md,
section 17). Both ends of that, as functions of v,

    hi(v) = clip(floor((v + r) / s) s),    lo(v) = clip(ceil((v - r) / s) s),

are monotone and grow by no more than v does, save for jumps: up to a multiple q of the step where v + r reaches it,
down from one where v - r leaves it. So for every slope a in [0, 1] on [l, u]

    hi(v) - a v <= max(hi(l) - a l, hi(u) - a max(hi(u) - r, l)),                                              (37)

and the same below, mirrored. Step 0 is no grid; radius 0 without a grid and `low` = 0 is a Relu.

Tensors are float64, (size,) each. Whatever is rounded here moves the answer outwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.rounding import TINY, UNIT
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.layers import Rounding
    from qverify.replication.moves import Move

_ULPS = 16.0 * UNIT
"""What the few operations of one line may be off by, relative to the largest number among them."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Lines(Brief):
    """`lower_slope v + lower <= y <= upper_slope v + upper` for every v of the interval; slopes are in [0, 1]."""

    lower_slope: Tensor
    lower: Tensor
    upper_slope: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Staircase(Brief):
    """A rounding point under a rule that moves it by at most `radius`; a Relu, where step and radius are 0.

    As a function of the value v that enters it.
    `relative`: by how much more per unit of |v|.
    """

    step: Tensor
    low: Tensor
    high: Tensor
    radius: Tensor
    relative: float = 0.0

    @staticmethod
    def of(layer: Rounding, move: Move | None) -> Staircase:
        """That of a layer, which moves its value so far."""

        def tensor(array: object) -> Tensor:
            return torch.tensor(array, dtype=torch.float64)

        radius = tensor(layer.step * 0.0 if move is None else move.absolute)
        relative = 0.0 if move is None else move.relative
        ends = {"low": tensor(layer.low), "high": tensor(layer.high)}
        return Staircase(step=tensor(layer.step), radius=radius, relative=relative, **ends)

    @staticmethod
    def relu(size: int) -> Staircase:
        """That of a Relu, which moves nothing."""
        zero = torch.zeros(size, dtype=torch.float64)
        return Staircase(step=zero, low=zero, high=torch.full_like(zero, torch.inf), radius=zero)

    def within(self, lower: Tensor, upper: Tensor) -> Staircase:
        """The same for v in [lower, upper], with one radius; two steps beyond an end nothing but the end is given."""
        if not self.relative:
            return self
        reach = torch.maximum(lower.abs(), upper.abs())
        reach = torch.minimum(reach, torch.maximum(self.high, -self.low) + 2.0 * (self.step + self.radius))
        return replace(self, radius=self.radius + reach * (self.relative * (1.0 + _ULPS)), relative=0.0)

    def mirrored(self) -> Staircase:
        """That of -y as a function of -v."""
        return Staircase(step=self.step, low=-self.high, high=-self.low, radius=self.radius)

    def most(self, v: Tensor) -> Tensor:
        """At least hi(v)."""
        reached = v + self.radius
        grid = torch.where(self.step > 0, self.step, torch.ones_like(self.step))
        count = reached / grid
        whole = torch.floor(count + (count.abs() + self.radius / grid) * _ULPS)
        on_grid = whole * grid
        moved = torch.where(self.radius > 0, reached + (reached.abs() + self.radius) * _ULPS, reached)
        found = torch.where(self.step > 0, on_grid + on_grid.abs() * _ULPS, moved)
        return torch.minimum(torch.maximum(found, self.low), self.high)

    def least(self, v: Tensor) -> Tensor:
        """At most lo(v)."""
        return -self.mirrored().most(-v)

    def lines(self, lower: Tensor, upper: Tensor, slopes: tuple[Tensor, Tensor] | None = None) -> Lines:
        """Lines on [lower, upper]; `slopes`: those of the lower and the upper line, any in [0, 1], else the best."""
        below, above = (None, None) if slopes is None else slopes
        mirror = self.mirrored().upper_line(-upper, -lower, below)
        slope, intercept = self.upper_line(lower, upper, above)
        return Lines(lower_slope=mirror[0], lower=-mirror[1], upper_slope=slope, upper=intercept)

    def upper_line(self, lower: Tensor, upper: Tensor, slope: Tensor | None) -> tuple[Tensor, Tensor]:
        """Formula (37): slope and intercept of a line above hi on [lower, upper]."""
        first, last = self.most(lower), self.most(upper)
        jump = torch.maximum(last - self.radius, lower)
        scale = first.abs() + last.abs() + lower.abs() + self.radius

        def intercept(slope: Tensor) -> Tensor:
            needed = torch.maximum(first - slope * lower, last - slope * jump)
            return needed + scale * _ULPS + TINY

        if slope is not None:
            return slope, intercept(slope)
        width = jump - lower
        steep = torch.where(width > 0, (last - first) / torch.where(width > 0, width, 1.0), 1.0).clamp(0.0, 1.0)
        return least_in_the_middle(lower, upper, [(a, intercept(a)) for a in (steep, 0.0 * steep, 0.0 * steep + 1.0)])


def least_in_the_middle(lower: Tensor, upper: Tensor, lines: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Element by element the line (slope, intercept) that is lowest in the middle of [lower, upper]."""
    middle = 0.5 * (lower + upper)
    slope, intercept = lines[0]
    for other, constant in lines[1:]:
        better = other * middle + constant < slope * middle + intercept
        slope, intercept = torch.where(better, other, slope), torch.where(better, constant, intercept)
    return slope, intercept
