"""The state of one pass of BP (backward.py): rows that wait at layers, and what was lost so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Notes(Brief):
    """What is noted of a pass, by layer: the `shares` (B, S, n) that activations take, and the `rows` (B, S, n) on what
    layers give."""

    shares: dict[int, Tensor] = field(default_factory=dict)
    rows: dict[int, Tensor] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class BackwardPass(Brief):
    """One backward pass. `rows[i]`: coefficients waiting at layer i, `high[i]` at its upper end; `absolute`: e of
    `c x - e |x|` at the input. `shares[i]`: see `combined_bound`; `notes`: where to note those that are taken."""

    model: BoundModel
    bounds: Bounds
    constant: Tensor
    slack: Tensor
    rows: dict[int, Tensor] = field(default_factory=dict)
    high: dict[int, Tensor] = field(default_factory=dict)
    shares: dict[int, Tensor] = field(default_factory=dict)
    notes: Notes | None = None
    absolute: Tensor | None = None
    convex: bool = False

    def add(self, index: int, coefficients: Tensor) -> None:
        before = self.rows.get(index)
        self.rows[index] = coefficients if before is None else before + coefficients

    def ends(self, index: int) -> tuple[Tensor, Tensor]:
        """The bounds on layer `index`, (B, 1, size) each."""
        return self.bounds.lower[index].unsqueeze(1), self.bounds.upper[index].unsqueeze(1)

    @property
    def tracks(self) -> bool:
        """Whether rounding errors are accounted for."""
        return self.model.rounding.enabled

    def least_high(self, index: int) -> Tensor:
        """Lower bounds (B, 1, size) on the upper end of layer `index`."""
        return self.bounds.least(index).unsqueeze(1)

    def share(self, index: int, usual: Tensor) -> Tensor:
        """The shares of the steep lines at activation `index`: those asked for, or the usual ones."""
        found = self.shares.get(index, usual)
        if self.notes is not None:
            self.notes.shares[index] = found
        return found

    def err(self, mass: Tensor, terms: int, source: int, weights: Tensor | float = 0.0) -> None:
        """Account for the rounding of a step whose absolute products sum to `mass` (B, S), over the box of `source`.

        Coefficients that underflow are off by an absolute amount, which the box multiplies, and `weights`, the sum
        of the absolute weights, where these multiply a product that underflowed.
        """
        if not self.tracks:
            return
        lower, upper = self.bounds.lower[source], self.bounds.upper[source]
        reach = torch.maximum(lower.abs(), upper.abs()).sum(1, keepdim=True)
        tiny = self.model.rounding.tiny * (1.0 + reach) * (1.0 + weights)
        self.slack = self.slack + mass * self.model.rounding.gamma(terms) + tiny

    def lose_noise(self, index: int, size: Tensor) -> None:
        """Account for what float32 can get wrong in a layer, where that is asked: its radius; `size`: absolute rows."""
        noise = self.bounds.activation.get(index)
        if noise is not None:
            lost = (size @ noise.unsqueeze(2)).squeeze(2)
            self.constant = self.constant - lost
            self.slack = self.slack + lost * self.model.rounding.gamma(size.shape[2])
