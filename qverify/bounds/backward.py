"""BP: backward linear bound propagation through a quantised family (mathematics.md, section 4). Sound.

A row `a` over the outputs of a layer is bounded from below by a linear function of the outputs of the
layers before, down to the input box. Only lower bounds are coded; an upper bound is minus the lower
bound of the negated row. Per layer:

- dense, formula (1), exact: `a z >= (a W - |a| R |.|) x + a b - |a| r_b`. Where x >= 0, |x| = x. Where x
  straddles 0 inside the network, `-|x|` is bounded by its chord. At the input the pair (c, e) in
  `c x - e |x|` is kept and minimised per coordinate over the two end points (concave, so exact).
- convolution: positions independent, as for dense; or, summing first over the positions that share
  kernel entry k, `-R_k |S_k|` with `S_k = sum_p a_p x_{p+k}` and the chord of |.| over the interval of
  S_k (formula (11)). Per row whichever is larger over the box of x. Both are sound.
- activation, formula (2): `x >= alpha (z - r_a)` where a > 0, alpha in [0, 1]; where a < 0 the chord of relu
  over [L, U], plus r_a.
- rounding point, formula (32): lines below `clip(v - r, ...)` and above `clip(v + r, ...)` (lines.py).

Rounding: each step adds to a running `slack` the error it can have made over the box it reads
(`rounding`), and the slack is subtracted at the end.

Shapes: B samples in a chunk, S rows each; coefficients (B, S, size).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.interval import magnitude
from qverify.bounds.lines import point_lines
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu, Rounding, Scale
from qverify.moved import former_names
from qverify.rounding import chord, finite
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.bounds.tensors import Affine, BoundModel, Bounds

__getattr__ = former_names(
    __name__,
    {
        name: f"qverify.bounds.refinement:{name}"
        for name in ("backward_margins", "backward_outputs", "tightened_bounds", "unstable")
    },
)


@dataclass(eq=False, repr=False)
class _BackwardPass(Brief):
    """One backward pass. `rows[i]`: coefficients waiting at layer i; `absolute`: e of `c x - e |x|` at the input."""

    model: BoundModel
    bounds: Bounds
    constant: Tensor
    slack: Tensor
    rows: dict[int, Tensor] = field(default_factory=dict)
    absolute: Tensor | None = None

    def add(self, index: int, coefficients: Tensor) -> None:
        before = self.rows.get(index)
        self.rows[index] = coefficients if before is None else before + coefficients

    def ends(self, index: int) -> tuple[Tensor, Tensor]:
        """The bounds on layer `index`, (B, 1, size) each."""
        return self.bounds.lower[index].unsqueeze(1), self.bounds.upper[index].unsqueeze(1)

    def err(self, mass: Tensor, terms: int, source: int, weights: Tensor | float = 0.0) -> None:
        """Account for the rounding of a step whose absolute products sum to `mass` (B, S), over the box of `source`.

        Coefficients that underflow are off by an absolute amount, which the box multiplies, and `weights`, the sum
        of the absolute weights, where these multiply a product that underflowed.
        """
        if not self.model.rounding.enabled:
            return
        lower, upper = self.bounds.lower[source], self.bounds.upper[source]
        reach = torch.maximum(lower.abs(), upper.abs()).sum(1, keepdim=True)
        tiny = self.model.rounding.tiny * (1.0 + reach) * (1.0 + weights)
        self.slack = self.slack + mass * self.model.rounding.gamma(terms) + tiny


def backward_bound(model: BoundModel, bounds: Bounds, index: int, rows: Tensor) -> Tensor:
    """Lower bounds (B, S) on `rows . output of layer index`, rows (B, S, size), for the B samples of `bounds`. Sound.

    Raises RadiiError where they overflow.
    """
    zero = torch.zeros(rows.shape[:2], dtype=model.dtype, device=model.device)
    state = _BackwardPass(model, bounds, zero, zero.clone(), {index: rows})
    for i in range(index, 0, -1):
        coefficients = state.rows.pop(i, None)
        if coefficients is not None:
            BACKWARD[type(model.network.layers[i])](state, i, coefficients)
    result = state.constant + _at_input(state) - 2.0 * state.slack
    finite(model.network.layers[index].name, result)
    return result


def _at_input(state: _BackwardPass) -> Tensor:
    lower, upper = state.ends(0)
    c = state.rows.get(0)
    if c is None:
        c = torch.zeros_like(state.constant).unsqueeze(2) * lower
    if state.absolute is None:
        ends = torch.minimum(c * lower, c * upper)
        mass = c.abs()
    else:
        e = state.absolute
        ends = torch.minimum(c * lower - e * lower.abs(), c * upper - e * upper.abs())
        mass = c.abs() + e
    reach = torch.maximum(lower.abs(), upper.abs())
    state.err((mass @ reach.transpose(1, 2)).squeeze(2) + state.constant.abs(), c.shape[2], 0)
    return ends.sum(2)


def _affine(state: _BackwardPass, index: int, a: Tensor) -> None:
    affine = state.model.affine[index]
    (source,) = state.model.network.layers[index].inputs
    size = a.abs()
    lower, upper = state.bounds.lower[source], state.bounds.upper[source]
    bias, spread = affine.spread(affine.bias), affine.bias_radius
    summed = _channel_sum(affine, a)
    state.constant = state.constant + a @ bias - summed.abs() @ spread
    tiny = state.model.rounding.tiny
    mass = (affine.mass + tiny) * (magnitude(lower, upper) + tiny) + affine.spread(affine.bias.abs() + spread) + tiny
    absolute_sum = (size @ mass.unsqueeze(2)).squeeze(2) + state.constant.abs()
    state.err(absolute_sum, affine.terms + a.shape[2], source, affine.mass.sum())
    centre = affine.transpose(affine.weight, a)
    if affine.exact:
        state.add(source, centre)
        return
    absolute = affine.transpose_radius(size)
    if affine.shares_kernel:
        _shared_kernel(state, affine, source, a, centre, absolute)
    elif source == 0:
        state.add(0, centre)
        state.absolute = absolute if state.absolute is None else state.absolute + absolute
    else:
        slope, intercept = chord(torch, *state.ends(source))
        state.add(source, centre - absolute * slope)
        state.constant = state.constant - (absolute * intercept).sum(2)


def _channel_sum(affine: Affine, a: Tensor) -> Tensor:
    """(B, S, n_out) -> (B, S, c_out): a convolution's bias is shared by its positions too."""
    if not affine.is_conv:
        return a
    return a.reshape(*a.shape[:2], len(affine.bias), -1).sum(3)


