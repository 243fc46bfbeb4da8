"""Functions of a tensor, and products, in integer networks: what they make of exact integers and of intervals.

What they give is no sum, but like one it is exact for exact integers, and its ends bound an interval: a function is
looked up at both ends and where it turns, a product at the four corners. Runtimes differ by how far the rounded result
is from it (family/function_errors.py), so that all ways of such a stage are one set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qverify.family.float_errors import float_errors
from qverify.family.rules import point_error
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.activations.curve import Curve
    from qverify.arrays import Array
    from qverify.network import Network

_FLOAT64 = 2.0**-30
"""What the arithmetic here may get wrong, in steps and relative to the largest of them, generously."""


@dataclass(frozen=True, eq=False, repr=False)
class Factor(Brief):
    """The function x -> factor x of tensors, `factor` (size,)."""

    factor: Array

    def value(self, x: Array) -> Array:
        """The products (N, size)."""
        return x * self.factor

    def span(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The least and the largest of inputs in [lower, upper]."""
        ends = self.value(lower), self.value(upper)
        return np.minimum(*ends), np.maximum(*ends)


class Looked:
    """The values (N, size), in steps of `unit`, of a function of integers (N, size) in steps of `step`."""

    def __init__(self, curve: Curve | Factor, step: float, unit: float):
        self.curve, self.step, self.unit = curve, step, unit

    def exact(self, x: Tensor) -> Tensor:
        """Those of exact inputs, but for what float64 rounds."""
        return torch.as_tensor(self.curve.value(self._numbers(x)) / self.unit, dtype=torch.float64)

    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest of inputs between `low` and `high`."""
        ends = self.curve.span(self._numbers(low), self._numbers(high))
        below, above = (torch.as_tensor(end / self.unit, dtype=torch.float64) for end in ends)
        return below, above

    def influence(self) -> Tensor:
        """How much an input moves an output: as much as any other."""
        return torch.ones(1)

    def _numbers(self, x: Tensor) -> np.ndarray:
        return np.asarray(x.double().numpy() * self.step)


class Products:
    """The products (N, size) of two tensors of integers."""

    def exact(self, x: Tensor, y: Tensor) -> Tensor:
        """Those of exact inputs."""
        return x.double() * y.double()

    def interval(self, *ends: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest of inputs between ends: low and high of the first, low and high of the second."""
        corners = torch.stack([self.exact(x, y) for x in ends[:2] for y in ends[2:]])
        return corners.amin(0), corners.amax(0)

    def influence(self) -> Tensor:
        """How much an input moves an output: as much as any other."""
        return torch.ones(1)


def slacks(network: Network, index: int, rules: tuple[str, ...], largest: float) -> dict[str, float]:
    """By rule, how far beyond half a step rounding point `index` gives something else than what it reads, in steps.

    `largest`: what that is at most in size.
    """
    (source,) = network.layers[index].inputs
    step = network.layers[index].step  # type: ignore[attr-defined]
    made = float_errors(network)[source] / step
    own = _FLOAT64 * (1.0 + largest)
    return {rule: float((point_error(network, index, rule) + made).max()) - 0.5 + own for rule in rules}
