"""Weights that a graph dequantises: every value is onnxruntime's, and steps come along."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qverify.layers import Conv, Dense
from qverify.onnx.reader import load
from tests.support.networks import known_layers
from tests.support.onnx_models import kinds, node
from tests.support.quantised_graphs import (
    B32,
    DEQUANTISED,
    IMAGE,
    K8,
    KERNEL,
    W8,
    WEIGHT,
    S,
    by_onnxruntime,
    f,
    graph,
    i8,
    int4,
    qdq,
    samples,
    u8,
)

# Name: (model, layers read)
CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "weights": (graph(DEQUANTISED, node("MatMul", "x wd", "y"), **WEIGHT), "Dense"),
    "weights a column": (
        graph(
            node("DequantizeLinear", "w ws wz", "wd", axis=1),
            node("MatMul", "x wd", "y"),
            w=W8,
            ws=f(1 / 64, 1 / 32, 1 / 8),
            wz=np.array([1, 0, -3], np.int8),
        ),
        "Dense",
    ),
    "weights on the left": (
        graph(
            node("DequantizeLinear", "w ws wz", "wd", axis=1),
            node("MatMul", "wd x", "y"),
            shape=(3, 2),
            w=W8,
            ws=f(1 / 64, 1 / 32, 1 / 8),
            wz=np.array([1, 0, -3], np.int8),
        ),
        "Conv",
    ),
    "weights in blocks": (
        graph(
            node("DequantizeLinear", "w ws wz", "wd", axis=0, block_size=2),
            node("MatMul", "x wd", "y"),
            w=W8,
            ws=f(1 / 64, 1 / 32, 1 / 8, 1 / 16, 1 / 2, 1).reshape(2, 3),
            wz=np.array([[1, 0, -3], [4, 5, 6]], np.int8),
        ),
        "Dense",
    ),
    "weights in blocks that do not divide": (
        graph(
            node("DequantizeLinear", "w ws", "wd", axis=0, block_size=3),
            node("MatMul", "x wd", "y"),
            w=W8,
            ws=f(1 / 64, 1 / 32, 1 / 8, 1 / 16, 1 / 2, 1).reshape(2, 3),
        ),
        "Dense",
    ),
    "weights of int4": (
        graph(
            node("DequantizeLinear", "w ws wz", "wd"),
            node("MatMul", "x wd", "y"),
            w=int4([*range(-8, 4)], (4, 3)),
            ws=f(1 / 4),
            wz=int4([2], ()),
        ),
        "Dense",
    ),
    "weights of uint4 in blocks": (
        graph(
            node("DequantizeLinear", "w ws wz", "wd", axis=0, block_size=2),
            node("Gemm", "x wd", "y"),
            w=int4([*range(12)], (4, 3), TensorProto.UINT4),
            ws=f(1 / 4, 1 / 8, 1, 1 / 2, 2, 1 / 16).reshape(2, 3),
            wz=int4([2, 3, 4, 8, 8, 15], (2, 3), TensorProto.UINT4),
        ),
        "Dense",
    ),
    "weights of int16": (
        graph(
            DEQUANTISED,
            node("MatMul", "x wd", "y"),
            w=W8.astype(np.int16) * 31,
            ws=f(1 / 1024),
            wz=np.array(9, np.int16),
        ),
        "Dense",
    ),
    "weights quantised by the graph": (
        graph(
            *qdq("q", "w", "wd", "ws", "wz"),
            node("MatMul", "x wd", "y"),
            w=f(*W8.ravel() / 7).reshape(4, 3),
            ws=f(1 / 8),
            wz=i8(0),
        ),
        "Dense",
    ),
    "weights clipped by the graph": (
        graph(
            node("QuantizeLinear", "w ws wz", "q"),
            node("Clip", "q low high", "c"),
            node("DequantizeLinear", "c ws wz", "wd"),
            node("Gemm", "x wd", "y"),
            w=f(*W8.ravel() / 7).reshape(4, 3),
            ws=f(1 / 8),
            wz=i8(0),
            low=i8(-100),
            high=i8(99),
        ),
        "Dense",
    ),
    "weights transposed as integers": (
        graph(
            node("Transpose", "w", "t", perm=[1, 0]),
            node("DequantizeLinear", "t ws", "wd", axis=0),
            node("Gemm", "x wd", "y", transB=1),
            w=W8,
            ws=f(1 / 64, 1 / 32, 1 / 8),
        ),
        "Dense",
    ),
    "weights transposed as numbers": (
        graph(
            node("DequantizeLinear", "w ws", "wd", axis=0),
            node("Transpose", "wd", "t", perm=[1, 0]),
            node("Identity", "t", "i"),
            node("Gemm", "x i", "y", alpha=0.5),
            w=W8.T.copy(),
            ws=f(1 / 64, 1 / 32, 1 / 8),
        ),
        "Dense",
    ),
    "kernels": (
        graph(
            *qdq("q", "x", "a"),
            node("DequantizeLinear", "w ws", "wd", axis=0),
            node("DequantizeLinear", "b bs", "bd", axis=0),
            node("Conv", "a wd bd", "c", pads=[1, 0, 0, 1]),
            node("Relu", "c", "r"),
            *qdq("p", "r", "y", "t", "u"),
            shape=IMAGE,
            **S,
            w=K8,
            ws=f(1 / 64, 1 / 32, 1 / 8),
            b=B32,
            bs=f(1 / 1024, 1 / 512, 1 / 128),
            t=f(1 / 2),
            u=u8(0),
        ),
        "Rounding Conv Relu Rounding",
    ),
    "a BatchNormalization behind integers": (
        graph(
            node("DequantizeLinear", "w ws", "wd", axis=0),
            node("Conv", "x wd", "c"),
            node("BatchNormalization", "c one half half var", "y", epsilon=0.0),
            shape=IMAGE,
            w=K8,
            ws=f(1 / 64, 1 / 32, 1 / 8),
            one=f(1, -2, 4),
            half=f(0.5, 0.25, 1),
            var=f(4, 1, 0.25),
        ),
        "Conv Conv",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_value_is_onnxruntimes(name: str) -> None:
    built, layers = CASES[name]
    network = load(built)
    assert kinds(network) == layers
    x = samples(built)
    np.testing.assert_array_equal(network.evaluate(x), by_onnxruntime(built, x))


GRIDS: dict[str, tuple[int, ...]] = {
    "weights": (1, 1),
    "weights a column": (3, 1),
    "weights on the left": (1, 3, 1, 1),
    "weights in blocks": (3, 4),
    "weights of int4": (1, 1),
    "weights transposed as integers": (3, 1),
    "weights transposed as numbers": (3, 1),
    "kernels": (3, 1, 1, 1),
}


@pytest.mark.parametrize("name", GRIDS)
def test_steps_come_along_in_the_smallest_shape(name: str) -> None:
    (layer,) = [layer for layer in load(CASES[name][0]).layers if isinstance(layer, (Dense, Conv))]
    assert layer.grid is not None and layer.grid.shape == GRIDS[name]
    np.testing.assert_array_equal(layer.weight / layer.grid, np.rint(layer.weight / layer.grid))


def test_weights_are_integers_less_zero_point_times_scale_exactly() -> None:
    scale, zero, integers = np.float32(0.0123), 5, W8.astype(int)
    built = graph(DEQUANTISED, node("MatMul", "x wd", "y"), w=W8, ws=np.asarray(scale), wz=i8(zero))
    layer = known_layers(load(built))[1]
    exact = [[Fraction(int(v) - zero) * Fraction(float(scale)) for v in row] for row in integers.T]
    assert [[Fraction(v) for v in row] for row in layer.weight.tolist()] == exact


def test_a_bias_of_int32_is_in_units_of_the_product_of_both_scales() -> None:
    scales: dict[str, Any] = {"s": np.float32(0.0371), "ws": np.array([0.0123, 0.5, 0.0077], np.float32)}
    built = graph(
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w ws wz t u b", "o"),
        node("DequantizeLinear", "o t u", "y"),
        shape=IMAGE,
        **KERNEL | {k: np.asarray(v) for k, v in scales.items()} | {"wz": np.zeros(3, np.int8), "b": B32},
    )
    layer = known_layers(load(built))[2]
    for value, integer, step in zip(layer.bias, B32, scales["ws"], strict=True):
        exact = Fraction(int(integer)) * Fraction(float(scales["s"])) * Fraction(float(step))
        assert abs(Fraction(value) - exact) <= abs(exact) * Fraction(1, 2**51)
