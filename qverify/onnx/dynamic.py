"""Dynamic quantisation: the operator that takes its step from the tensor, and the integers that it makes.

A DynamicQuantizeLinear becomes a layer that gives numbers, `DynamicRounding`; its scale and zero point are values of
the graph that only say where integers come from (`Step`). Sums of integers are, as a layer, that of the numbers, in
units of the step: `sums * (scale * constant)` is the layer times the constant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qverify.layers import DynamicRounding
from qverify.onnx.accumulators import scaled_sums
from qverify.onnx.graph import Constant, DynamicPoint, NetworkBuilder, Node, Refusal, Step, Tensor, Value
from qverify.onnx.grid import Grid
from qverify.onnx.integers import scale_of, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def dynamic_quantize_linear(node: Node, builder: NetworkBuilder) -> list[Value]:
    """A DynamicQuantizeLinear: a dynamic rounding point, its scale and its zero point."""
    x = node.tensor(0)
    if x.double:
        raise Refusal(f"{node.input_label(0)} is float64; supported is float32")
    assert builder.dynamic is not None
    names = [*node.proto.output, "", ""][:3]
    out = builder.new(DynamicRounding, node.name, (x,), x.shape)
    if all(names):
        builder.dynamic[out.layer] = DynamicPoint(*names)
    unknown = Grid(step=np.full(1, np.nan), zero=np.full(1, np.nan), kind="uint8")
    integers = replace(out, integers=unknown, dynamic=out.layer, exclusive=False)
    scale = Step(layer=out.layer, factor=np.ones((), dtype=np.float32))
    return [integers, scale, Step(layer=out.layer, factor=None)]


def dynamic_sums(node: Node, on_numbers: Callable[[Mapping[int, Value]], Value], axis: int) -> Tensor:
    """MatMulInteger and ConvInteger of what a DynamicQuantizeLinear made, less its zero point."""
    x, zero = node.view(0), node.inputs[2] if node.has(2) else None
    if not isinstance(node.inputs[1], Constant) or x.integers is None or x.integers.kind != "uint8":
        raise Refusal("supported is a tensor made by DynamicQuantizeLinear on the left and a constant on the right")
    if not isinstance(zero, Step) or zero.factor is not None or zero.layer != x.dynamic:
        raise Refusal(
            f"it reads {node.input_label(0)} without the zero point that goes with it; quantise the model again"
        )
    out = on_numbers({0: replace(x, integers=None, dynamic=None), 1: whole(node, 1, 3, axis)})
    assert isinstance(out, Tensor)
    return replace(out, integers=Grid(step=np.ones(1), zero=np.zeros(1), kind="int32"), dynamic=x.dynamic)


def with_step(node: Node, builder: NetworkBuilder) -> Value:
    """A Mul of the scale of a DynamicQuantizeLinear and a constant, or of both and sums of its integers in floats."""
    step, other = node.inputs[:2] if isinstance(node.inputs[0], Step) else node.inputs[1::-1]
    assert isinstance(step, Step)
    at = 1 if other is node.inputs[1] else 0
    if node.op != "Mul" or step.factor is None or isinstance(other, Step):
        return node.view(1 - at)  # refuses
    if isinstance(other, Constant):
        if not np.array_equal(step.factor, np.ones(())):
            raise Refusal("it multiplies a scale by a second constant; supported is one: quantise the model again")
        return replace(step, factor=step.factor * scale_of(node, at))
    x = node.view(at)
    if x.dynamic != step.layer or x.integers is None or x.integers.kind != "float32":
        raise Refusal(
            f"it multiplies {node.input_label(at)} by a scale that does not belong to it; supported are sums of "
            "MatMulInteger or ConvInteger, cast to float32"
        )
    return scaled_sums(node, builder, x, np.asarray(step.factor, dtype=np.float64))
