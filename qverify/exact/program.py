"""A mathematical program as plain data, and objectives over its variables.

    row_lower <= rows @ v + products(v) <= row_upper
    lower <= v <= upper,   v_i integer where integer[i]

and an `Objective` over its variables, `minimise cost . v + offset`, of which one after the other is asked.

`products(v)[r]` is the sum of `coefficient * v[first] * v[second]` over the entries with `row == r`.
The relational program (mathematics.md, sections 2 and 3) has none; the bilinear one lives by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.errors import InternalError
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Products(Brief):
    """Bilinear terms `coefficient * v[first] * v[second]` of rows `row`, in coordinate form: four arrays (k,)."""

    row: IntArray
    first: IntArray
    second: IntArray
    coefficient: Array

    def __len__(self) -> int:
        return len(self.row)


def no_products() -> Products:
    """The products of a linear program: none."""
    none = np.zeros(0, dtype=np.int64)
    return Products(row=none, first=none, second=none, coefficient=np.zeros(0))


@dataclass(frozen=True, eq=False, repr=False)
class Objective(Brief):
    """The linear function `cost . v + offset` of a program's variables, cost (n,), that is to be minimised."""

    cost: Array
    offset: float = 0.0

    def value(self, point: Array) -> float:
        """The objective at a point (n,), in numpy: an incumbent's value is never taken from a solver's word."""
        return float(self.cost @ point + self.offset)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Box(Brief):
    """The ranges `lower <= v <= upper` (n,) of a program's variables."""

    lower: Array
    upper: Array


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Program(Brief):
    """Variables and rows, as the module docstring has them: n variables, m rows; `rows` is an (m, n) CSR matrix.

    Raises InternalError if anything is not finite where it must be, or sizes do not fit.
    Row limits may be infinite; variable bounds may not: every variable is boxed.
    """

    lower: Array
    upper: Array
    integer: np.ndarray[Any, np.dtype[np.bool_]]
    rows: Any
    row_lower: Array
    row_upper: Array
    products: Products = field(default_factory=no_products)

    def __post_init__(self) -> None:
        n, m = len(self.lower), len(self.row_lower)
        sizes = (self.upper.shape, self.integer.shape, self.rows.shape, self.row_upper.shape)
        if sizes != ((n,), (n,), (m, n), (m,)) or not sparse.isspmatrix_csr(self.rows):
            raise InternalError(f"A program of {n} variables and {m} rows has parts of other sizes: {sizes}.")
        finite = (self.lower, self.upper, self.rows.data, self.products.coefficient)
        if (
            not all(np.isfinite(a).all() for a in finite)
            or np.isnan(self.row_lower).any()
            or np.isnan(self.row_upper).any()
        ):
            raise InternalError("A program holds NaN or an unbounded variable.")
        if (self.lower > self.upper).any() or (self.row_lower > self.row_upper).any():
            raise InternalError("A program has an empty range for a variable or a row.")

    @property
    def variable_count(self) -> int:
        """The number n of variables."""
        return len(self.lower)

    @property
    def row_count(self) -> int:
        """The number m of rows."""
        return len(self.row_lower)
