"""A mathematical program as plain data: what a solver needs, and nothing a solver decides.

    minimise    cost . v + offset
    subject to  row_lower <= rows @ v + products(v) <= row_upper
                lower <= v <= upper,   v_i integer where integer[i]

`products(v)[r]` is the sum of `coefficient * v[first] * v[second]` over the entries with `row == r`.
The relational program (mathematics.md, sections 2 and 3) has none; the bilinear one lives by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from qverify.arrays import Array
from qverify.errors import InternalError
from qverify.text.brief import Brief

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False, repr=False)
class Products(Brief):
    """Bilinear terms in coordinate form; four arrays of one length."""

    row: IntArray
    first: IntArray
    second: IntArray
    coefficient: Array

    def __len__(self) -> int:
        return len(self.row)


def no_products() -> Products:
    none = np.zeros(0, dtype=np.int64)
    return Products(none, none, none, np.zeros(0))


@dataclass(frozen=True, eq=False, repr=False)
class Program(Brief):
    """See the module docstring. n variables, m rows; `rows` is an (m, n) CSR matrix.

    `blocks` maps a name to the indices of its variables, for reading a point back.
    Raises InternalError if anything is not finite where it must be, or sizes do not fit.
    Row limits may be infinite; variable bounds may not: every variable is boxed.
    """

    lower: Array
    upper: Array
    integer: np.ndarray[Any, np.dtype[np.bool_]]
    rows: Any
    row_lower: Array
    row_upper: Array
    cost: Array
    offset: float = 0.0
    products: Products = field(default_factory=no_products)
    blocks: dict[str, IntArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = len(self.lower), len(self.row_lower)
        sizes = (self.upper.shape, self.integer.shape, self.cost.shape, self.rows.shape, self.row_upper.shape)
        if sizes != ((n,), (n,), (n,), (m, n), (m,)) or not sparse.isspmatrix_csr(self.rows):
            raise InternalError(f"A program of {n} variables and {m} rows has parts of other sizes: {sizes}.")
        finite = (self.lower, self.upper, self.cost, self.rows.data, self.products.coefficient)
        if (
            not all(np.isfinite(a).all() for a in finite)
            or np.isnan(self.row_lower).any()
            or np.isnan(self.row_upper).any()
        ):
            raise InternalError("A program holds NaN or an unbounded variable.")
        if (self.lower > self.upper).any() or (self.row_lower > self.row_upper).any():
            raise InternalError("A program has an empty range for a variable or a row.")

    @property
    def variables(self) -> int:
        return len(self.lower)

    @property
    def row_count(self) -> int:
        return len(self.row_lower)

    def objective(self, cost: Array, offset: float) -> Program:
        """The same program with another objective."""
        return replace(self, cost=cost, offset=offset)
