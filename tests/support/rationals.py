"""Members in exact rationals: an oracle for whatever is computed in floating point."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from qverify.activations.layer import Activation
from qverify.arrays import Array
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.gather import Gather
from qverify.layers import Conv, Dense, Input, Layer, MaxPool, Product, Relu, Scale
from qverify.network import Network
from tests.support.networks import conv_taps, pool_taps


def exact(array: Array | torch.Tensor) -> list[Fraction]:
    """A flat list of Fractions, equal to the float64 numbers."""
    return [Fraction(float(v)) for v in np.asarray(array).ravel()]


def moved(centre: Array, radius: Array, signs: Any) -> list[Fraction]:
    """centre + sign * radius, exactly."""
    pairs = zip(exact(centre), exact(np.broadcast_to(radius, np.shape(centre))), np.ravel(signs), strict=True)
    return [c + int(s) * r for c, r, s in pairs]


def corner_member(family: Family, x: Array, signs: Callable[..., Any]) -> list[list[Fraction]]:
    """All layer values, as lists of Fractions, of the corner member at `signs(kind, index, shape)` in {-1, 0, 1}."""
    values = [moved(x, family.input, signs("input", 0, x.shape))]
    for i, layer in enumerate(family.network.layers[1:], start=1):
        source = [values[j] for j in layer.inputs]
        if isinstance(layer, Dense | Conv):
            weight = moved(layer.weight, family.weight.get(i, np.zeros(())), signs("weight", i, layer.weight.shape))
            bias = moved(layer.bias, family.bias.get(i, np.zeros(())), signs("bias", i, layer.bias.shape))
            values.append(exact_affine(layer, weight, bias, source[0]))
        elif isinstance(layer, Relu):
            offset = moved(np.zeros(layer.size), family.activation[i], signs("activation", i, (layer.size,)))
            values.append([max(max(z, Fraction(0)) + o, Fraction(0)) for z, o in zip(source[0], offset, strict=True)])
        elif isinstance(layer, Activation):
            offset = moved(np.zeros(layer.size), family.activation[i], signs("activation", i, (layer.size,)))
            numbers = [exact(p) for p in layer.parameters]
            found = zip(source[0], offset, *numbers, strict=True)
            values.append([exact_curve(layer.function, z, o, *p) for z, o, *p in found])
        elif isinstance(layer, Scale):
            pairs = zip(exact(layer.scale), source[0], exact(layer.shift), strict=True)
            values.append([s * v + t for s, v, t in pairs])
        elif isinstance(layer, Gather):
            joined = [number for producer in source for number in producer]
            places = zip(layer.index.tolist(), exact(layer.fill), strict=True)
            values.append([joined[j] if j >= 0 else constant for j, constant in places])
        elif isinstance(layer, MaxPool):
            values.append([max(source[0][j] for j in taps) for taps in pool_taps(layer)])
        else:
            gate = isinstance(layer, Product)
            values.append([a * b if gate else a + b for a, b in zip(*source, strict=True)])
    return values


def exact_curve(function: str, x: Fraction, offset: Fraction, *p: Fraction) -> Fraction:
    """A piecewise linear function of x, an error added, and clipped to all that the function gives."""
    none, zero, one = Fraction(0), Fraction(0), Fraction(1)
    if function == "leaky_relu":
        y = (x if x >= 0 else p[0] * x) + offset
        return y if p[0] > 0 else max(y, none)
    if function == "abs":
        return max(abs(x) + offset, none)
    if function == "clip":
        return max(p[0], min(p[1], max(p[0], min(p[1], x)) + offset))
    assert function == "hard_sigmoid"
    return max(zero, min(one, max(zero, min(one, p[0] * x + p[1])) + offset))


def exact_affine(
    layer: Dense | Conv, weight: list[Fraction], bias: list[Fraction], x: list[Fraction]
) -> list[Fraction]:
    if isinstance(layer, Dense):
        n = layer.fan_in
        return [sum((weight[o * n + j] * x[j] for j in range(n)), bias[o]) for o in range(layer.size)]
    taps = conv_taps(layer)
    channel = len(taps) // len(bias)
    flat = [[(s, int(np.ravel_multi_index(k, layer.weight.shape))) for s, k in pairs] for pairs in taps]
    return [sum((weight[k] * x[s] for s, k in pairs), bias[p // channel]) for p, pairs in enumerate(flat)]


def random_signs(rng: np.random.Generator) -> Callable[..., Any]:
    """Corners, one in three of them the same everywhere in a tensor, so that sums really reach their ends."""

    def signs(kind: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
        whole = rng.random() < 1 / 3
        return np.full(shape, rng.choice([-1, 1])) if whole else rng.choice([-1, 1], size=shape)

    return signs


def badly_scaled(rng: np.random.Generator, positive: bool) -> tuple[Network, Array]:
    """Weights from 1e-8 to 1e8 and biases that cancel the sums they are added to.

    `positive`: all weights and inputs are, and only the last biases cancel; the extreme corners then attain
    both IBP's and BP's ends, so that any rounding error inwards shows.
    """
    sizes = (5, 6, 4, 3)
    layers: list[Layer] = [Input("x", (), (5,))]
    x = 10.0 ** rng.uniform(-4, 4, 5) * (1 if positive else rng.choice([-1, 1], 5))
    value = x
    for k in range(3):
        magnitude = 10.0 ** rng.uniform(-8, 8, (sizes[k + 1], sizes[k]))
        weight = magnitude if positive else magnitude * rng.choice([-1, 1], magnitude.shape)
        cancelled = -(weight @ value) * (1 + 1e-12 * rng.normal(size=sizes[k + 1]))
        bias = rng.random(sizes[k + 1]) if positive and k < 2 else cancelled
        layers.append(Dense(f"fc{k}", (len(layers) - 1,), (sizes[k + 1],), weight=weight, bias=bias))
        value = weight @ value + bias
        if k < 2:
            layers.append(Relu(f"relu{k}", (len(layers) - 1,), (sizes[k + 1],)))
            value = np.maximum(value, 0)
    return Network(tuple(layers)), x


def relative_radii(network: Network, x: Array, share: float) -> Radii:
    """Radii proportional to the numbers themselves, so that no radius drowns the others."""
    layers = {}
    for layer in network.layers:
        if isinstance(layer, Dense):
            layers[layer.name] = {"weight": share * np.abs(layer.weight), "bias": share * np.abs(layer.bias)}
    return Radii(input=share * np.abs(x), activation=0.0, layers=layers)
