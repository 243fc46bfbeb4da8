"""Rounding allowances: the one place that keeps bounds bounds in floating point (design.md, section 8).

Model: a sum of n products, evaluated in any order with or without fused multiply-add, satisfies
`|fl(a . b) - a . b| <= g_n |a| . |b|` with `g_n = n u / (1 - n u)` and u the unit roundoff (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1). Every bound is widened by a multiple of
it. `n` counts the longest chain of roundings, with `_EXTRA` for the handful that surround the sum
(forming W + R, splitting by sign, adding the bias); the factor 4 covers up to three products per weight
and the rounding of the allowance itself. Wider than necessary by design: about 1e-12, where margins are
decided at 1e-6.

That holds as long as no product underflows. One that does is off by up to 2^-1074 more, however small it is, and so
is every sum and coefficient it goes into; where that is multiplied by a large number later, so is the error. `TINY`
is far more than 2^-1074 times any number of terms: it is added to every allowance, times whatever may multiply it.

Training uses the same bounds in float32 without allowance; only verification asks for one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qverify.errors import InternalError, RadiiError

_EXTRA = 32
_FACTOR = 4.0
TINY = 1e-290
"""Absolute part of every allowance, for gradual underflow; negligible beside any number that does not underflow."""


class Rounding:
    """Allowances for one floating-point type; `Rounding(dtype, enabled=False)` gives zeros."""

    def __init__(self, dtype: torch.dtype, enabled: bool = True):
        self.unit = torch.finfo(dtype).eps / 2 if enabled else 0.0
        self.tiny = TINY if enabled else 0.0
        self.enabled = enabled

    def gamma(self, terms: int) -> float:
        """Allowance per unit of absolute mass for a sum of `terms` products."""
        chain = (terms + _EXTRA) * self.unit
        if chain >= 0.01:
            raise InternalError(f"A sum of {terms} products is too long for its rounding error to be bounded.")
        return _FACTOR * chain / (1.0 - chain)

    def widen(self, lower: Tensor, upper: Tensor, mass: Tensor, terms: int) -> tuple[Tensor, Tensor]:
        """Move two computed ends outwards by the allowance for `mass`, the sum of absolute products (broadcasts)."""
        if not self.enabled:
            return lower, upper
        allowance = mass * self.gamma(terms) + self.tiny
        return lower - allowance, upper + allowance


def finite(name: str, *tensors: Tensor) -> None:
    """Raise RadiiError if a bound of layer `name` is NaN or infinite: it would be no bound at all."""
    for tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            raise RadiiError(
                f"The bounds of layer {name!r} overflow to NaN or infinity; radii, inputs or weights are too large."
            )
