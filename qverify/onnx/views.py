"""ONNX operators that leave the numbers alone: another shape, another type, another place in the graph.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. Layers are flat, so nothing is left
of such nodes.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import TensorProto, helper

from qverify.onnx.accumulators import sums_as_floats
from qverify.onnx.graph import Constant, Logits, NetworkBuilder, Node, Refusal, Shape, Tensor, Value
from qverify.onnx.points import entered_as_floats


def _viewed(x: Tensor, shape: Shape) -> Tensor:
    if prod(shape) != x.size or min(shape, default=0) < 0:
        raise Refusal(f"shape {shape} does not hold the {x.size} elements of an input of shape {x.shape} at batch 1")
    return replace(x, shape=shape)


def identity(node: Node, builder: NetworkBuilder) -> Value:
    """An Identity."""
    return node.view(0)


def cast(node: Node, builder: NetworkBuilder) -> Value:
    """A Cast between float32 and float64, which rounds no more than any arithmetic in float32; of sums of integers."""
    return _typed(node.view(0), node.attributes["to"], builder)


def cast_like(node: Node, builder: NetworkBuilder) -> Value:
    """A Cast to the type of the second input; a constant takes that of a computed tensor."""
    x, like = node.inputs[:2]
    if isinstance(x, Constant):
        kind = np.float64 if node.view(1).double else np.float32
        return Constant(node.constant(0).astype(kind), x.sources or frozenset([node.proto.output[0]]))
    if isinstance(like, Tensor):
        return _typed(node.view(0), TensorProto.DOUBLE if like.double else TensorProto.FLOAT, builder)
    return _typed(node.view(0), helper.np_dtype_to_tensor_dtype(node.constant(1).dtype), builder)


def _typed(x: Tensor, target: int, builder: NetworkBuilder) -> Tensor:
    if x.logits is not None and x.logits.label:
        return x
    if target not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        kind = TensorProto.DataType.Name(target).lower() if target in TensorProto.DataType.values() else target
        raise Refusal(f"it casts to {kind}; supported are float32 and float64: export the model in float32")
    if x.entry is not None:
        return replace(entered_as_floats(builder, x), double=target == TensorProto.DOUBLE)
    if x.integers is not None:
        return sums_as_floats(x)
    if x.logits is not None:
        return x
    builder.single |= x.double and target == TensorProto.FLOAT
    return replace(x, double=target == TensorProto.DOUBLE)


def dropout(node: Node, builder: NetworkBuilder) -> Value:
    """A Dropout, which does nothing at inference."""
    if node.has(2) and node.constant(2).any():
        raise Refusal("training_mode is true; export the model for inference")
    return node.view(0)


def flatten(node: Node, builder: NetworkBuilder) -> Value:
    """A Flatten."""
    x = node.view(0)
    axis = node.axis(node.attributes.get("axis", 1), len(x.shape), end=len(x.shape))
    return _viewed(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def reshape(node: Node, builder: NetworkBuilder) -> Value:
    """A Reshape, by a constant shape."""
    x, wanted = node.view(0), list(node.integers(1))
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[i] if length == 0 and i < len(x.shape) else length for i, length in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = -prod(wanted)
        wanted[wanted.index(-1)] = x.size // rest if rest else 0
    return _viewed(x, tuple(wanted))


def _axes(node: Node) -> tuple[int, ...] | None:
    """The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input since."""
    if node.has(1):
        return node.integers(1)
    axes = node.attributes.get("axes")
    return None if axes is None else tuple(axes)


def squeeze(node: Node, builder: NetworkBuilder) -> Value:
    """A Squeeze."""
    x, given = node.view(0), _axes(node)
    if given is None:
        return _viewed(x, tuple(length for length in x.shape if length != 1))
    axes = {node.axis(a, len(x.shape)) for a in given}
    return _viewed(x, tuple(length for i, length in enumerate(x.shape) if i not in axes))


def unsqueeze(node: Node, builder: NetworkBuilder) -> Value:
    """An Unsqueeze."""
    x, given = node.view(0), _axes(node) or ()
    rank = len(x.shape) + len(given)
    axes, rest = {node.axis(a, rank) for a in given}, iter(x.shape)
    if len(axes) < len(given):
        raise Refusal(f"axes {given} name an axis twice")
    return _viewed(x, tuple(1 if i in axes else next(rest) for i in range(rank)))


def shape(node: Node, builder: NetworkBuilder) -> Value:
    """A constant: the network is read at batch 1."""
    shape = node.view(0).shape[node.attributes.get("start", 0) : node.attributes.get("end")]
    return Constant(np.array(shape, dtype=np.int64))


def size(node: Node, builder: NetworkBuilder) -> Value:
    """A constant, as the shape is."""
    return Constant(np.array(node.view(0).size, dtype=np.int64))


def softmax(node: Node, builder: NetworkBuilder) -> Value:
    """Dropped where nothing but other shapes follow: it keeps the order of the classes."""
    x = node.tensor(0)
    axis = node.axis(node.attributes.get("axis", -1 if node.opset >= 13 else 1), len(x.shape))
    # Up to opset 12 it is taken over all axes from `axis` on.
    classes = x.shape[axis] if node.opset >= 13 else prod(x.shape[axis:])
    if classes != x.size:
        raise Refusal(f"{node.op} over axis {axis} of shape {x.shape}; supported is one over all outputs")
    builder.notes.append(f"{node.name}: {node.op} dropped; outputs are the logits, in the same order.")
    return replace(x, logits=Logits(node.proto.input[0], None))
