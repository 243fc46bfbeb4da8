"""Whole models as the loader reads them: every opset, shapes, names, notes, files; onnxruntime is the oracle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from qverify import datasets
from qverify.errors import ModelError
from qverify.fingerprint import fingerprint
from qverify.network import margins
from qverify.onnx.reader import load, to_onnx
from tests.support.networks import known_layers
from tests.support.onnx_models import BN, NEWEST_OPSET, agree, kinds, model, node, run, statistics, weights
from tests.support.paths import MODELS


def _classic(rng: np.random.Generator, opset: int, batch: Any) -> onnx.ModelProto:
    """An image classifier with every node that some opset spells differently."""
    constants = {"w": weights(rng, 2, 1, 3, 2), "v": weights(rng, 12, 5), "b": weights(rng, 5), **statistics(rng, 2)}
    constants["shape"] = np.array([0, -1, 4, 1])
    squeeze, unsqueeze = node("Squeeze", "s axis", "t"), node("Unsqueeze", "h axes", "e")
    dropout = node("Dropout", "e ratio training", "d")
    if opset < 13:
        squeeze, unsqueeze = node("Squeeze", "s", "t", axes=[3]), node("Unsqueeze", "h", "e", axes=[1, 3])
    else:
        constants |= {"axis": np.array([3]), "axes": np.array([1, -1])}
    if opset < 12:
        dropout = node("Dropout", "e", "d", ratio=0.25)
    else:
        constants |= {"ratio": 0.25, "training": np.array(False)}  # type: ignore[dict-item]
    nodes = [
        node("Conv", "x w", "c", pads=[1, 0, 0, 1]),
        node("BatchNormalization", f"c {BN}", "n", epsilon=0.1),
        node("Relu", "n", "r"),
        node("AveragePool", "r", "a", kernel_shape=[1, 2], strides=[2, 2]),
        node("Identity", "a", "i"),
        node("Reshape", "i shape", "s"),
        squeeze,
        node("Flatten", "t", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m b", "h"),
        unsqueeze,
        dropout,
        node("Relu", "d", "r2"),
        node("Flatten", "r2", "f2", axis=1),
        node("Constant", "", "k", value=numpy_helper.from_array(weights(rng, 5, 3).astype(np.float32))),
        node("MatMul", "f2 k", "y"),
    ]
    return model(nodes, constants, [batch, 1, 6, 5], opset)


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", range(7, NEWEST_OPSET + 1))
def test_classic_model_in_every_opset(opset: int, batch: int | str, rng: np.random.Generator) -> None:
    built = _classic(rng, opset, batch)
    network = load(built)
    assert kinds(network) == "Conv Relu Conv Dense Relu Dense"
    assert network.input_shape == (1, 6, 5)
    assert [layer.shape for layer in network.layers] == [
        (1, 6, 5),
        (2, 5, 5),
        (2, 5, 5),
        (2, 3, 2),
        (5,),
        (1, 5, 1),
        (3,),
    ]
    names = [f"{name}_node" for name in ("c", "r", "a", "m", "r2", "y")]
    assert [layer.name for layer in network.layers] == ["x", *names]
    agree(network, built, rng)


def test_model_without_batch_axis(rng: np.random.Generator) -> None:
    nodes = [node("Unsqueeze", "x zero", "u"), node("Conv", "u w", "c"), node("Squeeze", "c", "y")]
    built = model(nodes, {"zero": np.array([0]), "w": weights(rng, 2, 3, 2, 2)}, [3, 5, 4])
    network = load(built)
    assert network.input_shape == (3, 5, 4) and known_layers(network)[1].out_shape == (2, 4, 3)
    assert [layer.shape for layer in network.layers[1:]] == [(1, 2, 4, 3)]
    agree(network, built, rng)


def test_flatten_as_pytorch_writes_it(rng: np.random.Generator) -> None:
    """x.view(x.size(0), -1): Shape, Gather, Unsqueeze and Concat are constants at batch 1."""
    constants = {"w": weights(rng, 2, 1, 2, 2), "v": weights(rng, 12, 3), "zero": np.array(0), "axis": np.array([0])}
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "c t", "f"),
        node("Gemm", "f v", "y"),
    ]
    network = load(built := model(nodes, constants | {"rest": np.array([-1])}, ["N", 1, 4, 3]))
    assert kinds(network) == "Conv Dense"
    agree(network, built, rng)


def test_a_shape_node_does_not_keep_a_layer_from_its_bias(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 4, 6), "b": weights(rng, 6), "start": np.array([0]), "end": np.array([1])}
    nodes = [
        node("MatMul", "x w", "m"),
        node("Shape", "m", "s"),
        node("Slice", "s start end", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Add", "m b", "a"),
        node("Reshape", "a t", "y"),
    ]
    network = load(built := model(nodes, constants | {"rest": np.array([3, 2])}, ["N", 4]))
    assert kinds(network) == "Dense" and known_layers(network)[1].has_bias
    agree(network, built, rng)


# Name: (nodes from m of shape (1, 2, 1, 3) to y, integer constants)
VIEWS = {
    "flatten": ([node("Flatten", "m", "y")], {}),
    "flatten, negative axis": ([node("Flatten", "m", "y", axis=-1)], {}),
    "reshape, zero copies": ([node("Reshape", "m s", "y")], {"s": np.array([0, 3, -1])}),
    "reshape, allowzero": ([node("Reshape", "m s", "y", allowzero=1)], {"s": np.array([1, 6])}),
    "squeeze all": ([node("Squeeze", "m", "y")], {}),
    "squeeze one": ([node("Squeeze", "m s", "y")], {"s": np.array([-2])}),
    "unsqueeze": ([node("Unsqueeze", "m s", "y")], {"s": np.array([-1, 1])}),
    "transpose an axis of one": ([node("Transpose", "m", "y", perm=[2, 0, 1, 3])], {}),
    "identity": ([node("Identity", "m", "y")], {}),
    "dropout": ([node("Dropout", "m", "y")], {}),
}


@pytest.mark.parametrize("name", VIEWS)
def test_nodes_that_only_change_a_shape_leave_no_trace(name: str, rng: np.random.Generator) -> None:
    """A constant of the shape that onnxruntime finds is multiplied to it, so a wrong shape is seen."""
    nodes, constants = VIEWS[name]
    nodes = [node("Relu", "x", "m"), *nodes]
    shape = run(model(nodes, constants, [1, 2, 1, 3]), np.zeros((1, 2, 1, 3))).shape
    last = node("Mul", "view c", "y")
    view = onnx.NodeProto.FromString(nodes[-1].SerializeToString())
    view.output[0], view.name = "view", "view"
    built = model([nodes[0], view, last], constants | {"c": weights(rng, *shape)}, [1, 2, 1, 3])
    network = load(built)
    assert kinds(network) == "Relu Scale" and network.layers[2].shape in (shape, shape[1:])
    agree(network, built, rng)


@pytest.mark.parametrize("opset", [8, 12, 13, NEWEST_OPSET])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_softmax_at_the_end_is_dropped_and_noted(kind: str, opset: int, rng: np.random.Generator) -> None:
    constants, gemm = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "s": np.array([0, 3])}, node("Gemm", "x w b", "z")
    nodes = [gemm, node(kind, "z", "p"), node("Reshape", "p s", "y")]
    network = load(model(nodes, constants, ["N", 4], opset))
    assert network.notes == (f"p_node: {kind} dropped; outputs are the logits, in the same order.",)
    gemm.output[0] = "y"
    agree(network, model([gemm], {"w": constants["w"], "b": constants["b"]}, ["N", 4]), rng)


def test_softmax_before_opset_13_is_over_all_axes_from_its_own(rng: np.random.Generator) -> None:
    built = model([node("Mul", "x c", "m"), node("Softmax", "m", "y")], {"c": weights(rng, 2, 3)}, ["N", 2, 3], 12)
    assert kinds(load(built)) == "Scale" and len(load(built).notes) == 1


@pytest.mark.parametrize(
    "attribute",
    [
        {"value": numpy_helper.from_array(np.asarray([1.5, -2.0, 0.5], dtype=np.float32))},
        {"value_floats": [1.5, -2.0, 0.5]},
        {"value_float": -1.5},
    ],
)
def test_constant_nodes(attribute: dict[str, Any], rng: np.random.Generator) -> None:
    nodes = [node("Constant", "", "k", **attribute), node("Neg", "k", "n"), node("Mul", "x n", "y")]
    network = load(built := model(nodes, {}, ["N", 3]))
    np.testing.assert_array_equal(known_layers(network)[1].scale, -np.ones(3) * list(_numbers(attribute)))
    agree(network, built, rng)


def _numbers(attribute: dict[str, onnx.TensorProto]) -> np.ndarray:
    """The numbers of a Constant, once more."""
    value = next(iter(attribute.values()))
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.atleast_1d(value)


# Nodes from x (1, 2, 3) to y that use w twice
SHARING = {
    "MatMul, once through a node": (
        [node("MatMul", "x w", "a"), node("Neg", "w", "n"), node("MatMul", "a n", "y")],
        (1, 2),
        (2, 2),
    ),
    "Gemm": ([node("Gemm", "x w", "a"), node("Gemm", "a w", "y", transB=1)], (1, 2), (2, 2)),
    "Gemm, bias": ([node("Gemm", "x v w", "a"), node("Gemm", "a v w", "y")], (1, 2), (2,)),
    "Conv": ([node("Conv", "x w", "a"), node("Conv", "a w", "y")], (1, 2, 5), (2, 2, 2)),
    "BatchNormalization": (
        [node("BatchNormalization", "x w o m v2", "a"), node("BatchNormalization", "r w o m v2", "y")],
        (1, 2),
        (2,),
    ),
}


@pytest.mark.parametrize("name", SHARING)
def test_an_initializer_used_twice_is_noted(name: str, rng: np.random.Generator) -> None:
    nodes, shape, w_shape = SHARING[name]
    constants = {"w": weights(rng, *w_shape)}
    if name == "Gemm, bias":
        constants["v"] = weights(rng, 2, 2)
    if name == "BatchNormalization":
        nodes = [nodes[0], node("Relu", "a", "r"), nodes[1]]
        constants |= {"o": weights(rng, 2), "m": weights(rng, 2), "v2": np.ones(2)}
    network = load(built := model(nodes, constants, shape))
    assert "w: used by layers 'a_node', 'y_node', each of which is quantised on its own." in network.notes
    agree(network, built, rng)


def test_initializers_that_nothing_reads_are_ignored_with_a_note(rng: np.random.Generator) -> None:
    """One of them is sparse, and one is an input as old files have it."""
    constants = {"w": weights(rng, 4, 3), **{f"left{n}": weights(rng, 2) for n in range(7)}}
    built = model([node("Gemm", "x w", "y")], constants, ["N", 4])
    built.graph.input.append(helper.make_tensor_value_info("left1", onnx.TensorProto.FLOAT, [2]))
    values, indices = (
        numpy_helper.from_array(np.asarray([1], dtype=np.float32), "thin"),
        numpy_helper.from_array(np.array([3]), "i"),
    )
    built.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    network = load(built)
    wanted = "initializers that no node reads are ignored: left0, left1, left2, left3, left4 and 3 more."
    assert network.notes == (wanted,)
    agree(network, built, rng)


def test_what_only_describes_a_model_is_ignored(rng: np.random.Generator) -> None:
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 4, 3)}, ["N", 4])
    before = load(built)
    built.doc_string = built.graph.doc_string = built.graph.node[0].doc_string = "quantised to 8 bits"
    built.producer_name, built.model_version, built.domain = "somebody", 7, "example"
    built.opset_import.append(helper.make_opsetid("com.example", 99))
    helper.set_model_props(built, {"scale": "0.5", "input_range": "0 255"})
    built.training_info.add().initialization.CopyFrom(helper.make_graph([], "init", [], []))
    built.graph.value_info.append(helper.make_tensor_value_info("nothing", onnx.TensorProto.INT8, [9]))
    after = load(built)
    assert fingerprint(after) == fingerprint(before) and after.notes == before.notes == ()


def test_equal_names_are_numbered(rng: np.random.Generator) -> None:
    """onnxruntime wants node names to differ, so only nodes without name and the input can clash."""
    nodes = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]
    nodes[0].name, nodes[1].name = "x", ""
    assert [layer.name for layer in load(model(nodes, {}, [3])).layers] == ["x", "x_2", "b", "y_node"]


def test_initializers_listed_as_inputs(rng: np.random.Generator) -> None:
    """As files before IR version 4 have it."""
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 4, 3)}, ["N", 4], opset=11)
    built.graph.input.insert(0, helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3]))
    built.ir_version = 3
    assert kinds(load(built)) == "Dense"


def test_double_precision_is_kept(rng: np.random.Generator) -> None:
    built = model([node("Gemm", "x w", "y")], {"w": rng.normal(size=(4, 3))}, ["N", 4], dtype=np.float64)
    network = load(built)
    np.testing.assert_array_equal(known_layers(network)[1].weight.T, numpy_helper.to_array(built.graph.initializer[0]))
    agree(network, built, rng)


def test_a_file_and_its_external_data(tmp_path: Path, rng: np.random.Generator) -> None:
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 40, 30)}, ["N", 40])
    path = tmp_path / "net.onnx"
    onnx.save_model(built, path, save_as_external_data=True, location="net.data", size_threshold=0)
    network = load(path)
    assert network.source == "net.onnx" and (tmp_path / "net.data").stat().st_size >= 4800
    agree(network, onnx.load(path), rng)


@pytest.mark.parametrize("name", ["digits", "digits_normal"])
def test_the_models_that_ship(name: str) -> None:
    """What the record beside each says, and that the exporter writes the very same model again."""
    path, facts = MODELS / f"{name}.onnx", json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    network = load(path)
    assert [layer.size for layer in network.layers] == [64, 40, 40, 24, 24, 10] and network.notes == ()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert to_onnx(network) == onnx.load(path)
    x, y = datasets.fit(datasets.load("digits"), network)
    assert float((margins(network.evaluate(x), y) > 0).mean()) == facts["clean_accuracy"] > 0.96


def test_a_layer_whose_shape_alone_is_read_is_not_the_output(rng: np.random.Generator) -> None:
    """It comes last, but what the model answers is the layer before it; both differ by a constant that eight probes
    with a large common offset do not show."""
    constants = {"w": weights(rng, 3, 4), "b": weights(rng, 4) + 1e5, "c": np.array([0.0, 0.0, 9.0, 0.0])}
    nodes = [node("Gemm", "x w b", "g"), node("Add", "g c", "t"), node("Shape", "t", "s"), node("Reshape", "g s", "y")]
    with pytest.raises(ModelError, match="the output of layer 't_node' is never used"):
        load(model(nodes, constants, ["N", 3]))


def test_biases_added_by_a_node_are_known(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 3, 4), "b": weights(rng, 4), "v": weights(rng, 4, 2), "d": weights(rng, 2)}
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "h"), node("Gemm", "h v d", "y")]
    assert load(model(nodes, constants, ["N", 3])).added_biases == ("m_node",)


def test_names_hold_no_line_breaks(rng: np.random.Generator) -> None:
    odd = node("Gemm", "x w", "y")
    odd.name = "a\nb"
    assert load(model([odd], {"w": weights(rng, 3, 2)}, ["N", 3])).layers[1].name == "a_b"
