"""The functions of `Activation` layers: for each its value, its one-sided derivatives, and where it bends.

`FUNCTIONS[name]`: a `Function`. The breaks of a function cut the line into pieces on each of which it is linear, convex
or concave; on a convex or concave piece `touching` gives about where the derivative is a number. Bounds do not rely
on how near that is (bounds/curves.py), and `extrema` may be off by a rounding, where nothing changes to first order.

Written for numpy arrays and torch tensors alike (`xp`), elementwise, differentiable by torch. What float64 makes of
`value` is off by at most `error (|value| + scale)`: 2^-48 where functions are piecewise linear, and a generous 1e-12
where exponentials and error functions of libraries are called, which are right to a few units in the last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SMOOTH_ERROR, _LINEAR_ERROR = 1e-12, 2.0**-48
_INF = float("inf")


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
    """

    value: Callable[..., Any]
    derivative: Callable[..., Any]
    curvature: tuple[int, ...]
    parameters: tuple[str, ...] = ()
    breaks: Callable[..., list[Any]] = _none
    slopes: Callable[..., list[Any]] | None = None
    touching: Callable[..., Any] | None = None
    extrema: Callable[..., list[Any]] = _none
    ends: Callable[..., tuple[Any, Any]] = lambda xp, *p: (-_INF, _INF)
    scale: Callable[..., Any] = lambda xp, *p: 1.0
    refused: Callable[..., str] = lambda *p: ""

    @property
    def linear(self) -> bool:
        """Piecewise linear, so that programs know it exactly."""
        return self.slopes is not None

    @property
    def error(self) -> float:
        """The relative error of `value` in float64."""
        return _LINEAR_ERROR if self.linear else _SMOOTH_ERROR


def _numpy(xp: Any) -> bool:
    return bool(xp.__name__ == "numpy")


def _exp(xp: Any, x: Any) -> Any:
    if not _numpy(xp):
        return xp.exp(x)
    with xp.errstate(over="ignore", under="ignore"):
        return xp.exp(x)


def _clamp(xp: Any, x: Any, low: Any, high: Any) -> Any:
    return xp.minimum(xp.maximum(x, 0.0 * x + low), 0.0 * x + high)


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    if not _numpy(xp):
        return xp.sigmoid(x)
    small = _exp(xp, -abs(x))
    return xp.where(x >= 0, 1.0, small) / (1.0 + small)


def _erfc(xp: Any, x: Any) -> Any:
    if not _numpy(xp):
        return xp.erfc(x)
    from scipy.special import erfc

    return erfc(x)


def _erf(xp: Any, x: Any) -> Any:
    if not _numpy(xp):
        return xp.erf(x)
    from scipy.special import erf

    return erf(x)


def _normal(xp: Any, x: Any) -> Any:
    """The density of the standard normal distribution."""
    return _exp(xp, -0.5 * x * x) / sqrt(2.0 * pi)


def _tail(xp: Any, x: Any) -> Any:
    """Its distribution function."""
    return 0.5 * _erfc(xp, -x / sqrt(2.0))


# -- piecewise linear -----------------------------------------------------------------------------


def _leaky(xp: Any, x: Any, slope: Any) -> Any:
    return xp.where(x >= 0, x, slope * x)


def _leaky_ends(xp: Any, slope: Any) -> tuple[Any, Any]:
    return xp.where(slope > 0, 0.0 * slope - _INF, 0.0 * slope), _INF


def _hard_sigmoid(xp: Any, x: Any, slope: Any, shift: Any) -> Any:
    return _clamp(xp, slope * x + shift, 0.0, 1.0)


def _piece(xp: Any, x: Any, k: int, slopes: list[Any]) -> Any:
    return 0.0 * x + slopes[k]


def _linear(value: Any, parameters: tuple[str, ...], slopes: Any, **more: Any) -> Function:
    return Function(
        value=value,
        derivative=lambda xp, x, k, *p: _piece(xp, x, k, slopes(*p)),
        slopes=slopes,
        parameters=parameters,
        **more,
    )


def _ordered(low: Any, high: Any) -> str:
    return "its lower end is above its upper one" if (low > high).any() else ""


def _rising(slope: Any, shift: Any) -> str:
    return "" if (slope > 0).all() else "its alpha is not positive"


def _positive(*parameters: Any) -> str:
    return "" if all((p > 0).all() for p in parameters) else "its alpha or gamma is not positive"


# -- with exponentials ----------------------------------------------------------------------------


def _share(xp: Any, a: Any, k: int, most: float) -> Any:
    """The smaller root s of `s (1 - s) = a / (4 most)`, for a in (0, most]; at the nearer end for others."""
    quarter = _clamp(xp, a / (4.0 * most), 1e-300, 0.25)
    root = xp.sqrt(_clamp(xp, 1.0 - 4.0 * quarter, 0.0, 1.0))
    return 2.0 * quarter / (1.0 + root)


