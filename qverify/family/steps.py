"""Steps of real quantisers, and the radii that follow: one rule each for weights, biases and activations.

Weights: D = max|W| / (2^(b-1) - 1), the symmetric step with the narrow range; the asymmetric one is smaller, so
it is covered too. Input and activations: D = range / (2^b - 1), the range widened to contain 0, with a whole zero
point (points.py); symmetric ones D = max / (2^(b-1) - 1). Biases: the integer step s_x s_w, or that of their own range.
The radius is D / 2 for rounding to nearest, D for any rounding.

What toolchains do where a range is degenerate, and what is covered here, since ranges of float32 cannot be told apart
from those of float64 to the last digit:

- a step below float32's normal numbers becomes 1 (where it is borderline, nothing is covered: kernels.py). A Relu that
  is 0 on all the data has the range [0, 0], so the step 1, and the biases of the layer that reads it become multiples
  of s_w; a channel of vanishing weights likewise: its weights become 0 (or 1, if any rounding is covered), its biases
  multiples of s_x;
- the product s_x s_w is kept in float32: where it underflows, a bias may be lost as a whole.

Functions take numpy arrays or torch tensors, which differentiate through them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from qverify.choices import PER_CHANNEL
from qverify.errors import InternalError
from qverify.family.kernels import LEAST_STEP, finest
from qverify.family.points import NO_ZERO, Point

Place = Literal["input", "behind Relu", "inside"]
"""Where a rounding point stands: what is 0 there is exactly 0, or, inside, may be off by the rounding of a sum."""

FLOAT32_SLACK = 2.0**-21
"""A quantiser that works in float32 rounds the step, the quotient and the product: three roundings of 2^-24 relative to
the number itself (measured 1.8), so it exceeds its share of a step by a share of the whole *range*: 2.6e-5 of a step
at 8 bits, 7e-3 of one at 16. Twice what the roundings can sum to, those of a float32 multiplier behind an integer
accumulator included; every radius is widened by it."""


@dataclass(frozen=True, kw_only=True)
class LayerBits:
    """What the weights of one layer have instead of the others: bits, scheme, or one step for every `block` of weights
    that stand in a row along the inputs; None: as the others."""

    bits: int | None = None
    scheme: str | None = None
    block: int | None = None


@dataclass(frozen=True)
class Quantiser:
    """`bits` bits under a scheme and a rounding, as `Radii.from_bits` takes them.

    `weight_bits`, `activation_bits` and `input_bits` are `bits` where they are None, those of the input first
    `activation_bits`; biases have 32 bits, in steps of s_x s_w, unless `bias_bits` says less, of their own range then.

    Under schemes `tensor` and `channel` also: which integer kernels (`choices.KERNELS`), what becomes of a
    BatchNormalization (`choices.BATCHNORMS`), where the rounding points stand (`choices.POINTS`), whether the `input`
    is rounded or on its grid already (`choices.INPUTS`), whether `activations` have a zero point or none
    (`choices.ACTIVATIONS`), how their `ranges` are taken from the calibration data (`choices.RANGES`), and by layer
    what its weights have instead (`LayerBits`).
    """

    bits: int
    scheme: str = "paper"
    rounding: str = "any"
    kernel: str = "exact-accumulation"
    batchnorm: str = "either"
    weight_bits: int | None = None
    activation_bits: int | None = None
    input_bits: int | None = None
    bias_bits: int | None = None
    points: str = "activations"
    input: str = "rounded"
    activations: str = "asymmetric"
    ranges: str = "minmax"
    layers: tuple[tuple[str, LayerBits], ...] = ()

    @property
    def by_layer(self) -> dict[str, LayerBits]:
        """What single layers have instead."""
        return dict(self.layers)

    @property
    def per_channel(self) -> bool:
        """Whether weights have one step a channel, or one a tensor. Raises InternalError where they have none."""
        if self.scheme not in PER_CHANNEL:
            raise InternalError(f"Scheme {self.scheme} takes no steps from ranges.")
        return PER_CHANNEL[self.scheme]

    @property
    def width(self) -> str:
        """The bit-widths of weights and activations as people say them: `8`, or `W4A8`."""
        weights, activations = self.of_weights, self.of_activations
        return str(weights) if weights == activations else f"W{weights}A{activations}"

    @property
    def of_weights(self) -> int:
        """Bits of a weight."""
        return self.bits if self.weight_bits is None else self.weight_bits

    @property
    def of_activations(self) -> int:
        """Bits of an activation."""
        return self.bits if self.activation_bits is None else self.activation_bits

    @property
    def of_input(self) -> int:
        """Bits of an input."""
        return self.of_activations if self.input_bits is None else self.input_bits

    @property
    def widest(self) -> int:
        """The largest of the bit-widths of weights, activations and input: what integer kernels are made for."""
        return max(self.of_weights, self.of_activations, self.of_input)

    def at_input(self) -> Quantiser:
        """The same with the input's bit-width for activations."""
        return replace(self, activation_bits=self.of_input)

    def at_layer(self, name: str) -> Quantiser:
        """The same for the weights of one layer."""
        own = self.by_layer.get(name)
        if own is None:
            return self
        return replace(self, weight_bits=own.bits or self.of_weights, scheme=own.scheme or self.scheme)

    @property
    def share(self) -> float:
        """Largest rounding error of weights and biases, a share of the step; runtimes find them rounded to nearest."""
        return 1.0 if self.rounding == "any" else 0.5

    @property
    def activation_share(self) -> float:
        """That of what a layer gives, but for the second of two roundings."""
        return 1.0 if self.rounding in ("any", "truncate") else 0.5

    @property
    def weight_levels(self) -> float:
        """Number of steps from 0 to the largest weight, 2^(b-1) - 1."""
        return float(2.0 ** (self.of_weights - 1) - 1)

    @property
    def levels(self) -> float:
        """Number of steps in the range of an activation: 2^b - 1, or, symmetric, one less."""
        return 2.0**self.of_activations - (2.0 if self.activations == "symmetric" else 1.0)

    def range(self, low: float, high: float) -> tuple[float, float]:
        """The range that a quantiser has for values in [low, high], which contains 0."""
        largest = max(-low, high)
        return (-largest, largest) if self.activations == "symmetric" else (low, high)

    def activation_step(self, low: float, high: float) -> float:
        """The step of a quantiser for values in [low, high], which contains 0."""
        low, high = self.range(low, high)
        return 1.0 if self.degenerate(low, high) else (high - low) / self.levels

    def degenerate(self, low: float, high: float) -> bool:
        """The range has no step of its own, and so the step 1."""
        low, high = self.range(low, high)
        return (high - low) / self.levels <= LEAST_STEP

    def ends(self, low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends that values are clipped to, each as the two numbers it lies between: whole multiples of the step, as
        many below 0 as the zero point says, which is rounded. Of a degenerate range those of either signedness."""
        (low, high), levels = self.range(low, high), self.levels
        if self.degenerate(low, high):
            half = 2.0 ** (self.of_activations - 1)
            return (-half, 0.0), (half - 1.0, 2.0 * half - 1.0)
        step, slack = self.activation_step(low, high), (high - low) * FLOAT32_SLACK
        if self.activations == "symmetric":
            return _symmetric_ends(high, 2.0 ** (self.of_activations - 1), slack)
        unclear = levels * FLOAT32_SLACK if low < 0.0 < high else 0.0
        fewest, most = (min(max(round(-low / step + sign * unclear), 0), levels) for sign in (-1.0, 1.0))
        lows, highs = (-most * step, -fewest * step), ((levels - most) * step, (levels - fewest) * step)
        around_low = (lows[0] - slack, min(lows[1] + slack, 0.0))
        around_high = (max(highs[0] - slack, 0.0), highs[1] + slack)
        return (lows if most == 0 else around_low), (highs if fewest == levels else around_high)

    def point(self, low: float, high: float, before: Any = 0.0, place: Place = "behind Relu") -> Point:
        """The rounding point of values in [low, high], which contains 0.

        `before`: what they may be off by on the way there, a number or an array like the tensor.
        """
        step = self.activation_step(low, high)
        radius = self.activation_radius(step)
        keeps_zero = self.activation_share < 1.0 or place != "inside"
        # On the grid and at most a radius away: nothing nearer to 0 than this becomes a whole step, the finest one.
        finest = step * self.levels / (2.0**self.of_activations - 1.0)  # of unsigned symmetric integers
        dead = np.maximum(finest - self.activation_radius(finest), 0.0) - before
        dead = np.where((dead < 0.0) | (not keeps_zero), NO_ZERO, dead)
        least, most = self.ends(low, high)
        return Point(radius=radius + before, low=least, high=most, dead=dead, entry=place == "input")

    def clipped_before(self, point: Point, ends: tuple[float, float], low: Any, high: Any) -> Point:
        """A rounding point of values in `ends` behind a Relu whose input is clipped to [low, high] at the narrowest:
        nothing comes out above what `low` becomes unless it is there before, and likewise for `high`."""
        radius = self.activation_radius(self.activation_step(*ends))
        least = np.where(low > 0.0, np.minimum(low + radius, point.high[1]), 0.0)  # 0 stays 0
        most = np.clip(high - radius, 0.0, point.high[0])
        return replace(point, low=(np.minimum(point.low[0], least), least), high=(most, point.high[1] + 0.0 * most))

    def activation_radius(self, step: Any) -> Any:
        """Radius of an activation or of the input, in its own unit: the error of rounding to that step."""
        return step * (self.activation_share + self.levels * FLOAT32_SLACK)

    def weight_radii(self, xp: Any, sizes: Any, bias: Any, entry: float) -> tuple[Any, Any]:
        """Radii of weights and biases, one a channel; `xp` is numpy or torch.

        `sizes` (c_out,): the largest |w| that shares the step of a channel. `entry`: the step of what the layer reads.
        """
        step = sizes / self.weight_levels
        radius = step * (self.share + self.weight_levels * FLOAT32_SLACK)
        # Also where only the smallest step that is covered vanishes; weights of 0 stay 0.
        vanishes = sizes <= finest(self.of_weights) * LEAST_STEP
        one, zero = xp.ones_like(sizes), xp.zeros_like(sizes)
        lost = sizes if self.share < 1.0 else xp.maximum(sizes, one)
        radius = xp.where(vanishes, xp.where(sizes > 0, xp.maximum(lost, radius), zero), radius)
        bias_step = xp.where(vanishes, xp.maximum(step, one), step) * entry
        size = xp.abs(bias)
        underflow = xp.where(bias_step < 2.0 * LEAST_STEP, size, zero)
        if self.bias_bits is not None:
            levels = 2.0 ** (self.bias_bits - 1) - 1.0
            return radius, one * (size.max() / levels * (self.share + levels * FLOAT32_SLACK))
        return radius, bias_step * self.share + size * FLOAT32_SLACK + underflow


def _symmetric_ends(largest: float, half: float, slack: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of b-bit integers around the zero point in the middle, `half` = 2^(b-1), as `Quantiser.ends` gives them.

    From -half or -(half - 1) to half - 1 steps: of largest / (half - 1), or, where integers are unsigned, of
    largest / (half - 1/2) (onnxruntime, zero point 128).
    """
    step, unsigned = largest / (half - 1.0), largest / (half - 0.5)
    return (-half * step - slack, -largest + slack), ((half - 1.0) * unsigned - slack, largest + slack)
