"""Integers of a quantised file, and the numbers that they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array

_INTEGER = re.compile(r"(u?)int(\d+)")


def kind_of(dtype: np.dtype[Any]) -> str:
    """The name of a type, as "uint8" or "int4": numpy has no integers of less than a byte, and onnx brings its own."""
    return str(dtype.names[0] if dtype.names else dtype.name)


def ends_of(kind: str) -> tuple[int, int] | None:
    """The smallest and the largest integer of a type of this name; None if it is not one of integers."""
    found = _INTEGER.fullmatch(kind)
    if found is None:
        return None
    bits = int(found[2])
    return (0, 2**bits - 1) if found[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def uncovered(values: Array) -> Array:
    """The smallest array that broadcasts to this one: axes along which nothing changes have length 1."""
    for axis in range(values.ndim):
        first = values.take([0], axis)
        if (values == first).all():
            values = first
    return values


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Grid(Brief):
    """What the integers of a tensor stand for: `(integer - zero) * step`, exact in float64 up to 16 bits.

    `kind` is their type by name. Arrays `step` > 0 and `zero` have the shape (size,) of the tensor, flat, or (1,).
    """

    step: Array
    zero: Array
    kind: str

    @property
    def ends(self) -> tuple[Array, Array]:
        """The ends of the type, counted in steps from 0."""
        low, high = ends_of(self.kind) or (0, 0)
        return low - self.zero, high - self.zero

    def same(self, other: Grid) -> bool:
        """Whether each integer stands for the same number there."""
        return self.kind == other.kind and bool((self.step == other.step).all() and (self.zero == other.zero).all())

    def numbers(self, integers: Array) -> Array:
        """The numbers that integers (size,) stand for."""
        return (np.asarray(integers, dtype=np.float64) - self.zero) * self.step

    def integers(self, numbers: Array) -> Array:
        """The integers, as float64, nearest to numbers (size,) that may lie off the grid or beyond its ends."""
        low, high = self.ends
        return np.clip(np.rint(numbers / self.step), low, high) + self.zero
