"""What is cut off before a Relu or rounding point, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.family.batchnorm import Saturation


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cut(Brief):
    """A `batchnorm.Saturation` as tensors; `source` is a layer index."""

    source: int
    low: Tensor
    high: Tensor
    gain: Tensor

    @staticmethod
    def of(cut: Saturation, source: int, tensor: Callable[[Any], Tensor]) -> Cut:
        """The tensors of one; `source`: the index of its layer."""
        return Cut(source=source, low=tensor(cut.low), high=tensor(cut.high), gain=tensor(cut.gain))

    def widening(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Widening (N, size) of the radius of its Relu, where the layer cut off has these bounds (N, size); formula
        (29)."""
        return self.gain * torch.maximum(upper - self.high, self.low - lower).clamp(min=0)
