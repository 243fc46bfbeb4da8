"""Models whose input or output are integers: the network has the numbers that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from qverify.arrays import Array
from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from tests.support.onnx_models import kinds, node
from tests.support.quantised_graphs import (
    IMAGE,
    KERNEL,
    LINEAR,
    MS,
    W8,
    S,
    by_onnxruntime,
    f,
    graph,
    i8,
    qdq,
    samples,
    u8,
)

FLOAT = TensorProto.FLOAT
KINDS: dict[int, Any] = {
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
}


def integers(kind: int, size: int) -> Array:
    limits = np.iinfo(KINDS[kind])
    return np.random.default_rng(4).integers(limits.min, limits.max + 1, (40, size)).astype(KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_of_integers(kind: int) -> None:
    zero = np.array(100, KINDS[kind])
    built = graph(
        node("DequantizeLinear", "x s z", "a"),
        node("MatMul", "a w", "y"),
        ends=(kind, FLOAT),
        s=f(1 / 16),
        z=zero,
        w=f(*W8.ravel()).reshape(4, 3),
    )
    network = load(built)
    assert kinds(network) == "Rounding Dense" and network.layers[1].name == "x/rounded"
    x = integers(kind, 4)
    np.testing.assert_array_equal(network.evaluate((x.astype(float) - 100) / 16), by_onnxruntime(built, x))
    low, high = ((end - 100) / 16 for end in (np.iinfo(KINDS[kind]).min, np.iinfo(KINDS[kind]).max))
    assert network.notes == (
        f"x: integers ({np.dtype(KINDS[kind]).name}) in the file; samples are the numbers that they stand for, "
        f"from {low:g} to {high:g}.",
    )
    between = network.evaluate(np.full((1, 4), 1.03))  # lies on no integer, and is rounded
    np.testing.assert_array_equal(between, network.evaluate(np.full((1, 4), 1.0)))


def test_an_input_of_integers_that_a_kernel_reads() -> None:
    built = graph(
        node("QLinearConv", "x s z w ws wz t u", "o"),
        node("Identity", "x", "i"),
        node("QLinearGlobalAveragePool", "i s z t u", "p", domain=MS),
        node("QLinearAdd", "o t u p t u t u", "a", domain=MS),
        node("DequantizeLinear", "a t u", "y"),
        shape=IMAGE,
        ends=(TensorProto.UINT8, FLOAT),
        **KERNEL,
    )
    with pytest.raises(UnsupportedModel, match="its branches have the shapes"):
        load(built)
    built.graph.node[3].CopyFrom(node("QLinearConv", "x s z w ws wz t u", "a"))
    del built.graph.node[0:3]
    network = load(built)
    assert kinds(network) == "Rounding Conv Rounding"
    x = integers(TensorProto.UINT8, 24)
    np.testing.assert_array_equal(network.evaluate((x.astype(float) - 120) / 16), by_onnxruntime(built, x))


def test_an_input_read_twice_is_one_rounding_point() -> None:
    built = graph(
        node("DequantizeLinear", "x s z", "a"),
        node("Reshape", "x where", "r"),
        node("DequantizeLinear", "r s z", "b"),
        node("Relu", "b", "c"),
        node("Add", "a c", "y"),
        ends=(TensorProto.UINT8, FLOAT),
        where=np.array([1, 4]),
        **S,
    )
    network = load(built)
    assert kinds(network) == "Rounding Relu Add"
    x = integers(TensorProto.UINT8, 4)
    np.testing.assert_array_equal(network.evaluate((x.astype(float) - 120) / 16), by_onnxruntime(built, x))


def test_pixels_that_a_cast_makes_numbers() -> None:
    built = graph(
        node("Cast", "x", "a", to=FLOAT), node("Mul", "a s", "y"), ends=(TensorProto.UINT8, FLOAT), s=f(1 / 256)
    )
    network = load(built)
    assert kinds(network) == "Rounding Scale" and "from 0 to 255" in network.notes[0]
    x = integers(TensorProto.UINT8, 4)
    np.testing.assert_array_equal(network.evaluate(x.astype(float)), by_onnxruntime(built, x))


@pytest.mark.parametrize("kernel", [False, True])
def test_an_output_of_integers(kernel: bool) -> None:
    last = node("QLinearMatMul", "q s z w ws wz t u", "y")
    nodes = [node("QuantizeLinear", "x s z", "q"), last] if kernel else [node("QuantizeLinear", "x s z", "y")]
    built = graph(*nodes, ends=(FLOAT, TensorProto.UINT8), **LINEAR)
    network = load(built)
    assert kinds(network) == ("Rounding Dense Rounding" if kernel else "Rounding")
    assert "y: integers in the file; outputs are the numbers that they stand for." in network.notes
    x = samples(built)
    scale, zero = (1 / 2, 100) if kernel else (1 / 16, 120)
    np.testing.assert_array_equal(network.evaluate(x), (by_onnxruntime(built, x).astype(float) - zero) * scale)


SOFTMAX = {
    "and its rounding": [node("Softmax", "l", "p", axis=1), *qdq("r", "p", "y", "v", "o")],
    "of integers": [
        node("QuantizeLinear", "l t u", "k"),
        node("QLinearSoftmax", "k t u v o", "r", domain=MS, axis=1, opset=13),
        node("DequantizeLinear", "r v o", "y"),
    ],
    "that ends in integers": [node("Softmax", "l", "p", axis=1), node("QuantizeLinear", "p v o", "y")],
}


@pytest.mark.parametrize("name", SOFTMAX)
def test_a_softmax_at_the_end_is_dropped_with_its_rounding(name: str) -> None:
    nodes = [
        *qdq("q", "x", "a"),
        node("DequantizeLinear", "w ws wz", "wd"),
        node("MatMul", "a wd", "l"),
        *SOFTMAX[name],
    ]
    kind = TensorProto.UINT8 if nodes[-1].op_type == "QuantizeLinear" else FLOAT
    built = graph(*nodes, ends=(FLOAT, kind), **LINEAR, v=f(1 / 256), o=u8(0))
    network = load(built)
    assert kinds(network) == ("Rounding Dense Rounding" if name == "of integers" else "Rounding Dense")
    assert any("dropped; outputs are the logits" in note for note in network.notes)
    assert any("classes may tie that are none here" in note for note in network.notes)
    x = samples(built)
    theirs = by_onnxruntime(built, x)
    chosen = np.take_along_axis(theirs, network.evaluate(x).argmax(1)[:, None], 1)[:, 0]
    assert (chosen == theirs.max(1)).mean() > 0.95


def test_names_are_those_of_the_nodes() -> None:
    built = graph(
        *qdq("q", "x", "a"),
        node("QuantizeLinear", "a t u", "p"),
        node("DequantizeLinear", "p t u", "y"),
        s=f(1 / 16),
        z=i8(0),
        t=f(1 / 8),
        u=i8(0),
    )
    built.graph.node[2].name = "x"  # as the input
    assert [layer.name for layer in load(built).layers] == ["x", "q_node", "x_2"]
    kernel = graph(
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearMatMul", "q s z w ws wz t u", "o"),
        node("DequantizeLinear", "o t u", "y"),
        **LINEAR,
    )
    assert [layer.name for layer in load(kernel).layers] == ["x", "q_node", "o_node", "o_node/rounded"]
