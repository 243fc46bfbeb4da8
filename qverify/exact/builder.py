"""Collects variables and rows of a `Program`; knows nothing of networks but how to write a layer as a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from qverify.exact.program import IntArray, Products, Program, no_products
from qverify.layers import Conv, Dense
from qverify.rounding import allowance
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array

Numbers = TypeVar("Numbers", bound=np.ndarray[Any, Any])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rounded(Brief):
    """The masses that bound the rounding errors of rows: see `rounding.allowance`.

    `mass` (m,): per row the sum of absolute values added up, coefficients times the reach of their variables
    and limits; `terms`: the most products in one sum; `reach`: that of all variables in the rows, summed.
    """

    mass: Array
    terms: int
    reach: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Entries(Brief):
    """Coefficients of rows in coordinate form: three arrays (k,)."""

    row: IntArray
    column: IntArray
    value: Array


class ProgramBuilder:
    """Variables come in blocks, rows in blocks over several variable blocks; `build` puts them together.

    `blocks[name]`: the indices of a block's variables, by which a point is read.
    """

    def __init__(self) -> None:
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._integer: list[Any] = []
        self._count = 0
        self._rows = 0
        self._entries: list[_Entries] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []
        self._products: list[Products] = [no_products()]
        self.blocks: dict[str, IntArray] = {}

    def add_variables(self, name: str, lower: Array, upper: Array, integer: bool = False) -> IntArray:
        """A block of variables in [lower, upper]; returns their indices."""
        block = np.arange(self._count, self._count + len(lower))
        self._lower.append(np.asarray(lower, dtype=np.float64))
        self._upper.append(np.asarray(upper, dtype=np.float64))
        self._integer.append(np.full(len(lower), integer))
        self._count += len(lower)
        self.blocks[name] = block
        return block

    def add_binaries(self, name: str, count: int) -> IntArray:
        """A block of binary variables; returns their indices."""
        return self.add_variables(name, np.zeros(count), np.ones(count), integer=True)

    def add_rows(
        self, terms: list[tuple[Any, IntArray]], lower: Any, upper: Any, rounded: Rounded | None = None
    ) -> IntArray:
        """Rows `lower <= sum of matrix @ variables <= upper`; returns their indices.

        A term is (matrix, indices): the matrix (m, k), or as an array (m,) its diagonal; the indices (k,).
        `rounded`: the masses of what was rounded in making coefficients and limits; the limits are moved outwards by
        the allowance for it, so that every point of the exact rows is one of these. None if nothing was rounded.
        """
        if rounded is not None:
            allowed = allowance(rounded.mass, rounded.terms, rounded.reach)
            lower, upper = lower - allowed, upper + allowed
        count = terms[0][0].shape[0]
        block = np.arange(self._rows, self._rows + count)
        for matrix, columns in terms:
            if matrix.ndim == 1:
                self._entries.append(_Entries(row=block, column=columns, value=matrix))
            else:
                coo = sparse.coo_matrix(matrix)
                self._entries.append(_Entries(row=coo.row + self._rows, column=columns[coo.col], value=coo.data))
        self._row_lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), count))
        self._row_upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), count))
        self._rows += count
        return block

    def add_products(self, rows: IntArray, first: IntArray, second: IntArray, coefficient: Array) -> None:
        """Add `coefficient * first * second` to existing rows."""
        self._products.append(Products(row=rows, first=first, second=second, coefficient=coefficient))

    def build(self) -> Program:
        """The program of all that was collected."""
        none = np.zeros(0, dtype=np.int64)
        row = np.concatenate([none, *(entries.row for entries in self._entries)])
        column = np.concatenate([none, *(entries.column for entries in self._entries)])
        value = np.concatenate([np.zeros(0), *(entries.value for entries in self._entries)])
        matrix = sparse.csr_matrix((value, (row, column)), shape=(self._rows, self._count))
        matrix.eliminate_zeros()
        return Program(
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
            integer=np.concatenate(self._integer),
            rows=matrix,
            row_lower=np.concatenate(self._row_lower or [np.zeros(0)]),
            row_upper=np.concatenate(self._row_upper or [np.zeros(0)]),
            products=Products(
                row=np.concatenate([part.row for part in self._products]),
                first=np.concatenate([part.first for part in self._products]),
                second=np.concatenate([part.second for part in self._products]),
                coefficient=np.concatenate([part.coefficient for part in self._products]),
            ),
        )


def index_map(layer: Conv) -> tuple[IntArray, IntArray, IntArray]:
    """Output, input and flat kernel index of every use of a kernel entry, three arrays (k,); padding is left out."""
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
    """Numbers of channels (c_out,), repeated for every output (n_out,)."""
    return np.repeat(channel, layer.positions) if isinstance(layer, Conv) else channel  # type: ignore[return-value]
