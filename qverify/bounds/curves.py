"""Bounds through an activation other than Relu: its interval, and lines around it (mathematics.md, section 4.7). Sound.

y lies between f(v) - r and f(v) + r, clipped to the range of f. Of a line below with any slope a the intercept is

    min over [l, u] of f(v) - a v,

taken piece by piece of those that the breaks of f cut [l, u] into. Where f is linear or concave it is at an end of the
piece. Where f is convex, any t of the piece has a tangent below f, so that with d = f'(t) - a

    f(v) - a v  >=  f(t) - a t + min( d (p - t), d (q - t) )        for v in the piece [p, q]

whatever t is; one with d = 0 gives the least itself. Lines above are those below -f, turned. What float64 may get wrong
in f, f' and here is taken off every intercept.

Of many slopes two lines are kept a side: the one that is nearest in the middle, and of the others the nearest at the
end where that one is farthest. Every mixture of both holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.rounding import TINY
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.activations.curve import Curve
    from qverify.bounds.backward_pass import BackwardPass
    from qverify.bounds.tensors import BoundModel, Bounds

Ends = tuple[Tensor, Tensor]

_FRACTIONS = (0.0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0)
"""Where in the bounds a smooth function lends its slope to a line."""
_SEARCHED = 12
"""Steps of the search for the place of a slope, where no formula has it."""


@dataclass(frozen=True, eq=False, repr=False)
class TwoLines(Brief):
    """Two lines on one side, `slope v + intercept` and `other_slope v + other`, elementwise; `reach`: the largest
    absolute values among their products and intercepts, for what is rounded later."""

    slope: Tensor
    intercept: Tensor
    other_slope: Tensor
    other: Tensor
    reach: Tensor


def activation_interval(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    """IBP through an activation; sets its radius in `bounds.activation`."""
    (source,) = model.network.layers[index].inputs
    curve, radius = model.curves[index], bounds.activation.setdefault(index, model.activation[index])
    low, high = curve.span(bounds.lower[source], bounds.upper[source])
    if model.rounding.enabled:
        allowed = curve.allowance(torch.maximum(low.abs(), high.abs()))
        allowed = allowed + (allowed + radius) * model.rounding.gamma(4) + model.rounding.tiny
        low, high = low - allowed, high + allowed
    ends: Ends = curve.limited(low - radius), curve.limited(high + radius)
    return ends


def bends(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """Mask (N, size): what an activation gives is not linear between the bounds on what it reads, one end or both."""
    (source,) = model.network.layers[index].inputs
    lower, upper = bounds.lower[source], bounds.upper[source]
    curve, radius = model.curves[index], bounds.activation[index]
    found = torch.zeros_like(lower, dtype=torch.bool)
    edges: list[Any] = [lower, *curve.breaks(), upper]
    for piece, kind in enumerate(curve.function.curvature):
        start, end = (curve.inside(edge, lower, upper) for edge in edges[piece : piece + 2])
        found = found | ((start > lower) & (start < upper)) | ((start < end) & (kind != 0))
    low, high = curve.span(lower, upper)
    for first, last, sign in ((low - radius, high - radius, 1.0), (high + radius, low + radius, -1.0)):
        # The range of f, to which an error is clipped, ends between the two.
        found = found | ((sign * curve.limited(first) > sign * first) & (curve.limited(last) == last))
    return found


# -- lines ----------------------------------------------------------------------------------------


def lines_around(state: BackwardPass, index: int) -> tuple[TwoLines, TwoLines]:
    """The lines below and above activation `index`, (B, 1, size); kept with the bounds that they were made of."""
    bounds, (source,) = state.bounds, state.model.network.layers[index].inputs
    radius = bounds.activation[index]
    curve = state.model.curves[index]

    def made() -> tuple[TwoLines, TwoLines]:
        v, y = state.ends(source), state.ends(index)
        wide = radius.unsqueeze(1) if radius.ndim == 2 else radius
        below = _Side(curve, v, 1.0, state.tracks).lines(wide, y[0])
        turned = _Side(curve, v, -1.0, state.tracks).lines(wide, -y[1])
        above = TwoLines(-turned.slope, -turned.intercept, -turned.other_slope, -turned.other, turned.reach)
        return below, above

    ends = bounds.lower[source], bounds.upper[source], bounds.lower[index], bounds.upper[index]
    return bounds.once(("curve", index), (curve, state.tracks, *ends, radius), made)


def curve_lines(curve: Curve, v: Ends, y: Ends) -> tuple[Ends, Ends]:
    """The line (slope, intercept) below and the one above f, each the nearest in the middle, for v in an interval on
    which f lies in `y`; (size,) each, sound."""
    none = torch.zeros_like(v[0])
    below = _Side(curve, v, 1.0, True).lines(none, y[0])
    above = _Side(curve, v, -1.0, True).lines(none, -y[1])
    return (below.slope, below.intercept), (-above.slope, -above.intercept)


class _Side:
    """Lines below `sign f(v)` for v in [lower, upper]."""

    def __init__(self, curve: Curve, v: Ends, sign: float, tracks: bool):
        self.curve, self.sign, self.tracks = curve, sign, tracks
        self.lower, self.upper = v
        self.breaks = [curve.inside(edge, *v) for edge in curve.breaks()]
        self.edges = [self.lower, *self.breaks, self.upper]
        self.values = [sign * curve.value(edge) for edge in self.edges]
        self.reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.size = torch.stack([value.abs() for value in self.values]).amax(0)

    def lines(self, radius: Tensor, level: Tensor) -> TwoLines:
        """The two lines below `sign f(v) - radius`, which is at least `level`."""
        middle = 0.5 * (self.lower + self.upper)
        flat = torch.zeros_like(self.lower), torch.maximum(self.intercept(torch.zeros_like(self.lower)) - radius, level)
        best = left = right = flat
        for slope in self._slopes():
            line = slope, self.intercept(slope) - radius
            best = _higher(best, line, middle)
            left, right = _higher(left, line, self.lower), _higher(right, line, self.upper)
        gaps = [
            value - best[0] * end - best[1] for value, end in zip(self._outer(), (self.lower, self.upper), strict=True)
        ]
        other = _where(gaps[0] > gaps[1], left, right)
        products = torch.maximum(best[0].abs(), other[0].abs()) * self.reach
        reach = products + torch.maximum(best[1].abs(), other[1].abs()) + radius
        return TwoLines(*best, *other, reach)

    def _outer(self) -> Ends:
        return self.values[0], self.values[-1]

    def _slopes(self) -> list[Tensor]:
        """Slopes worth trying: of chords between the ends and the breaks, of pieces, and of tangents."""
        first, last = self._outer()
        found = [_ratio(last - first, self.upper - self.lower)]
        for at, value in zip(self.breaks, self.values[1:-1], strict=True):
            found += [_ratio(last - value, self.upper - at), _ratio(value - first, at - self.lower)]
        if self.curve.linear:
            return [*found, *(self.sign * slope + torch.zeros_like(self.lower) for slope in self.curve.slopes())]
        width = self.upper - self.lower
        return [*found, *(self.sign * self.curve.slope(self.lower + share * width) for share in _FRACTIONS)]

    def intercept(self, slope: Tensor) -> Tensor:
        """The largest c with `sign f(v) >= slope v + c` on [lower, upper], but for rounding; sound."""
        ends = [value - slope * edge for value, edge in zip(self.values, self.edges, strict=True)]
        least, moved = torch.minimum(ends[0], ends[-1]), torch.zeros_like(slope)
        for piece, kind in enumerate(self.curve.function.curvature):
            start, end = self.edges[piece], self.edges[piece + 1]
            least = torch.minimum(least, torch.minimum(ends[piece], ends[piece + 1]))
            if kind * self.sign <= 0:
                continue
            at = self._touching(slope, piece)
            tilt = self.sign * self.curve.derivative(at, piece) - slope
            under = torch.minimum(tilt * (start - at), tilt * (end - at))
            moved = torch.maximum(moved, under.abs())
            tangent = self.sign * self.curve.value(at) - slope * at + under
            least = torch.minimum(least, torch.where(start < end, tangent, least))
        if not self.tracks:
            return least
        # Derivatives are as exact as values are.
        steep = slope.abs() * self.reach
        mass: Tensor = self.curve.allowance(self.size + steep) + self.curve.function.error * (moved + self.reach)
        return least - 4.0 * mass - TINY * (1.0 + self.reach)

    def _touching(self, slope: Tensor, piece: int) -> Tensor:
        """About where in a piece `sign f` has this slope, or the end that is nearest to it."""
        start, end = self.edges[piece], self.edges[piece + 1]
        function = self.curve.function
        if function.touching is None:
            return self._searched(slope, piece)
        at = function.touching(torch, self.sign * slope, piece, *self.curve.parameters)
        at = torch.where(at.isnan(), start, at)
        return torch.minimum(torch.maximum(at, start), end)

    def _searched(self, slope: Tensor, piece: int) -> Tensor:
        """By the Illinois rule: the derivative of `sign f`, less the slope, rises on the piece."""
        left, right = self.edges[piece], self.edges[piece + 1]
        below, above = (self.sign * self.curve.derivative(edge, piece) - slope for edge in (left, right))
        at = torch.where(below >= 0, left, right)
        open_ = (below < 0) & (above > 0)
        lows, highs = torch.zeros_like(open_), torch.zeros_like(open_)
        for _ in range(_SEARCHED):
            at = torch.where(open_, left - below * _ratio(right - left, above - below), at)
            at = torch.minimum(torch.maximum(at, left), right)
            found = self.sign * self.curve.derivative(at, piece) - slope
            low = found < 0
            left, right = torch.where(low & open_, at, left), torch.where(~low & open_, at, right)
            # An end that stays twice counts half.
            below, above = (
                torch.where(low, found, torch.where(highs, 0.5 * below, below)),
                torch.where(low, torch.where(lows, 0.5 * above, above), found),
            )
            lows, highs = low, ~low
        return at


def _ratio(rise: Tensor, width: Tensor) -> Tensor:
    return torch.where(width > 0, rise / torch.where(width > 0, width, torch.ones_like(width)), torch.zeros_like(width))


def _where(mask: Tensor, one: Ends, other: Ends) -> Ends:
    return torch.where(mask, one[0], other[0]), torch.where(mask, one[1], other[1])


def _higher(one: Ends, other: Ends, at: Tensor) -> Ends:
    """Element by element the line (slope, intercept) that is higher at a place; the first of equals."""
    return _where(other[0] * at + other[1] > one[0] * at + one[1], other, one)


def activation_backward(state: BackwardPass, index: int, a: Tensor) -> None:
    """BP through an activation: rows go on through a mixture of the two lines of their side."""
    (source,) = state.model.network.layers[index].inputs
    below, above = lines_around(state, index)
    positive, negative = a.clamp(min=0), a.clamp(max=0)  # one of them is 0: torch is slow at choosing by masks
    share = state.share(index, torch.ones_like(a))
    other = 1.0 - share
    tilted = share * (positive * below.slope + negative * above.slope)
    state.add(source, tilted + other * (positive * below.other_slope + negative * above.other_slope))
    lifted = share * (positive * below.intercept + negative * above.intercept)
    lifted = lifted + other * (positive * below.other + negative * above.other)
    state.constant = state.constant + lifted.sum(2)
    if state.tracks:
        reach = torch.maximum(below.reach, above.reach) + state.model.rounding.tiny
        mass = (a.abs() @ reach.transpose(1, 2)).squeeze(2) + state.constant.abs()
        state.err(mass, a.shape[2], source)
