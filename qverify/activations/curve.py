"""One function with its parameters, as numpy arrays or torch tensors: what bounds and programs ask an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qverify.activations.function import INF
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.activations.function import Function

_DERIVATIVE = 1e-11
"""What float64 may get wrong in derivatives, and in where pieces meet, generously."""


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Brief):
    """`function` with `parameters` of shape (size,); `xp`: numpy or torch, which they belong to."""

    function: Function
    parameters: tuple[Any, ...]
    xp: Any

    def mapped(self, convert: Callable[[Any], Any], xp: Any) -> Curve:
        """The same with every array replaced by `convert` of it, which belongs to `xp`."""
        return Curve(self.function, tuple(convert(p) for p in self.parameters), xp)

    def taken(self, chosen: Any) -> Curve:
        """That of some of the elements."""
        return Curve(self.function, tuple(p[chosen] for p in self.parameters), self.xp)

    @property
    def linear(self) -> bool:
        """Piecewise linear."""
        return self.function.linear

    def value(self, x: Any) -> Any:
        """f(x), elementwise (..., size)."""
        return self.function.value(self.xp, x, *self.parameters)

    def limited(self, y: Any) -> Any:
        """y clipped to the range of all that f gives: what an error leaves of it."""
        low, high = self.function.ends(self.xp, *self.parameters)
        return self.xp.minimum(self.xp.maximum(y, 0.0 * y + low), 0.0 * y + high)

    def allowance(self, size: Any) -> Any:
        """What float64 may get wrong in values of at most this absolute size, and the function itself by its jumps."""
        function = self.function
        return function.error * (size + function.scale(self.xp, *self.parameters)) + function.slack

    def inside(self, x: Any, lower: Any, upper: Any) -> Any:
        """A number or array moved into [lower, upper]."""
        return self.xp.minimum(self.xp.maximum(0.0 * lower + x, lower), upper)

    def breaks(self) -> list[Any]:
        """Where the pieces meet, rising; numbers or arrays (size,)."""
        return self.function.breaks(*self.parameters)

    def slopes(self) -> list[Any]:
        """The slopes of the pieces of a piecewise linear function; numbers or arrays (size,)."""
        assert self.function.slopes is not None
        return self.function.slopes(*self.parameters)

    def derivative(self, x: Any, piece: int) -> Any:
        """f'(x) on a piece."""
        return self.function.derivative(self.xp, x, piece, *self.parameters)

    def slope(self, x: Any) -> Any:
        """f'(x), at a break that of the piece to its right."""
        found = self.derivative(x, 0)
        for piece, at in enumerate(self.breaks(), start=1):
            found = self.xp.where(x >= at, self.derivative(x, piece), found)
        return found

    def span(self, lower: Any, upper: Any) -> tuple[Any, Any]:
        """The least and the largest computed f(x) for x in [lower, upper] (..., size); `allowance` away from the
        exact ones."""
        points = [self.inside(x, lower, upper) for x in self.function.extrema(*self.parameters)]
        least = most = self.value(lower)
        for x in (upper, *points):
            y = self.value(x)
            least, most = self.xp.minimum(least, y), self.xp.maximum(most, y)
        return least, most

    def steepness(self, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Bounds on f'(x) for x in [lower, upper], numpy arrays (..., size): outwards, with both sides at kinks.

        On a piece that bends one way the derivative is largest and smallest at its ends.
        """
        xp, cuts = self.xp, self.breaks()
        least, most = xp.full_like(lower, INF), xp.full_like(lower, -INF)
        with xp.errstate(over="ignore", invalid="ignore"):
            for piece, _ in enumerate(self.function.curvature):
                left = lower if piece == 0 else xp.maximum(lower, cuts[piece - 1])
                right = upper if piece == len(cuts) else xp.minimum(upper, cuts[piece])
                for x in (left, right):
                    found = self.derivative(self.inside(x, lower, upper), piece)
                    known = ~xp.isnan(found)  # numbers that overflow have no bound
                    least = xp.where(left <= right, xp.minimum(least, xp.where(known, found, -INF)), least)
                    most = xp.where(left <= right, xp.maximum(most, xp.where(known, found, INF)), most)
            error = _DERIVATIVE * (1.0 + xp.maximum(abs(least), abs(most)))
        return least - error, most + error