def _logit(xp: Any, s: Any) -> Any:
    return xp.log(s) - xp.log1p(-s)


def _sigmoid_touching(xp: Any, a: Any, k: int) -> Any:
    x = _logit(xp, _share(xp, a, k, 0.25))
    return x if k == 0 else -x


def _tanh_touching(xp: Any, a: Any, k: int) -> Any:
    """tanh x = 2 sigmoid(2 x) - 1, whose derivative is 4 s (1 - s)."""
    x = 0.5 * _logit(xp, _share(xp, a, k, 1.0))
    return x if k == 0 else -x


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0.0 * x) + xp.log1p(_exp(xp, -abs(x)))


def _elu(xp: Any, x: Any, alpha: Any) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0 * x)))


def _elu_derivative(xp: Any, x: Any, k: int, alpha: Any) -> Any:
    return alpha * _exp(xp, xp.minimum(x, 0.0 * x)) if k == 0 else 0.0 * x + 1.0


def _log(xp: Any, a: Any) -> Any:
    return xp.log(xp.maximum(a, 0.0 * a + 1e-300))


def _softsign_touching(xp: Any, a: Any, k: int) -> Any:
    x = 1.0 / xp.sqrt(_clamp(xp, a, 1e-300, 1.0)) - 1.0
    return -x if k == 0 else x


def _erf_touching(xp: Any, a: Any, k: int) -> Any:
    x = xp.sqrt(-xp.log(_clamp(xp, a * (sqrt(pi) / 2.0), 1e-300, 1.0)))
    return -x if k == 0 else x


def _silu_derivative(xp: Any, x: Any, k: int) -> Any:
    s = sigmoid(xp, x)
    return s * (1.0 + x * sigmoid(xp, -x))


_BEND = sqrt(2.0 / pi)


def _gelu_tanh(xp: Any, x: Any) -> Any:
    """x / 2 (1 + tanh u) = x sigmoid(2 u)."""
    return x * sigmoid(xp, 2.0 * _BEND * (x + 0.044715 * x * x * x))


def _gelu_tanh_derivative(xp: Any, x: Any, k: int) -> Any:
    u = 2.0 * _BEND * (x + 0.044715 * x * x * x)
    s = sigmoid(xp, u)
    return s * (1.0 + x * sigmoid(xp, -u) * 2.0 * _BEND * (1.0 + 3.0 * 0.044715 * x * x))


def _hard_swish_derivative(xp: Any, x: Any, k: int) -> Any:
    return (0.0 * x, x / 3.0 + 0.5, 0.0 * x + 1.0)[k]


