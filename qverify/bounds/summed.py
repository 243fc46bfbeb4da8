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

from qverify.family.float_errors import AROUND, SINGLE
from qverify.layers import Dense

if TYPE_CHECKING:
    from qverify.bounds.affine import Affine
    from qverify.bounds.tensors import BoundModel, Bounds

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
    terms = torch.full_like(read[:, :1], affine.layer.fan_in)
    if isinstance(affine.layer, Dense):
        terms = (read > 0).sum(1, keepdim=True).to(read.dtype)
    return sum_error(affine, read, terms)


def sum_error(affine: Affine, read: Tensor, terms: Tensor) -> Tensor:
    """By how much (N, n_out) a sum in float32 may be off, in any order, of so many `terms` (N, 1) or () that are not 0;
    `read` (N, n_in): the largest absolute inputs. Infinite for half of 2^24 terms and more."""
    mass = affine.apply(affine.weight.abs() + affine.radius, read) + affine.spread(
        affine.bias.abs() + affine.bias_radius
    )
    chain = (terms + AROUND) * SINGLE
    return mass * torch.where(chain < 0.5, chain / (1.0 - chain), torch.full_like(chain, torch.inf))
