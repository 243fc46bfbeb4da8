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
- dynamic rounding point: `y >= x - r`, or the bound on y, whichever is higher in the middle of the bounds on x.
- rounding point, formula (32): lines below `clip(v - r, ...)` and above `clip(v + r, ...)` (lines.py).
- other activations: lines of any slope below and above (curves.py).
- MaxPool: one of the numbers under the window below, one line above (pools.py).
- Gather: the rows of all outputs that one number is, summed: exact.

Rounding: each step adds to a running `slack` the error it can have made over the box it reads
(`rounding`), and the slack is subtracted at the end.

Shapes: B samples in a chunk, S rows each; coefficients (B, S, size).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.backward_pass import BackwardPass, Notes
from qverify.bounds.curves import activation_backward
from qverify.bounds.fused import above, dot, input_rows, relu_rows
from qverify.bounds.gathers import gather_rows
from qverify.bounds.interval import magnitude
from qverify.bounds.kernels import mixed_kernel, shared_kernel
from qverify.bounds.lines import point_lines, relu_lines
from qverify.bounds.pools import pool_lines
from qverify.bounds.products import product_backward
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.moved import former_names
from qverify.rounding import chord, finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.bounds.affine import Affine
    from qverify.bounds.tensors import BoundModel, Bounds

__getattr__ = former_names(
    __name__,
    {
        name: f"qverify.bounds.refinement:{name}"
        for name in ("backward_margins", "backward_outputs", "tightened_bounds", "unstable")
    },
)


def backward_bound(model: BoundModel, bounds: Bounds, index: int, rows: Tensor) -> Tensor:
    """Lower bounds (B, S) on `rows . output of layer index`, rows (B, S, size), for the B samples of `bounds`. Sound.

    Raises RadiiError where they overflow.
    """
    result = combined_bound(model, bounds, {index: rows})
    finite(model.network.layers[index].name, result)
    return result


def combined_bound(
    model: BoundModel,
    bounds: Bounds,
    rows: dict[int, Tensor],
    high: dict[int, Tensor] | None = None,
    shares: dict[int, Tensor] | None = None,
    notes: Notes | None = None,
) -> Tensor:
    """Lower bounds (B, S) on the sum of `rows[i] . output of layer i` and `high[i] . upper end of layer i`. Sound for
    any shares; not checked for overflow. Differentiable.

    `high`: of `model.fused` layers only. `shares[i]` (B, S, size) in [0, 1], of the steep line at each activation, the
    rest that of a flat one (formula (10)); the usual ones elsewhere. `notes` takes what is noted of this pass.
    """
    high = high or {}
    first = next(iter((*rows.values(), *high.values())))
    zero = torch.zeros(first.shape[:2], dtype=model.dtype, device=model.device)
    state = BackwardPass(model, bounds, zero, zero.clone(), dict(rows), dict(high), shares or {}, notes)
    for i in range(max((*rows, *high)), 0, -1):
        coefficients = state.rows.pop(i, None)
        if coefficients is None and i in state.high:
            coefficients = torch.zeros_like(state.high[i])
        if coefficients is not None:
            if notes is not None:
                notes.rows[i] = coefficients
            BACKWARD[type(model.network.layers[i])](state, i, coefficients)
    if notes is not None and 0 in state.rows:
        notes.rows[0] = state.rows[0]
    return state.constant + _at_input(state) - 2.0 * state.slack


def _at_input(state: BackwardPass) -> Tensor:
    """The minimum (B, S) over the box of `c x - e |x|`, per coordinate that of the values p, q at its ends:
    `(p + q) / 2 - |p - q| / 2`."""
    lower, upper = state.ends(0)
    ends = state.bounds.lower[0], state.bounds.upper[0]
    c = state.rows.get(0)
    if c is None:
        c = torch.zeros_like(state.constant).unsqueeze(2) * lower
    e = state.absolute
    if state.tracks:
        reach, mass = torch.maximum(lower.abs(), upper.abs()), c.abs() if e is None else c.abs() + e.abs()
        state.err((mass @ reach.transpose(1, 2)).squeeze(2) + state.constant.abs(), c.shape[2], 0)
    middle, half, size, skew = state.bounds.once("input", ends, lambda: _input_box(lower, upper))
    if e is None:
        return dot(c, middle) - (c * half).abs().sum(2)
    if not state.tracks:
        inside = ((lower < 0) & (upper > 0)).to(c.dtype) if state.convex else None
        return input_rows(c, e, (middle, half, size, skew), inside)
    apart = (c * half - e * skew).abs()
    if state.convex:
        least = c * middle - e * size - apart
        inside = ((lower < 0) & (upper > 0)).to(e.dtype)
        return (least - least.clamp(min=0) * (above(-e) * inside)).sum(2)
    return dot(c, middle) - dot(e, size) - apart.sum(2)


