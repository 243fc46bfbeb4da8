"""What is read from files of integers, against onnxruntime's own DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.sessions import NONE, exact_session
from tests.support.toolchain import (
    FORMS,
    Form,
    dense,
    dequantised,
    grid,
    hidden,
    outputs,
    quantised,
    without_last_rounding,
)

QDQ = [form for form in FORMS if form.format == "QDQ"]
OPERATORS = [form for form in FORMS if form.format == "QOperator"]


def made(form: Form) -> tuple[onnx.ModelProto, np.ndarray, list[Any]]:
    rng = np.random.default_rng(5)
    layers = [(rng.normal(size=(5, 6)), rng.normal(size=5)), (rng.normal(size=(3, 5)), rng.normal(size=3))]
    x = rng.normal(size=(12, 6)).astype(np.float32)
    return quantised(dense(layers), x, form), x, layers


def by_onnxruntime(file: onnx.ModelProto, tensors: list[str], x: np.ndarray) -> list[np.ndarray]:
    """Tensors of a graph, node by node."""
    asked = onnx.ModelProto()
    asked.CopyFrom(file)
    asked.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    return list(exact_session(asked, NONE).run(tensors, {"x": x[:1]}))


@pytest.mark.parametrize("form", QDQ, ids=str)
def test_weights_and_biases_are_those_that_onnxruntime_computes_with(form: Form) -> None:
    file, x, layers = made(form)
    constants = {tensor.name for tensor in file.graph.initializer}
    nodes = [n for n in file.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    values = by_onnxruntime(file, [node.output[0] for node in nodes], x)
    found = dequantised(file)
    assert set(found) == {"W1", "b1", "W2", "b2"} and len(nodes) == 4
    for node, value in zip(nodes, values, strict=True):
        np.testing.assert_allclose(found[node.input[0].removesuffix("_quantized")], value, rtol=1e-6)
    for number, (weight, bias) in enumerate(layers, start=1):
        assert np.abs(found[f"W{number}"] - weight).max() < np.abs(weight).max() / 100
        assert np.abs(found[f"b{number}"] - bias).max() < 0.01


@pytest.mark.parametrize("form", OPERATORS, ids=str)
def test_kernels_hold_the_same_numbers_as_pairs(form: Form) -> None:
    """The scales do not depend on the form of the graph, so neither do the weights."""
    kernels, pairs = dequantised(made(form)[0]), dequantised(made(replace(form, format="QDQ"))[0])
    assert {"W1", "b1", "W2", "b2"} == set(kernels) == set(pairs)
    for name, value in kernels.items():
        np.testing.assert_allclose(value.reshape(pairs[name].shape), pairs[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_grid_ends_where_quantisation_saturates(form: Form) -> None:
    file, _, _ = made(form)
    given = {tensor.name: tensor for tensor in file.graph.initializer}
    for tensor in ("x", hidden(form, 1)):
        ends = [given[f"{tensor}_scale"], given[f"{tensor}_zero_point"]]
        names = ["v", *(end.name for end in ends)]
        nodes = [
            helper.make_node("QuantizeLinear", names, ["q"]),
            helper.make_node("DequantizeLinear", ["q", *names[1:]], ["y"]),
        ]
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("v", "y")]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], ends)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        scale, low, high = grid(file, tensor, form)
        asked = np.array([-1e6, 1e6, 0.3 * scale, 0.7 * scale], dtype=np.float32)
        np.testing.assert_allclose(session.run(None, {"v": asked})[0], [low, high, 0.0, scale], rtol=1e-6)


@pytest.mark.parametrize("form", [QDQ[0], OPERATORS[0]], ids=str)
def test_without_its_last_rounding_a_file_gives_what_was_rounded(form: Form) -> None:
    file, x, layers = made(form)
    before, after = outputs(without_last_rounding(file, 3), x), outputs(file, x)
    assert file.graph.output[0].name in {name for node in file.graph.node for name in node.output}  # is not changed
    step = np.ptp(after) / 255
    assert 0 < np.abs(before - after).max() <= 0.51 * step * 1.1
    exact = np.maximum(x @ layers[0][0].T + layers[0][1], 0) @ layers[1][0].T + layers[1][1]
    assert np.abs(before - exact).max() < 0.1


def test_weights_that_are_not_those_of_the_file_are_seen() -> None:
    file, _, _ = made(QDQ[0])
    before = dequantised(file)["W1"]
    for tensor in file.graph.initializer:
        if tensor.name == "W1_quantized":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) // 2, tensor.name))
    assert np.abs(dequantised(file)["W1"] - before).max() > 0.1
