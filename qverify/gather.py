"""`Gather`: the layer of all that only moves, repeats, drops or pads numbers (mathematics.md, section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.arrays import Array, freeze
from qverify.errors import ModelError
from qverify.layers import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False, repr=False)
class Gather(Layer):
    """`y = (x_0, x_1, ...)[index]`, and `fill` where `index` is -1: exact and linear.

    x_0, x_1, ... are the flat outputs of its producers, each another layer, one behind the other. `index` (size,)
    int64, `fill` (size,) float64, which is 0 where a number is read.
    """

    index: IntArray
    fill: Array

    def __post_init__(self) -> None:
        freeze(self, "fill")
        index = np.array(self.index, order="C")
        if index.dtype.kind not in "iu" or index.shape != (self.size,) or self.fill.shape != (self.size,):
            raise ModelError(f"Layer {self.name!r}: index and fill of a Gather are {self.size} whole and real numbers.")
        if (index < -1).any() or self.fill[index >= 0].any():
            raise ModelError(f"Layer {self.name!r}: an index is at least -1, and a constant stands where it is -1.")
        if len(set(self.inputs)) < len(self.inputs):
            raise ModelError(f"Layer {self.name!r}: the producers of a Gather are different layers.")
        index = index.astype(np.int64)
        index.flags.writeable = False
        object.__setattr__(self, "index", index)

    @cached_property
    def constant(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(size,): the outputs that are constants."""
        return self.index < 0

    @cached_property
    def repeats(self) -> int:
        """How often a number is read at most, at least 1."""
        return max(1, int(np.bincount(self.index[~self.constant], minlength=1).max()))

    def read_of(self, sizes: Sequence[int]) -> list[IntArray]:
        """For each producer, of these sizes, what of it the outputs are: indices (size,), -1 for none of it."""
        found, first = [], 0
        for size in sizes:
            inside = (self.index >= first) & (self.index < first + size)
            found.append(np.where(inside, self.index - first, -1))
            first += size
        return found

    def drops(self, sizes: Sequence[int]) -> bool:
        """Whether some number of its producers, of these sizes, is no output."""
        return len(np.unique(self.index[~self.constant])) < sum(sizes)

    def apply(self, x: Sequence[Array]) -> Array:
        """The outputs (N, size) for the producers' outputs, (N, n) each."""
        whole = x[0] if len(x) == 1 else np.concatenate(x, axis=1)
        return np.where(self.constant, self.fill, whole[:, self.index])
