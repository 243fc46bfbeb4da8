"""Normalisations over a sample's own numbers, as arithmetic: x less its mean, times one over the root of its variance.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. A mean is a convolution of constants, the
root an `Activation` that no activation radius applies to, scale and bias are exact (mathematics.md, section 4.8).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx

from qverify.activations.layer import Activation
from qverify.layers import Add, Product, Scale
from qverify.onnx.gathers import Moved, gathered, on_batch
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Tensor, Value
from qverify.onnx.image_operators import means
from qverify.onnx.reduce_operators import together


def layer_normalisation(node: Node, builder: NetworkBuilder) -> Value:
    """A LayerNormalization over the last axes."""
    x = node.tensor(0)
    axis = node.axis(node.attributes.get("axis", -1), len(x.shape))
    out = _normalised(node, builder, x, set(range(axis, len(x.shape))))
    return _with_constants(node, builder, out, x.shape)


def instance_normalisation(node: Node, builder: NetworkBuilder) -> Value:
    """An InstanceNormalization: each channel over its positions."""
    x = node.tensor(0)
    out = _normalised(node, builder, x, set(range(2, len(x.shape))))
    return _with_constants(node, builder, out, (x.shape[1], *[1] * (len(x.shape) - 2)))


def group_normalisation(node: Node, builder: NetworkBuilder) -> Value:
    """A GroupNormalization: groups of channels, each over all that it holds."""
    x, groups = node.tensor(0), int(node.attributes.get("num_groups", 0))
    if len(x.shape) < 3 or groups < 1 or x.shape[1] % groups:
        raise Refusal(f"its {groups} groups do not fit an input of shape {x.shape}")
    inner = replace(x, shape=(x.shape[0], groups, prod(x.shape[1:]) // groups))
    out = replace(_normalised(node, builder, inner, {2}), shape=x.shape)
    return _with_constants(node, builder, out, (x.shape[1], *[1] * (len(x.shape) - 2)))


def _normalised(node: Node, builder: NetworkBuilder, x: Tensor, axes: set[int]) -> Tensor:
    """x less its mean over some axes, divided by the root of the mean of its square plus epsilon."""
    if not axes or (0 in axes and on_batch(builder, x.shape)):
        raise Refusal(
            f"it is taken over the axes {tuple(sorted(axes))} of shape {x.shape}; supported are others than the batch"
        )
    rows = together(_part(node, "rows"), builder, x, axes)
    count = rows.shape[2]
    mean = means(_part(node, "mean"), builder, rows, -1.0 / count)
    centred = builder.new(
        Add, f"{node.name}/centred", (rows, _repeated(builder, f"{node.name}/means", mean, count)), rows.shape
    )
    square = builder.new(Product, f"{node.name}/square", (centred, centred), rows.shape)
    variance = means(_part(node, "variance"), builder, square)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if not epsilon > 0.0:
        raise Refusal(f"its epsilon is {epsilon:g}; supported is one above 0")
    ones = np.ones(variance.size)
    fields: dict[str, Any] = {"scale": ones, "shift": epsilon * ones}
    above = builder.new(Scale, f"{node.name}/above", (variance,), variance.shape, **fields)
    root = builder.new(
        Activation, f"{node.name}/root", (above,), above.shape, function="rsqrt", parameters=(epsilon * ones,)
    )
    factor = _repeated(builder, f"{node.name}/roots", root, count)
    out = builder.new(Product, node.name, (centred, factor), rows.shape)
    return _back(node, builder, out, x, axes)


def _part(node: Node, part: str) -> Node:
    """The node under a name for a part of what it does."""
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.name = f"{node.name}/{part}"
    return replace(node, proto=proto)


def _repeated(builder: NetworkBuilder, name: str, x: Tensor, count: int) -> Tensor:
    """One number a row, for each of the numbers in it."""
    places = np.repeat(np.arange(x.size, dtype=np.int64), count).reshape(1, x.size, count)
    return gathered(builder, name, Moved((x,), places, np.zeros(places.shape)))


def _back(node: Node, builder: NetworkBuilder, out: Tensor, x: Tensor, axes: set[int]) -> Tensor:
    """Rows in the shape and order that x has."""
    order = (*(axis for axis in range(len(x.shape)) if axis not in axes), *sorted(axes))
    places = np.arange(x.size, dtype=np.int64).reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))
    if np.array_equal(places.reshape(-1), np.arange(x.size)):
        return replace(out, shape=x.shape)
    return gathered(builder, f"{node.name}/back", Moved((out,), places, np.zeros(places.shape)))


def _with_constants(node: Node, builder: NetworkBuilder, out: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The result times the scale and plus the bias that a node has, which are exact."""
    numbers = []
    for index, usual in ((1, 1.0), (2, 0.0)):
        value = node.numbers(index) if node.has(index) else np.asarray(usual)
        value = value.reshape(shape) if value.size == prod(shape) else value
        try:
            numbers.append(np.broadcast_to(value, out.shape).reshape(-1))
        except ValueError:
            raise Refusal(f"{node.input_label(index)} of shape {value.shape} does not fit what is normalised") from None
    if (numbers[0] == 1.0).all() and not numbers[1].any():
        return out
    return builder.new(Scale, f"{node.name}/scaled", (out,), out.shape, scale=numbers[0], shift=numbers[1])
