"""Piecewise linear functions (function.py), which programs know exactly."""

from __future__ import annotations

from typing import Any

from qverify.activations.function import INF, Function, clamp


def _leaky(xp: Any, x: Any, slope: Any) -> Any:
    return xp.where(x >= 0, x, slope * x)


def _leaky_ends(xp: Any, slope: Any) -> tuple[Any, Any]:
    return xp.where(slope > 0, 0.0 * slope - INF, 0.0 * slope), INF


def _hard_sigmoid(xp: Any, x: Any, slope: Any, shift: Any) -> Any:
    return clamp(xp, slope * x + shift, 0.0, 1.0)


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


PIECEWISE: dict[str, Function] = {
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
        ends=lambda xp: (0.0, INF),
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
}
"""Every one by its name."""
