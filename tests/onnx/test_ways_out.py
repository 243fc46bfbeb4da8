"""Ways out that refusals offer: each is taken here, and the model is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from qverify.errors import UnsupportedModel
from qverify.onnx.operators import ONNXRUNTIME, OPERATORS
from qverify.onnx.outputs import CLASSIC
from qverify.onnx.reader import load
from qverify.onnx.ways_out import HINTS
from tests.support.onnx_models import BN, agree, kinds, model, node, statistics, weights

RNG = np.random.default_rng(5)
W, V = weights(RNG, 4, 3), weights(RNG, 3, 2, 2, 2)
IMAGE = ("N", 2, 5, 4)


def chain(
    *nodes: onnx.NodeProto, shape: list[int | str] | tuple[Any, ...] = ("N", 4), opset: int = 17, **constants: Any
) -> onnx.ModelProto:
    return model(nodes, constants, shape, opset)


def older(built: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.version_converter.convert_version(built, 8)


# What the message offers: (refused, what it says, mended, layers read)
WAYS = {
    "sum": (
        chain(node("MatMul", "x w", "a"), node("Sum", "a a", "y"), w=W),
        "use Add",
        chain(node("MatMul", "x w", "a"), node("Add", "a a", "y"), w=W),
        "Dense Scale",
    ),
    "statistics": (
        chain(node("MeanVarianceNormalization", "x", "y"), shape=IMAGE),
        "use BatchNormalization",
        chain(node("BatchNormalization", f"x {BN}", "y"), shape=IMAGE, **statistics(RNG, 2)),  # type: ignore[arg-type]
        "Conv",
    ),
    "the class at the end": (
        chain(node("MatMul", "x w", "z"), node("Hardmax", "z", "y", axis=1), w=W),
        "export the model without it",
        chain(node("MatMul", "x w", "y"), w=W),
        "Dense",
    ),
    "float16": (
        model([node("MatMul", "x w", "y")], {"w": W}, ["N", 4], dtype=np.float16),
        "export the model in float32",
        model([node("MatMul", "x w", "y")], {"w": W}, ["N", 4]),
        "Dense",
    ),
    "opset": (
        chain(node("Relu", "x", "y"), opset=6),
        "opset 6: supported is 7 and newer; convert the model",
        older(chain(node("Relu", "x", "y"), opset=6)),
        "Relu",
    ),
    "fixed batch": (
        chain(node("MatMul", "x w", "y"), shape=[8, 4], w=W),
        "export with batch size 1 or a symbolic batch axis",
        chain(node("MatMul", "x w", "y"), shape=["N", 4], w=W),
        "Dense",
    ),
    "no batch axis": (
        chain(node("Conv", "x v", "y"), shape=[2, 2, 5, 4], v=V),
        "export it with a first axis for the batch that is open or 1",
        chain(node("Conv", "x v", "y"), shape=[1, 2, 5, 4], v=V),
        "Conv",
    ),
    "open axes": (
        chain(node("Conv", "x v", "y"), shape=["N", 2, "H", "W"], v=V),
        "export it with the others fixed",
        chain(node("Conv", "x v", "y"), shape=IMAGE, v=V),
        "Conv",
    ),
    "a constant made by nodes": (
        chain(node("Tanh", "w", "v"), node("MatMul", "x v", "y"), w=W),
        "operator Tanh on constants is not supported: replace it by an initializer",
        chain(node("MatMul", "x v", "y"), v=np.tanh(W)),
        "Dense",
    ),
    "a cast": (
        chain(node("Cast", "x", "c", to=TensorProto.FLOAT16), node("Cast", "c", "y", to=TensorProto.FLOAT)),
        "it casts to float16; supported are float32 and float64: export the model in float32",
        chain(node("Cast", "x", "c", to=TensorProto.FLOAT), node("Relu", "c", "y")),
        "Relu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_the_way_out_is_one(name: str, rng: np.random.Generator) -> None:
    refused, offer, mended, layers = WAYS[name]
    with pytest.raises(UnsupportedModel) as caught:
        load(refused)
    assert offer in str(caught.value)
    network = load(mended)
    assert kinds(network) == layers
    agree(network, mended, rng)


def test_hints_are_of_operators_that_exist_and_are_not_supported() -> None:
    own = {schema.name for schema in get_all_operator_schema() if schema.domain == ONNXRUNTIME}
    for operator in HINTS:
        if operator not in ("RMSNormalization", "Swish"):  # younger than the oldest onnx that will do
            assert onnx.defs.has(operator) or operator in own, operator
        assert operator not in OPERATORS
    for name, entry in OPERATORS.items():
        if CLASSIC in entry.domains:
            assert onnx.defs.has(name, CLASSIC), name
            continue
        assert name in own if ONNXRUNTIME in entry.domains else onnx.defs.has(name), name
