"""BP through a convolution whose kernel all positions share (mathematics.md, section 6). Sound.

Rows `a` over the outputs meet the errors `d_k` of kernel entries as `sum_k d_k S_k`, `S_k = sum_p a_p x_{p+k}`. Of
`R_k |S_k|` there are two bounds: positions independent, `R_k sum_p |a_p| |x_{p+k}|`, and, positions summed first, the
chord of |.| over the interval of S_k (formula (11)). Every mixture of the two holds, entry by entry: the shares of the
second are 1 or 0, for all entries of a row together, unless others are asked for.

Shapes: B samples in a chunk, S rows each; K entries of a kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qverify.bounds.fused import rows_where
from qverify.bounds.interval import magnitude
from qverify.layers import Conv
from qverify.rounding import chord

if TYPE_CHECKING:
    from qverify.bounds.affine import Affine
    from qverify.bounds.backward_pass import BackwardPass

_ROUNDED = 4
"""Roundings of middle and half width of what a position reads, and of their sum."""


class _Summed(NamedTuple):
    """The chord above |S_k|, per entry, and the rows by position."""

    slope: Tensor
    intercept: Tensor
    spatial: Tensor


def shared_kernel(state: BackwardPass, index: int, affine: Affine, a: Tensor, centre: Tensor, absolute: Tensor) -> None:
    """Rows a (B, S, n_out) on convolution `index` become rows on what it reads: `centre` of its kernel, less the better
    bound on its errors, of which `absolute` are the independent ones."""
    (source,) = state.model.network.layers[index].inputs
    lower, upper = state.ends(source)
    slope, intercept = chord(torch, lower, upper)
    first, first_constant = centre - absolute * slope, -(absolute * intercept).sum(2)
    if affine.coarse:
        second, second_constant = centre, _most_lost(state, index, affine, a)
    else:
        second, second_constant = _summed_first(affine, _summed(state, index, affine, a))
    at_first = torch.minimum(first * lower, first * upper).sum(2) + first_constant
    if source == 0:  # the pair (c, e) is kept at the input, where it is exact
        exact = torch.minimum(centre * lower - absolute * lower.abs(), centre * upper - absolute * upper.abs())
        at_first, first, first_constant = exact.sum(2), centre, torch.zeros_like(first_constant)
    at_second = torch.minimum(second * lower, second * upper).sum(2) + second_constant
    better = at_second > at_first
    state.add(source, rows_where(better, second, first))
    state.constant = state.constant + torch.where(better, second_constant, first_constant)
    if source == 0:
        kept = rows_where(better, torch.zeros_like(absolute), absolute)
        state.absolute = kept if state.absolute is None else state.absolute + kept
    if state.notes is not None and not affine.coarse:
        state.notes.shares[index] = better.to(a.dtype).unsqueeze(2).expand(*better.shape, affine.radius.numel())


def _most_lost(state: BackwardPass, index: int, affine: Affine, a: Tensor) -> Tensor:
    """Minus the most (B, S) that `sum_k R_k |S_k|` can be: `|S_k|` is at most the size of its middle and half of its
    width, and these halves need not be told apart."""
    layer = affine.layer
    assert isinstance(layer, Conv)
    middle, half = _patches(state, index, affine)
    spatial = a.reshape(*a.shape[:2], layer.groups, -1, layer.positions)
    radius = affine.radius.reshape(layer.groups, -1, layer.fan_in)
    sums = torch.einsum("bsgcp,bgpk->bsgck", spatial, middle).abs()
    if affine.even_rows:
        rest = torch.einsum("bsgcp,gc->bsgp", spatial.abs(), radius[..., 0])
        spread = torch.einsum("bsgp,bgp->bs", rest, half.sum(3))
        lost = torch.einsum("bsgc,gc->bs", sums.sum(4), radius[..., 0])
    else:
        rest = torch.einsum("bsgcp,gck->bsgpk", spatial.abs(), radius)
        spread = torch.einsum("bsgpk,bgpk->bs", rest, half)
        lost = torch.einsum("bsgck,gck->bs", sums, radius)
    return -(lost + spread)


def _patches(state: BackwardPass, index: int, affine: Affine) -> tuple[Tensor, Tensor]:
    """The middles and the half widths of what each position reads, (B, groups, positions, fan_in)."""
    (source,) = state.model.network.layers[index].inputs
    ends = lower, upper = state.bounds.lower[source], state.bounds.upper[source]

    def made() -> tuple[Tensor, Tensor]:
        return affine.patches((lower + upper) / 2.0), affine.patches((upper - lower) / 2.0)

    return state.bounds.once(("patches", index), ends, made)


def _summed(state: BackwardPass, index: int, affine: Affine, a: Tensor) -> _Summed:
    """The chords (B, S, groups, c, k) above |S_k|, infinite where the interval overflows."""
    layer = affine.layer
    assert isinstance(layer, Conv)
    (source,) = state.model.network.layers[index].inputs
    batch, count, _ = a.shape
    spatial = a.reshape(batch, count, layer.groups, -1, layer.positions)
    middle, half = _patches(state, index, affine)
    centre = torch.einsum("bsgcp,bgpk->bsgck", spatial, middle)
    apart = torch.einsum("bsgcp,bgpk->bsgck", spatial.abs(), half)
    reach = magnitude(state.bounds.lower[source], state.bounds.upper[source]).reshape(batch, 1, 1, 1, 1)
    mass = spatial.abs().sum(4, keepdim=True) * reach
    s_low, s_high = state.model.rounding.widen(centre - apart, centre + apart, mass, layer.positions + _ROUNDED)
    slope, intercept = chord(torch, s_low, s_high)
    if not math.isfinite(float((s_high - s_low).detach().sum())):  # no chord where that overflows
        overflow = ~torch.isfinite(s_high - s_low)
        intercept = intercept.masked_fill(overflow, torch.inf)
    return _Summed(slope, intercept, spatial)


def _by_entry(affine: Affine, summed: _Summed, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of the chords, with a share `weight` of the radius: `(W_k - R_k slope_k) S_k - R_k intercept_k`, coefficients
    (B, S, n_in) and constants (B, S)."""
    groups, k = summed.slope.shape[2], summed.slope.shape[4]
    kernel = affine.weight.reshape(groups, -1, k) - weight * summed.slope
    lost = (weight * summed.intercept).sum((2, 3, 4))
    if not math.isfinite(float(lost.detach().sum())):  # a share of 0 of what overflows is 0
        lost = torch.where(weight > 0, weight * summed.intercept, torch.zeros_like(summed.intercept)).sum((2, 3, 4))
    return _scattered(affine, kernel, summed.spatial), -lost


