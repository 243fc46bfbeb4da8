"""Weights of uint8 for int8 say the same: by ONNX's reference implementation, which computes in whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qverify.arrays import Array
from qverify.onnx import check
from qverify.onnx.unsigned import with_unsigned_weights
from tests.support.onnx_models import node
from tests.support.quantised_graphs import graph, i8, integer_operators, remarks, u8

RNG = np.random.default_rng(5)
KERNEL = RNG.integers(-128, 128, (3, 2, 2, 2)).astype(np.int8)
MATRIX = RNG.integers(-128, 128, (4, 3)).astype(np.int8)
SCALES: dict[str, Any] = {"s": np.float32(0.02), "t": np.float32(0.9), "v": np.float32(0.01)}

CASES: dict[str, tuple[onnx.NodeProto, tuple[int, ...], dict[str, Any]]] = {
    "QLinearConv": (
        node("QLinearConv", "x s z w v wz t z", "y"),
        (1, 2, 4, 4),
        {"w": KERNEL, "wz": np.zeros(3, np.int8)},
    ),
    "QLinearMatMul": (node("QLinearMatMul", "x s z w v wz t z", "y"), (2, 4), {"w": MATRIX, "wz": i8(-5)}),
    "ConvInteger": (node("ConvInteger", "x w z", "y"), (1, 2, 4, 4), {"w": KERNEL}),
    "MatMulInteger": (node("MatMulInteger", "x w z wz", "y"), (2, 4), {"w": MATRIX, "wz": i8(7)}),
}


def built(name: str, zero: Array) -> onnx.ModelProto:
    one, shape, constants = CASES[name]
    kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
    made = TensorProto.INT32 if name.endswith("Integer") else kind
    held: dict[str, Any] = SCALES | constants
    return graph(one, shape=shape, ends=(kind, made), z=zero, **held)


def weights(model: onnx.ModelProto, one: onnx.NodeProto) -> Array:
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return held[one.input[1 if one.op_type.endswith("Integer") else 3]]


@pytest.mark.parametrize("name", CASES)
def test_the_same_is_computed(name: str) -> None:
    model = built(name, u8(131))
    moved = with_unsigned_weights(model)
    onnx.checker.check_model(moved, full_check=True)
    assert [weights(m, m.graph.node[0]).dtype for m in (model, moved)] == [np.int8, np.uint8]
    for _ in range(5):
        x = RNG.integers(0, 256, CASES[name][1]).astype(np.uint8)
        runs: list[Any] = [ReferenceEvaluator(m).run(None, {"x": x}) for m in (model, moved)]
        one, other = (np.asarray(run[0]) for run in runs)
        np.testing.assert_array_equal(one, other)
        assert one.any()


@pytest.mark.parametrize("name", CASES)
def test_operators_on_int8_stay(name: str) -> None:
    """onnxruntime has no kernels for these with weights of uint8."""
    model = built(name, i8(3))
    assert with_unsigned_weights(model) is model


def test_names_that_are_there_already_stay_what_they_are() -> None:
    """A file may call a tensor of its own as the moved weight would be called."""
    one, shape, constants = CASES["MatMulInteger"]
    nodes = (node("MatMulInteger", "x w z wz", "p"), node("Add", "p w/unsigned", "y"))
    more: dict[str, Any] = {"w/unsigned": np.array([1, 2, 3], np.int32)}
    model = graph(*nodes, shape=shape, ends=(TensorProto.UINT8, TensorProto.INT32), z=u8(9), **constants, **more)
    moved = with_unsigned_weights(model)
    onnx.checker.check_model(moved, full_check=True)
    x = RNG.integers(0, 256, shape).astype(np.uint8)
    runs: list[Any] = [ReferenceEvaluator(m).run(None, {"x": x}) for m in (model, moved)]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert moved is not model and one.op_type == nodes[0].op_type


def test_where_kernels_of_this_machine_differ_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is judged by exact kernels; that others saturate is said."""
    model, runtime = integer_operators(), check._runtime
    assert not remarks(model)

    def saturating(asked: onnx.ModelProto, *more: Any) -> Any:
        run, exact = runtime(asked, *more), all(t.data_type != TensorProto.INT8 for t in asked.graph.initializer)
        unsigned = any(t.name.endswith("/unsigned") for t in asked.graph.initializer)

        def off(x: Any) -> Any:
            output, points = run(x)
            if not (exact or unsigned):  # nearly all values, which no 5 % excuse
                points = {i: value + (i == max(points)) * 0.5 for i, value in points.items()}
            return output, points

        return off

    monkeypatch.setattr(check, "_runtime", saturating)
    (note,) = remarks(model)
    assert "other values on this machine at 'q4_node/rounded'" in note
