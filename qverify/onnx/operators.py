"""ONNX operators: one short function each, from a node to layers; the table is at the end. Those on images and those
that leave the numbers alone have files of their own.

A function takes the node and the layers built so far, and returns the node's first output. It consumes
every input and attribute of the node or raises `Refusal` (the table says which attributes it knows).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Add, Conv, Dense, Relu, Scale
from qverify.onnx import views
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Shape, Tensor, Value
from qverify.onnx.image_operators import average_pool, batch_normalisation, conv, global_average_pool, reduce_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array

# --- dense layers ---------------------------------------------------------------------------------------


def _product(node: Node, builder: NetworkBuilder, x: Tensor, weight: Array, columns: int, shape: Shape) -> Tensor:
    """`weight @ X` with weight (m, k) and X the flat x seen as (k, columns): Dense, or Conv of kernel 1."""
    rows, depth = weight.shape
    if x.size != depth * columns:
        raise Refusal(f"the constant of shape {weight.shape} does not fit the input of shape {x.shape}")
    if columns == 1:
        return builder.new(Dense, node.name, (x,), shape, weight=weight, bias=np.zeros(rows), has_bias=False)
    fields: dict[str, Any] = {"weight": weight[:, :, None, None], "bias": np.zeros(rows), "has_bias": False}
    return builder.new(Conv, node.name, (x,), shape, in_shape=(depth, 1, columns), **fields)


def _one_row(x: Tensor, rows: int) -> None:
    if rows != 1:
        raise Refusal(
            f"a dense layer is applied to {rows} rows at once (its input has shape {x.shape}); supported is one row a "
            "sample: export with batch size 1 or a symbolic batch axis, or write it as a Conv with kernel 1"
        )


def _one_constant(node: Node) -> bool:
    """True if the right factor is the constant, False if the left one is."""
    left, right = node.inputs[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal("it multiplies two computed tensors; one factor must be a constant")
    return isinstance(right, Constant)


def _matrix(value: Array, one: Callable[[Array], Array]) -> Array:
    """A constant factor as a matrix: leading axes of length 1 go, a vector is a row or a column."""
    if value.ndim < 2:
        return one(np.atleast_1d(value))
    if prod(value.shape[:-2]) != 1:
        raise Refusal(f"the constant has shape {value.shape}; supported is one matrix")
    return value.reshape(value.shape[-2:])


def _matmul(node: Node, builder: NetworkBuilder) -> Value:
    constant_right = _one_constant(node)
    x, value = (node.tensor(0), node.numbers(1)) if constant_right else (node.tensor(1), node.numbers(0))
    leading = (1,) * (max(len(x.shape), value.ndim) - 2)
    if constant_right:
        _one_row(x, prod(x.shape[:-1]))
        weight, columns = _matrix(value, lambda v: v[:, None]).T, 1
        ends = ((1,) if len(x.shape) > 1 else ()) + ((len(weight),) if value.ndim > 1 else ())
    else:
        if prod(x.shape[:-2]) != 1:
            raise Refusal(f"the input of shape {x.shape} is a stack of matrices; supported is one matrix a sample")
        weight, columns = _matrix(value, lambda v: v[None, :]), x.shape[-1] if len(x.shape) > 1 else 1
        ends = ((len(weight),) if value.ndim > 1 else ()) + ((columns,) if len(x.shape) > 1 else ())
    out = _product(node, builder, x, weight, columns, leading + ends)
    if not constant_right:
        builder.oddities.append((builder.layers[out.layer].name, _LEFT))
    return builder.uses(out, node.sources(0, 1))


_LEFT = "its weight is the left factor, which is quantised along the other axis, or as an activation"


def _gemm(node: Node, builder: NetworkBuilder) -> Value:
    """`alpha op(A) op(B) + beta C`; alpha and beta are folded into weight and bias."""
    ranks = [len(node.shape(0)), len(node.shape(1))]
    if ranks != [2, 2]:
        raise Refusal(f"its factors have {ranks} axes; both must be matrices")
    trans_a, trans_b = bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))
    if _one_constant(node):
        x, value = node.tensor(0), node.numbers(1)
        _one_row(x, x.shape[1 if trans_a else 0])
        weight, columns = (value if trans_b else value.T), 1
        shape = (1, len(weight))
    else:
        x, value = node.tensor(1), node.numbers(0)
        weight, columns = (value.T if trans_a else value), x.shape[0 if trans_b else 1]
        if trans_b and min(x.shape) > 1:
            raise Refusal(f"transB on a computed matrix of shape {x.shape} is not supported; only on a vector")
        shape = (len(weight), columns)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    out = _product(node, builder, x, alpha * weight, columns, shape)
    builder.uses(out, node.sources(0, 1))
    name = builder.layers[out.layer].name
    if not isinstance(node.inputs[1], Constant):
        builder.oddities.append((name, _LEFT))
    if node.has(2) and beta != 0.0 and (alpha, beta) != (1.0, 1.0):
        builder.oddities.append((name, f"its Gemm has alpha {alpha:g} and beta {beta:g}, with which biases go wrong"))
    if not node.has(2) or beta == 0.0:
        return out
    return _shift(node, builder, out, beta * node.numbers(2), node.sources(2))


# --- element by element ---------------------------------------------------------------------------------


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
    if isinstance(layer, Scale) and x.exclusive:
        return builder.change(x, shape, scale=scale * layer.scale, shift=scale * layer.shift + shift)
    return builder.new(Scale, node.name, (x,), shape, scale=scale, shift=shift)


def _shift(node: Node, builder: NetworkBuilder, x: Tensor, value: Array, sources: frozenset[str]) -> Tensor:
    """`x + value`: the bias of the weighted layer before it if that has none, else a Scale layer."""
    flat, shape = _spread(x, value)
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


def _arithmetic(node: Node, builder: NetworkBuilder) -> Value:
    """Add, Sub, Mul, Div with a constant on either side; Add and Sub of two branches."""
    if all(isinstance(v, Tensor) for v in node.inputs):
        return _branches(node, builder)
    constant_left = isinstance(node.inputs[0], Constant)
    x, value = (node.tensor(1), node.numbers(0)) if constant_left else (node.tensor(0), node.numbers(1))
    if node.op == "Add" or (node.op == "Sub" and not constant_left):
        return _shift(node, builder, x, value if node.op == "Add" else -value, node.sources(0, 1))
    flat, shape = _spread(x, value)
    zero = np.zeros(x.size)
    if node.op == "Sub":
        return _scaled(node, builder, x, zero - 1.0, flat, shape)
    if node.op == "Div":
        if constant_left:
            raise Refusal("it divides by a computed tensor; supported is division by a constant")
        if not flat.all():
            raise Refusal("it divides by a constant that holds zeros")
        flat = 1.0 / flat
    return _scaled(node, builder, x, flat, zero, shape)


def _branches(node: Node, builder: NetworkBuilder) -> Value:
    left, right = node.tensor(0), node.tensor(1)
    if node.op not in ("Add", "Sub"):
        what = "multiplies" if node.op == "Mul" else "divides"
        raise Refusal(f"it {what} two computed tensors; one of them must be a constant")
    shape = _broadcast(left.shape, right.shape)
    if shape is None or not left.size == right.size == prod(shape):
        raise Refusal(f"its branches have the shapes {left.shape} and {right.shape}; supported are equal shapes")
    if node.op == "Sub":
        if left.layer == right.layer:
            raise Refusal("it subtracts a tensor from itself")
        ones = np.ones(right.size)
        right = builder.new(Scale, f"{node.name}/negated", (right,), right.shape, scale=-ones, shift=0.0 * ones)
    elif left.layer == right.layer:
        return builder.new(Scale, node.name, (left,), shape, scale=np.full(left.size, 2.0), shift=np.zeros(left.size))
    return builder.new(Add, node.name, (left, right), shape)


def _relu(node: Node, builder: NetworkBuilder) -> Value:
    x = node.tensor(0)
    return builder.new(Relu, node.name, (x,), x.shape)


def _clip(node: Node, builder: NetworkBuilder) -> Value:
    """A Relu where the lower end is 0 and there is no upper one; nothing where there is neither."""
    x = node.tensor(0)
    largest = float(np.finfo(np.float64 if x.double else np.float32).max)
    low, high = _end(node, 1, "min", -largest), _end(node, 2, "max", largest)
    if not (high >= largest and (low == 0.0 or low <= -largest)):
        raise Refusal(
            f"it keeps values in [{low:g}, {high:g}]; supported is a Clip from 0 without an upper end, a Relu: "
            "train with ReLU, not with ReLU6"
        )
    return builder.new(Relu, node.name, (x,), x.shape) if low == 0.0 else x


def _end(node: Node, index: int, attribute: str, default: float) -> float:
    """An end of a Clip: an attribute before opset 11, an input since."""
    if not node.has(index):
        return float(node.attributes.get(attribute, default))
    end = node.numbers(index)
    if end.size != 1:
        raise Refusal(f"its {attribute} has shape {end.shape}; supported is one number")
    return float(end.reshape(-1)[0])


def _max(node: Node, builder: NetworkBuilder) -> Value:
    """A Relu: the larger one of a computed tensor and 0."""
    computed = [i for i, value in enumerate(node.inputs) if isinstance(value, Tensor)]
    constants = [node.numbers(i) for i in range(len(node.inputs)) if i not in computed]
    if len(computed) != 1 or any(value.any() for value in constants):
        raise Refusal("it takes the larger one of two tensors; supported is that of one tensor and 0, which is a Relu")
    x = node.tensor(computed[0])
    shape = x.shape
    for value in constants:
        shape = _spread(replace(x, shape=shape), value)[1]
    x = replace(x, shape=shape)
    return builder.new(Relu, node.name, (x,), x.shape) if constants else x


@dataclass(frozen=True)
class Operator:
    """`read` consumes the node; an attribute that is not listed is refused."""

    read: Callable[[Node, NetworkBuilder], Value]
    attributes: frozenset[str]


def _entry(read: Callable[[Node, NetworkBuilder], Value], attributes: str = "") -> Operator:
    return Operator(read, frozenset(attributes.split()))


_WINDOW = "auto_pad dilations kernel_shape pads strides"

OPERATORS: dict[str, Operator] = {
    "Add": _entry(_arithmetic),
    "AveragePool": _entry(average_pool, f"{_WINDOW} ceil_mode count_include_pad"),
    # momentum only matters in training, which is refused
    "BatchNormalization": _entry(batch_normalisation, "epsilon momentum spatial training_mode"),
    "Cast": _entry(views.cast, "round_mode saturate to"),  # two of them only matter for float8
    "CastLike": _entry(views.cast_like, "round_mode saturate"),
    "Clip": _entry(_clip, "max min"),
    "Conv": _entry(conv, f"{_WINDOW} group"),
    "Div": _entry(_arithmetic),
    "Dropout": _entry(views.dropout, "ratio seed"),  # both only matter in training
    "Flatten": _entry(views.flatten, "axis"),
    "Gemm": _entry(_gemm, "alpha beta transA transB"),
    "GlobalAveragePool": _entry(global_average_pool),
    "Identity": _entry(views.identity),
    "LogSoftmax": _entry(views.softmax, "axis"),
    "MatMul": _entry(_matmul),
    "Max": _entry(_max),
    "Mul": _entry(_arithmetic),
    "ReduceMean": _entry(reduce_mean, "axes keepdims noop_with_empty_axes"),
    "Relu": _entry(_relu),
    "Reshape": _entry(views.reshape, "allowzero"),
    "Shape": _entry(views.shape, "end start"),
    "Softmax": _entry(views.softmax, "axis"),
    "Squeeze": _entry(views.squeeze, "axes"),
    "Sub": _entry(_arithmetic),
    "Transpose": _entry(views.transpose, "perm"),
    "Unsqueeze": _entry(views.unsqueeze, "axes"),
}
