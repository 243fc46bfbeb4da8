"""Rounding points of a family: what any of its quantisers may make of a tensor (mathematics.md, section 15).

Where a quantiser rounds a tensor v to a grid, clips it and errs by at most r,

    v' in { clip(v + e, low, high) : |e| <= r },    v' on the grid,                                           (32)

and the smallest and the largest v' are monotone in v: `lower_end` and `upper_end`. What makes this tighter than a
radius around v: saturation is exact, 0 is exact (`dead`), and v' is on the grid (`step`, where it is known).

The functions work on numpy arrays and torch tensors alike, and differentiate; with `unit` 0 they allow for no rounding
of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import RadiiError
from qverify.family.radius_arrays import radius_array
from qverify.forward_pass import forward
from qverify.layers import Rounding
from qverify.rounding import UNIT
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array

NO_ZERO = -1.0
"""`dead` of a point that need not keep 0."""
_NEAR = 1e-9
"""How near to a multiple of a step, relatively, a number beyond it counts as that."""
CLEAR = 1e-10
"""How far beyond `dead`, in radii, a value stays that is not to become 0: more than a forward pass rounds."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Summed(Brief):
    """The error of a rounding point that reads a sum in float32, in units of the tensor: at a sample at most

        absolute + share g (|W| |x| + |b|),      g = (n + 8) u / (1 - (n + 8) u),      u = 2^-24                  (32a)

    where the affine layer before it sums n terms that are not 0 (float_errors.py). Numbers, or arrays.
    """

    absolute: Any
    share: Any = 1.0

    def mapped(self, function: Callable[[Any], Any]) -> Summed:
        """Every number replaced by `function` of it."""
        return Summed(absolute=function(self.absolute), share=function(self.share))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Point(Brief):
    """A rounding point of a family, as stated for a tensor (numbers, or one a channel) or resolved (arrays (size,)).

    `radius`: the largest error, in units of the tensor. `low`, `high`: between which two numbers each end of the range
    lies, 0 within. `dead`: what is at most this far from 0 becomes 0, and what is farther keeps its sign; `NO_ZERO`
    for neither. `step`: the grid, where it is exactly known, else 0. `summed`: an error that is smaller than `radius`
    where the numbers of a sample are small, or None.
    """

    radius: Any
    low: tuple[Any, Any]
    high: tuple[Any, Any]
    dead: Any = 0.0
    step: Any = 0.0
    entry: bool = False
    summed: Summed | None = None

    def resolved(self, shape: tuple[int, ...], name: str) -> Point:
        """The same as arrays (size,) of the layer `name`. Raises RadiiError for what does not fit or cannot be."""

        def array(value: Any, what: str) -> Array:
            try:
                signed = np.asarray(value, dtype=np.float64)
            except (TypeError, ValueError):
                return radius_array(value, shape, f"{what} ({name})")  # which refuses it
            size = radius_array(np.abs(signed), shape, f"{what} ({name})").ravel()
            return size if not (signed < 0).any() else radius_array_signed(signed, shape)

        ends = [array(end, "range") for end in (*self.low, *self.high)]
        if (ends[0] > ends[1]).any() or (ends[0] > 0).any() or (ends[3] < 0).any() or (ends[2] > ends[3]).any():
            raise RadiiError(f"The range of the rounding point {name!r} is no interval around 0; give two ends.")
        radius = radius_array(self.radius, shape, f"activation ({name})").ravel()
        dead, step = array(self.dead, "zero"), radius_array(self.step, shape, f"step ({name})").ravel()
        if (dead > radius).any():
            raise RadiiError(f"The rounding point {name!r} moves what it keeps at 0; state a larger radius.")
        if (radius < step / 2.0).any():
            raise RadiiError(
                f"The rounding point {name!r} errs by less than half a step; none does, so state a larger radius."
            )
        summed = self.summed and self.summed.mapped(lambda part: radius_array(part, shape, f"error ({name})").ravel())
        if summed and (summed.absolute < step / 2.0).any():
            raise RadiiError(f"The rounding point {name!r} errs by half a step at every value; state that.")
        return Point(
            radius=radius,
            low=(ends[0], ends[1]),
            high=(ends[2], ends[3]),
            dead=dead,
            step=step,
            entry=self.entry,
            summed=summed,
        )

    def or_else(self, other: Point) -> Point:
        """The smallest point that holds this one and another, both stated in numbers; of no grid in particular."""
        low, high = (*self.low, *other.low), (*self.high, *other.high)
        return Point(
            radius=np.maximum(self.radius, other.radius),
            low=(min(low), max(low)),
            high=(min(high), max(high)),
            dead=np.minimum(self.dead, other.dead),
            entry=self.entry,
        )

    def mapped(self, function: Callable[[Any], Any]) -> Point:
        """Every number replaced by `function` of it."""
        one, low, high = function, self.low, self.high
        return Point(
            radius=one(self.radius),
            low=(one(low[0]), one(low[1])),
            high=(one(high[0]), one(high[1])),
            dead=one(self.dead),
            step=one(self.step),
            entry=self.entry,
            summed=self.summed and self.summed.mapped(one),
        )

    def scaled(self, factor: float) -> Point:
        """The radius times a factor. Only 0 itself stays 0 then: else a larger radius would not hold a smaller one."""
        dead = np.minimum(np.asarray(self.dead, dtype=np.float64), 0.0)

        def times(value: Any) -> Any:
            return np.asarray(value, dtype=np.float64) * factor

        summed = self.summed and self.summed.mapped(times)
        return replace(self, radius=times(self.radius), dead=dead, step=0.0, summed=summed)

    def cleared(self, share: float = CLEAR) -> Point:
        """The point, resolved, with what is not 0 clear of the jump at `dead` by a share of the radius, so that no last
        digit decides there."""
        dead = np.where(self.dead < 0, self.dead, self.dead + share * self.radius)
        return replace(self, dead=dead)

    def wanting(self, y: Array) -> Array:
        """What best enters the resolved point for it to give `y`: the same, but clear of what becomes 0 if y is not."""
        least = self.cleared().dead
        return np.where((y != 0) & (np.abs(y) < least), np.copysign(least, y), y)

    def behind_relu(self) -> Point:
        """The same point with a Relu before it, whose 0 it keeps: the range begins at 0, if not above.

        `NO_ZERO` stays, for a Relu whose input is off by something already.
        """
        least = np.maximum(np.asarray(self.low[1], dtype=np.float64), 0.0)
        return replace(self, low=(0.0 * least, least))

    def freedom(self, xp: Any, radius: Any) -> Any:
        """How far the error of a member may go either way where the largest is `radius`: rounding to the grid, where
        it is known, takes half a step of that."""
        rest = xp.maximum(radius - self.step / 2.0 * (1.0 + 4.0 * UNIT), 0.0 * radius)
        return xp.where(self.step > 0, rest, radius)

    def layer(self, name: str, source: int, shape: tuple[int, ...]) -> Rounding:
        """The layer that this point, resolved, puts behind layer `source`: without errors, and as wide as it may be."""
        return Rounding(
            name,
            (source,),
            shape,
            step=self.step,
            low=self.low[0],
            high=self.high[1],
            dead=self.dead,
        )