FUNCTIONS: dict[str, Function] = {
    "leaky_relu": _linear(
        _leaky,
        ("slope",),
        lambda slope: [slope, 0.0 * slope + 1.0],
        curvature=(0, 0),
        breaks=lambda slope: [0.0 * slope],
        extrema=lambda slope: [0.0 * slope],
        ends=_leaky_ends,
        scale=lambda xp, slope: 0.0,
    ),
    "abs": _linear(
        lambda xp, x: abs(x),
        (),
        lambda: [-1.0, 1.0],
        curvature=(0, 0),
        breaks=lambda: [0.0],
        extrema=lambda: [0.0],
        ends=lambda xp: (0.0, _INF),
        scale=lambda xp: 0.0,
    ),
    "clip": _linear(
        lambda xp, x, low, high: xp.minimum(xp.maximum(x, low), high),
        ("low", "high"),
        lambda low, high: [0.0 * low, 0.0 * low + 1.0, 0.0 * low],
        curvature=(0, 0, 0),
        breaks=lambda low, high: [low, high],
        ends=lambda xp, low, high: (low, high),
        scale=lambda xp, low, high: 0.0,
        refused=_ordered,
    ),
    "hard_sigmoid": _linear(
        _hard_sigmoid,
        ("slope", "shift"),
        lambda slope, shift: [0.0 * slope, slope, 0.0 * slope],
        curvature=(0, 0, 0),
        breaks=lambda slope, shift: [-shift / slope, (1.0 - shift) / slope],
        ends=lambda xp, slope, shift: (0.0, 1.0),
        scale=lambda xp, slope, shift: 2.0 + 2.0 * abs(shift),
        refused=_rising,
    ),
    "sigmoid": Function(
        value=sigmoid,
        derivative=lambda xp, x, k: sigmoid(xp, x) * sigmoid(xp, -x),
        curvature=(1, -1),
        breaks=lambda: [0.0],
        touching=_sigmoid_touching,
        ends=lambda xp: (0.0, 1.0),
    ),
    "tanh": Function(
        value=lambda xp, x: xp.tanh(x),
        derivative=lambda xp, x, k: 4.0 * sigmoid(xp, 2.0 * x) * sigmoid(xp, -2.0 * x),
        curvature=(1, -1),
        breaks=lambda: [0.0],
        touching=_tanh_touching,
        ends=lambda xp: (-1.0, 1.0),
    ),
    "softplus": Function(
        value=_softplus,
        derivative=lambda xp, x, k: sigmoid(xp, x),
        curvature=(1,),
        touching=lambda xp, a, k: _logit(xp, _clamp(xp, a, 1e-300, 1.0 - 2.0**-53)),
        ends=lambda xp: (0.0, _INF),
    ),
    "elu": Function(
        value=_elu,
        derivative=_elu_derivative,
        parameters=("alpha",),
        curvature=(1, 0),
        breaks=lambda alpha: [0.0 * alpha],
        touching=lambda xp, a, k, alpha: _log(xp, a / alpha),
        ends=lambda xp, alpha: (-alpha, _INF),
        scale=lambda xp, alpha: alpha,
        refused=_positive,
    ),
    "selu": Function(
        value=lambda xp, x, alpha, gamma: gamma * _elu(xp, x, alpha),
        derivative=lambda xp, x, k, alpha, gamma: gamma * _elu_derivative(xp, x, k, alpha),
        parameters=("alpha", "gamma"),
        curvature=(1, 0),
        breaks=lambda alpha, gamma: [0.0 * alpha],
        touching=lambda xp, a, k, alpha, gamma: _log(xp, a / (alpha * gamma)),
        ends=lambda xp, alpha, gamma: (-alpha * gamma * (1.0 + 2.0**-48), _INF),
        scale=lambda xp, alpha, gamma: alpha * gamma,
        refused=_positive,
    ),
    "celu": Function(
        value=lambda xp, x, alpha: xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0 * x) / alpha)),
        derivative=lambda xp, x, k, alpha: _elu_derivative(xp, x / alpha, k, 0.0 * alpha + 1.0),
        parameters=("alpha",),
        curvature=(1, 0),
        breaks=lambda alpha: [0.0 * alpha],
        touching=lambda xp, a, k, alpha: alpha * _log(xp, a),
        ends=lambda xp, alpha: (-alpha, _INF),
        scale=lambda xp, alpha: alpha,
        refused=_positive,
    ),
    "exp": Function(
        value=_exp,
        derivative=lambda xp, x, k: _exp(xp, x),
        curvature=(1,),
        touching=lambda xp, a, k: _log(xp, a),
        ends=lambda xp: (0.0, _INF),
    ),
    "softsign": Function(
        value=lambda xp, x: x / (1.0 + abs(x)),
        derivative=lambda xp, x, k: (1.0 / (1.0 + abs(x))) ** 2,
        curvature=(1, -1),
        breaks=lambda: [0.0],
        touching=_softsign_touching,
        ends=lambda xp: (-1.0, 1.0),
    ),
    "erf": Function(
        value=_erf,
        derivative=lambda xp, x, k: 2.0 / sqrt(pi) * _exp(xp, -x * x),
        curvature=(1, -1),
        breaks=lambda: [0.0],
        touching=_erf_touching,
        ends=lambda xp: (-1.0, 1.0),
    ),
    "hard_swish": Function(
        value=lambda xp, x: x * _clamp(xp, x / 6.0 + 0.5, 0.0, 1.0),
        derivative=_hard_swish_derivative,
        curvature=(0, 1, 0),
        breaks=lambda: [-3.0, 3.0],
        touching=lambda xp, a, k: 3.0 * a - 1.5,
        extrema=lambda: [-1.5],
        ends=lambda xp: (-0.375, _INF),
    ),
    "silu": Function(
        value=lambda xp, x: x * sigmoid(xp, x),
        derivative=_silu_derivative,
        curvature=(-1, 1, -1),
        breaks=lambda: [-2.3993572805154684, 2.3993572805154684],
        extrema=lambda: [-1.2784645427610737],
        ends=lambda xp: (-0.27846454276108, _INF),
    ),
    "gelu": Function(
        value=lambda xp, x: x * _tail(xp, x),
        derivative=lambda xp, x, k: _tail(xp, x) + x * _normal(xp, x),
        curvature=(-1, 1, -1),
        breaks=lambda: [-sqrt(2.0), sqrt(2.0)],
        extrema=lambda: [-0.7517915246935644],
        ends=lambda xp: (-0.16997120747991, _INF),
    ),
    "gelu_tanh": Function(
        value=_gelu_tanh,
        derivative=_gelu_tanh_derivative,
        curvature=(-1, 1, -1),
        breaks=lambda: [-1.4185040087908283, 1.4185040087908283],
        extrema=lambda: [-0.7524614220710163],
        ends=lambda xp: (-0.1700409, _INF),
    ),
}
"""Every function by the name that `Activation.function` has."""
