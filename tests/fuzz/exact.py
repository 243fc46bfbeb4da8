"""ONNX graphs in exact rationals: one operator after the other, arrays of Fraction."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray
_ZERO = Fraction(0)


def rational(values: Any) -> Array:
    """Floats or integers as an array of Fraction of the same shape."""
    array = np.asarray(values)
    if array.dtype == object:
        return array
    found = np.empty(array.shape, dtype=object)
    flat = [Fraction(v) for v in array.ravel().tolist()]
    found.ravel()[:] = flat
    return found


def evaluate(model: onnx.ModelProto, x: Array) -> Array:
    """The output for one sample x (*entry), floats or rationals, batch axis taken off and flat."""
    values: dict[str, Any] = {"": None}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        values[tensor.name] = rational(array) if array.dtype.kind == "f" else array
    values[model.graph.input[0].name] = rational(x)[None]
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type](attributes, *(values[name] for name in node.input))
    return np.asarray(values[model.graph.output[0].name]).ravel()


def product(left: Array, right: Array) -> Array:
    """Matrix product (.., n) x (n, m); zeros are passed over, since they are many."""
    found = np.empty((*left.shape[:-1], right.shape[1]), dtype=object)
    columns = [[(i, v) for i, v in enumerate(right[:, j].tolist()) if v] for j in range(right.shape[1])]
    for where in np.ndindex(left.shape[:-1]):
        row = left[where].tolist()
        for j, column in enumerate(columns):
            found[(*where, j)] = sum((row[i] * v for i, v in column if row[i]), _ZERO)
    return found


def _gemm(a: dict[str, Any], left: Array, right: Array, bias: Array | None = None) -> Array:
    left, right = (left.T if a.get("transA") else left), (right.T if a.get("transB") else right)
    found = product(left, right) * Fraction(a.get("alpha", 1.0))
    return np.asarray(found if bias is None else found + bias * Fraction(a.get("beta", 1.0)))


def _conv(a: dict[str, Any], x: Array, weight: Array, bias: Array | None = None) -> Array:
    groups, strides, pads = a.get("group", 1), a.get("strides", [1, 1]), a.get("pads", [0, 0, 0, 0])
    image = np.pad(x[0], ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=_ZERO)  # type: ignore[call-overload]
    kernel = weight.shape[2:]
    out = [(image.shape[i + 1] - kernel[i]) // strides[i] + 1 for i in range(2)]
    found = np.empty((1, len(weight), *out), dtype=object)
    for o in range(len(weight)):
        first = o // (len(weight) // groups) * weight.shape[1]
        for i, j in np.ndindex(*out):
            r, s = i * strides[0], j * strides[1]
            patch = image[first : first + weight.shape[1], r : r + kernel[0], s : s + kernel[1]]
            total = sum((p * w for p, w in zip(patch.ravel(), weight[o].ravel(), strict=True) if p and w), _ZERO)
            found[0, o, i, j] = total + (bias[o] if bias is not None else 0)
    return found


def largest(a: dict[str, Any], x: Array) -> Array:
    """The largest numbers (1, C, rows, columns) under windows; padding is left out."""
    kernel, strides, pads = a["kernel_shape"], a["strides"], a["pads"]
    out = [(x.shape[i + 2] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in range(2)]
    found = np.empty((1, x.shape[1], *out), dtype=object)
    for c, i, j in np.ndindex(x.shape[1], *out):
        r, s = i * strides[0] - pads[0], j * strides[1] - pads[1]
        found[0, c, i, j] = x[0, c, max(r, 0) : r + kernel[0], max(s, 0) : s + kernel[1]].max()
    return found


def root(value: Fraction) -> Fraction:
    """The square root, exact where it is rational, else to 60 digits."""
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top**2 == value.numerator and bottom**2 == value.denominator:
        return Fraction(top, bottom)
    return Fraction(math.isqrt(value * 10**120 // 1), 10**60)


def _norm(a: dict[str, Any], x: Array, scale: Array, offset: Array, mean: Array, variance: Array) -> Array:
    epsilon = Fraction(float(np.float32(a.get("epsilon", 1e-5))))
    deviation = np.array([root(v + epsilon) for v in variance], dtype=object)
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, offset, mean, deviation = (p.reshape(shape) for p in (scale, offset, mean, deviation))
    return np.asarray((x - mean) * scale / deviation + offset)


def _relu(a: dict[str, Any], x: Array) -> Array:
    return np.asarray(np.maximum(x, _ZERO))  # type: ignore[call-overload]


def _along(parameter: Array, a: dict[str, Any], ndim: int) -> Array:
    if parameter.size == 1:
        return parameter.reshape([1] * ndim)
    return parameter.reshape([-1 if i == a.get("axis", 1) % ndim else 1 for i in range(ndim)])


def quantise(a: dict[str, Any], x: Array, scale: Array, zero: Array) -> Array:
    """Round half to even, and saturate to the type of the zero point."""
    steps = x / _along(scale, a, x.ndim)
    limits = np.iinfo(zero.dtype)
    found = np.empty(x.shape, dtype=object)
    shifts = np.broadcast_to(_along(zero, a, x.ndim), x.shape)
    for where in np.ndindex(x.shape):
        found[where] = min(max(round(steps[where]) + int(shifts[where]), limits.min), limits.max)
    return found


def dequantise(a: dict[str, Any], x: Array, scale: Array, zero: Array) -> Array:
    integers = rational(x.astype(np.int64) if x.dtype != object else x)
    return np.asarray((integers - rational(_along(zero.astype(np.int64), a, x.ndim))) * _along(scale, a, x.ndim))


def _pad(a: dict[str, Any], x: Array, pads: Array, value: Any = None) -> Array:
    half = len(pads) // 2
    return np.asarray(np.pad(x, [(int(pads[i]), int(pads[i + half])) for i in range(half)], constant_values=_ZERO))  # type: ignore[call-overload]


def _transposed(a: dict[str, Any], x: Array) -> Array:
    return x.transpose(a["perm"])


OPERATORS: dict[str, Callable[..., Any]] = {
    "Gemm": _gemm,
    "MatMul": lambda a, x, w: product(x, w) if w.ndim == 2 else np.matmul(x, w),
    "Conv": _conv,
    "MaxPool": largest,
    "BatchNormalization": _norm,
    "Relu": _relu,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "Abs": lambda a, x: abs(x),
    "Max": lambda a, x, y: np.maximum(x, y),
    "Min": lambda a, x, y: np.minimum(x, y),
    "Greater": lambda a, x, y: (x > y).astype(bool),
    "Where": lambda a, where, x, y: np.where(where, x, y),
    "Flatten": lambda a, x: x.reshape(len(x), -1),
    "Reshape": lambda a, x, shape: x.reshape([int(v) for v in shape]),
    "Identity": lambda a, x: x,
    "Pad": _pad,
    "Gather": lambda a, x, index: np.take(x, index, axis=a.get("axis", 0)),
    "Transpose": _transposed,
    "QuantizeLinear": quantise,
    "DequantizeLinear": dequantise,
}