def _shared_kernel(
    state: _BackwardPass, affine: Affine, source: int, a: Tensor, centre: Tensor, absolute: Tensor
) -> None:
    """A convolution: per row the better of independent positions, `centre x - absolute |x|`, and formula (11)."""
    lower, upper = state.ends(source)
    slope, intercept = chord(torch, lower, upper)
    first = centre - absolute * slope
    first_constant = -(absolute * intercept).sum(2)
    second, second_constant = _summed_first(state, affine, source, a)
    at_first = torch.minimum(first * lower, first * upper).sum(2) + first_constant
    if source == 0:  # the pair (c, e) is kept at the input, where it is exact
        exact = torch.minimum(centre * lower - absolute * lower.abs(), centre * upper - absolute * upper.abs())
        at_first, first, first_constant = exact.sum(2), centre, torch.zeros_like(first_constant)
    at_second = torch.minimum(second * lower, second * upper).sum(2) + second_constant
    better = at_second > at_first
    state.add(source, torch.where(better.unsqueeze(2), second, first))
    state.constant = state.constant + torch.where(better, second_constant, first_constant)
    if source == 0:
        kept = torch.where(better.unsqueeze(2), torch.zeros_like(absolute), absolute)
        state.absolute = kept if state.absolute is None else state.absolute + kept


