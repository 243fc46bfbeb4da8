"""Integer accumulators, bounded from the bounds on activations: where integer kernels may overflow. Sound.

For layer z = W x + b of a `kernels.Kernel` and a box of x, an integer of x is at most `|x| / s_x + 1` and at most the
range of the format, so that

    |bias + any partial sum| <= |b_int| + sum_j |w_int,j| x_int,j,     |p_i + p_j| <= |w_stored,i| x_stored,i + ...,j

bound what an accumulator holds, in whatever order it adds, and what two products are together. `stored` is what the
format holds, zero point included: kernels of uint8 x int8 multiply that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.budget import pieces
from qverify.family.kernels import IntegerLayer, dropped, overflowing, saturating
from qverify.layers import INT16

if TYPE_CHECKING:
    from qverify.bounds.affine import Affine
    from qverify.bounds.tensors import BoundModel, Bounds


def misfits(model: BoundModel, bounds: Bounds) -> list[str]:
    """Per sample of `bounds` the reasons why integer kernels may not compute it in real arithmetic, in words; empty if
    they do. Sound.

    Every layer that may overflow is named.
    """
    kernel, count = model.kernel, len(bounds)
    if kernel is None or not count:
        return [""] * count
    sums, pairs, relus = ([list[str]() for _ in range(count)] for _ in range(3))
    for layer in kernel.layers:
        if not layer.always:
            _name_where(sums, layer.name, _sums(model, bounds, layer))
        if kernel.mode == "any" and not layer.pairs_fit:
            _name_where(pairs, layer.name, _pairs(model, bounds, layer))
    for name in kernel.dead:
        _name_where(relus, name, _alive(model, bounds, name))
    found = zip(sums, pairs, relus, strict=True)
    return ["; ".join([*kernel.refused, *overflowing(s), *saturating(p), *dropped(r)]) for s, p, r in found]


def _name_where(found: list[list[str]], name: str, wrong: Tensor) -> None:
    """Add `name`, once, to the lists of the samples where `wrong` (N,) holds."""
    for sample in torch.nonzero(wrong).flatten().tolist():
        if name not in found[sample]:
            found[sample].append(name)


def _alive(model: BoundModel, bounds: Bounds, name: str) -> Tensor:
    """(N,): samples on which something below 0 may pass without this Relu."""
    index = model.network.index(name)
    (source,) = model.network.layers[index].inputs
    below = bounds.lower[source] < 0
    return below.any(1) | (index in model.cuts)


def _reading(model: BoundModel, bounds: Bounds, layer: IntegerLayer) -> tuple[Affine, Tensor, Tensor]:
    """The layer's geometry, and the ends (N, n_in) of what it reads."""
    index = model.network.index(layer.name)
    (source,) = model.network.layers[index].inputs
    return model.affine[index], bounds.lower[source], bounds.upper[source]


def _sums(model: BoundModel, bounds: Bounds, layer: IntegerLayer) -> Tensor:
    """(N,): samples on which the sum of some output may leave the accumulator, formula (23)."""
    affine, lower, upper = _reading(model, bounds, layer)
    x = (torch.maximum(lower.abs(), upper.abs()) / layer.entry + 1.0).clamp(max=layer.levels)
    kernel, bias = model.tensor(layer.integers()), model.tensor(layer.bias_integers())
    parts = [torch.zeros(0, dtype=torch.bool, device=model.device)]
    floats, products = affine.layer.size + x.shape[1], affine.layer.size * affine.layer.fan_in
    step = pieces(floats=8 * floats, operations=products, memory=model.memory)
    for start in range(0, len(x), step):
        sums = affine.apply(kernel, x[start : start + step]) + affine.spread(bias)
        parts.append(layer.overflow(sums).any(1))
    return torch.cat(parts)


def _pairs(model: BoundModel, bounds: Bounds, layer: IntegerLayer) -> Tensor:
    """(N,): samples on which two products of some output may leave int16 together, formula (24).

    Positions of a convolution share a kernel: each of its entries is taken with the largest input it meets anywhere.
    """
    affine, _, upper = _reading(model, bounds, layer)
    x = ((upper - layer.offset) / layer.entry + 1.0).clamp(0.0, layer.levels)
    kernel = model.tensor(layer.stored()).flatten(1)
    if affine.is_conv:
        zero = min(max(-layer.offset / layer.entry + 1.0, 0.0), layer.levels)  # what pads a stored image
        rows = [affine.patches(x[k : k + 1] - zero).amax(2) + zero for k in range(len(x))]
        x = torch.cat(rows) if rows else x[:, None, :0]
    else:
        x = x[:, None]
    groups = x.shape[1]
    kernel = kernel.reshape(groups, -1, kernel.shape[1])
    parts = [torch.zeros(0, dtype=torch.bool, device=model.device)]
    step = pieces(floats=4 * kernel.numel(), operations=8 * kernel.numel(), memory=model.memory)
    for start in range(0, len(x), step):
        products = kernel * x[start : start + step, :, None]
        two = products.topk(min(2, products.shape[3]), dim=3).values.sum(3)
        parts.append((two > INT16).flatten(1).any(1))
    return torch.cat(parts)
