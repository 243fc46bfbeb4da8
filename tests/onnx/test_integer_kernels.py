"""Operators that compute with integers: ONNX's and onnxruntime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qverify.arrays import Array
from qverify.onnx.reader import load
from tests.support.onnx_models import kinds, node
from tests.support.quantised_graphs import (
    B32,
    IMAGE,
    K8,
    KERNEL,
    LINEAR,
    MS,
    W8,
    by_onnxruntime,
    f,
    graph,
    i8,
    samples,
    u8,
)

# Name: (model, layers read)
CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "QLinearConv": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearConv", "q s z w ws wz t u b", "o", pads=[1, 0, 0, 1], strides=[2, 1]),
            node("DequantizeLinear", "o t u", "y"),
            shape=IMAGE,
            **KERNEL,
            b=B32,
        ),
        "Rounding Conv Rounding",
    ),
    "QLinearConv a channel": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearConv", "q s z w ws wz t u b", "o"),
            node("DequantizeLinear", "o t u", "y"),
            shape=IMAGE,
            **(KERNEL | {"ws": f(1 / 64, 1 / 32, 1 / 8), "wz": np.zeros(3, np.int8)}),
            b=B32,
        ),
        "Rounding Conv Rounding",
    ),
    "QLinearMatMul": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearMatMul", "q s z w ws wz t u", "o"),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
        ),
        "Rounding Dense Rounding",
    ),
    "QLinearMatMul a column": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearMatMul", "q s z w ws wz t u", "o"),
            node("DequantizeLinear", "o t u", "y"),
            **(LINEAR | {"ws": f(1 / 64, 1 / 32, 1 / 8), "wz": np.zeros(3, np.int8)}),
        ),
        "Rounding Dense Rounding",
    ),
    "QGemm": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QGemm", "q s z w ws wz b t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            b=B32,
        ),
        "Rounding Dense Rounding",
    ),
    "QGemm times a number": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QGemm", "q s z w ws wz b t u", "o", alpha=0.25, domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            b=B32,
        ),
        "Rounding Dense Rounding",
    ),
    "QGemm to floats": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QGemm", "q s z w ws wz b", "y", transB=1, domain=MS),
            **(LINEAR | {"w": W8.T.copy(), "ws": f(1 / 64, 1 / 32, 1 / 8), "wz": np.zeros(3, np.int8)}),
            b=B32,
        ),
        "Rounding Dense",
    ),
    "MatMulIntegerToFloat": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("MatMulIntegerToFloat", "q w s ws z wz b", "y", domain=MS),
            **LINEAR,
            b=f(0.5, -3, 7),
        ),
        "Rounding Dense",
    ),
    "QLinearAdd": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QuantizeLinear", "x r z", "p"),
            node("QLinearAdd", "q s z p r z t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            r=f(1 / 4),
        ),
        "Rounding Rounding Add Rounding",
    ),
    "QLinearAdd of a constant": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearAdd", "q s z c r z t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            r=f(1 / 4),
            c=np.array([0, 255, 7, 130], np.uint8),
        ),
        "Rounding Scale Rounding",
    ),
    "QLinearMul by a constant": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearMul", "q s z c r z t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            r=f(1 / 4),
            c=np.array([0, 255, 7, 130], np.uint8),
        ),
        "Rounding Scale Rounding",
    ),
    "QLinearAveragePool": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node(
                "QLinearAveragePool",
                "q s z t u",
                "o",
                domain=MS,
                kernel_shape=[2, 2],
                pads=[1, 0, 0, 0],
                count_include_pad=1,
            ),
            node("DequantizeLinear", "o t u", "y"),
            shape=IMAGE,
            **LINEAR,
        ),
        "Rounding Conv Rounding",
    ),
    "QLinearGlobalAveragePool": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearGlobalAveragePool", "q s z t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            shape=("N", 2, 4, 4),
            **LINEAR,
        ),
        "Rounding Conv Rounding",
    ),
    "MatMulInteger": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("MatMulInteger", "q w z wz", "i"),
            node("Cast", "i", "c", to=TensorProto.FLOAT),
            node("Mul", "c m", "y"),
            **LINEAR,
            m=f(1 / 1024),
        ),
        "Rounding Dense",
    ),
    "MatMulInteger with an int32 bias": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("MatMulInteger", "q w z", "i"),
            node("Add", "i b", "a"),
            node("DequantizeLinear", "a m", "y"),
            **LINEAR,
            b=B32,
            m=f(1 / 1024),
        ),
        "Rounding Dense",
    ),
    "ConvInteger": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("ConvInteger", "q w z", "i", pads=[1, 1, 1, 1]),
            node("Cast", "i", "c", to=TensorProto.FLOAT),
            node("Mul", "m c", "y"),
            shape=IMAGE,
            **(LINEAR | {"w": K8.astype(np.int16).clip(0, 127).astype(np.uint8)}),
            m=f(1 / 1024),
        ),
        "Rounding Conv",
    ),
    "sums that a channel scales backwards": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("MatMulInteger", "q w z wz", "i"),
            node("Cast", "i", "c", to=TensorProto.FLOAT),
            node("Mul", "c m", "y"),
            **LINEAR,
            m=f(1 / 1024, -1 / 512, 1 / 128),
        ),
        "Rounding Dense Scale",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_value_is_onnxruntimes(name: str) -> None:
    built, layers = CASES[name]
    network = load(built)
    assert kinds(network) == layers
    x = samples(built)
    np.testing.assert_array_equal(network.evaluate(x), by_onnxruntime(built, x))


@pytest.mark.parametrize("zero", [u8(0), i8(0)])
def test_a_kernel_without_a_zero_point_makes_what_it_reads(zero: Array) -> None:
    """Also where a constant comes first."""
    built = graph(
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearAdd", "c r z q s z t", "o", domain=MS),
        node("DequantizeLinear", "o t", "y"),
        s=f(1 / 16),
        z=zero,
        r=f(1 / 4),
        t=f(1 / 2),
        c=np.array([0, 100, 7, 3]).astype(zero.dtype),
    )
    network, x = load(built), samples(built)
    np.testing.assert_array_equal(network.evaluate(x), by_onnxruntime(built, x))
