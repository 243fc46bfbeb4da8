"""The bounds of one sample as numpy arrays, from which programs are built. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.arrays import Array


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SampleBounds(Brief):
    """Bounds of one sample as numpy: `lower[i]`, `upper[i]` (size,) per layer, `activation[i]` (size,) per Relu, and
    `least_high[i]` (size,) as `tensors.Bounds` has them."""

    lower: list[Array]
    upper: list[Array]
    activation: Mapping[int, Array]
    least_high: Mapping[int, Array] = field(default_factory=dict)

    def reach(self, index: int) -> Array:
        """Largest absolute values (size,) of the outputs of a layer."""
        return np.maximum(abs(self.lower[index]), abs(self.upper[index]))
