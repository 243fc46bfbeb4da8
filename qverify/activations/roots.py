"""Square roots and their reciprocals, above a positive number below which they stay what they are there (function.py).

What a model has is the function above that number alone, where its reader proved that nothing less goes in: no member
is below it. They are arithmetic of a normalisation: activation radii are not theirs.
"""

from __future__ import annotations

from typing import Any

from qverify.activations.function import INF, Function


def _from(xp: Any, x: Any, low: Any) -> Any:
    return xp.maximum(x, 0.0 * x + low)


def _sqrt_derivative(xp: Any, x: Any, k: int, low: Any) -> Any:
    return 0.5 / xp.sqrt(_from(xp, x, low)) if k else 0.0 * x


def _rsqrt_derivative(xp: Any, x: Any, k: int, low: Any) -> Any:
    above = _from(xp, x, low)
    return -0.5 / (above * xp.sqrt(above)) if k else 0.0 * x


def _positive(low: Any) -> str:
    return "" if (low > 0).all() else "what it reads may be 0 or negative"


def _root(xp: Any, low: Any) -> Any:
    return xp.sqrt(low)


ROOTS: dict[str, Function] = {
    "sqrt": Function(
        value=lambda xp, x, low: xp.sqrt(_from(xp, x, low)),
        derivative=_sqrt_derivative,
        parameters=("low",),
        curvature=(0, -1),
        breaks=lambda low: [low],
        touching=lambda xp, a, k, low: (0.5 / xp.maximum(a, 0.0 * a + 1e-150)) ** 2,
        ends=lambda xp, low: (_root(xp, low) * (1.0 - 2.0**-48), INF),
        refused=_positive,
        arithmetic=True,
    ),
    "rsqrt": Function(
        value=lambda xp, x, low: 1.0 / xp.sqrt(_from(xp, x, low)),
        derivative=_rsqrt_derivative,
        parameters=("low",),
        curvature=(0, 1),
        breaks=lambda low: [low],
        touching=lambda xp, a, k, low: xp.maximum(-2.0 * a, 0.0 * a + 1e-150) ** (-2.0 / 3.0),
        ends=lambda xp, low: (0.0 * low, (1.0 + 2.0**-48) / _root(xp, low)),
        refused=_positive,
        arithmetic=True,
    ),
}
"""Both by their names."""
