"""IBP through one dense or convolution layer over its weights' intervals: exact ends (mathematics.md, section 4).

    hi = (W+R)^+ u+ + (W+R)^- l+ + (W-R)^+ u- + (W-R)^- l- - sum_{l_j < 0 < u_j} min((w+R)^+ u, (w-R)^- l)

The last sum matters only where the input straddles 0 and |w| < R. It is two matrix products where the straddling
interval is symmetric (a black pixel) and elementwise where not. The lower end is the same with u and l, and W + R and
W - R, exchanged, and the last sum added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.budget import pieces
from qverify.layers import Conv

if TYPE_CHECKING:
    from qverify.bounds.affine import Affine

Ends = tuple[Tensor, Tensor]


def affine_interval(affine: Affine, lower: Tensor, upper: Tensor) -> Ends:
    """Exact ends (N, n_out), before any rounding allowance, for inputs in [lower, upper] (N, n_in)."""
    bias, spread = affine.spread(affine.bias), affine.spread(affine.bias_radius)
    split = SplitBySign(affine, lower, upper)
    return split.lower() + bias - spread, split.upper() + bias + spread


class SplitBySign:
    """The linear part of an affine layer, kernels and inputs split by sign once for both ends.

    The lower end is the upper one with (W + R, u) and (W - R, l) exchanged, and the sum over straddling inputs added.
    That sum is taken as if straddling intervals were symmetric, [-min(u, -l), min(u, -l)], plus its excess over that.
    """

    def __init__(self, affine: Affine, lower: Tensor, upper: Tensor):
        self.affine, self.ends = affine, (lower, upper)
        high, low = affine.weight + affine.radius, affine.weight - affine.radius
        self.high_positive, self.high_negative = high.clamp(min=0), high.clamp(max=0)
        self.low_positive, self.low_negative = low.clamp(min=0), low.clamp(max=0)
        self.signed = not bool((lower >= 0).all())
        self.below = self.signed and bool((upper < 0).any())
        self.right = upper.clamp(min=0) if self.signed else upper
        self.left = lower.clamp(min=0) if self.signed else lower
        self.symmetric = self._symmetric() if self.signed else None

    def upper(self) -> Tensor:
        """The upper end (N, n_out), without the bias."""
        apply, (lower, upper) = self.affine.apply, self.ends
        out = apply(self.high_positive, self.right) + apply(self.high_negative, self.left)
        if self.signed:
            out = out + apply(self.low_negative, lower.clamp(max=0))
        if self.below:
            out = out + apply(self.low_positive, upper.clamp(max=0))
        if self.symmetric is None:
            return out
        return out - self.symmetric - self._excess(self.high_positive, -self.low_negative)

    def lower(self) -> Tensor:
        """The lower end (N, n_out), without the bias."""
        apply, (lower, upper) = self.affine.apply, self.ends
        out = apply(self.low_positive, self.left) + apply(self.low_negative, self.right)
        if self.signed:
            out = out + apply(self.high_positive, lower.clamp(max=0))
        if self.below:
            out = out + apply(self.high_negative, upper.clamp(max=0))
        if self.symmetric is None:
            return out
        return out + self.symmetric + self._excess(-self.low_negative, self.high_positive)

    def _symmetric(self) -> Tensor | None:
        """The sum over straddling inputs as if their intervals were symmetric; None if every term is 0.

        `min((w + R)^+, -(w - R)^-)` is `(R - |w|)^+`.
        """
        smaller = (self.affine.radius - self.affine.weight.abs()).clamp(min=0)
        if not bool((smaller > 0).any()):
            return None
        lower, upper = self.ends
        reach = torch.minimum(upper, -lower).clamp(min=0)
        return self.affine.apply(smaller, reach)

    def _excess(self, right: Tensor, left: Tensor) -> Tensor | float:
        """The excess of the sum over straddling inputs; `right` >= 0 multiplies u and `left` >= 0 multiplies -l."""
        lower, upper = self.ends
        asymmetric = (lower < 0) & (upper > 0) & (upper != -lower)
        if not bool(asymmetric.any()):
            return 0.0
        u, m = torch.where(asymmetric, upper, 0.0), torch.where(asymmetric, -lower, 0.0)
        excess = _excess_of_conv if self.affine.is_conv else _excess_of_dense
        return excess(self.affine, right, left, u, m)


def _excess_of_dense(affine: Affine, high: Tensor, low: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Sums (N, n_out) of `min(high right, low left) - min(high, low) min(right, left)`, elementwise, in chunks.

    `high`, `low` like the kernel, `right`, `left` (N, n_in); all at least 0.
    """
    samples, columns = torch.nonzero(right > 0, as_tuple=True)
    total = torch.zeros(len(right), len(high), dtype=right.dtype, device=right.device)
    step = _terms_that_fit(affine, len(high))
    for start in range(0, len(samples), step):
        s, j = samples[start : start + step], columns[start : start + step]
        a, b, u, m = high.T[j], low.T[j], right[s, j, None], left[s, j, None]
        excess = torch.minimum(a * u, b * m) - torch.minimum(a, b) * torch.minimum(u, m)
        total = total.index_add(0, s, excess)
    return total


def _excess_of_conv(affine: Affine, high: Tensor, low: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """`_excess_of_dense` for a convolution, position by position."""
    layer = affine.layer
    assert isinstance(layer, Conv)
    shape = (layer.groups, 1, -1, layer.fan_in)
    a, b = high.reshape(shape), low.reshape(shape)
    each = layer.groups * layer.positions * layer.fan_in
    rows, channels = _terms_that_fit(affine, each * a.shape[2]), _terms_that_fit(affine, each)
    parts = []
    for start in range(0, len(right), rows):
        u = affine.patches(right[start : start + rows]).unsqueeze(3)
        m = affine.patches(left[start : start + rows]).unsqueeze(3)
        some = []
        for first in range(0, a.shape[2], channels):
            c, d = a[:, :, first : first + channels], b[:, :, first : first + channels]
            excess = torch.minimum(c * u, d * m) - torch.minimum(c, d) * torch.minimum(u, m)
            some.append(excess.sum(-1))
        total = torch.cat(some, 3).transpose(2, 3)
        parts.append(total.reshape(len(u), layer.size))
    return torch.cat(parts)


def _terms_that_fit(affine: Affine, terms: int) -> int:
    """Rows of so many terms each that are worked on at once: eight temporary tensors, about as many operations."""
    return pieces(8 * terms, 8 * terms, affine.memory)
