"""The fixed-point arithmetic of TensorFlow Lite's kernels, bit by bit, on tensors of int64.

As in TensorFlow Lite's `common.h`, `quantization_util.cc` and gemmlowp's `fixedpoint.h`. All functions of x are
monotone. Numbers stay where 32-bit code does not overflow: |x| * 2^max(shift, 0) < 2^31.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qverify.arrays import Array

ADD_SHIFT = 20
"""How many bits the 8-bit inputs of a sum are shifted left before they are scaled."""


@dataclass(frozen=True, eq=False, repr=False)
class Multiplier(Brief):
    """`value * 2^(shift - 31)` for the real multipliers of a tensor, both (size,) or (1,) int64."""

    value: Tensor
    shift: Tensor

    @staticmethod
    def of(real: Array) -> Multiplier:
        """QuantizeMultiplier: 31 bits and an exponent each; multipliers below 2^-32 become 0."""
        values, shifts = zip(*(quantised_multiplier(float(m)) for m in real), strict=True)
        return Multiplier(torch.tensor(values), torch.tensor(shifts))

    @property
    def largest_shift(self) -> int:
        """The largest left shift that is done before the multiplication."""
        return int(self.shift.clamp(min=0).max())


def quantised_multiplier(real: float) -> tuple[int, int]:
    """The 31-bit integer and the exponent that stand for a real multiplier >= 0."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    value = math.floor(fraction * 2**31 + 0.5)  # exact: a double has 53 bits
    if value == 2**31:
        value, shift = value // 2, shift + 1
    return (0, 0) if shift < -31 else (value, shift)


def single_rounding(x: Tensor, by: Multiplier) -> Tensor:
    """MultiplyByQuantizedMultiplier with TFLITE_SINGLE_ROUNDING: one rounding, ties upwards."""
    right = 31 - by.shift
    return (x * by.value + (1 << (right - 1))) >> right


def double_rounding(x: Tensor, by: Multiplier) -> Tensor:
    """MultiplyByQuantizedMultiplier of gemmlowp: a product rounded to its high half, then a rounding right shift.

    The first rounding takes ties upwards; the second takes them away from 0.
    """
    high, right = _high_half(x, by), (-by.shift).clamp(min=0)
    mask = (1 << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0).long()).long()


def double_rounding_upwards(x: Tensor, by: Multiplier) -> Tensor:
    """The same where the second rounding, too, takes ties upwards: ruy on x86, and rounding shifts of processors."""
    high, right = _high_half(x, by), (-by.shift).clamp(min=0)
    return (high + ((1 << right) >> 1)) >> right


def _high_half(x: Tensor, by: Multiplier) -> Tensor:
    """SaturatingRoundingDoublingHighMul of x, shifted left where its multiplier is above 1."""
    return ((x << by.shift.clamp(min=0)) * by.value + (1 << 30)) >> 31


@dataclass(frozen=True, eq=False, repr=False)
class Addition(Brief):
    """The multipliers of a sum of two 8-bit tensors: those of either input, on 20 more bits, and that of the output."""

    first: Multiplier
    second: Multiplier
    output: Multiplier

    @staticmethod
    def of(first: float, second: float, output: float) -> Addition:
        """From the steps of both inputs and of the output."""
        twice = 2 * max(first, second)
        reals = first / twice, second / twice, twice / (2**ADD_SHIFT * output)
        return Addition(*(Multiplier.of(np.array([real])) for real in reals))

    def sum(self, a: Tensor, b: Tensor, multiply: Callable[[Tensor, Multiplier], Tensor]) -> Tensor:
        """The requantised sum, every product by `multiply`."""
        scaled = multiply(a << ADD_SHIFT, self.first) + multiply(b << ADD_SHIFT, self.second)
        return multiply(scaled, self.output)


@dataclass(frozen=True, eq=False, repr=False)
class Average(Brief):
    """The two ways in which MEAN divides the sum of `count` numbers, from the steps of its input and output."""

    count: int
    scale: Multiplier
    folded: Multiplier

    @staticmethod
    def of(count: int, read: float, output: float) -> Average:
        """From the steps; the number of entries goes into the multiplier of the newer way, rounded towards 0."""
        value, shift = quantised_multiplier(read / output)
        more = min(count.bit_length() - 1, 32, 31 + shift)
        folded = Multiplier(torch.tensor([(value << more) // count]), torch.tensor([shift - more]))
        return Average(count, Multiplier(torch.tensor([value]), torch.tensor([shift])), folded)

    def at_once(self, total: Tensor, multiply: Callable[[Tensor, Multiplier], Tensor]) -> Tensor:
        """The newer way (`reduce.h`): one product."""
        return multiply(total, self.folded)

    def apart(self, total: Tensor, multiply: Callable[[Tensor, Multiplier], Tensor]) -> Tensor:
        """The older way (`mean.h`): the sum is scaled, then divided, ties away from 0."""
        scaled = multiply(total, self.scale)
        return scaled.sign() * ((scaled.abs() + self.count // 2) // self.count)
