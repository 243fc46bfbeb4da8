"""Scales and zero points of quantised tensors, checked; and constants to and from integers.

Scales are float32 numbers, so in float64 an integer of up to 16 bits less its zero point, times a scale, is exact.
Those of 32 bits (biases) are off by a part in 1e16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from qverify.onnx.graph import Constant, Node, Refusal, Shape
from qverify.onnx.grid import Grid, ends_of, kind_of, uncovered

if TYPE_CHECKING:
    from qverify.arrays import Array

POINTS = ("uint8", "int8", "uint16", "int16", "uint4", "int4", "uint2", "int2")
"""Types of tensors that are computed; constants may be of 32 bits too, which biases are."""
_AGAIN = "quantise the model again"
LINEAR = ("DequantizeLinear", "QuantizeLinear")
"""Operators between numbers and integers that constants, too, may go through."""


@dataclass(frozen=True)
class Place:
    """Where a node has scale and zero point: its inputs with these indices, the axis they go along, and in blocks of
    how many; 0 is no block."""

    scale: int
    zero: int
    axis: int = 1
    block: int = 0


def of_linear(node: Node) -> Place:
    """The place in a QuantizeLinear or DequantizeLinear."""
    block = node.attributes.get("block_size", 0)
    if block < 0:
        raise Refusal(f"its block_size is {block}; supported is a positive one, or 0 for none")
    return Place(1, 2, node.attributes.get("axis", 1), block)


def kind_at(node: Node, index: int) -> str:
    """The type of constant input `index`, one of integers."""
    kind = kind_of(node.constant(index).dtype)
    if kind not in (*POINTS, "int32"):
        raise Refusal(
            f"{node.input_label(index)} is {kind}; supported are integers of 2, 4, 8 and 16 bits, and int32 for biases"
        )
    return kind


def steps_and_zeros(node: Node, place: Place, kind: str, shape: Shape) -> tuple[Array, Array]:
    """Scale and zero point, each of a shape that broadcasts to a tensor of this shape and type; raises Refusal."""
    scale = scale_of(node, place.scale)
    zero = np.zeros(scale.shape)
    if node.has(place.zero):
        value = node.constant(place.zero)
        if kind_of(value.dtype) != kind:
            label = node.input_label(place.zero)
            raise Refusal(f"its zero point {label} is {kind_of(value.dtype)}, and what it goes with {kind}; {_AGAIN}")
        zero = value.astype(np.float64)
    if zero.size not in (1, scale.size):
        raise Refusal(f"its zero point has shape {zero.shape} and its scale {scale.shape}; {_AGAIN}")
    return _along(node, scale, place, shape), _along(node, zero, place, shape)


def scale_of(node: Node, index: int) -> Array:
    """Input `index`, a constant scale. Raises Refusal for what no quantiser writes."""
    value = node.constant(index)
    if value.dtype != np.float32:
        raise Refusal(f"its scale {node.input_label(index)} is {kind_of(value.dtype)}; supported is float32: {_AGAIN}")
    bad = value[~(np.isfinite(value) & (value >= np.finfo(np.float32).tiny))]
    if bad.size:
        raise Refusal(
            f"its scale {node.input_label(index)} holds {bad.reshape(-1)[0]:g}; "
            f"a scale must be positive, finite and no subnormal number: {_AGAIN}"
        )
    return value.astype(np.float64)


def _along(node: Node, values: Array, place: Place, shape: Shape) -> Array:
    """One number for all, one for each index along the axis, or one for each block along it."""
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    axis = node.axis(place.axis, len(shape))
    if place.block and values.ndim == len(shape):
        spread = np.repeat(values, place.block, axis).take(range(shape[axis]), axis, mode="clip")
        if spread.shape == shape and values.shape[axis] == -(-shape[axis] // place.block):
            return uncovered(spread)
    elif not place.block and values.shape == (shape[axis],):
        return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    blocks = f" in blocks of {place.block}" if place.block else ""
    raise Refusal(
        f"a scale or zero point of shape {values.shape} "
        f"does not fit a tensor of shape {shape} along axis {axis}{blocks}; {_AGAIN}"
    )


def tensor_grid(node: Node, place: Place, kind: str, shape: Shape) -> Grid:
    """What the integers of a computed tensor of this shape at batch 1 stand for."""
    if kind not in POINTS:
        raise Refusal(f"it makes or reads a tensor of {kind}; supported are {', '.join(POINTS)}")
    found = steps_and_zeros(node, place, kind, shape)
    step, zero = (np.broadcast_to(v, shape).reshape(-1) if v.size > 1 else v.reshape(1) for v in found)
    return Grid(step=step, zero=zero, kind=kind)


def dequantised(node: Node, index: int, place: Place) -> Constant:
    """The numbers that constant input `index` stands for, with their steps."""
    value = node.constant(index)
    step, zero = steps_and_zeros(node, place, kind_at(node, index), value.shape)
    return Constant((value.astype(np.float64) - zero) * step, grid=step)


def whole(node: Node, index: int, zero: int, axis: int) -> Constant:
    """The integers of constant input `index` less its zero point, input `zero`, which may go along `axis`."""
    value, kind = node.constant(index), kind_at(node, index)
    zeros = np.zeros(1)
    if node.has(zero):
        if kind_of(node.constant(zero).dtype) != kind:
            raise Refusal(f"its zero point {node.input_label(zero)} is not {kind}, as what it goes with; {_AGAIN}")
        zeros = node.constant(zero).astype(np.float64)
    found = value.astype(np.float64) - _along(node, zeros, Place(zero, zero, axis), value.shape)
    return Constant(found, grid=np.ones((1,) * value.ndim))


def fold_linear(node: Node) -> Constant:
    """A QuantizeLinear or DequantizeLinear of a constant; the former as onnxruntime computes it, in float32."""
    place = of_linear(node)
    if node.op == "DequantizeLinear":
        check_output(node)
        return dequantised(node, 0, place)
    value = np.asarray(node.numbers(0), dtype=np.float32)
    dtype = output_type(node)
    step, zero = steps_and_zeros(node, place, kind_of(dtype), value.shape)
    low, high = ends_of(kind_of(dtype)) or (0, 0)
    with np.errstate(all="ignore"):
        found = np.clip(np.rint(value / step.astype(np.float32)).astype(np.float64) + zero, low, high)
    if not np.isfinite(found).all():
        raise Refusal(f"{node.input_label(0)} holds NaN; repair the model")
    return Constant(found.astype(np.int64).astype(dtype))


def output_type(node: Node) -> np.dtype[Any]:
    """The type that a QuantizeLinear makes: that of its zero point, else as its attribute says, else uint8."""
    if node.has(2):
        kind_at(node, 2)
        return node.constant(2).dtype
    wanted = node.attributes.get("output_dtype", 0) or TensorProto.UINT8
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(wanted))
    if kind_of(dtype) not in POINTS:
        raise Refusal(f"it makes {kind_of(dtype)}; supported are {', '.join(POINTS)}")
    return dtype


def check_output(node: Node) -> None:
    """Refuse a DequantizeLinear that gives another type than float32."""
    wanted = node.attributes.get("output_dtype", 0)
    if wanted not in (0, TensorProto.FLOAT):
        raise Refusal(f"it gives {TensorProto.DataType.Name(wanted).lower()}; supported is float32")


def bias(node: Node, index: int, step: Array) -> Constant:
    """An int32 bias in units of `step`, as numbers; `step` broadcasts to it along its last axis."""
    value = node.constant(index)
    if value.dtype != np.int32:
        raise Refusal(f"its bias {node.input_label(index)} is {kind_of(value.dtype)}; supported is int32: {_AGAIN}")
    if step.size not in (1, value.shape[-1] if value.ndim else 1):
        raise Refusal(f"its bias has shape {value.shape}, and its weights {step.size} scales; {_AGAIN}")
    return Constant(value.astype(np.float64) * step.reshape(-1 if step.size > 1 else ()))