def _input_box(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Middle and half width of the box of x, and the same of |x| at its ends."""
    size, skew = (lower.abs() + upper.abs()) / 2.0, (upper.abs() - lower.abs()) / 2.0
    return (lower + upper) / 2.0, (upper - lower) / 2.0, size, skew


def _affine(state: BackwardPass, index: int, a: Tensor) -> None:
    affine = state.model.affine[index]
    (source,) = state.model.network.layers[index].inputs
    size, high = a.abs(), state.high.pop(index, None)
    taken = size
    minus = _channel_sum(affine, a).abs() if affine.is_conv else size
    if high is not None:  # of the upper end, `W x + R |x|`: here a dense layer
        a, size, taken = a + high, size + high.abs(), size - high
        minus = taken
        state.convex = state.convex or source == 0
    lower, upper = state.bounds.lower[source], state.bounds.upper[source]
    state.lose_noise(index, size)
    bias, spread = affine.spread(affine.bias), affine.bias_radius
    state.constant = state.constant + a @ bias - minus @ spread
    if state.tracks:
        tiny, offset = state.model.rounding.tiny, affine.spread(affine.bias.abs() + spread)
        mass = (affine.mass + tiny) * (magnitude(lower, upper) + tiny) + offset + tiny
        absolute_sum = (size @ mass.unsqueeze(2)).squeeze(2) + state.constant.abs()
        mixed = 8 if affine.shares_kernel else 0
        state.err(absolute_sum, affine.terms + a.shape[2] + mixed, source, affine.mass.sum())
    if affine.entries and index in state.shares:
        mixed_kernel(state, index, affine, a)
        return
    centre = affine.transpose(affine.weight, a)
    if affine.exact:
        state.add(source, centre)
        return
    absolute = affine.transpose_radius(taken)
    if affine.shares_kernel:
        shared_kernel(state, index, affine, a, centre, absolute)
    elif source == 0:
        state.add(0, centre)
        state.absolute = absolute if state.absolute is None else state.absolute + absolute
    else:
        ends = state.bounds.lower[source], state.bounds.upper[source]
        slope, intercept = state.bounds.once(("chord", source), ends, lambda: chord(torch, *state.ends(source)))
        state.add(source, torch.addcmul(centre, absolute, slope, value=-1.0))
        state.constant = state.constant - dot(absolute.clamp(min=0), intercept)


def _channel_sum(affine: Affine, a: Tensor) -> Tensor:
    """(B, S, n_out) -> (B, S, c_out) of a convolution, whose bias is shared by its positions too."""
    return a.reshape(*a.shape[:2], len(affine.bias), -1).sum(3)


def _relu(state: BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    lines = relu_lines(state.bounds, index, source)
    if not state.tracks:
        rows, constant = relu_rows(a, state.share(index, lines.usual), lines)
        state.add(source, rows)
        state.constant = state.constant + constant
        return
    alpha = state.share(index, lines.usual) * lines.free + lines.active
    positive = a.clamp(min=0)
    negative, steep = a - positive, positive * alpha
    state.add(source, steep + negative * lines.slope)
    state.constant = state.constant - dot(steep, lines.radius) + dot(negative, lines.lift)
    if state.tracks:
        lower, upper = state.ends(source)
        reach = torch.maximum(lower.abs(), upper.abs()) + lines.radius + state.model.rounding.tiny
        state.err(dot(a.abs(), reach) + state.constant.abs(), a.shape[2], source)


def _rounding(state: BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    point, radius = state.model.points[index], state.bounds.activation[index]
    radius = radius.unsqueeze(1) if radius.ndim == 2 else radius
    lower, upper = state.ends(source)
    below, over = point_lines(point, radius, (lower, upper), state.least_high(source), state.ends(index))
    positive, negative = a.clamp(min=0), a.clamp(max=0)  # one of them is 0: torch is slow at choosing by masks
    share = state.share(index, torch.lerp(over.usual, below.usual, above(a)))
    state.add(source, share * (positive * below.slope + negative * over.slope))
    rise = positive * (below.intercept - below.level) + negative * (over.intercept - over.level)
    flat = dot(positive, below.level) + dot(negative, over.level)
    state.constant = state.constant + (share * rise).sum(2) + flat
    if state.tracks:
        reach = torch.maximum(lower.abs(), upper.abs()) + radius + state.model.rounding.tiny
        reach = reach + torch.maximum(below.intercept.abs(), over.intercept.abs())
        reach = reach + torch.maximum(below.level.abs(), over.level.abs())
        state.err(dot(a.abs(), reach) + state.constant.abs(), a.shape[2], source)


def _max_pool(state: BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    lower, upper = state.bounds.lower[source], state.bounds.upper[source]
    lines = pool_lines(state.model.windows[index], lower, upper)
    positive = a.clamp(min=0)
    negative = a - positive
    rows = torch.zeros(*a.shape[:2], lower.shape[1], dtype=a.dtype, device=a.device)
    rows = rows.scatter_add(2, lines.below.unsqueeze(1).expand_as(a), positive)
    rows = rows.scatter_add(2, lines.above.unsqueeze(1).expand_as(a), negative * lines.slope.unsqueeze(1))
    state.add(source, rows)
    state.constant = state.constant + dot(negative, lines.intercept.unsqueeze(1))
    if state.tracks:
        reach = lines.reach.unsqueeze(1) + state.model.rounding.tiny
        state.err(dot(a.abs(), reach) + state.constant.abs(), a.shape[2], source)


def _dynamic_rounding(state: BackwardPass, index: int, a: Tensor) -> None:
    (source,) = state.model.network.layers[index].inputs
    (lower, upper), (low, high), radius = state.ends(source), state.ends(index), state.bounds.activation[index]
    radius, middle = radius.unsqueeze(1), (lower + upper) / 2.0
    positive = a.clamp(min=0)
    negative, below, above = a - positive, (middle - radius > low).to(a.dtype), (middle + radius < high).to(a.dtype)
    state.add(source, positive * below + negative * above)
    state.constant = state.constant + dot(positive, (1.0 - below) * low - below * radius)
    state.constant = state.constant + dot(negative, (1.0 - above) * high + above * radius)
    if state.tracks:
        reach = torch.maximum(lower.abs(), upper.abs()) + torch.maximum(low.abs(), high.abs()) + radius
        mass = dot(a.abs(), reach + state.model.rounding.tiny) + state.constant.abs()
        state.err(mass, a.shape[2], source)


def _scale(state: BackwardPass, index: int, a: Tensor) -> None:
    scale, shift = state.model.scale[index]
    (source,) = state.model.network.layers[index].inputs
    state.add(source, a * scale)
    state.lose_noise(index, a.abs())
    state.constant = state.constant + a @ shift
    if not state.tracks:
        return
    lower, upper = state.bounds.lower[source], state.bounds.upper[source]
    mass = scale.abs() * torch.maximum(lower.abs(), upper.abs()) + shift.abs() + state.model.rounding.tiny
    state.err((a.abs() @ mass.unsqueeze(2)).squeeze(2), a.shape[2], source)


def _add(state: BackwardPass, index: int, a: Tensor) -> None:
    state.lose_noise(index, a.abs())
    for source in state.model.network.layers[index].inputs:
        state.add(source, a)
        if not state.tracks:
            continue
        lower, upper = state.bounds.lower[source], state.bounds.upper[source]
        mass = torch.maximum(lower.abs(), upper.abs())
        state.err((a.abs() @ mass.unsqueeze(2)).squeeze(2), 2, source)


def _input(state: BackwardPass, index: int, a: Tensor) -> None:
    state.add(index, a)


BACKWARD: dict[type[Layer], Callable[[BackwardPass, int, Tensor], None]] = {
    Input: _input,
    Dense: _affine,
    Conv: _affine,
    Scale: _scale,
    Relu: _relu,
    Activation: activation_backward,
    Rounding: _rounding,
    MaxPool: _max_pool,
    DynamicRounding: _dynamic_rounding,
    Add: _add,
    Product: product_backward,
    Gather: gather_rows,
}
