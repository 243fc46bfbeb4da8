"""The affine layers of a family as matrices, and linear bounds on |x|: what rows of programs are made of."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.exact.builder import as_matrix, per_output
from qverify.layers import Conv, Dense
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.program import IntArray
    from qverify.family.family import Family


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Map(Brief):
    """One affine layer as matrices: centre W, radius R (CSR), b, r_b (n_out,)."""

    weight: Any
    radius: Any
    bias: Array
    bias_radius: Array

    @cached_property
    def absolute(self) -> Any:
        """`|W| + R` (CSR): the largest absolute weights of any member, which rounding errors are in proportion to."""
        return abs(self.weight) + self.radius


class Maps:
    """The affine layers of a family as matrices, by index: made when first asked for, and shared by threads."""

    def __init__(self, family: Family):
        self.family = family
        self._made: dict[int, Map] = {}
        self._radius_sums: dict[int, Array] = {}
        self._lock = threading.RLock()

    def __getitem__(self, index: int) -> Map:
        with self._lock:
            if index not in self._made:
                self._made[index] = self._map(index)
            return self._made[index]

    def radius_sum(self, source: int) -> Array:
        """The sums (size,) of the radii that multiply each output of layer `source`; 0 where |x_j| does not matter."""
        with self._lock:
            if source not in self._radius_sums:
                total = np.zeros(self.family.network.layers[source].size)
                for user in self.family.network.consumers[source]:
                    if user in self.family.weight:
                        total += np.asarray(self[user].radius.sum(axis=0)).ravel()
                self._radius_sums[source] = total
            return self._radius_sums[source]

    def _map(self, index: int) -> Map:
        layer = self.family.network.layers[index]
        assert isinstance(layer, (Dense, Conv))
        weight, bias = as_matrix(layer, layer.weight), per_output(layer, layer.bias)
        if index not in self.family.weight:
            return Map(
                weight=weight, radius=sparse.csr_matrix(weight.shape), bias=bias, bias_radius=np.zeros_like(bias)
            )
        radius = as_matrix(layer, self.family.weight[index])
        return Map(weight=weight, radius=radius, bias=bias, bias_radius=per_output(layer, self.family.bias[index]))


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
