"""A Gather in a program (mathematics.md, section 4.5): it has no variables but those of what it reads.

A number that it repeats is one variable in several places, so that coefficients of one row, or of an objective, may
fall together and are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qverify.exact.program import Objective
from qverify.rounding import allowance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.arrays import Array
    from qverify.exact.builder import ProgramBuilder
    from qverify.exact.program import IntArray
    from qverify.gather import Gather


def gathered_columns(builder: ProgramBuilder, index: int, layer: Gather, columns: Mapping[int, IntArray]) -> IntArray:
    """The variables (size,) of Gather `index`: those of its producers, and a fixed one for each of its constants."""
    found = np.concatenate([columns[source] for source in layer.inputs])[layer.index]
    if layer.constant.any():
        values, which = np.unique(layer.fill[layer.constant], return_inverse=True)
        found[layer.constant] = builder.add_variables(f"constants {index}", values, values)[which]
    return found


def repeated(columns: IntArray) -> bool:
    """Whether some variable stands in several places."""
    return len(np.unique(columns)) < len(columns)


def summed(count: int, columns: IntArray, row: Array, reach: Array) -> Objective:
    """The objective `row . variables of these columns` over `count` variables; `reach` (size,): how large they are.

    Nowhere above the true one: where coefficients fall together, what their sums are off by is taken off.
    """
    cost = np.zeros(count)
    np.add.at(cost, columns, row)
    if not repeated(columns):
        return Objective(cost)
    return Objective(cost, -float(allowance(float(abs(row) @ reach), len(row), float(reach.sum()))))
