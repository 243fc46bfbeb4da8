"""Quantised families (mathematics.md, section 1): a radius for every number, in exact rationals."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .exact import rational
from .members import forward
from .plans import Layer, Plan

Array = np.ndarray
Ends = tuple[Fraction, Fraction]


@dataclass(eq=False)
class Family:
    """Radii by layer: `weight` (C, k), `bias` (C,), `rounding` (n,) of the input, Relus and rounds, by index.

    `ends`: what a toolchain clips to, whole steps, by index. `kept`: what is at most that far from 0 becomes 0, and
    what is farther keeps its sign, by index: for input and Relus of real quantisers. `clip`: where a quantised input
    stays.
    """

    plan: Plan
    weight: dict[int, Array] = field(default_factory=dict)
    bias: dict[int, Array] = field(default_factory=dict)
    rounding: dict[int, Array] = field(default_factory=dict)
    ends: dict[int, Ends] = field(default_factory=dict)
    kept: dict[int, Fraction] = field(default_factory=dict)
    clip: Ends | None = None


def full(shape: Any, value: Fraction) -> Array:
    found = np.empty(shape, dtype=object)
    found[...] = value
    return found


def absolute(plan: Plan, radii: dict[str, Any], clip: Ends | None) -> Family:
    """One radius a kind: input, weight, bias, activation; `layers` overrides by name (numbers, or one a channel)."""
    found = Family(plan, clip=clip)
    layers = radii.get("layers", {})
    for i, layer in enumerate(plan.layers):
        own = radii | layers.get(layer.name, {})
        if layer.kind == "input":
            found.rounding[i] = full(layer.size, Fraction(radii["input"]))
        elif layer.kind == "relu":
            found.rounding[i] = full(layer.size, Fraction(own["activation"]))
        elif layer.kind == "round":
            found.rounding[i] = full(layer.size, Fraction(0))
        elif layer.kind == "sum":
            rows = np.broadcast_to(rational(own["weight"]).reshape(-1, 1), layer.weight.shape)
            found.weight[i] = rows
            bias = np.broadcast_to(rational(own["bias"]), layer.bias.shape)
            found.bias[i] = bias if layer.has_bias else full(layer.bias.shape, Fraction(0))
    return found


def paper(plan: Plan, bits: int, nearest: bool, clip: Ends | None) -> Family:
    """2^-b for the input, 2^-(b-1) for the rest; half of it for rounding to nearest."""
    step = Fraction(1, 2 ** (bits - 1)) * (Fraction(1, 2) if nearest else 1)
    return absolute(plan, {"input": step / 2, "weight": step, "bias": step, "activation": step}, clip)


def ranged(
    plan: Plan, bits: int, scheme: str, nearest: bool, x: Array, clip: Ends | None, weight_bits: int | None = None
) -> Family:
    """Schemes tensor and channel, calibrated on x (N, n): quantisers as mathematics.md, section 7, has them.

    A family that a real quantiser makes: symmetric weights, asymmetric activations with a whole zero point, biases in
    steps of both. `weight_bits`: of weights, where they have others.
    """
    share = Fraction(1, 2) if nearest else Fraction(1)
    found = Family(plan, clip=clip)
    values = [forward(plan, row) for row in x]
    ranges = []
    for i in range(len(plan.layers)):
        low, high = (end(0.0, *(end(v[i]) for v in values)) for end in (min, max))
        ranges.append((Fraction(float(low)), Fraction(float(high))))
    steps = [(high - low) / (2**bits - 1) for low, high in ranges]
    levels = 2 ** ((weight_bits or bits) - 1) - 1
    for i, layer in enumerate(plan.layers):
        if layer.kind in ("input", "relu", "round"):
            step = steps[i] or Fraction(1)
            found.rounding[i] = full(layer.size, share * step)
            zero = round(-ranges[i][0] / step)
            found.ends[i] = (-zero * step, (2**bits - 1 - zero) * step)
            if layer.kind != "round":
                found.kept[i] = step / 2 if nearest else Fraction(0)
        elif layer.kind == "max":  # the numbers of the grid before it
            steps[i] = steps[layer.inputs[0]]
        elif layer.kind == "sum":
            step, ratio = _weight_steps(layer, scheme, levels)
            entry = steps[layer.inputs[0]] or Fraction(1)
            found.weight[i] = np.broadcast_to((share * step / ratio)[:, None], layer.weight.shape)
            # What is 0 stays 0, whatever the rounding: a weight, a scale, and a bias that is not a folded difference.
            found.weight[i] = np.where(layer.weight == 0, Fraction(0), found.weight[i])  # type: ignore[call-overload]
            bias = np.array([share * entry * (s or 1) for s in step], dtype=object)
            found.bias[i] = bias if layer.has_bias else full(layer.bias.shape, Fraction(0))
            if not layer.folded:
                found.bias[i] = np.where(layer.bias == 0, Fraction(0), found.bias[i])  # type: ignore[call-overload]
    return found


def _weight_steps(layer: Layer, scheme: str, levels: int) -> tuple[Array, Array]:
    """(C,) the step of the numbers that are rounded, and what they are divided by afterwards."""
    if layer.norm is not None:
        scale, deviation = layer.norm
        return full(scale.shape, max(abs(scale)) / levels), deviation
    tops = np.array([max(abs(row)) for row in layer.weight], dtype=object)
    tops = full(tops.shape, max(tops)) if scheme == "tensor" else tops
    return tops / levels, full(tops.shape, Fraction(1))
