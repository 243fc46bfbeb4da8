"""ONNX operators of quantised files: QuantizeLinear, DequantizeLinear, and those that compute with integers.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. A tensor of integers is, as a layer, the
numbers that they stand for, so an operator on integers is the one on numbers, between what it dequantises and a
rounding point.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from qverify.onnx.accumulators import scaled_sums
from qverify.onnx.activation_operators import activation
from qverify.onnx.arithmetic import arithmetic
from qverify.onnx.dense_operators import gemm, matmul
from qverify.onnx.dynamic import dynamic_sums
from qverify.onnx.graph import Constant, Logits, NetworkBuilder, Node, Point, Refusal, Tensor, Value
from qverify.onnx.grid import Grid, kind_of
from qverify.onnx.image_operators import global_average_pool
from qverify.onnx.integers import (
    Place,
    bias,
    check_output,
    dequantised,
    kind_at,
    of_linear,
    output_type,
    steps_and_zeros,
    tensor_grid,
    whole,
)
from qverify.onnx.moving_operators import concat
from qverify.onnx.points import entered, rounded
from qverify.onnx.views import softmax
from qverify.onnx.volume_operators import average_pool, conv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qverify.arrays import Array

_PRECISION = "precision"
"""An attribute of QuantizeLinear: the type that it divides in, 0 for that of its scale."""

# --- rounding points --------------------------------------------------------------------------------------


def quantize_linear(node: Node, builder: NetworkBuilder) -> Value:
    """A QuantizeLinear of a computed tensor: a rounding point."""
    if node.attributes.get(_PRECISION, 0) not in (0, 1):
        raise Refusal("its precision is not float32; supported is float32")
    x, kind = node.view(0), kind_of(output_type(node))
    grid = tensor_grid(node, of_linear(node), kind, x.shape)
    if x.logits is not None and x.integers is None:
        builder.notes.append(f"{node.name}: dropped with what it rounds; rounded, classes may tie that are none here.")
        return replace(x, integers=grid)
    return rounded(builder, node.tensor(0), grid, node.name, Point(node.proto.output[0], grid, kernel=False))


def dequantize_linear(node: Node, builder: NetworkBuilder) -> Value:
    """A DequantizeLinear of a computed tensor: the numbers that the layer behind it gives."""
    check_output(node)
    x, place = node.view(0), of_linear(node)
    if x.dynamic is not None:
        return node.tensor(0)  # refuses
    if x.integers is not None and x.integers.kind == "int32":
        step, zero = steps_and_zeros(node, place, "int32", x.shape)
        if zero.any():
            raise Refusal("it dequantises int32 with a zero point other than 0, which ONNX does not have")
        return scaled_sums(node, builder, x, step)
    return _read(node, builder, 0, place)


def _read(node: Node, builder: NetworkBuilder, index: int, place: Place) -> Tensor:
    """Computed input `index`, a tensor of integers, as the numbers that they stand for."""
    x = node.view(index)
    if x.dynamic is not None:
        return node.tensor(index)  # refuses
    if x.entry is not None:
        return entered(builder, x, tensor_grid(node, place, x.entry, x.shape))
    if x.integers is None:
        raise Refusal(f"{node.input_label(index)} holds no integers; it must come from a QuantizeLinear")
    if x.logits is not None and node.op != "DequantizeLinear":
        raise Refusal("it follows a Softmax, which is supported only at the end of the network")
    if not tensor_grid(node, place, x.integers.kind, x.shape).same(x.integers):
        raise Refusal(
            f"it reads {node.input_label(index)} with another scale or zero point than it was made with; "
            "supported are the same: quantise the model again"
        )
    return replace(x, integers=None)


# --- operators on integers: the same on numbers, and a rounding point ---------------------------------------


def _as(node: Node, op: str, inputs: Mapping[int, Value], attributes: Sequence[str] = ()) -> Node:
    """The node `op` on numbers with these inputs (by their indices in `node`) and those attributes of `node`."""
    names = [node.proto.input[index] for index in inputs]
    proto = helper.make_node(op, names, list(node.proto.output[:1]), name=node.proto.name)
    kept = {name: value for name, value in node.attributes.items() if name in attributes}
    return Node(proto, tuple(inputs.values()), node.opset, kept)


def _operand(node: Node, builder: NetworkBuilder, index: int, axis: int = 1) -> Value:
    """Input `index`, whose scale and zero point are the two behind it, as numbers."""
    place = Place(index + 1, index + 2, axis)
    if isinstance(node.inputs[index], Constant):
        return dequantised(node, index, place)
    x = _read(node, builder, index, place)
    if node.constant(index + 1).size > 1:
        raise Refusal(f"{node.input_label(index)} has {node.constant(index + 1).size} scales; supported is one")
    return x


def _requantised(node: Node, builder: NetworkBuilder, out: Value, scale: int, kernel: bool = True) -> Value:
    """The result rounded to the grid whose scale is input `scale` and zero point the next; as it is without them.

    `kernel`: it is computed in integers.
    """
    assert isinstance(out, Tensor)
    if not node.has(scale):
        return out
    kind = kind_at(node, scale + 1) if node.has(scale + 1) else _kind_read(node)
    grid = tensor_grid(node, Place(scale, scale + 1), kind, out.shape)
    return rounded(builder, out, grid, f"{node.name}/rounded", Point(node.proto.output[0], grid, kernel))


def _kind_read(node: Node) -> str:
    """The type of the integers that a node reads."""
    read = [value for value in node.inputs if isinstance(value, Tensor)]
    kinds = [value.integers.kind if value.integers is not None else value.entry for value in read]
    return next(kind for kind in kinds if kind is not None)


def _scale_of(node: Node, index: int) -> Array:
    return node.constant(index).astype(np.float64).reshape(-1)


_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


def qlinear_conv(node: Node, builder: NetworkBuilder) -> Value:
    """A QLinearConv; its bias is in units of the product of both scales."""
    inputs = {0: _operand(node, builder, 0), 3: _operand(node, builder, 3, axis=0)}
    if node.has(8):
        inputs[8] = bias(node, 8, _scale_of(node, 1) * _scale_of(node, 4))
    return _requantised(node, builder, conv(_as(node, "Conv", inputs, (*_WINDOW, "group")), builder), 6)


def qlinear_matmul(node: Node, builder: NetworkBuilder) -> Value:
    """A QLinearMatMul; scales of a constant go along its rows on the left, along its columns on the right."""
    inputs = {0: _operand(node, builder, 0, axis=-2), 3: _operand(node, builder, 3, axis=-1)}
    return _requantised(node, builder, matmul(_as(node, "MatMul", inputs), builder), 6)


def qgemm(node: Node, builder: NetworkBuilder) -> Value:
    """A QGemm of onnxruntime, with an output of integers or of floats; its bias is scaled as the product is."""
    columns = 0 if node.attributes.get("transB", 0) else 1
    inputs = {0: _operand(node, builder, 0), 3: _operand(node, builder, 3, axis=columns)}
    if node.has(6):
        alpha = float(node.attributes.get("alpha", 1.0))
        inputs[6] = bias(node, 6, alpha * _scale_of(node, 1) * _scale_of(node, 4))
    return _requantised(node, builder, gemm(_as(node, "Gemm", inputs, ("alpha", "transA", "transB")), builder), 7)


def matmul_integer_to_float(node: Node, builder: NetworkBuilder) -> Value:
    """A MatMulIntegerToFloat of onnxruntime: with the scales at inputs 2 and 3, the zero points at 4 and 5, a bias."""
    x, weight = node.inputs[:2]
    if not isinstance(x, Tensor) or not isinstance(weight, Constant):
        raise Refusal("supported is a computed tensor on the left and a constant on the right")
    inputs: dict[int, Value] = {0: _read(node, builder, 0, Place(2, 4)), 1: dequantised(node, 1, Place(3, 5, axis=-1))}
    out = matmul(_as(node, "MatMul", inputs), builder)
    if not node.has(6):
        return out
    return arithmetic(_as(node, "Add", {0: out, 6: Constant(node.numbers(6))}), builder)


def _elementwise(op: str) -> Callable[[Node, NetworkBuilder], Value]:
    """QLinearAdd and QLinearMul of onnxruntime."""

    def read(node: Node, builder: NetworkBuilder) -> Value:
        inputs = {0: _operand(node, builder, 0), 3: _operand(node, builder, 3)}
        return _requantised(node, builder, arithmetic(_as(node, op, inputs), builder), 6)

    return read


qlinear_add, qlinear_mul = _elementwise("Add"), _elementwise("Mul")


def _function(op: str, *attributes: str) -> Callable[[Node, NetworkBuilder], Value]:
    """QLinearSigmoid and QLinearLeakyRelu of onnxruntime, which makes a table of each in float32."""

    def read(node: Node, builder: NetworkBuilder) -> Value:
        inputs = {0: _operand(node, builder, 0)}
        return _requantised(node, builder, activation(_as(node, op, inputs, attributes), builder), 3, kernel=False)

    return read


qlinear_sigmoid, qlinear_leaky_relu = _function("Sigmoid"), _function("LeakyRelu", "alpha")


def qlinear_concat(node: Node, builder: NetworkBuilder) -> Value:
    """A QLinearConcat of onnxruntime: scale and zero point of the result, and then each input with its own."""
    if len(node.inputs) < 5 or len(node.inputs) % 3 != 2:
        raise Refusal(f"it has {len(node.inputs)} inputs; scale, zero point, and three for each tensor are needed")
    inputs = {index: _operand(node, builder, index) for index in range(2, len(node.inputs), 3)}
    return _requantised(node, builder, concat(_as(node, "Concat", inputs, ("axis",)), builder), 0)


def _pool(op: str, pool: Callable[[Node, NetworkBuilder], Value], *attributes: str) -> Callable[..., Value]:
    """QLinearAveragePool and QLinearGlobalAveragePool of onnxruntime."""

    def read(node: Node, builder: NetworkBuilder) -> Value:
        if node.attributes.get("channels_last", 0):
            raise Refusal("its channels come last; supported is channels first: give the model as it was before")
        inputs = {0: _operand(node, builder, 0)}
        return _requantised(node, builder, pool(_as(node, op, inputs, attributes), builder), 3)

    return read


qlinear_average_pool = _pool("AveragePool", average_pool, *_WINDOW, "ceil_mode", "count_include_pad")
qlinear_global_average_pool = _pool("GlobalAveragePool", global_average_pool)


def qlinear_softmax(node: Node, builder: NetworkBuilder) -> Value:
    """A QLinearSoftmax of onnxruntime: dropped at the end, like a Softmax, with the rounding of its result."""
    x = _read(node, builder, 0, Place(1, 2))
    opset = int(node.attributes.get("opset", node.opset))
    inner = replace(_as(node, "Softmax", {0: x}, ("axis",)), opset=opset)
    out = softmax(inner, builder)
    assert isinstance(out, Tensor)
    kind = kind_at(node, 4) if node.has(4) else "uint8"
    grid = tensor_grid(node, Place(3, 4), kind, out.shape)
    builder.notes.append(f"{node.name}: so is the rounding of its result, by which classes may tie that are none here.")
    given = node.inputs[0]
    held = given.integers if isinstance(given, Tensor) else None
    if held is None and isinstance(given, Tensor) and given.entry is not None:
        held = builder.entries[builder.input_at(given.layer)].integers
    return replace(out, integers=grid, logits=Logits(node.proto.input[0], held))


# --- products of integers that are scaled later -------------------------------------------------------------


def _sums(node: Node, builder: NetworkBuilder, on_numbers: Callable[[Mapping[int, Value]], Value], axis: int) -> Value:
    """MatMulInteger, ConvInteger: sums of integers less their zero points, in units of the computed factor's step.

    `on_numbers` reads the operator on numbers; `axis` is the constant's, along which its zero points may go.
    """
    x = node.view(0)
    if x.dynamic is not None:
        return dynamic_sums(node, on_numbers, axis)
    if not isinstance(node.inputs[1], Constant) or x.integers is None or x.logits is not None:
        raise Refusal("supported is a tensor made by QuantizeLinear on the left and a constant on the right")
    zero = node.constant(2).astype(np.float64).reshape(-1) if node.has(2) else np.zeros(1)
    if x.integers.step.size > 1 or x.integers.kind == "int32" or not np.array_equal(zero, x.integers.zero):
        raise Refusal(
            f"it reads {node.input_label(0)} "
            "with another zero point than it was made with, or that has several scales; quantise the model again"
        )
    out = on_numbers({0: replace(x, integers=None), 1: whole(node, 1, 3, axis)})
    assert isinstance(out, Tensor)
    return replace(out, integers=Grid(step=x.integers.step, zero=np.zeros(1), kind="int32"))


def matmul_integer(node: Node, builder: NetworkBuilder) -> Value:
    """A MatMulInteger."""
    return _sums(node, builder, lambda inputs: matmul(_as(node, "MatMul", inputs), builder), axis=-1)


def conv_integer(node: Node, builder: NetworkBuilder) -> Value:
    """A ConvInteger."""
    return _sums(node, builder, lambda inputs: conv(_as(node, "Conv", inputs, (*_WINDOW, "group")), builder), axis=0)