def _summed_first(state: _BackwardPass, affine: Affine, source: int, a: Tensor) -> tuple[Tensor, Tensor]:
    """Formula (11): `(W_k - R_k slope_k) S_k - R_k intercept_k`; coefficients (B, S, n_in) and constants (B, S)."""
    layer = affine.layer
    assert isinstance(layer, Conv)
    batch, count, _ = a.shape
    groups, k = layer.groups, layer.fan_in
    spatial = a.reshape(batch, count, groups, -1, layer.positions)
    low = affine.patches(state.bounds.lower[source])
    high = affine.patches(state.bounds.upper[source])
    up, down = spatial.clamp(min=0), spatial.clamp(max=0)
    s_high = torch.einsum("bsgcp,bgpk->bsgck", up, high) + torch.einsum("bsgcp,bgpk->bsgck", down, low)
    s_low = torch.einsum("bsgcp,bgpk->bsgck", up, low) + torch.einsum("bsgcp,bgpk->bsgck", down, high)
    reach = magnitude(state.bounds.lower[source], state.bounds.upper[source]).reshape(batch, 1, 1, 1, 1)
    mass = spatial.abs().sum(4, keepdim=True) * reach
    s_low, s_high = state.model.rounding.widen(s_low, s_high, mass, layer.positions)
    slope, intercept = chord(torch, s_low, s_high)
    radius = affine.radius.reshape(groups, -1, k)
    kernel = affine.weight.reshape(groups, -1, k) - radius * slope
    columns = torch.einsum("bsgck,bsgcp->bsgkp", kernel, spatial).reshape(batch * count, groups, k, -1)
    coefficients = affine.scatter(columns).reshape(batch, count, -1)
    constant = -(radius * intercept).sum((2, 3, 4))
    overflow = ~torch.isfinite(s_high - s_low).flatten(2).all(2)  # no chord then
    return coefficients, constant.masked_fill(overflow, -torch.inf)


def _relu(state: _BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    lower, upper = state.ends(source)
    radius = state.bounds.activation[index]
    radius = radius.unsqueeze(1) if radius.ndim == 2 else radius
    # x >= alpha (z - r): exact where the sign of z - r is known; else the steeper side.
    alpha = (upper - radius > radius - lower).to(a.dtype)
    alpha = torch.where(lower - radius >= 0, torch.ones_like(alpha), alpha)
    alpha = torch.where(upper - radius <= 0, torch.zeros_like(alpha), alpha)
    # x <= slope (z - lower) + r for unstable z, z + r for active, r for inactive.
    unstable = (lower < 0) & (upper > 0)
    width = torch.where(unstable, upper - lower, torch.ones_like(lower))
    slope = torch.where(unstable, upper / width, (lower >= 0).to(a.dtype))
    lift = radius - torch.where(unstable, slope * lower, torch.zeros_like(lower))
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    state.add(source, positive * alpha + negative * slope)
    state.constant = state.constant - (positive * (alpha * radius)).sum(2) + (negative * lift).sum(2)
    reach = torch.maximum(lower.abs(), upper.abs()) + radius + state.model.rounding.tiny
    state.err((a.abs() @ reach.transpose(1, 2)).squeeze(2) + state.constant.abs(), a.shape[2], source)


def _rounding(state: _BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    point, radius = state.model.points[index], state.bounds.activation[index]
    radius = radius.unsqueeze(1) if radius.ndim == 2 else radius
    below, above = point_lines(point, radius, state.ends(source), state.ends(index))
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    state.add(source, positive * below.slope + negative * above.slope)
    state.constant = state.constant + (positive * below.intercept).sum(2) + (negative * above.intercept).sum(2)
    lower, upper = state.ends(source)
    reach = torch.maximum(lower.abs(), upper.abs()) + radius + state.model.rounding.tiny
    reach = reach + torch.maximum(below.intercept.abs(), above.intercept.abs())
    state.err((a.abs() @ reach.transpose(1, 2)).squeeze(2) + state.constant.abs(), a.shape[2], source)


def _scale(state: _BackwardPass, index: int, a: Tensor) -> None:
    scale, shift = state.model.scale[index]
    (source,) = state.model.network.layers[index].inputs
    state.add(source, a * scale)
    state.constant = state.constant + a @ shift
    lower, upper = state.bounds.lower[source], state.bounds.upper[source]
    mass = scale.abs() * torch.maximum(lower.abs(), upper.abs()) + shift.abs() + state.model.rounding.tiny
    state.err((a.abs() @ mass.unsqueeze(2)).squeeze(2), a.shape[2], source)


def _add(state: _BackwardPass, index: int, a: Tensor) -> None:
    for source in state.model.network.layers[index].inputs:
        state.add(source, a)
        lower, upper = state.bounds.lower[source], state.bounds.upper[source]
        mass = torch.maximum(lower.abs(), upper.abs())
        state.err((a.abs() @ mass.unsqueeze(2)).squeeze(2), 2, source)


def _input(state: _BackwardPass, index: int, a: Tensor) -> None:
    state.add(index, a)


BACKWARD: dict[type[Layer], Callable[[_BackwardPass, int, Tensor], None]] = {
    Input: _input,
    Dense: _affine,
    Conv: _affine,
    Scale: _scale,
    Relu: _relu,
    Rounding: _rounding,
    Add: _add,
}
