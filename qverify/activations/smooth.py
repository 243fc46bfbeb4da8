"""Functions with exponentials and error functions, and HardSwish, which bends between its breaks (function.py)."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from qverify.activations.function import INF, Function, clamp, exp, is_numpy


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    if not is_numpy(xp):
        return xp.sigmoid(x)
    small = exp(xp, -abs(x))
    return xp.where(x >= 0, 1.0, small) / (1.0 + small)


def _erfc(xp: Any, x: Any) -> Any:
    if not is_numpy(xp):
        return xp.erfc(x)
    from scipy.special import erfc

    return erfc(x)


def _erf(xp: Any, x: Any) -> Any:
    if not is_numpy(xp):
        return xp.erf(x)
    from scipy.special import erf

    return erf(x)


def _normal(xp: Any, x: Any) -> Any:
    """The density of the standard normal distribution."""
    return exp(xp, -0.5 * x * x) / sqrt(2.0 * pi)


def _tail(xp: Any, x: Any) -> Any:
    """Its distribution function."""
    return 0.5 * _erfc(xp, -x / sqrt(2.0))


def _positive(*parameters: Any) -> str:
    return "" if all((p > 0).all() for p in parameters) else "its alpha or gamma is not positive"


def _share(xp: Any, a: Any, k: int, most: float) -> Any:
    """The smaller root s of `s (1 - s) = a / (4 most)`, for a in (0, most]; at the nearer end for others."""
    quarter = clamp(xp, a / (4.0 * most), 1e-300, 0.25)
    root = xp.sqrt(clamp(xp, 1.0 - 4.0 * quarter, 0.0, 1.0))
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
    return xp.maximum(x, 0.0 * x) + xp.log1p(exp(xp, -abs(x)))


def _elu(xp: Any, x: Any, alpha: Any) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0 * x)))


def _elu_derivative(xp: Any, x: Any, k: int, alpha: Any) -> Any:
    return alpha * exp(xp, xp.minimum(x, 0.0 * x)) if k == 0 else 0.0 * x + 1.0


def _log(xp: Any, a: Any) -> Any:
    return xp.log(xp.maximum(a, 0.0 * a + 1e-300))


def _softsign_touching(xp: Any, a: Any, k: int) -> Any:
    x = 1.0 / xp.sqrt(clamp(xp, a, 1e-300, 1.0)) - 1.0
    return -x if k == 0 else x


def _erf_touching(xp: Any, a: Any, k: int) -> Any:
    x = xp.sqrt(-xp.log(clamp(xp, a * (sqrt(pi) / 2.0), 1e-300, 1.0)))
    return -x if k == 0 else x


def _silu_derivative(xp: Any, x: Any, k: int) -> Any:
    s = sigmoid(xp, x)
    return s * (1.0 + x * sigmoid(xp, -x))


_LEAST_THRESHOLD = 20.0
"""Above it a Softplus and its argument differ by 2.07e-9 at most."""
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


SMOOTH: dict[str, Function] = {
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
        touching=lambda xp, a, k: _logit(xp, clamp(xp, a, 1e-300, 1.0 - 2.0**-53)),
        ends=lambda xp: (0.0, INF),
    ),
    # PyTorch's: x itself above a threshold, where it is less by log(1 + exp(-threshold)) at most.
    "softplus_threshold": Function(
        value=lambda xp, x, threshold: xp.where(x > threshold, x, _softplus(xp, x)),
        derivative=lambda xp, x, k, threshold: sigmoid(xp, x),
        parameters=("threshold",),
        curvature=(1,),
        touching=lambda xp, a, k, threshold: _logit(xp, clamp(xp, a, 1e-300, 1.0 - 2.0**-53)),
        ends=lambda xp, threshold: (0.0, INF),
        refused=lambda threshold: "" if (threshold >= _LEAST_THRESHOLD).all() else "its threshold is below 20",
        slack=2.1e-9,
    ),
    "elu": Function(
        value=_elu,
        derivative=_elu_derivative,
        parameters=("alpha",),
        curvature=(1, 0),
        breaks=lambda alpha: [0.0 * alpha],
        touching=lambda xp, a, k, alpha: _log(xp, a / alpha),
        ends=lambda xp, alpha: (-alpha, INF),
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
        ends=lambda xp, alpha, gamma: (-alpha * gamma * (1.0 + 2.0**-48), INF),
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
        ends=lambda xp, alpha: (-alpha, INF),
        scale=lambda xp, alpha: alpha,
        refused=_positive,
    ),
    "exp": Function(
        value=exp,
        derivative=lambda xp, x, k: exp(xp, x),
        curvature=(1,),
        touching=lambda xp, a, k: _log(xp, a),
        ends=lambda xp: (0.0, INF),
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
        derivative=lambda xp, x, k: 2.0 / sqrt(pi) * exp(xp, -x * x),
        curvature=(1, -1),
        breaks=lambda: [0.0],
        touching=_erf_touching,
        ends=lambda xp: (-1.0, 1.0),
    ),
    "hard_swish": Function(
        value=lambda xp, x: x * clamp(xp, x / 6.0 + 0.5, 0.0, 1.0),
        derivative=_hard_swish_derivative,
        curvature=(0, 1, 0),
        breaks=lambda: [-3.0, 3.0],
        touching=lambda xp, a, k: 3.0 * a - 1.5,
        extrema=lambda: [-1.5],
        ends=lambda xp: (-0.375, INF),
    ),
    "silu": Function(
        value=lambda xp, x: x * sigmoid(xp, x),
        derivative=_silu_derivative,
        curvature=(-1, 1, -1),
        breaks=lambda: [-2.3993572805154684, 2.3993572805154684],
        extrema=lambda: [-1.2784645427610737],
        ends=lambda xp: (-0.27846454276108, INF),
    ),
    "gelu": Function(
        value=lambda xp, x: x * _tail(xp, x),
        derivative=lambda xp, x, k: _tail(xp, x) + x * _normal(xp, x),
        curvature=(-1, 1, -1),
        breaks=lambda: [-sqrt(2.0), sqrt(2.0)],
        extrema=lambda: [-0.7517915246935644],
        ends=lambda xp: (-0.16997120747991, INF),
    ),
    "gelu_tanh": Function(
        value=_gelu_tanh,
        derivative=_gelu_tanh_derivative,
        curvature=(-1, 1, -1),
        breaks=lambda: [-1.4185040087908283, 1.4185040087908283],
        extrema=lambda: [-0.7524614220710163],
        ends=lambda xp: (-0.1700409, INF),
    ),
}
"""Every one by its name."""