def _summed_first(affine: Affine, summed: _Summed) -> tuple[Tensor, Tensor]:
    """Formula (11) for all entries; constants are -inf where an interval overflows."""
    radius = affine.radius.reshape(*summed.slope.shape[2:]).expand_as(summed.slope)
    rows, constant = _by_entry(affine, summed, radius)
    overflow = ~torch.isfinite(summed.intercept).flatten(2).all(2)
    return rows, constant.masked_fill(overflow, -torch.inf)


def mixed_kernel(state: BackwardPass, index: int, affine: Affine, a: Tensor) -> None:
    """The same with the shares (B, S, K) of the chords that are asked for, the rest taken as independent."""
    (source,) = state.model.network.layers[index].inputs
    summed = _summed(state, index, affine, a)
    share = state.share(index, summed.slope)
    radius = affine.radius.reshape(*summed.slope.shape[2:])
    chorded = share.reshape(summed.slope.shape) * radius
    rows, constant = _by_entry(affine, summed, chorded)
    apart = _scattered(affine, (radius - chorded).clamp(min=0), summed.spatial.abs())
    state.constant = state.constant + constant
    if source == 0:
        state.add(source, rows)
        state.absolute = apart if state.absolute is None else state.absolute + apart
        return
    ends = state.bounds.lower[source], state.bounds.upper[source]
    slope, intercept = state.bounds.once(("chord", source), ends, lambda: chord(torch, *state.ends(source)))
    state.add(source, rows - apart * slope)
    state.constant = state.constant - (apart * intercept).sum(2)


def _scattered(affine: Affine, kernel: Tensor, spatial: Tensor) -> Tensor:
    """Rows (B, S, n_in) that kernels (B, S, groups, c, k) make of rows by position."""
    batch, count, groups = spatial.shape[:3]
    columns = torch.einsum("bsgck,bsgcp->bsgkp", kernel, spatial)
    columns = columns.reshape(batch * count, groups, columns.shape[3], -1)
    return affine.scatter(columns).reshape(batch, count, -1)
