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
from typing import Any

import numpy as np
from scipy import sparse

from qverify.arrays import Array
from qverify.exact.program import IntArray, Program
from qverify.rounding import allowance
from qverify.text.brief import Brief

_VIOLATED = 1e-6
"""A row counts as violated by more than this times the range of x."""


@dataclass(frozen=True, eq=False, repr=False)
class Switched(Brief):
    """The switched variables of a program (k of them): x, s, r, `constant` = c - r (k,), and their terms `w_j v_j`.

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
        """Find them; a binary whose rows have another form has no part in this."""
        columns = program.rows.tocsc()
        found = [f for s in np.flatnonzero(program.integer) if (f := _read(program, columns, int(s)))]
        x, s = (np.array([f[k] for f in found], dtype=np.int64) for k in (0, 1))
        r, constant = (np.array([f[k] for f in found], dtype=np.float64) for k in (2, 3))
        of = np.repeat(np.arange(len(found)), [len(f[4]) for f in found])
        column = np.concatenate([f[4] for f in found] or [np.zeros(0, dtype=np.int64)])
        weight = np.concatenate([f[5] for f in found] or [np.zeros(0)])
        ends = weight * program.lower[column], weight * program.upper[column]
        low, high = np.minimum(*ends), np.maximum(*ends)
        mass = np.bincount(of, np.maximum(abs(low), abs(high)), len(found)) + abs(constant) + 2.0 * abs(r)
        slack = allowance(mass, int(np.bincount(of, minlength=1).max()))
        return Switched(x, s, r, constant, slack, (program.upper - program.lower)[x], of, column, weight, low, high)

    def __len__(self) -> int:
        return len(self.x)

    def violated(self, point: Array) -> tuple[Any, Array]:
        """The rows (*) that cut off `point` (n,), at most one a variable x: CSR (q, n) and lower limits (q,)."""
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


def _read(program: Program, columns: Any, s: int) -> tuple[int, int, float, float, IntArray, Array] | None:
    """(x, s, r, c - r, columns of v, w) if the rows with binary s are the two of a switched variable."""
    users = columns.indices[columns.indptr[s] : columns.indptr[s + 1]]
    if len(users) != 2 or not np.isinf(program.row_upper[users]).all() or np.isinf(program.row_lower[users]).any():
        return None
    (short, long), (ids, values) = _ordered(program.rows, users)
    if len(ids[0]) != 2:
        return None
    x = int(ids[0][ids[0] != s][0])
    own, other = ids[1] == x, ids[1] == s
    if values[0][ids[0] == x].tolist() != [-1.0] or values[1][own].tolist() != [-1.0]:
        return None
    r = -float(program.row_lower[short])
    constant = float(values[1][other][0]) - float(program.row_lower[long]) - r
    terms = ~own & ~other
    return x, s, r, constant, ids[1][terms].astype(np.int64), values[1][terms]


def _ordered(rows: Any, users: Any) -> tuple[list[int], tuple[list[Any], list[Any]]]:
    """Two rows, the shorter first: their numbers, columns and values."""
    order = sorted((int(i) for i in users), key=lambda i: rows.indptr[i + 1] - rows.indptr[i])
    parts = [slice(rows.indptr[i], rows.indptr[i + 1]) for i in order]
    return order, ([rows.indices[p] for p in parts], [rows.data[p] for p in parts])
