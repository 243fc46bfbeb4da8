"""Integer kernels: what has to hold for real arithmetic to describe them (mathematics.md, section 10).

A kernel multiplies integers and adds them up in int32, the bias first or last, in an order of its own. Real arithmetic
with radii describes it only while nothing overflows:

- every bias fits into int32 in steps of `s_x s_w`: there is no other place for it, and toolchains clip what is larger
  (or widen `s_w` until the bias alone fills int32, which leaves no room for the products);
- bias and any partial sum of products fit into the accumulator: int32 up to 8 bits, int64 above, as int16 kernels have;
- the product of the steps is a normal number of float32, in which it is kept;
- a Relu that is 0 on all calibration data changes nothing on the sample either: its range is [0, 0], which becomes the
  step 1 and the zero point 0, and a quantiser that leaves Relus to the end of the range lets negative int8 through;
- for `--kernel any`, up to 8 bits: the sum of any two products fits into int16. Kernels of processors without
  dot-product instructions multiply uint8 by int8 and add neighbouring products in *saturating* int16.

An integer is at most a value over the smallest step that any covered quantiser takes, plus one for rounding. At b bits
that is `range / (2^(b+1) - 1)`: radii of b bits stand for files of b + 1 bits too, of which only weights or only
activations have the coarse steps of a reduced or symmetric range. No kernel has 9 bits, or 17.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.arrays import largest_two
from qverify.layers import INT16, INT32
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qverify.arrays import Array

LEAST_STEP = 1.0001 * 2.0**-126
"""The smallest normal number of float32, and a little: no toolchain has a step below."""
_ROOM = 1.001
"""For the arithmetic here."""
_INSTEAD = "--scheme paper and --radii speak of real arithmetic"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class IntegerLayer(Brief):
    """One layer as an integer kernel computes it.

    `weight` and `bias` are what is quantised, with a kernel's own shape; `low`, `high` (c_out,) the range that the
    weights of a channel share, widened to contain 0; `entry` the step of its input, `offset` the lower end of that
    input's range. `name` is the layer's, which may be the folded form of this one.
    """

    name: str
    bits: int
    weight: Array
    bias: Array
    low: Array
    high: Array
    entry: float
    offset: float

    @property
    def levels(self) -> float:
        """The number of steps in the range of an asymmetric quantiser."""
        return 2.0**self.bits - 1

    @property
    def room(self) -> float:
        """Factor of formula (22) on products of integers of b bits: each of them may have up to b + 1."""
        return _ROOM * (finest(self.bits) / self.levels) ** 2

    @property
    def top(self) -> Array:
        """(c_out,): the largest absolute weight that shares the step of a channel."""
        return np.maximum(-self.low, self.high)

    def _per_channel(self, values: Array) -> Array:
        return values.reshape(-1, *[1] * (self.weight.ndim - 1))

    def integers(self) -> Array:
        """Like `weight`: the largest absolute integer of each weight, zero point taken off; 0 stays 0."""
        top = self._per_channel(np.where(self.top > 0, self.top, 1.0))
        size = np.minimum(abs(self.weight) * (self.levels / top) + 1.0, self.levels)
        return np.where(self.weight == 0, 0.0, size)

    def bias_integers(self) -> Array:
        """(c_out,): the largest absolute integer of each bias; inf where its step underflows."""
        step = np.where(self.top > 0, self.top / self.levels, 1.0) * self.entry
        with np.errstate(divide="ignore", over="ignore"):
            size = abs(self.bias) / step + 1.0
        return np.where(self.bias == 0, 0.0, size)

    def stored(self) -> Array:
        """Like `weight`: the largest absolute value as int8 stores it, symmetric or with a zero point.

        A channel without a step of its own has any zero point: onnxruntime's quantiser stores zeros as 0 of uint8,
        which is -128.
        """
        half = 2.0 ** (self.bits - 1)
        top, low = (self._per_channel(a) for a in (np.where(self.top > 0, self.top, 1.0), self.low))
        width = self._per_channel(np.where(self.top > 0, self.high - self.low, 1.0))
        symmetric = np.minimum(abs(self.weight) * ((half - 1.0) / top) + 1.0, half - 1.0)
        shifted = np.minimum(abs((self.weight - low) * (self.levels / width) - half) + 1.0, half)
        stepped = self._per_channel(self.top) > finest(self.bits) * LEAST_STEP
        return np.where(stepped, np.maximum(symmetric, shifted), half)

    @property
    def accumulator(self) -> float:
        """The largest sum that an accumulator holds: int32 up to 8 bits, int64 above."""
        return INT32 if self.bits <= 8 else 2.0**63 - 1

    def never(self) -> str:
        """The reason why this layer is not covered whatever its input, in words; empty if it may be."""
        used = (self.top > 0) | (self.bias != 0)
        step = np.where(self.top > 0, self.top / self.levels, 1.0) * self.entry
        if (step[used] < LEAST_STEP * self.room).any():
            return f"the steps of layer {self.name!r} are too small for float32; {_INSTEAD}"
        if (self.bias_integers() * self.room > INT32).any():
            return f"the bias of layer {self.name!r} does not fit into int32 beside steps that small; {_INSTEAD}"
        return ""

    @cached_property
    def always(self) -> bool:
        """Sums fit for every input that a quantiser can give, formula (23)."""
        sums = self.integers().reshape(len(self.bias), -1).sum(axis=1) * self.levels + self.bias_integers()
        return bool((sums * self.room <= self.accumulator).all())

    @cached_property
    def pairs_fit(self) -> bool:
        """Any two products fit into int16 for every input, formula (24); int16 kernels do not add pairs."""
        return self.bits > 8 or bool((largest_two(self.stored()) * self.levels <= INT16).all())

    def overflow(self, sums: Any) -> Any:
        """Elementwise: a bound on a sum, bias included, may leave the accumulator; for numbers, arrays and tensors."""
        return sums * self.room > self.accumulator


SEVEN_BITS = "a reduced range of int8 weights (reduce_range; --weight-bits 7 certifies it) makes them fit"


def finest(bits: int) -> float:
    """The largest number of steps in a range that a file has for which radii of so many bits stand."""
    return 2.0 ** (bits if bits == 8 or bits >= 16 else bits + 1) - 1


def borderline(name: str, low: float, high: float, bits: int) -> list[str]:
    """The reason against a range whose step may or may not be a normal number of float32, in words; nothing for
    others."""
    surely_none, surely_some = 0.999 * (2.0**bits - 1) * 2.0**-126, 1.001 * finest(bits) * LEAST_STEP
    if surely_none < high - low <= surely_some:
        return [f"the range of {name!r} has a step at the very end of float32; {_INSTEAD}"]
    return []


def overflowing(layers: list[str]) -> list[str]:
    """The reason why sums of these layers are not covered, in words; nothing for none."""
    named = ", ".join(map(repr, layers))
    return [f"bias and products of {named} may leave int32 together; {_INSTEAD}"] if layers else []


def saturating(layers: list[str]) -> list[str]:
    """The reason why pairs of products of these layers are not covered, in words; nothing for none."""
    named = ", ".join(map(repr, layers))
    return [f"pairs of products of {named} may leave int16; {SEVEN_BITS}"] if layers else []


def dropped(relus: list[str]) -> list[str]:
    """The reason why these Relus, 0 on all calibration data, are not covered, in words; nothing for none."""
    named = ", ".join(map(repr, relus))
    return [f"Relu {named} is 0 on all calibration data, where toolchains may drop it; {_INSTEAD}"] if relus else []


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Kernel(Brief):
    """The integer kernels that a family of radii stands for: `mode` of `KERNELS`, and every layer in every form.

    `refused`: what is wrong whatever the sample, in words, each once. `dead`: the Relus that are 0 on all calibration
    data, by name.
    """

    mode: str
    layers: tuple[IntegerLayer, ...]
    refused: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()

    @staticmethod
    def of(mode: str, layers: list[IntegerLayer], refused: Iterable[str] = (), dead: Iterable[str] = ()) -> Kernel:
        """The kernels of these layers: those that are never covered are taken out and named in `refused`, behind what
        is there already."""
        found = {layer: layer.never() for layer in layers}
        reasons = [*refused, *(reason for reason in found.values() if reason)]
        kept = tuple(layer for layer in layers if not found[layer])
        return Kernel(mode=mode, layers=kept, refused=tuple(dict.fromkeys(reasons)), dead=tuple(dead))

    def saturating(self) -> list[str]:
        """The names of the layers in which pairs of products may leave int16 for some input, each once."""
        return list(dict.fromkeys(layer.name for layer in self.layers if not layer.pairs_fit))
