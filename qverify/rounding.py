"""Rounding allowances: what keeps bounds and programs right in floating point (mathematics.md, section 8).

Model: a sum of n products, evaluated in any order with or without fused multiply-add, satisfies
`|fl(a . b) - a . b| <= g_n |a| . |b|` with `g_n = n u / (1 - n u)` and u the unit roundoff (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1). Every bound, and every limit and objective of a program,
is widened by a multiple of it. `n` counts the longest chain of roundings, with `_EXTRA` for the handful that surround
the sum (forming W + R, splitting by sign, adding the bias); the factor 4 covers up to three products per weight
and the rounding of the allowance itself. Wider than necessary by design: about 1e-12, where margins are
decided at 1e-6.

That holds as long as no product underflows. One that does is off by up to 2^-1074 more, however small it is, and so
is every sum and coefficient it goes into; where that is multiplied by a large number later, so is the error. `TINY`
is far more than 2^-1074 times any number of terms: it is added to every allowance, times whatever may multiply it.

The functions work on numbers, numpy arrays and torch tensors alike. Training uses the same bounds in float32 without
allowance; only verification asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qverify.errors import InternalError, RadiiError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

UNIT = 2.0**-53
"""The unit roundoff of float64."""
_EXTRA = 32
_FACTOR = 4.0
TINY = 1e-290
"""Absolute part of every allowance, for gradual underflow; negligible beside any number that does not underflow."""


def gamma(terms: int, unit: float = UNIT) -> float:
    """The relative allowance for a sum of `terms` products: what it may be off by, per unit of absolute mass."""
    chain = (terms + _EXTRA) * unit
    if chain >= 0.01:
        raise InternalError(f"A sum of {terms} products is too long for its rounding error to be bounded.")
    return _FACTOR * chain / (1.0 - chain)


def allowance(mass: Any, terms: int, reach: Any = 0.0) -> Any:
    """The rounding error in float64 of sums of `terms` products whose absolute values add up to `mass` (an array).

    `reach`: the absolute sum of the numbers that multiply coefficients which may have underflowed.
    """
    return mass * gamma(terms) + TINY * (1.0 + reach)


def chord(xp: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Slope and intercept (n,) of the line above |x| on [lower, upper]: `slope x + intercept >= |x|`, exactly.

    `xp`: numpy or torch, which the ends belong to. It is |x| itself where the interval does not straddle 0, if it is no
    point, and touches it at both ends up to rounding where it does. The slope is any number in [-1, 1]; given it, the
    intercept is rounded upwards from what either end needs.
    """
    # Without a choice by masks, which torch is slow at: beyond 0 the ratio is at least 1, and nothing is needed.
    width = upper - lower
    slope = xp.clip((upper + lower) / (width + (1.0 - xp.sign(width))), -1.0, 1.0)
    needed = xp.maximum(-lower * (1.0 + slope), upper * (1.0 - slope))
    return slope, needed * (1.0 + 8.0 * UNIT) + TINY * (1.0 - xp.abs(slope))


class Allowances:
    """The rounding allowances of one floating-point type; `Allowances(dtype, enabled=False)` are all 0.

    `unit`: its unit roundoff; `tiny`: the absolute part, for underflow.
    """

    def __init__(self, dtype: torch.dtype, enabled: bool = True):
        import torch

        self.unit = torch.finfo(dtype).eps / 2 if enabled else 0.0
        self.tiny = TINY if enabled else 0.0
        self.enabled = enabled

    def gamma(self, terms: int) -> float:
        """The relative allowance for a sum of `terms` products, as the function `gamma` gives it; 0 if switched off."""
        return gamma(terms, self.unit)

    def widen(self, lower: Tensor, upper: Tensor, mass: Tensor, terms: int) -> tuple[Tensor, Tensor]:
        """Move two computed ends outwards by the allowance for `mass`, the sum of absolute products (broadcasts)."""
        if not self.enabled:
            return lower, upper
        allowed = mass * self.gamma(terms) + self.tiny
        return lower - allowed, upper + allowed


def finite(name: str, *tensors: Tensor) -> None:
    """Raise RadiiError if a bound of layer `name` is NaN or infinite: it would be no bound at all."""
    for tensor in tensors:
        if not bool(tensor.isfinite().all()):
            raise RadiiError(
                f"The bounds of layer {name!r} overflow to NaN or infinity; radii, inputs or weights are too large."
            )
