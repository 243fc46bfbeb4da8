"""Dynamic rounding points in intervals, and what float32 can get wrong around them (mathematics.md, section 15). Sound.

The step `s = (max - min) / 255` and the zero point z follow from the bounds on all of the tensor, so all of them are
intervals of each sample, and what a point gives is `k s` with a whole number k:

    k in clip([ceil(l/s - 1/2 - d), floor(u/s + 1/2 + d)], -z, 255 - z),      |k s - x| <= s (1/2 + 2 d)

`d` holds what the runtime's division gets wrong, in steps. A layer behind the point sums whole numbers and multiplies
by s once, which all of the tensor shares: `W (k s) = s (W k)`.

Under the rule `float32` a step is off by what `_STEP_ERROR` says, and every layer that computes in float32 by `noise`,
which becomes its radius (`Bounds.activation`). Shapes as in `tensors.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.summed import sum_error
from qverify.errors import RadiiError
from qverify.layers import LEVELS, Add, Conv, Dense, DynamicRounding, Product, Scale
from qverify.rounding import UNIT
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds

Ends = tuple[Tensor, Tensor]

_COUNT_ERROR = {"nearest": 2.0**-40, "float32": 2.0**-13}
"""`d`: of `x / s` and of `-min / s`, up to 255 of them, with what is computed here; 255 * 8 * 2^-24 is less."""
_STEP_ERROR = {"nearest": 2.0**-48, "float32": 2.0**-22}
"""Relative, of the step: a difference and a quotient, or a product with 1/255 rounded, of 2^-24 each."""
_AWAY = 8.0 * UNIT
"""Relative, for products and differences computed here."""
_SMALL, _LARGE = 2.0**-100, 2.0**100
"""A range below the one may have a step that underflows, so that only `|y| <= 2 range` is known; numbers beyond the
other may overflow float32 on their way."""
_U = 2.0**-24
_UNDERFLOW = 2.0**-90
"""What products of steps, of up to 2^32 of them, lose where float32 underflows, 2^-126 each."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Counts(Brief):
    """What dynamic rounding points may make of N tensors: their steps (N, 1), the error `radius` (N, 1) of what they
    give, the numbers of steps `low` and `high` (N, size), and where these are `known` (N, 1): where the range of the
    tensor cannot be so small that its step underflows."""

    steps: Ends
    radius: Tensor
    low: Tensor
    high: Tensor
    known: Tensor

    def take(self, samples: Tensor) -> Counts:
        """Those of a subset of samples."""
        return Counts(
            steps=(self.steps[0][samples], self.steps[1][samples]),
            radius=self.radius[samples],
            low=self.low[samples],
            high=self.high[samples],
            known=self.known[samples],
        )

    def scaled(self, sums: Ends, allowed: Tensor | float) -> Ends:
        """Sums (N, n) of whole numbers, in `sums` but for `allowed`, times the step; infinite where it is unknown."""
        low, high = _times(sums[0] - allowed, sums[1] + allowed, *self.steps)
        infinite = torch.full_like(low, torch.inf)
        return torch.where(self.known, low, -infinite), torch.where(self.known, high, infinite)


def counts(rule: str, lower: Tensor, upper: Tensor) -> Counts:
    """The numbers of steps for tensors in the boxes [lower, upper] (N, size). Sound."""
    zero = torch.zeros_like(lower[:, :1])
    low = torch.minimum(lower.amin(1, keepdim=True), zero), torch.minimum(upper.amin(1, keepdim=True), zero)
    high = torch.maximum(lower.amax(1, keepdim=True), zero), torch.maximum(upper.amax(1, keepdim=True), zero)
    least, most = high[0] - low[1], high[1] - low[0]
    known, error, off = least >= _SMALL, _COUNT_ERROR[rule], _STEP_ERROR[rule]
    steps = least / LEVELS * (1.0 - off), most / LEVELS * (1.0 + off)
    first = _zero_points(low[1], high[1]), _zero_points(low[0], high[0])
    zeros = (first[0] - 0.5 - error).ceil().clamp(0.0, LEVELS), (first[1] + 0.5 + error).floor().clamp(0.0, LEVELS)
    some, other = (torch.where(known, step, torch.ones_like(step)) for step in steps)
    down = (torch.minimum(lower / some, lower / other) - 0.5 - error).ceil().clamp(-LEVELS, LEVELS)
    up = (torch.maximum(upper / some, upper / other) + 0.5 + error).floor().clamp(-LEVELS, LEVELS)
    return Counts(
        steps=steps,
        radius=steps[1] * (0.5 + 2.0 * error) * (1.0 + _AWAY),
        low=torch.minimum(torch.maximum(down, -zeros[1]), LEVELS - zeros[1]),
        high=torch.minimum(torch.maximum(up, -zeros[0]), LEVELS - zeros[0]),
        known=known,
    )


def _zero_points(low: Tensor, high: Tensor) -> Tensor:
    """`-low / step` of tensors from `low` <= 0 to `high` >= 0, before it is rounded; 0 where both are 0."""
    width = high - low
    return torch.where(width > 0, -low * LEVELS / torch.where(width > 0, width, torch.ones_like(width)), 0.0 * width)


