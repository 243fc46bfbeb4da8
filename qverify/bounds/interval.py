"""IBP: interval bound propagation through a quantised family (mathematics.md, section 4). Sound.

Dense and convolution layers, per output, over weights in [W - R, W + R] and inputs in [l, u]:

    hi = sum_j max_{x in [l_j, u_j]} (w_j x + R_j |x|) + b + r_b

which is summed by the signs of w and x (affine_interval.py). Exact per layer; for a convolution exact per position, its
positions taken as independent.

Activation layers by formula (2): [relu(l - r_a), relu(u) + r_a]. Rounding points by formula (32), whose two ends are
monotone: exact. A MaxPool is monotone, too: the largest lower and the largest upper end. A Gather moves ends: exact.
A product has its ends at corners.

Torch, any device, differentiable; `BoundModel.rounding` decides whether rounding is allowed for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.affine import Affine
from qverify.bounds.affine_interval import SplitBySign, affine_interval
from qverify.bounds.curves import activation_interval
from qverify.bounds.dynamic import Counts, as_read, dynamic_interval, shared, with_noise
from qverify.bounds.gathers import gather_interval
from qverify.bounds.products import product_interval
from qverify.bounds.summed import summed_radius
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.points import lower_end, upper_end
from qverify.gather import Gather
from qverify.layers import (
    LEVELS,
    Add,
    Conv,
    Dense,
    DynamicRounding,
    Input,
    Layer,
    MaxPool,
    Product,
    Relu,
    Rounding,
    Scale,
)
from qverify.rounding import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.budget import Deadline

Ends = tuple[Tensor, Tensor]


class OutOfTime(Exception):
    """The deadline passed before every layer had a bound: there is nothing to go on with."""


def interval_bounds(model: BoundModel, lower: Tensor, upper: Tensor, deadline: Deadline | None = None) -> Bounds:
    """Bounds on every layer for the input boxes [lower, upper], (N, n_in) each. Sound. Raises RadiiError if they
    overflow, and OutOfTime."""
    bounds = Bounds(lower=[], upper=[], activation=model.shared_radii)
    for index in range(len(model.network.layers)):
        if deadline is not None and deadline.passed():
            raise OutOfTime
        ends = (
            _without_overflow(model, 0, as_read(model, lower, upper))
            if index == 0
            else interval_step(model, bounds, index)
        )
        bounds.lower.append(ends[0])
        bounds.upper.append(ends[1])
    return bounds


def interval_step(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    """Bounds (N, size) on layer `index` from those on its producers; sets its activation radius in `bounds`."""
    ends = INTERVAL[type(model.network.layers[index])](model, bounds, index)
    return _without_overflow(model, index, with_noise(model, bounds, index, ends))


def _without_overflow(model: BoundModel, index: int, ends: Ends) -> Ends:
    """Overflow guard: the ends themselves; RadiiError unless four times each is finite, so that widths and sums are."""
    finite(model.network.layers[index].name, *(4.0 * end for end in ends))
    return ends


def magnitude(lower: Tensor, upper: Tensor) -> Tensor:
    """Largest absolute values (N, 1) over the boxes [lower, upper], (N, n) each."""
    if not lower.shape[1]:
        return torch.zeros(len(lower), 1, dtype=lower.dtype, device=lower.device)
    return torch.maximum(lower.abs(), upper.abs()).amax(1, keepdim=True)


def _affine(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    affine = model.affine[index]
    (source,) = model.network.layers[index].inputs
    lower, upper = bounds.lower[source], bounds.upper[source]
    lo, hi = affine_interval(affine, lower, upper)
    if not model.rounding.enabled:
        return lo, hi
    constant = affine.spread(affine.bias.abs() + affine.bias_radius)
    lo, hi = model.rounding.widen(lo, hi, affine.mass * magnitude(lower, upper) + constant, affine.terms)
    whole = shared(model, bounds, source)
    if whole is None:
        return lo, hi
    low, high = _of_counts(model, affine, whole, affine.mass, constant)
    return torch.maximum(lo, low), torch.minimum(hi, high)


def _of_counts(model: BoundModel, affine: Affine, whole: Counts, mass: Tensor, constant: Tensor) -> Ends:
    """Ends (N, n_out) for inputs that are whole numbers times one step; `mass` and `constant` scale what is rounded."""
    split = SplitBySign(affine, whole.low, whole.high)
    allowed = LEVELS * mass * model.rounding.gamma(affine.terms) + model.rounding.tiny
    low, high = whole.scaled((split.lower(), split.upper()), allowed)
    bias, spread, gamma = affine.spread(affine.bias), affine.spread(affine.bias_radius), model.rounding.gamma(2)
    widened = gamma * constant + model.rounding.tiny
    return low + bias - spread - widened - gamma * low.abs(), high + bias + spread + widened + gamma * high.abs()


def _scale(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    scale, shift = model.scale[index]
    (source,) = model.network.layers[index].inputs
    first, second = scale * bounds.lower[source], scale * bounds.upper[source]
    mass = torch.maximum(first.abs(), second.abs()) + shift.abs()
    return model.rounding.widen(torch.minimum(first, second) + shift, torch.maximum(first, second) + shift, mass, 1)


def _relu(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    (source,) = model.network.layers[index].inputs
    lower, upper = bounds.lower[source], bounds.upper[source]
    if index not in bounds.activation:  # fixed by the first pass: it defines the family for these samples
        bounds.activation[index] = _activation_radius(model, bounds, index)
    radius = bounds.activation[index]
    low, high = (lower - radius).clamp(min=0), upper.clamp(min=0) + radius
    # Where nothing was computed (radius 0), nothing was rounded.
    mass = torch.where(radius > 0, high.abs() + radius, torch.zeros_like(high))
    low, high = model.rounding.widen(low, high, mass, 1)
    return low.clamp(min=0), high


def _rounding(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    (source,) = model.network.layers[index].inputs
    lower, upper = bounds.lower[source], bounds.upper[source]
    if index not in bounds.activation:
        bounds.activation[index] = _activation_radius(model, bounds, index)
    radius, point = bounds.activation[index], model.points[index]
    unit = model.rounding.unit
    return lower_end(torch, point, radius, lower, unit), upper_end(torch, point, radius, upper, unit)


def _activation_radius(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """Radii (N, size) of a Relu or rounding point for these samples: with what is clipped on the way there, and less
    where numbers are small."""
    radius = summed_radius(model, bounds, index)
    for cut in model.cuts.get(index, ()):
        radius = radius + cut.widening(bounds.lower[cut.source], bounds.upper[cut.source])
    return radius


def _max_pool(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    (source,) = model.network.layers[index].inputs
    windows = model.windows[index]
    return bounds.lower[source][:, windows].amax(2), bounds.upper[source][:, windows].amax(2)


def _add(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    first, second = model.network.layers[index].inputs
    low, high = bounds.lower[first] + bounds.lower[second], bounds.upper[first] + bounds.upper[second]
    mass = torch.maximum(bounds.lower[first].abs(), bounds.upper[first].abs())
    mass = mass + torch.maximum(bounds.lower[second].abs(), bounds.upper[second].abs())
    return model.rounding.widen(low, high, mass, 1)


def _product(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    first, second = model.network.layers[index].inputs
    x, y = ((bounds.lower[i], bounds.upper[i]) for i in (first, second))
    low, high = product_interval(x, y, square=first == second)
    return model.rounding.widen(low, high, torch.maximum(low.abs(), high.abs()), 1)


def _input(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    return bounds.lower[index], bounds.upper[index]


INTERVAL: dict[type[Layer], Callable[[BoundModel, Bounds, int], Ends]] = {
    Input: _input,
    Dense: _affine,
    Conv: _affine,
    Scale: _scale,
    Relu: _relu,
    Activation: activation_interval,
    Rounding: _rounding,
    MaxPool: _max_pool,
    DynamicRounding: dynamic_interval,
    Add: _add,
    Product: _product,
    Gather: gather_interval,
}


def interval_margins(model: BoundModel, bounds: Bounds, labels: Tensor) -> Tensor:
    """Lower bounds (N, classes) on `y_label - y_j` over the family; +inf in the label's own column.

    A dense last layer is folded into the question, exact because its rows are independent:
    `(W_t - W_j).x - (R_t + R_j).|x| + b_t - b_j - r_t - r_j` (mathematics.md, section 3).
    """
    last = len(model.network.layers) - 1
    classes = model.network.output_size
    own = torch.nn.functional.one_hot(labels, classes).bool()
    affine = model.affine.get(last)
    if affine is None or affine.is_conv:
        low, high = bounds.lower[last], bounds.upper[last]
        difference = low.gather(1, labels[:, None]) - high
        mass = low.gather(1, labels[:, None]).abs() + high.abs()
        margin, _ = model.rounding.widen(difference, difference, mass, 1)
        return margin.masked_fill(own, torch.inf)
    (source,) = model.network.layers[last].inputs
    lower, upper = bounds.lower[source], bounds.upper[source]
    whole, noise = shared(model, bounds, source), bounds.activation.get(last)
    margin = torch.empty(len(labels), classes, dtype=lower.dtype, device=lower.device)
    for label in torch.unique(labels).tolist():
        chosen = torch.nonzero(labels == label, as_tuple=True)[0]
        counted = None if whole is None else whole.take(chosen)
        folded = _folded_margins(model, affine, label, (lower[chosen], upper[chosen]), counted)
        if noise is not None:
            folded = folded - (noise[chosen] + noise[chosen, label, None]) * (1.0 + model.rounding.gamma(2))
        margin = margin.index_put((chosen,), folded)
    finite(model.network.layers[last].name, margin)
    return margin.masked_fill(own, torch.inf)


def _folded_margins(model: BoundModel, affine: Affine, label: int, box: Ends, whole: Counts | None) -> Tensor:
    """Lower bounds (N, classes) on `y_label - y_j` for inputs of the dense last layer in a box (N, n_in); `whole`: what
    they are in steps, where a dynamic rounding point gives them."""
    lower, upper = box
    folded = Affine(
        layer=affine.layer,
        weight=affine.weight[label] - affine.weight,
        radius=affine.radius[label] + affine.radius,
        bias=affine.bias[label] - affine.bias,
        bias_radius=affine.bias_radius[label] + affine.bias_radius,
    )
    low = SplitBySign(folded, lower, upper).lower() + folded.bias - folded.bias_radius
    if not model.rounding.enabled:
        return low
    # The mass of the rows before they are subtracted: cancellation must not shrink the allowance.
    constant = affine.bias.abs() + affine.bias_radius
    mass = (affine.mass + affine.mass[label]) * magnitude(lower, upper) + constant + constant[label]
    low, _ = model.rounding.widen(low, low, mass, affine.terms)
    if whole is None:
        return low
    mass = affine.mass + affine.mass[label]
    return torch.maximum(low, _of_counts(model, folded, whole, mass, constant + constant[label])[0])
