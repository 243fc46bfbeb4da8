"""Collects variables and rows of a `Program`; knows nothing of networks but how to write a layer as a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from qverify.arrays import Array
from qverify.exact.program import IntArray, Products, Program
from qverify.layers import Conv, Dense
from qverify.rounding import allowance
from qverify.text.brief import Brief

Numbers = TypeVar("Numbers", bound=np.ndarray[Any, Any])


@dataclass(frozen=True, eq=False, repr=False)
class Rounded(Brief):
    """What bounds the rounding error of rows: see `rounding.allowance`.

    `mass` (m,): per row the absolute values of all that was added up, coefficients times the reach of their variables
    and limits; `terms`: the most products in one sum; `reach`: that of all variables in the rows, summed.
    """

    mass: Array
    terms: int
    reach: float


class ProgramBuilder:
    """Variables come in blocks, rows in blocks over several variable blocks; `build` puts them together."""

    def __init__(self) -> None:
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._integer: list[Any] = []
        self._count = 0
        self._rows = 0
        self._coordinates: list[tuple[Any, Any, Any]] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []
        self._products: list[tuple[Any, Any, Any, Any]] = []
        self.blocks: dict[str, IntArray] = {}

    def variables(self, name: str, lower: Array, upper: Array, integer: bool = False) -> IntArray:
        """A block of variables in [lower, upper]; returns their indices."""
        block = np.arange(self._count, self._count + len(lower))
        self._lower.append(np.asarray(lower, dtype=np.float64))
        self._upper.append(np.asarray(upper, dtype=np.float64))
        self._integer.append(np.full(len(lower), integer))
        self._count += len(lower)
        self.blocks[name] = block
        return block

    def binaries(self, name: str, count: int) -> IntArray:
        return self.variables(name, np.zeros(count), np.ones(count), integer=True)

    def rows(
        self, terms: list[tuple[Any, IntArray]], lower: Any, upper: Any, rounded: Rounded | None = None
    ) -> IntArray:
        """Rows `lower <= sum of matrix @ variables <= upper`; returns their indices.

        A term is (matrix, indices): the matrix (m, k), or as an array (m,) its diagonal; the indices (k,).
        `rounded`: what was rounded in making coefficients and limits, which are moved outwards by as much; None if they
        are the numbers meant.
        """
        if rounded is not None:
            allowed = allowance(rounded.mass, rounded.terms, rounded.reach)
            lower, upper = lower - allowed, upper + allowed
        count = terms[0][0].shape[0]
        block = np.arange(self._rows, self._rows + count)
        for matrix, columns in terms:
            if matrix.ndim == 1:
                self._coordinates.append((block, columns, matrix))
            else:
                coo = sparse.coo_matrix(matrix)
                self._coordinates.append((coo.row + self._rows, columns[coo.col], coo.data))
        self._row_lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), count))
        self._row_upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), count))
        self._rows += count
        return block

    def products(self, rows: IntArray, first: IntArray, second: IntArray, coefficient: Array) -> None:
        """Add `coefficient * first * second` to existing rows."""
        self._products.append((rows, first, second, coefficient))

    def build(self) -> Program:
        """The program, with a zero objective."""
        row, column, value = (np.concatenate([c[k] for c in self._coordinates] or [np.zeros(0)]) for k in range(3))
        matrix = sparse.csr_matrix((value, (row.astype(int), column.astype(int))), shape=(self._rows, self._count))
        matrix.eliminate_zeros()
        parts = [[p[k] for p in self._products] or [np.zeros(0, dtype=np.int64)] for k in range(4)]
        row, first, second, coefficient = (np.concatenate(p) for p in parts)
        return Program(
            np.concatenate(self._lower),
            np.concatenate(self._upper),
            np.concatenate(self._integer),
            matrix,
            np.concatenate(self._row_lower or [np.zeros(0)]),
            np.concatenate(self._row_upper or [np.zeros(0)]),
            np.zeros(self._count),
            products=Products(row, first, second, coefficient.astype(np.float64)),
            blocks=self.blocks,
        )


def index_map(layer: Conv) -> tuple[IntArray, IntArray, IntArray]:
    """For every use of a kernel entry: (output index, input index, flat kernel index); padding is left out."""
    numbered = layer.patches(np.arange(1, np.prod(layer.in_shape) + 1, dtype=np.float64)[None])[0]
    groups, positions, fan_in = numbered.shape
    channels = len(layer.bias) // groups
    source = np.broadcast_to(numbered[:, None].astype(np.int64) - 1, (groups, channels, positions, fan_in))
    channel = np.arange(len(layer.bias)).reshape(groups, channels, 1, 1)
    position = np.arange(positions).reshape(1, 1, positions, 1)
    entry = np.arange(fan_in).reshape(1, 1, 1, fan_in)
    output, kernel = (
        np.broadcast_to(a, source.shape) for a in (channel * positions + position, channel * fan_in + entry)
    )
    used = source >= 0
    return output[used], source[used], kernel[used]


def as_matrix(layer: Dense | Conv, kernel: Array) -> Any:
    """The layer's linear map with `kernel` (shaped like its weight) as a CSR matrix (n_out, n_in)."""
    if isinstance(layer, Dense):
        return sparse.csr_matrix(kernel)
    output, source, entry = index_map(layer)
    shape = (layer.size, int(np.prod(layer.in_shape)))
    return sparse.csr_matrix((kernel.ravel()[entry], (output, source)), shape=shape)


def per_output(layer: Dense | Conv, channel: Numbers) -> Numbers:
    """(c_out,) -> (n_out,)."""
    return np.repeat(channel, layer.positions) if isinstance(layer, Conv) else channel  # type: ignore[return-value]
