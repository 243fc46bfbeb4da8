"""What is known of a function of `Activation` layers (functions.py): its value, its derivatives, and where it bends.

The breaks of a function cut the line into pieces on each of which it is linear, convex or concave; on a convex or
concave piece `touching` gives about where the derivative is a number. Bounds do not rely on how near that is
(bounds/curves.py), and `extrema` may be off by a rounding, where nothing changes to first order.

Written for numpy arrays and torch tensors alike (`xp`), elementwise, differentiable by torch. What float64 makes of
`value` is off by at most `error (|value| + scale)`: 2^-48 where functions are piecewise linear, and a generous 1e-12
where exponentials and error functions of libraries are called, which are right to a few units in the last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SMOOTH_ERROR, _LINEAR_ERROR = 1e-12, 2.0**-48
INF = float("inf")


def _none(*_: Any) -> list[Any]:
    return []


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function with parameters p, each a number an element.

    `value(xp, x, *p)`; `derivative(xp, x, k, *p)` on piece k, at its ends one-sided; `breaks(*p)` between the pieces,
    rising; `curvature[k]` of piece k: 0 linear, 1 convex, -1 concave; `slopes(*p)` of the pieces of a piecewise linear
    function, else None; `touching(xp, a, k, *p)`: about the x of piece k with derivative a, None: to be searched;
    `extrema(*p)`: where besides the ends of an interval the function may be largest or smallest; `ends(xp, *p)`: the
    range of all that it gives, outwards; `refused(*p)`: why it is no such function with these parameters, if so.
    `arithmetic`: it is a step of a computation, such as a root to divide by, and no activation: it has a radius only
    where one is stated for it. `slack`: how far the function jumps from the one that the rest describes, at most.
    """

    value: Callable[..., Any]
    derivative: Callable[..., Any]
    curvature: tuple[int, ...]
    parameters: tuple[str, ...] = ()
    breaks: Callable[..., list[Any]] = _none
    slopes: Callable[..., list[Any]] | None = None
    touching: Callable[..., Any] | None = None
    extrema: Callable[..., list[Any]] = _none
    ends: Callable[..., tuple[Any, Any]] = lambda xp, *p: (-INF, INF)
    scale: Callable[..., Any] = lambda xp, *p: 1.0
    refused: Callable[..., str] = lambda *p: ""
    arithmetic: bool = False
    slack: float = 0.0

    @property
    def linear(self) -> bool:
        """Piecewise linear, so that programs know it exactly."""
        return self.slopes is not None

    @property
    def error(self) -> float:
        """The relative error of `value` in float64."""
        return _LINEAR_ERROR if self.linear else _SMOOTH_ERROR


def is_numpy(xp: Any) -> bool:
    return bool(xp.__name__ == "numpy")


def exp(xp: Any, x: Any) -> Any:
    if not is_numpy(xp):
        return xp.exp(x)
    with xp.errstate(over="ignore", under="ignore"):
        return xp.exp(x)


def clamp(xp: Any, x: Any, low: Any, high: Any) -> Any:
    return xp.minimum(xp.maximum(x, 0.0 * x + low), 0.0 * x + high)
