"""QDQ files in whole numbers, as a kernel without dot-product instructions computes them: pairs in saturating int16."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .exact import OPERATORS, rational

Array = np.ndarray
INT16, INT32 = 2**15, 2**32


def evaluate(model: onnx.ModelProto, x: Array, sort: bool) -> Array:
    """The output for one sample x. `sort`: neighbours are the products of the same sign and size, the worst order."""
    values: dict[str, Any] = {"": None}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        values[tensor.name] = rational(array) if array.dtype.kind == "f" else array
    values[model.graph.input[0].name] = rational(x)[None]
    whole: dict[str, tuple[Any, Any, Any]] = {}
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        read = [values[name] for name in node.input]
        if node.op_type == "DequantizeLinear":
            whole[node.output[0]] = (read[0], read[1], read[2])
        if node.op_type in ("Gemm", "MatMul", "Conv") and all(name in whole for name in node.input if name):
            parts = [whole[name] for name in node.input if name]
            values[node.output[0]] = _affine(node.op_type, attributes, parts, sort)
            continue
        values[node.output[0]] = OPERATORS[node.op_type](attributes, *read)
        if node.op_type == "MaxPool" and node.input[0] in whole:
            integers, scale, zero = whole[node.input[0]]
            whole[node.output[0]] = (OPERATORS["MaxPool"](attributes, integers), scale, zero)
        if node.op_type in ("Transpose", "Gather") and node.input[0] in whole:
            integers, scale, zero = whole[node.input[0]]
            whole[node.output[0]] = (OPERATORS[node.op_type](attributes, integers, *read[1:]), scale, zero)
        if node.op_type == "Flatten" and node.input[0] in whole:
            integers, scale, zero = whole[node.input[0]]
            whole[node.output[0]] = (integers.reshape(len(integers), -1), scale, zero)
    return np.asarray(values[model.graph.output[0].name]).ravel()


def _affine(kind: str, a: dict[str, Any], parts: list[tuple[Any, Any, Any]], sort: bool) -> Array:
    x, x_zero = _unsigned(*parts[0][::2])
    w, w_zero = _signed(*parts[1][::2])
    if kind == "MatMul" or (kind == "Gemm" and not a.get("transB")):
        w = w.T
    scale = parts[0][1].ravel()[0] * parts[1][1].ravel()
    rows = w.reshape(len(w), -1)
    patches, shape = _patches(kind, a, x, x_zero, w)
    zeros = np.broadcast_to(w_zero.ravel(), len(w))
    scales = np.broadcast_to(scale, len(w))
    found = np.empty((len(w), len(patches[0])), dtype=object)
    for o, row in enumerate(rows):
        bias = int(parts[2][0].ravel()[o]) if len(parts) > 2 else 0
        for p, patch in enumerate(patches[o]):
            total = _sum(patch, row, sort) - int(x_zero) * int(row.sum()) - int(zeros[o]) * int(patch.sum())
            total += len(row) * int(x_zero) * int(zeros[o]) + bias
            found[o, p] = Fraction((total + INT32 // 2) % INT32 - INT32 // 2) * scales[o]
    return found.reshape(shape)


def _unsigned(stored: Any, zero: Any) -> tuple[Array, int]:
    """As uint8, which kernels take activations as."""
    by = 128 if zero.dtype == np.int8 else 0
    return stored.astype(np.int64) + by, int(zero.ravel()[0]) + by


def _signed(stored: Any, zero: Any) -> tuple[Array, Array]:
    """As int8, which kernels take weights as."""
    by = 128 if zero.dtype == np.uint8 else 0
    return stored.astype(np.int64) - by, zero.astype(np.int64) - by


def _patches(kind: str, a: dict[str, Any], x: Array, zero: int, w: Array) -> tuple[list[Array], tuple[int, ...]]:
    """Per channel (P, k) what meets its weights; and the shape of the output."""
    if kind != "Conv":
        return [x.reshape(1, -1)] * len(w), (1, len(w))
    groups, strides, pads = a.get("group", 1), a.get("strides", [1, 1]), a.get("pads", [0] * 4)
    image = np.pad(x[0], ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=zero)
    out = [(image.shape[i + 1] - w.shape[i + 2]) // strides[i] + 1 for i in range(2)]
    found = []
    for o in range(len(w)):
        first = o // (len(w) // groups) * w.shape[1]
        part = image[first : first + w.shape[1]]
        corners = [(i * strides[0], j * strides[1]) for i, j in np.ndindex(*out)]
        found.append(np.array([part[:, r : r + w.shape[2], s : s + w.shape[3]].ravel() for r, s in corners]))
    return found, (1, len(w), *out)


def _sum(x: Array, w: Array, sort: bool) -> int:
    products = x * w
    if sort:
        products = np.sort(products)
        products = products[::-1] if products.sum() > 0 else products
    if len(products) % 2:
        products = np.append(products, 0)
    return int(np.clip(products[::2] + products[1::2], -INT16, INT16 - 1).sum())