def radius_array_signed(value: Array, shape: tuple[int, ...]) -> Array:
    """`radius_array` for numbers of either sign that were checked by it, flat (size,)."""
    if value.ndim == 1 and value.shape == shape[:1]:
        value = value.reshape(-1, *[1] * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(value, shape)).ravel()


def lower_end(xp: Any, point: Point, radius: Any, v: Any, unit: float = UNIT) -> Any:
    """The smallest v' that (32) allows for a value of at least `v`; sound, `v` and the point as they are.

    `xp`: numpy or torch; arrays (..., size); `radius`: instead of the point's own, which may depend on the sample.
    """
    y = v - radius - 4.0 * unit * (abs(v) + radius) * (radius > 0)
    y = xp.where((point.dead >= 0) & (v >= -point.dead), xp.maximum(y, 0.0 * y), y)
    y = _on_grid(xp, point.step, y, xp.ceil, -unit)
    return xp.minimum(xp.maximum(y, point.low[0]), point.high[0])


def upper_end(xp: Any, point: Point, radius: Any, v: Any, unit: float = UNIT) -> Any:
    """The largest v' that (32) allows for a value of at most `v`; see `lower_end`."""
    y = v + radius + 4.0 * unit * (abs(v) + radius) * (radius > 0)
    y = xp.where((point.dead >= 0) & (v <= point.dead), xp.minimum(y, 0.0 * y), y)
    y = _on_grid(xp, point.step, y, xp.floor, unit)
    return xp.minimum(xp.maximum(y, point.low[1]), point.high[1])


def _on_grid(xp: Any, step: Any, y: Any, whole: Callable[[Any], Any], unit: float) -> Any:
    """`y` moved inwards to its grid, if it is known; `unit` has the sign of outwards. Steps are numbers of float32, of
    which float64 knows multiples exactly."""
    if not bool((step > 0).any()):
        return y
    safe = xp.where(step > 0, step, 0.0 * step + 1.0)
    count = y / safe
    return xp.where(step > 0, whole(count + 4.0 * unit * abs(count)) * safe, y)


def multiples(xp: Any, step: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """The least and the largest multiple of `step` > 0 in [low, high], as numbers of steps: an end that is nearly one
    counts as one, since more than is rounded here is allowed for."""
    first, last = low / step, high / step
    return xp.ceil(first - _NEAR * (1.0 + abs(first))), xp.floor(last + _NEAR * (1.0 + abs(last)))


def without_error(point: Point, v: Array) -> Array:
    """The v' (..., size) of the member without errors, its range as wide as it may be."""
    return forward(point.layer("", 0, point.radius.shape), [v])


def member_value(xp: Any, point: Point, offset: Any, v: Any) -> Any:
    """The v' of the member whose error is `offset`: what the forward pass of `Point.layer` gives, differentiable, the
    grid left out."""
    y = v + offset
    signed = xp.where(v > 0, xp.maximum(y, 0.0 * y), xp.minimum(y, 0.0 * y))
    y = xp.where(point.dead >= 0, xp.where(abs(v) <= point.dead, 0.0 * y, signed), y)
    return xp.minimum(xp.maximum(y, point.low[0]), point.high[1])