def counts_of(model: BoundModel, bounds: Bounds, index: int) -> Counts:
    """Those of the dynamic rounding point `index`. Raises RadiiError for tensors beyond float32."""
    (source,) = model.network.layers[index].inputs
    _within_float32(model, index, bounds.lower[source], bounds.upper[source])
    assert model.dynamic is not None
    return counts(model.dynamic, bounds.lower[source], bounds.upper[source])


def dynamic_ends(found: Counts, lower: Tensor, upper: Tensor) -> Ends:
    """Bounds (N, size) on what dynamic rounding points give, for tensors in the boxes [lower, upper]. Sound."""
    radius = found.radius + 4.0 * _SMALL * ~found.known
    low, high = lower - radius - _AWAY * (lower.abs() + radius), upper + radius + _AWAY * (upper.abs() + radius)
    # The sign stays; what a range that underflows leaves of it is less than twice that range.
    low = torch.where(lower >= 0, torch.maximum(low, torch.full_like(low, -4.0 * _SMALL)), low)
    high = torch.where(upper <= 0, torch.minimum(high, torch.full_like(high, 4.0 * _SMALL)), high)
    some, other = found.steps
    least, most = _times(found.low, found.low, some, other)[0], _times(found.high, found.high, some, other)[1]
    least, most = torch.maximum(low, least), torch.minimum(high, most)
    return torch.where(found.known, least, low), torch.where(found.known, most, high)


def _times(low: Tensor, high: Tensor, some: Tensor, other: Tensor) -> Ends:
    """[low, high] times a positive number between `some` and `other`."""
    least, most = torch.minimum(low * some, low * other), torch.maximum(high * some, high * other)
    return least - _AWAY * least.abs(), most + _AWAY * most.abs()


def dynamic_interval(model: BoundModel, bounds: Bounds, index: int) -> Ends:
    """IBP through a dynamic rounding point; sets its radius for these samples in `bounds.activation`."""
    (source,) = model.network.layers[index].inputs
    found = counts_of(model, bounds, index)
    bounds.activation[index] = (found.radius + 4.0 * _SMALL * ~found.known).expand_as(found.low)
    return dynamic_ends(found, bounds.lower[source], bounds.upper[source])


def shared(model: BoundModel, bounds: Bounds, source: int) -> Counts | None:
    """Those of layer `source` where it is a dynamic rounding point, whose step all that it gives shares."""
    return counts_of(model, bounds, source) if isinstance(model.network.layers[source], DynamicRounding) else None


# -- float32 --------------------------------------------------------------------------------------


def as_read(model: BoundModel, lower: Tensor, upper: Tensor) -> Ends:
    """The boxes of inputs with what the runtime reads of them, the nearest numbers of float32."""
    if model.dynamic != "float32":
        return lower, upper
    return torch.minimum(lower, lower.float().to(lower.dtype)), torch.maximum(upper, upper.float().to(upper.dtype))


def with_noise(model: BoundModel, bounds: Bounds, index: int, ends: Ends) -> Ends:
    """The ends of layer `index`, widened by what float32 can get wrong in it, which becomes its radius.

    Raises RadiiError where float32 may overflow.
    """
    if model.dynamic != "float32":
        return ends
    layer: Any = model.network.layers[index]
    _within_float32(model, index, *ends)
    if isinstance(layer, Activation):
        raise RadiiError(f"What float32 gets wrong in {layer.name!r} is not known; state --rounding nearest.")
    if not isinstance(layer, (Dense, Conv, Scale, Add, Product)):
        return ends
    read = [torch.maximum(bounds.lower[i].abs(), bounds.upper[i].abs()) for i in layer.inputs]
    if isinstance(layer, Add):
        noise = 4.0 * _U * (read[0] + read[1])
    elif isinstance(layer, Product):
        noise = 4.0 * _U * (read[0] * read[-1])
    elif isinstance(layer, Scale):
        scale, shift = model.scale[index]
        noise = 8.0 * _U * (scale.abs() * read[0] + shift.abs())
    else:
        noise = _affine_noise(model, index, read[0], ends)
    noise = noise + _UNDERFLOW
    bounds.activation[index] = noise
    return ends[0] - noise - _AWAY * ends[0].abs(), ends[1] + noise + _AWAY * ends[1].abs()


def _affine_noise(model: BoundModel, index: int, read: Tensor, ends: Ends) -> Tensor:
    """Of sums of integers, exact, the product with a product of steps, and a bias; of others a sum in float32."""
    affine = model.affine[index]
    layer = affine.layer
    bias = affine.spread(affine.bias.abs() + affine.bias_radius)
    if layer.grid is not None and affine.exact and isinstance(model.network.layers[layer.inputs[0]], DynamicRounding):
        return 8.0 * _U * (torch.maximum(ends[0].abs(), ends[1].abs()) + 2.0 * bias)
    noise = sum_error(affine, read, torch.full_like(read[:, :1], layer.fan_in)) * (1.0 + 2.0**-20)
    if not bool(torch.isfinite(noise).all()):
        raise RadiiError(f"Layer {layer.name!r} sums too many numbers in float32; state --rounding nearest.")
    return noise


def _within_float32(model: BoundModel, index: int, *ends: Tensor) -> None:
    if any(bool((end.abs() > _LARGE).any()) for end in ends):
        raise RadiiError(
            f"The bounds of layer {model.network.layers[index].name!r} leave float32; the inputs are too large."
        )
