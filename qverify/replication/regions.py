"""Which inputs around a sample are asked about: a box, and of it perhaps only those that a file's input rounding keeps.

Pixels k/255 lie on the grid of a file that was quantised for images, so rounding moves them by nothing but what their
step is off by as a float32 number; in a box of all reals it moves inputs by half a step, which is most of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import DataError, ModelError
from qverify.layers import Input, Rounding
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.network import Network

ON_GRID = 2.0**-10
"""How far inputs may be from a multiple of the input's step and still count as one, in steps."""


@dataclass(frozen=True, eq=False, repr=False)
class InputGrid(Brief):
    """The grid of a file's input: rounding point `index` of the file, with its step and ends (n_in,)."""

    index: int
    step: Array
    low: Array
    high: Array

    @staticmethod
    def of(file: Network) -> InputGrid:
        """That of a file. Raises ModelError where its input is not rounded, or also read as it is."""
        readers = [
            i for i, layer in enumerate(file.layers) if any(isinstance(file.layers[j], Input) for j in layer.inputs)
        ]
        layer: Any = file.layers[readers[0]] if len(readers) == 1 else None
        if not isinstance(layer, Rounding):
            raise ModelError(
                f"{file.source} does not round its input first, so it has no grid of its own; leave out --input exact."
            )
        return InputGrid(readers[0], layer.step, layer.low, layer.high)

    @property
    def moved(self) -> Array:
        """By how much rounding to the nearest moves an input on the grid at most (n_in,), its float32 division too."""
        return (ON_GRID + 2.0**-20) * self.step

    def nearest(self, x: Array) -> Array:
        """The inputs of the grid that are nearest to x (..., n_in)."""
        return np.clip(np.rint(x / self.step) * self.step, self.low, self.high)

    def check(self, x: Array) -> None:
        """Raise DataError for a sample that does not lie on the grid."""
        off = float((abs(x - self.nearest(x)) / self.step).max())
        if off > ON_GRID:
            raise DataError(
                f"a sample lies {off:.2g} steps off the grid of the file's input (steps of {self.step.max():.6g});"
                " leave out --input exact, or give the samples in the file's own units (--input-scale)."
            )

    def within(self, box: tuple[Array, Array]) -> tuple[Array, Array]:
        """The ends of the inputs in a box that lie on the grid, moved outwards by what counts as being on it."""
        slack = 2.0 * ON_GRID
        first = (np.ceil(box[0] / self.step - slack) - slack) * self.step
        last = (np.floor(box[1] / self.step + slack) + slack) * self.step
        edge = slack * self.step
        return np.maximum(np.maximum(box[0], first), self.low - edge), np.minimum(
            np.minimum(box[1], last), self.high + edge
        )


@dataclass(frozen=True, kw_only=True)
class Region:
    """What is asked about around a sample: inputs at most `radius` away, within `clip`; `epsilon` decides the gap.

    `exact`: only those that lie on the grid of the file's input.
    """

    radius: float = 0.0
    clip: tuple[float, float] | None = None
    epsilon: float | None = None
    exact: bool = False

    def box(self, x: Array, grid: InputGrid | None = None) -> tuple[Array, Array]:
        """The inputs (n_in,) around x, rounded outwards. Raises DataError for a sample outside `clip` or off `grid`."""
        if not self.radius:
            return x, x
        lower, upper = np.nextafter(x - self.radius, -np.inf), np.nextafter(x + self.radius, np.inf)
        if self.clip is not None:
            if (x < self.clip[0]).any() or (x > self.clip[1]).any():
                raise DataError(f"Some inputs lie outside --clip-input {self.clip[0]:g} {self.clip[1]:g}; widen it.")
            lower, upper = np.maximum(lower, self.clip[0]), np.minimum(upper, self.clip[1])
        if grid is None:
            return lower, upper
        grid.check(x)
        return grid.within((lower, upper))


def drawn(x: Array, box: tuple[Array, Array], count: int, rng: np.random.Generator, grid: InputGrid | None) -> Array:
    """`count` inputs (count, n_in) of a box, the sample x first: corners, or what the grid has there."""
    inputs = np.repeat(x[None], count, axis=0)
    corners = np.where(rng.random((count - 1, len(x))) < 0.5, *box)
    if grid is not None:
        corners = grid.nearest(corners)
        corners = np.where((corners < box[0]) | (corners > box[1]), x, corners)
    inputs[1:] = corners
    return inputs
