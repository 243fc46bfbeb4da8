"""Sums and means over axes: the axes brought together, and then a convolution of constant weights."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from qverify.onnx.gathers import Moved, gathered, on_batch
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Tensor, Value
from qverify.onnx.image_operators import means


def reduce_mean(node: Node, builder: NetworkBuilder) -> Value:
    """The means over some axes, which stay with length 1 or not; a GlobalAveragePool, where they are the positions."""
    return _reduced(node, builder, None)


def reduce_sum(node: Node, builder: NetworkBuilder) -> Value:
    """The sums over some axes, which stay with length 1 or not."""
    return _reduced(node, builder, 1.0)


def reduced_axes(node: Node, builder: NetworkBuilder, x: Tensor) -> set[int] | None:
    """The axes of input 0, which is x, that a node reduces; None for none of them. The batch axis is refused."""
    listed = node.inputs[1] if node.has(1) else None
    empty = isinstance(listed, Constant) and not listed.value.size  # as if it were absent
    given = node.integers(1) if node.has(1) and not empty else node.attributes.get("axes", ())
    if not given and node.attributes.get("noop_with_empty_axes", 0):
        return None
    rank = len(x.shape)
    axes = {node.axis(axis, rank) for axis in given} or set(range(rank))
    if 0 in axes and on_batch(builder, x.shape):
        raise Refusal(
            f"it is taken over axes {tuple(sorted(axes))} of shape {x.shape}, the batch axis among them; supported are "
            "the other axes"
        )
    return axes


def _reduced(node: Node, builder: NetworkBuilder, weight: float | None) -> Value:
    """Sums over axes, times `weight`, or their means."""
    x, keep = node.tensor(0), node.attributes.get("keepdims", 1)
    axes = reduced_axes(node, builder, x)
    if axes is None:
        return x
    shape = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape) if keep or axis not in axes)
    return replace(means(node, builder, together(node, builder, x, axes), weight), shape=shape)


def together(node: Node, builder: NetworkBuilder, x: Tensor, axes: set[int]) -> Tensor:
    """x as (1, numbers that are left, numbers to sum), by a Gather unless they are in this order."""
    left = [axis for axis in range(len(x.shape)) if axis not in axes]
    order = (*left, *sorted(axes))
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape).transpose(order)
    places = places.reshape(1, prod(x.shape[axis] for axis in left), -1)
    if np.array_equal(places.reshape(-1), np.arange(x.size)):
        return replace(x, shape=places.shape)
    return gathered(builder, f"{node.name}/moved", Moved((x,), places, np.zeros(places.shape)))
