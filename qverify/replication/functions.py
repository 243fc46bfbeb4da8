"""Lines around what an activation other than Relu makes of a value, and of a difference between two networks. Sound.

A difference d behind f is `f(v + d) - f(v) = f'(t) d` for some t between: with m and M the least and the largest
slope of f between all such v and v + d,

    min(m d, M d)  <=  f(v + d) - f(v)  <=  max(m d, M d)                                                    (39b)

whose ends bend in d the way that makes chords lie outside of them. Where f jumps, by `Function.slack` at most, that is
added on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qverify.bounds.curves import curve_lines
from qverify.replication.relaxation import Lines
from qverify.rounding import TINY, UNIT
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.activations.curve import Curve
    from qverify.replication.system import Box

_ULPS = 32.0 * UNIT


@dataclass(frozen=True, eq=False, repr=False)
class FunctionValue(Brief):
    """The kink of one network's own values at an activation; `curve` is in numpy."""

    curve: Curve

    def lines(self, box: Box, seen: Sequence[Box]) -> Lines:
        del seen
        curve = self.curve.mapped(lambda p: torch.tensor(p, dtype=torch.float64), torch)
        (under, least), (over, most) = curve_lines(curve, box, self.ends(box, ()))
        return Lines(lower_slope=under, lower=least, upper_slope=over, upper=most)

    def ends(self, box: Box, seen: Sequence[Box]) -> Box:
        del seen
        low, high = self.curve.span(*(end.numpy() for end in box))
        allowed = self.curve.allowance(np.maximum(abs(low), abs(high))) * 2.0 + TINY
        ends = (torch.as_tensor(end, dtype=torch.float64) for end in (low - allowed, high + allowed))
        return next(ends), next(ends)


@dataclass(frozen=True, eq=False, repr=False)
class FunctionDifference(Brief):
    """The kink of differences at an activation that both networks have; it sees the value of the first before it."""

    curve: Curve

    def lines(self, box: Box, seen: Sequence[Box]) -> Lines:
        under, over = self._rays(box, seen[0])
        return Lines(
            lower_slope=_chord(box, under),
            lower=_intercept(box, under, torch.minimum),
            upper_slope=_chord(box, over),
            upper=_intercept(box, over, torch.maximum),
        )

    def ends(self, box: Box, seen: Sequence[Box]) -> Box:
        under, over = self._rays(box, seen[0])
        low, high = torch.minimum(*under), torch.maximum(*over)
        first = FunctionValue(self.curve)
        own, moved = first.ends(seen[0], ()), first.ends(_moved(seen[0], box), ())
        slack = (own[0].abs() + own[1].abs() + moved[0].abs() + moved[1].abs()) * _ULPS
        return torch.maximum(low, moved[0] - own[1] - slack), torch.minimum(high, moved[1] - own[0] + slack)

    def _rays(self, box: Box, v: Box) -> tuple[Box, Box]:
        """The two functions of (39b) at both ends of the difference, below and above, outwards."""
        moved = _moved(v, box)
        hull = torch.minimum(v[0], moved[0]), torch.maximum(v[1], moved[1])
        found = self.curve.steepness(*(end.numpy() for end in hull))
        least, most = (torch.as_tensor(end, dtype=torch.float64) for end in found)
        steep = torch.maximum(least.abs(), most.abs())
        jump = 2.0 * self.curve.function.slack  # of the function at either of two values
        slack = [steep * end.abs() * _ULPS + TINY + jump for end in box]
        below = [torch.minimum(least * d, most * d) - s for d, s in zip(box, slack, strict=True)]
        above = [torch.maximum(least * d, most * d) + s for d, s in zip(box, slack, strict=True)]
        return (below[0], below[1]), (above[0], above[1])


def _moved(v: Box, box: Box) -> Box:
    """The values of the second network, outwards."""
    low, high = v[0] + box[0], v[1] + box[1]
    slack = (v[0].abs() + v[1].abs() + box[0].abs() + box[1].abs()) * _ULPS + TINY
    return low - slack, high + slack


def _chord(box: Box, ends: Box) -> Tensor:
    width = box[1] - box[0]
    return torch.where(width > 0, (ends[1] - ends[0]) / torch.where(width > 0, width, 1.0), 0.0)


def _intercept(box: Box, ends: Box, outer: Any) -> Tensor:
    """The intercept of a line of the chord's slope beyond both ends, outwards."""
    slope = _chord(box, ends)
    found: Tensor = outer(ends[0] - slope * box[0], ends[1] - slope * box[1])
    sizes = ends[0].abs() + ends[1].abs() + slope.abs() * (box[0].abs() + box[1].abs())
    slack = sizes * _ULPS + TINY
    return found + slack if outer is torch.maximum else found - slack
