"""|x| of a layer in the relational program: by its chord, or by variables of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.program import IntArray


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Magnitude(Brief):
    """Linear upper bounds on |x| of one layer, each (size,): the chords `slope * x + intercept`, sound; or variables of
    the program, exact, where `column` >= 0 (and slope and intercept are 0)."""

    slope: Array
    intercept: Array
    column: IntArray

    def row_terms(self, radius: Any, sign: float, columns: IntArray) -> tuple[list[tuple[Any, IntArray]], Array]:
        """`sign * radius @ |x|` as row terms and a constant; radius CSR (m, n), columns: where x lives."""
        terms = [(sign * (radius @ sparse.diags(self.slope)), columns)]
        exact = np.flatnonzero(self.column >= 0)
        if len(exact):
            terms.append((sign * radius[:, exact], self.column[exact]))
        return terms, sign * (radius @ self.intercept)
