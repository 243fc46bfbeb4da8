"""ONNX operators that take the largest or smallest of numbers: over axes, or of several tensors. Each is a `MaxPool`.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. The numbers that are compared are brought
together by a Gather first; the smallest is the largest of the numbers negated, negated.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from qverify.layers import MaxPool, Scale
from qverify.onnx.gathers import Moved, gathered
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Shape, Tensor, Value
from qverify.onnx.reduce_operators import reduced_axes, together


def reduce_largest(node: Node, builder: NetworkBuilder) -> Value:
    """ReduceMax and ReduceMin."""
    x = node.tensor(0)
    axes = reduced_axes(node, builder, x)
    if axes is None:
        return x
    keep = node.attributes.get("keepdims", 1)
    shape = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape) if keep or axis not in axes)
    return _largest(node, builder, together(node, builder, x, axes), shape)


def largest_of_tensors(node: Node, builder: NetworkBuilder) -> Tensor:
    """Max and Min of several tensors, and of constants beside them, broadcast to one shape."""
    shapes = [node.shape(i) for i in range(len(node.inputs))]
    try:
        shape = tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise Refusal(f"its inputs have the shapes {', '.join(map(str, shapes))}, which do not fit") from None
    parts, indices, fills, begin = [], [], [], 0
    for i, value in enumerate(node.inputs):
        if isinstance(value, Constant):
            indices.append(np.full(shape, -1))
            fills.append(np.broadcast_to(node.numbers(i), shape))
            continue
        x = node.tensor(i)
        parts.append(x)
        indices.append(begin + np.broadcast_to(np.arange(x.size).reshape(x.shape), shape))
        fills.append(np.zeros(shape))
        begin += x.size
    index, fill = (np.stack(each, axis=-1).reshape(1, prod(shape), -1) for each in (indices, fills))
    return _largest(node, builder, gathered(builder, f"{node.name}/joined", Moved(tuple(parts), index, fill)), shape)


def _largest(node: Node, builder: NetworkBuilder, x: Tensor, shape: Shape) -> Tensor:
    """The largest or smallest along the last axis of x (1, numbers, of which one is taken)."""
    _, count, width = x.shape

    def negated(tensor: Tensor, name: str, size: int) -> Tensor:
        return builder.new(Scale, name, (tensor,), (1, size), scale=np.full(size, -1.0), shift=np.zeros(size))

    smallest = node.op in ("Min", "ReduceMin")
    if smallest:
        x = negated(x, f"{node.name}/negated", count * width)
    name = f"{node.name}/largest" if smallest else node.name
    found = builder.new(MaxPool, name, (x,), shape, in_shape=(count, 1, width), kernel=(1, width))
    return found if not smallest else replace(negated(found, node.name, count), shape=shape)
