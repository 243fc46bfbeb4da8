"""Pairs of QuantizeLinear and DequantizeLinear on computed tensors, and what may stand between and around them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qverify.onnx.reader import load
from tests.support.onnx_models import NEWEST_OPSET, kinds, node
from tests.support.quantised_graphs import IMAGE, MS, S, by_onnxruntime, f, graph, i8, int4, qdq, samples

# Name: (model, layers read)
CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "pair": (graph(*qdq("q", "x", "y"), **S), "Rounding"),
    "pair without a zero point": (
        graph(node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y"), s=f(1 / 16)),
        "Rounding",
    ),
    "pair of opset 10": (graph(*qdq("q", "x", "y"), opset=10, **S), "Rounding"),
    "pair of opset 13": (graph(*qdq("q", "x", "y"), opset=13, **S), "Rounding"),
    "pair of the newest opset": (graph(*qdq("q", "x", "y"), opset=min(25, NEWEST_OPSET), **S), "Rounding"),
    "pair of int16": (graph(*qdq("q", "x", "y"), s=f(1 / 4096), z=np.array(7, np.int16)), "Rounding"),
    "pair of uint16": (graph(*qdq("q", "x", "y"), s=f(1 / 4096), z=np.array(30000, np.uint16)), "Rounding"),
    "pair of int4": (graph(*qdq("q", "x", "y"), s=f(1 / 4), z=int4([2], ())), "Rounding"),
    "pair of uint4": (graph(*qdq("q", "x", "y"), s=f(1 / 4), z=int4([3], (), TensorProto.UINT4)), "Rounding"),
    "pair by output_dtype": (
        graph(
            node("QuantizeLinear", "x s", "q", output_dtype=TensorProto.INT8),
            node("DequantizeLinear", "q s", "y"),
            s=f(1 / 16),
        ),
        "Rounding",
    ),
    "pair of onnxruntime": (
        graph(*qdq("q", "x", "y", domain=MS), opset=17, s=f(1 / 4096), z=np.array(7, np.int16)),
        "Rounding",
    ),
    "pair a channel": (
        graph(*qdq("q", "x", "y", axis=1), shape=IMAGE, s=f(1 / 16, 1 / 4), z=np.array([3, 200], np.uint8)),
        "Rounding",
    ),
    "pair along the last axis": (
        graph(*qdq("q", "x", "y", axis=-1), s=f(1 / 16, 1 / 4, 1, 1 / 8), z=np.array([3, -100, 0, 9], np.int8)),
        "Rounding",
    ),
    "pair in blocks": (
        graph(*qdq("q", "x", "y", axis=1, block_size=2), s=f(1 / 16, 1 / 4)[None], z=np.array([[3, 200]], np.uint8)),
        "Rounding",
    ),
    "clipped integers": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("Clip", "q low high", "c"),
            node("DequantizeLinear", "c s z", "y"),
            s=f(1 / 16),
            z=i8(1),
            low=i8(-60),
            high=i8(63),
        ),
        "Rounding",
    ),
    "integers without the negative": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("Relu", "q", "c"),
            node("DequantizeLinear", "c s z", "y"),
            s=f(1 / 16),
            z=i8(3),
        ),
        "Rounding",
    ),
    "clipped integers and others": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("Clip", "q low high", "c"),
            node("DequantizeLinear", "c s z", "a"),
            node("DequantizeLinear", "q s z", "b"),
            node("Add", "a b", "y"),
            s=f(1 / 16),
            z=i8(1),
            low=i8(-60),
            high=i8(63),
        ),
        "Rounding Rounding Add",
    ),
    "ReLU6": (graph(node("Clip", "x low high", "c"), *qdq("q", "c", "y"), low=f(0.0), high=f(6.0), **S), "Rounding"),
    "Clip to a point between two steps": (
        graph(node("Clip", "x low high", "c"), *qdq("q", "c", "y"), low=f(-2.09375), high=f(3.03125), **S),
        "Rounding",
    ),
    "Relu": (graph(node("Relu", "x", "c"), *qdq("q", "c", "y"), **S), "Relu Rounding"),
    "views of integers": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("Identity", "q", "i"),
            node("Flatten", "i", "f"),
            node("Reshape", "f where", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1]),
            node("DequantizeLinear", "t s z", "y"),
            **S,
            rank=3,
            where=np.array([1, 1, 4]),
        ),
        "Rounding",
    ),
    "one point, read twice": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "a"),
            node("DequantizeLinear", "q s z", "b"),
            node("Relu", "a", "r"),
            node("Add", "r b", "y"),
            **S,
        ),
        "Rounding Relu Add",
    ),
    "rounded again to the same grid": (
        graph(*qdq("q", "x", "a"), node("Flatten", "a", "f"), *qdq("p", "f", "y"), **S),
        "Rounding",
    ),
    "rounded again to another grid": (
        graph(*qdq("q", "x", "a"), *qdq("p", "a", "y", "t"), **S, t=f(1 / 8)),
        "Rounding Rounding",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_value_is_onnxruntimes(name: str) -> None:
    built, layers = CASES[name]
    network = load(built)
    assert kinds(network) == layers
    x = samples(built)
    np.testing.assert_array_equal(network.evaluate(x), by_onnxruntime(built, x))
