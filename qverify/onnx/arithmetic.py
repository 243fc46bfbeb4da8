"""ONNX operators that compute element by element: arithmetic with constants, sums of branches, activations.

As in `operators.py`: a function consumes all of its node or raises `Refusal`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Product, Relu, Scale
from qverify.onnx.accumulators import narrowed, scaled_sums
from qverify.onnx.activation_operators import clipped, product, quotient, undone
from qverify.onnx.dynamic import with_step
from qverify.onnx.gathers import Moved, gathered, on_batch
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Shape, Step, Tensor, Value
from qverify.onnx.largest_operators import largest_of_tensors
from qverify.onnx.root_operators import over_root

if TYPE_CHECKING:
    from qverify.arrays import Array


def _spread(x: Tensor, value: Array) -> tuple[Array, Shape]:
    """A constant broadcast to x, flat, and the shape of the result; refuses a constant that would enlarge x."""
    shape = _broadcast(x.shape, value.shape)
    if shape is None or prod(shape) != x.size:
        raise Refusal(f"a constant of shape {value.shape} does not broadcast to the input of shape {x.shape}")
    return np.broadcast_to(value, shape).reshape(-1), shape


def _broadcast(one: Shape, other: Shape) -> Shape | None:
    try:
        return tuple(np.broadcast_shapes(one, other))
    except ValueError:
        return None


def _scaled(node: Node, builder: NetworkBuilder, x: Tensor, scale: Array, shift: Array, shape: Shape) -> Tensor:
    """`scale * x + shift` as a Scale layer, merged into one that only this node reads."""
    layer = builder.layers[x.layer]
    if isinstance(layer, Scale) and x.exclusive and builder.dynamic is None:
        scale, shift = scale * layer.scale, scale * layer.shift + shift
        if x.layer == len(builder.layers) - 1 and undone(builder.layers, scale, shift):
            (source,) = builder.layers.pop().inputs
            return replace(x, layer=source, shape=shape, exclusive=False)
        return builder.change(x, shape, scale=scale, shift=shift)
    return builder.new(Scale, node.name, (x,), shape, scale=scale, shift=shift)


def shifted(node: Node, builder: NetworkBuilder, x: Tensor, value: Array, sources: frozenset[str]) -> Tensor:
    """`x + value`: the bias of the weighted layer before it if that has none, else a Scale layer."""
    flat, shape = _spread(x, value)
    before = _behind_moves(builder, x, flat)
    if before is not None:
        made, own = before
        builder.added_biases.append(builder.layers[made.layer].name)
        builder.uses(builder.change(made, bias=own, has_bias=True), sources)
        return replace(x, shape=shape)
    layer = builder.layers[x.layer]
    free = isinstance(layer, (Dense, Conv)) and layer.quantised and not layer.has_bias and x.exclusive
    bias: Array | None = None
    if free and isinstance(layer, Dense):
        bias = flat
    elif free and isinstance(layer, Conv) and _per_channel(x, layer, value):
        bias = flat.reshape(len(layer.bias), -1)[:, 0]
    if bias is not None:
        if node.op != "Gemm":
            builder.added_biases.append(layer.name)
        return builder.uses(builder.change(x, shape, bias=bias, has_bias=True), sources)
    return _scaled(node, builder, x, np.ones(x.size), flat, shape)


def _behind_moves(builder: NetworkBuilder, x: Tensor, flat: Array) -> tuple[Tensor, Array] | None:
    """The layer without a bias whose numbers x has in another order, as behind a Transpose to channels last, and the
    bias (c_out,) that adding `flat` to x gives it; None where it is no bias of such a layer."""
    moved, read = builder.layers[x.layer], builder.read_by_gathers.get(x.layer, ())
    if not isinstance(moved, Gather) or len(read) != 1 or not (x.exclusive and read[0].exclusive):
        return None
    layer = builder.layers[read[0].layer]
    if not isinstance(layer, (Dense, Conv)) or not layer.quantised or layer.has_bias or moved.size != layer.size:
        return None
    if not np.array_equal(np.sort(moved.index), np.arange(layer.size)):
        return None
    own = np.empty(layer.size)
    own[moved.index] = flat
    channels = own.reshape(len(layer.bias), -1)
    return (read[0], channels[:, 0]) if (channels == channels[:, :1]).all() else None


def _per_channel(x: Tensor, layer: Conv, value: Array) -> bool:
    """Whether a constant added to a convolution is one number a channel, by its shape.

    Anything finer is no bias, even where its values happen to repeat.
    """
    if value.size == 1 or layer.positions == 1:
        return True
    aligned = ((1,) * len(x.shape) + value.shape)[-len(x.shape) :]
    for axis, length in enumerate(x.shape):
        if length == len(layer.bias) and prod(x.shape[axis + 1 :]) == layer.positions:
            return bool(prod(aligned[axis + 1 :]) == 1)
    return False


def arithmetic(node: Node, builder: NetworkBuilder) -> Value:
    """Add, Sub, Mul, Div with a constant on either side; Add, Sub and Mul of two branches."""
    if any(isinstance(v, Step) for v in node.inputs):
        return with_step(node, builder)
    if any(isinstance(v, Tensor) and v.integers is not None and v.dynamic is None for v in node.inputs):
        return _of_sums(node, builder)
    if all(isinstance(v, Tensor) for v in node.inputs):
        return _branches(node, builder)
    constant_left = isinstance(node.inputs[0], Constant)
    x, value = (node.tensor(1), node.numbers(0)) if constant_left else (node.tensor(0), node.numbers(1))
    if node.op == "Add" or (node.op == "Sub" and not constant_left):
        return shifted(node, builder, x, value if node.op == "Add" else -value, node.sources(0, 1))
    flat, shape = _spread(x, value)
    zero = np.zeros(x.size)
    if node.op == "Sub":
        return _scaled(node, builder, x, zero - 1.0, flat, shape)
    if node.op == "Div" and constant_left:
        inverse = over_root(builder, x)
        if inverse is None:
            raise Refusal("it divides by a computed tensor; supported is division by a constant, or by a Sqrt")
        x = inverse
        if (flat == 1.0).all():
            return replace(x, shape=shape)
    elif node.op == "Div":
        if not flat.all():
            raise Refusal("it divides by a constant that holds zeros")
        flat = 1.0 / flat
    return _scaled(node, builder, x, flat, zero, shape)


def negated(node: Node, builder: NetworkBuilder) -> Value:
    """A Neg."""
    x = node.tensor(0)
    return _scaled(node, builder, x, np.full(x.size, -1.0), np.zeros(x.size), x.shape)


def _of_sums(node: Node, builder: NetworkBuilder) -> Value:
    """Sums of integers plus a constant, which is a bias, or times one."""
    left = isinstance(node.inputs[0], Constant)
    x, at = (node.view(1), 0) if left else (node.view(0), 1)
    if x.integers is None or x.integers.kind not in ("int32", "float32") or node.op not in ("Add", "Mul"):
        return node.tensor(1 if left else 0)  # refuses
    value = node.constant(at).astype(np.float64) if x.integers.kind == "int32" else node.numbers(at)
    if node.op == "Mul":
        if x.integers.kind == "int32":
            raise Refusal("it multiplies sums in int32; supported is after a Cast to float32")
        return scaled_sums(node, builder, x, value)
    out = shifted(node, builder, replace(x, integers=None), value * x.integers.step, frozenset())
    return replace(out, integers=x.integers)


def _branches(node: Node, builder: NetworkBuilder) -> Value:
    left, right = node.tensor(0), node.tensor(1)
    if node.op == "Div":
        if (found := quotient(builder, left, right)) is not None:
            return found
        if (root := over_root(builder, right)) is None:
            raise Refusal("it divides two computed tensors; one of them must be a constant, or the divisor a Sqrt")
        right = root
    if node.op == "Mul" and (found := product(builder, left, right)) is not None:
        return found
    shape = _broadcast(left.shape, right.shape)
    if shape is None:
        raise Refusal(f"its branches have the shapes {left.shape} and {right.shape}, which do not fit")
    left, right = (_enlarged(node, builder, x, shape) for x in (left, right))
    if node.op in ("Mul", "Div"):
        return builder.new(Product, node.name, (left, right), shape)
    if node.op == "Sub":
        if left.layer == right.layer:
            raise Refusal("it subtracts a tensor from itself")
        ones = np.ones(right.size)
        right = builder.new(Scale, f"{node.name}/negated", (right,), right.shape, scale=-ones, shift=0.0 * ones)
    elif left.layer == right.layer:
        return builder.new(Scale, node.name, (left,), shape, scale=np.full(left.size, 2.0), shift=np.zeros(left.size))
    return builder.new(Add, node.name, (left, right), shape)


def _enlarged(node: Node, builder: NetworkBuilder, x: Tensor, shape: Shape) -> Tensor:
    """x with its numbers repeated to fill a shape that it broadcasts to."""
    if x.size == prod(shape):
        return x
    if on_batch(builder, x.shape) and shape[0] != 1:
        raise Refusal(f"it repeats a tensor of shape {x.shape} along the batch axis; supported are the other axes")
    places = np.broadcast_to(np.arange(x.size, dtype=np.int64).reshape(x.shape), shape)
    return gathered(builder, f"{node.name}/repeated", Moved((x,), places, np.zeros(shape)))


def relu(node: Node, builder: NetworkBuilder) -> Value:
    """A Relu; of integers, the lower end of their rounding point."""
    if node.view(0).integers is not None:
        return narrowed(node, builder, node.view(0), 0.0, np.inf)
    x = node.tensor(0)
    return builder.new(Relu, node.name, (x,), x.shape)


def clip(node: Node, builder: NetworkBuilder) -> Value:
    """A Relu where the lower end is 0 and there is no upper one; nothing where there is neither.

    Before a QuantizeLinear, any other that holds 0 is part of the rounding point behind it: to round, and then to clip
    to rounded ends, is the same.
    """
    if node.view(0).integers is not None:
        return narrowed(node, builder, node.view(0), _end(node, 1, "min", -np.inf), _end(node, 2, "max", np.inf))
    x = node.tensor(0)
    largest = float(np.finfo(np.float64 if x.double else np.float32).max)
    low, high = max(-largest, _end(node, 1, "min", -largest)), min(largest, _end(node, 2, "max", largest))
    plain = high >= largest and (low == 0.0 or low <= -largest)
    if node.rounded and low <= 0.0 <= high and not plain:
        return replace(x, clip=(low, high))
    if not plain:
        return clipped(node, builder, x, low, high)
    return builder.new(Relu, node.name, (x,), x.shape) if low == 0.0 else x


def _end(node: Node, index: int, attribute: str, default: float) -> float:
    """An end of a Clip: an attribute before opset 11, an input since."""
    if not node.has(index):
        return float(node.attributes.get(attribute, default))
    end = node.numbers(index) if node.view(0).integers is None else node.constant(index).astype(np.float64)
    if end.size != 1:
        raise Refusal(f"its {attribute} has shape {end.shape}; supported is one number")
    return float(end.reshape(-1)[0])


def maximum(node: Node, builder: NetworkBuilder) -> Value:
    """Max or Min: of a computed tensor and constants a Relu where it is Max with 0, else a Clip; of several tensors a
    MaxPool."""
    computed = [i for i, value in enumerate(node.inputs) if isinstance(value, Tensor)]
    constants = [node.numbers(i) for i in range(len(node.inputs)) if i not in computed]
    if len(computed) > 1:
        return largest_of_tensors(node, builder)
    x = node.tensor(computed[0])
    shape, ends = x.shape, []
    for value in constants:
        flat, shape = _spread(replace(x, shape=shape), value)
        ends.append(flat)
    x = replace(x, shape=shape)
    if not ends:
        return x
    largest = np.full(x.size, np.finfo(np.float64 if x.double else np.float32).max)
    end = np.max(ends, axis=0) if node.op == "Max" else np.min(ends, axis=0)
    if node.op == "Max" and not end.any():
        out = builder.new(Relu, node.name, (x,), x.shape)
    else:
        out = clipped(node, builder, x, *((-largest, end) if node.op == "Min" else (end, largest)))
    builder.composed.append(builder.layers[out.layer].name)
    return out
