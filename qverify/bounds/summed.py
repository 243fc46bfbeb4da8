"""What float32 gets wrong in sums, at the numbers of each sample (mathematics.md, section 16). Sound.

A file whose layers compute in floating point between its rounding points has sums in float32, in an order of the
runtime's own. Over all inputs they may be off by a tenth of a step; at a sample, whose numbers are mostly small or 0,
often by a hundredth of that. What cannot be moved over a tie then is a number, where it was an interval.

Shapes as in `tensors.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.layers import Dense

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds

_UNIT, _AROUND = 2.0**-24, 8
"""The roundings of float32, and how many there are around a sum (family/float_errors.py)."""
_OWN = 1.0 + 2.0**-20
"""More than what is rounded here."""


def summed_radius(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """The radius of activation or rounding point `index` for the samples of `bounds`: (N, size), or (size,) where it is
    the same for all. At most that of the family."""
    radius, point = model.activation[index], model.points.get(index)
    if point is None or point.summed is None:
        return radius
    wrong = _wrong(model, bounds, model.network.before(index))
    return torch.minimum(radius, (point.summed.absolute + point.summed.share * wrong) * _OWN)


def _wrong(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """By how much (N, size) a sum of affine layer `index` may be off. Terms that are 0 round nothing: a dense layer is
    a sum of all; a convolution counts as one of whole windows."""
    affine = model.affine[index]
    (source,) = affine.layer.inputs
    read = torch.maximum(bounds.lower[source].abs(), bounds.upper[source].abs())
    mass = affine.apply(affine.weight.abs() + affine.radius, read) + affine.spread(affine.bias.abs())
    terms = torch.full_like(read[:, :1], affine.layer.fan_in)
    if isinstance(affine.layer, Dense):
        terms = (read > 0).sum(1, keepdim=True).to(read.dtype)
    chain = (terms + _AROUND) * _UNIT
    return mass * torch.where(chain < 0.5, chain / (1.0 - chain), torch.full_like(chain, torch.inf))
