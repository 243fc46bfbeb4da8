"""Linear maps between the nodes of a system (system.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.affine import Affine

_CONVOLUTION = 20.0
"""How much longer a multiplication of a convolution takes, backward in float64, than one of a product (measured)."""


@dataclass(frozen=True, eq=False, repr=False)
class Picked(Brief):
    """The map to some of `size` numbers: `index` (n_out,), -1 for a 0."""

    index: Tensor
    size: int

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in) -> (N, n_out)."""
        return torch.where(self.index < 0, 0.0, x[:, self.index])

    def backward(self, rows: Tensor) -> Tensor:
        """Rows (S, n_out) -> (S, n_in)."""
        read = torch.nonzero(self.index >= 0).squeeze(1)
        none = torch.zeros(len(rows), self.size, dtype=rows.dtype)
        return none.index_add(1, self.index[read], rows[:, read])


@dataclass(frozen=True, eq=False, repr=False)
class Map(Brief):
    """A linear map without a bias: an affine layer's, a pick, or a diagonal one (None: the identity)."""

    affine: Affine | None = None
    scale: Tensor | None = None
    picked: Picked | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in) -> (N, n_out)."""
        if self.affine is not None:
            return self.affine.apply(self.affine.weight, x)
        if self.picked is not None:
            return self.picked.forward(x)
        return x if self.scale is None else x * self.scale

    def absolute(self, x: Tensor) -> Tensor:
        """(N, n_in) -> (N, n_out) by the absolute values of the map."""
        if self.affine is not None:
            return self.affine.apply(self.affine.weight.abs(), x)
        if self.picked is not None:
            return self.picked.forward(x)
        return x if self.scale is None else x * self.scale.abs()

    def backward(self, rows: Tensor) -> Tensor:
        """Rows (S, n_out) -> (S, n_in)."""
        if self.affine is not None:
            return self.affine.transpose(self.affine.weight, rows)
        if self.picked is not None:
            return self.picked.backward(rows)
        return rows if self.scale is None else rows * self.scale

    @property
    def terms(self) -> int:
        """Products that one output sums, and one input's coefficient."""
        if self.affine is None:
            return 1 if self.picked is None else len(self.picked.index)
        weight = self.affine.layer.weight
        return int(self.affine.terms + weight.size // weight.shape[1])

    @property
    def operations(self) -> float:
        """Multiplications of one pass, in units of those of a matrix product."""
        if self.affine is None:
            return 0.0
        return self.affine.layer.size * self.affine.layer.fan_in * (_CONVOLUTION if self.affine.is_conv else 1.0)
