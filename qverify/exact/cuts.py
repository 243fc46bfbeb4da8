"""Rows that close the gap between a big-M Relu and its convex hull, as a relaxation wants them.

A *switched* variable x of a program, `s` its binary, is one of

    x <= w . v + c - M (1 - s)        (at s = 1: x <= w . v + c)
    x <= U s + r                      (at s = 0: x <= r)

that is `x <= max(w . v + c, r)` with the larger chosen by s: mathematics.md, formula (4). Over a box
`l <= v <= u`, write `m_j` and `p_j` for the smallest and largest value of `w_j v_j`. For every subset I

    x <= r + sum_{j in I} (w_j v_j - m_j (1 - s)) + s (c - r + sum_{j not in I} p_j)                       (*)

holds at s = 0 (each bracket is >= 0) and at s = 1 (w_j v_j <= p_j outside I). These rows are the convex hull
of one neuron over the box, and the one most violated by a point is found term by term: j is in I where that
makes the right side smaller (Anderson, Huchette, Ma, Tjandraatmadja, Vielma, Strong mixed-integer programming
formulations for trained neural networks, 2020: their ideal formulation of a single neuron, and its separation).

Everything is read off the program's own rows, so a row made here holds for every point of the program whose
binaries are 0 or 1, whatever the program stands for; its limit is moved outwards by the rounding of its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.rounding import allowance
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.program import IntArray, Program

_VIOLATED = 1e-6
"""The violation from which a row counts as violated, relative to the range of x."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Switched(Brief):
    """The switched variables of a program, k of them: indices x and s, r, `constant` = c - r, `slack`, the rounding
    allowance of their rows, and `range`, the width of x, all (k,); and their terms `w_j v_j`.

    A term belongs to number `of`, has variable `column` and coefficient `weight`, and lies in [`low`, `high`].
    """

    x: IntArray
    s: IntArray
    r: Array
    constant: Array
    slack: Array
    range: Array
    of: IntArray
    column: IntArray
    weight: Array
    low: Array
    high: Array

    @staticmethod
    def of_program(program: Program) -> Switched:
        """The switched variables found in the rows; a binary whose rows have another form is passed over."""
        columns = program.rows.tocsc()
        read = [_neuron(program, columns, int(s)) for s in np.flatnonzero(program.integer)]
        found = [neuron for neuron in read if neuron is not None]
        x = np.array([neuron.x for neuron in found], dtype=np.int64)
        s = np.array([neuron.s for neuron in found], dtype=np.int64)
        r = np.array([neuron.r for neuron in found], dtype=np.float64)
        constant = np.array([neuron.constant for neuron in found], dtype=np.float64)
        of = np.repeat(np.arange(len(found)), [len(neuron.column) for neuron in found])
        column = np.concatenate([np.zeros(0, dtype=np.int64), *(neuron.column for neuron in found)])
        weight = np.concatenate([np.zeros(0), *(neuron.weight for neuron in found)])
        ends = weight * program.lower[column], weight * program.upper[column]
        low, high = np.minimum(*ends), np.maximum(*ends)
        mass = np.bincount(of, np.maximum(abs(low), abs(high)), len(found)) + abs(constant) + 2.0 * abs(r)
        slack = allowance(mass, int(np.bincount(of, minlength=1).max()))
        return Switched(
            x=x,
            s=s,
            r=r,
            constant=constant,
            slack=slack,
            range=(program.upper - program.lower)[x],
            of=of,
            column=column,
            weight=weight,
            low=low,
            high=high,
        )

    def __len__(self) -> int:
        return len(self.x)

    def violated(self, point: Array) -> tuple[Any, Array]:
        """Rows (*) that cut off `point` (n,), at most one a variable x: CSR (q, n) and lower limits (q,).

        Sound: whatever the point is, they hold for every point of the program with binaries 0 or 1.
        """
        count, s = len(self), point[self.s]
        terms = self.weight * point[self.column]
        inside = terms - self.low * (1.0 - s)[self.of]
        outside = self.high * s[self.of]
        chosen = inside < outside
        right = self.r + np.bincount(self.of, np.where(chosen, inside, outside), count) + self.constant * s
        wanted = (s > 0) & (s < 1) & (point[self.x] - right > _VIOLATED * self.range)
        low = np.bincount(self.of, np.where(chosen, self.low, 0.0), count)
        high = np.bincount(self.of, np.where(chosen, 0.0, self.high), count)
        number = np.cumsum(wanted) - 1
        kept = chosen & wanted[self.of]
        own = np.flatnonzero(wanted)
        row = np.concatenate([number[self.of[kept]], number[own], number[own]])
        column = np.concatenate([self.column[kept], self.x[own], self.s[own]])
        value = np.concatenate([self.weight[kept], -np.ones(len(own)), (low + high + self.constant)[own]])
        rows = sparse.csr_matrix((value, (row, column)), shape=(len(own), len(point)))
        return rows, (low - self.r - self.slack)[own]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Neuron(Brief):
    """One switched variable: `x`, `s`, `r`, `constant` = c - r, and the variables `column` (q,) and coefficients
    `weight` (q,) of its terms."""

    x: int
    s: int
    r: float
    constant: float
    column: IntArray
    weight: Array


def _neuron(program: Program, columns: Any, s: int) -> _Neuron | None:
    """The switched variable with the binary s; None if the rows of s are not those two. `columns`: the rows as CSC."""
    users = columns.indices[columns.indptr[s] : columns.indptr[s + 1]]
    if len(users) != 2 or not np.isinf(program.row_upper[users]).all() or np.isinf(program.row_lower[users]).any():
        return None
    short, long = sorted((int(row) for row in users), key=lambda row: _entries(program, row)[0].size)
    (short_ids, short_values), (ids, values) = _entries(program, short), _entries(program, long)
    if len(short_ids) != 2:
        return None
    x = int(short_ids[short_ids != s][0])
    own, switch = ids == x, ids == s
    if short_values[short_ids == x].tolist() != [-1.0] or values[own].tolist() != [-1.0]:
        return None
    r = -float(program.row_lower[short])
    constant = float(values[switch][0]) - float(program.row_lower[long]) - r
    terms = ~own & ~switch
    return _Neuron(x=x, s=s, r=r, constant=constant, column=ids[terms].astype(np.int64), weight=values[terms])


def _entries(program: Program, row: int) -> tuple[Any, Array]:
    """Columns and values (k,) of one row."""
    part = slice(program.rows.indptr[row], program.rows.indptr[row + 1])
    return program.rows.indices[part], program.rows.data[part]
