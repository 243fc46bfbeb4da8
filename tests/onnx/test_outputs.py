"""Which output of several is read, and what classifiers make of their scores, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import qverify as qverify_package
from qverify.errors import ModelError, UnsupportedModel, UsageError
from qverify.onnx.reader import load
from tests.support.commands import answer, qverify
from tests.support.onnx_models import node, weights

CLASSIC = "ai.onnx.ml"


def _float(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=np.float32)


def _classifier(*end: onnx.NodeProto, outputs: list[Any], opset: int = 17, first: tuple[Any, ...] = ()) -> Any:
    rng = np.random.default_rng(3)
    constants = {
        "w": _float(weights(rng, 4, 6)),
        "v": _float(weights(rng, 6, 3)),
        "names": np.array([4, 5, 9], dtype=np.int64),
    }
    layers = [
        *first,
        node("MatMul", "scaled w" if first else "x w", "a"),
        node("Relu", "a", "h"),
        node("MatMul", "h v", "s"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph([*layers, *end], "g", given, outputs, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CLASSIC, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _output(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["N", "M"])


def _scores(built: onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    shown = onnx.ModelProto()
    shown.CopyFrom(built)
    del shown.graph.output[:]
    shown.graph.output.append(_output(name))
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


X = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)


@pytest.mark.parametrize("wanted", ["h", "s"])
def test_a_named_output_and_the_nodes_that_it_needs(wanted: str) -> None:
    built = _classifier(outputs=[_output("s"), _output("h")])
    network = load(built, wanted)
    assert network.evaluate(X) == pytest.approx(_scores(built, wanted, X), rel=1e-6)
    assert len(network.layers) == (4 if wanted == "s" else 3)
    assert network.notes == (f"output {wanted!r} is read, and {'h' if wanted == 's' else 's'!r} is left out.",)


def test_several_outputs_have_to_be_named() -> None:
    built = _classifier(outputs=[_output("s"), _output("h")])
    with pytest.raises(UnsupportedModel, match=r"2 outputs \('s', 'h'\); supported is one: name it with --output"):
        load(built)
    with pytest.raises(ModelError, match=r"has no output 'z'; it has 's', 'h'\."):
        load(built, "z")


def _label(axis: int = 1, **more: Any) -> list[onnx.NodeProto]:
    return [
        node("Softmax", "s", "p", axis=-1),
        node("ArgMax", "p", "k", axis=axis, **more),
        helper.make_node("ArrayFeatureExtractor", ["names", "k"], ["named"], domain=CLASSIC),
        node("Cast", "named", "label", to=TensorProto.INT64),
    ]


def test_scores_are_read_beside_a_label() -> None:
    built = _classifier(*_label(), outputs=[_output("label", TensorProto.INT64), _output("p")])
    network = load(built)
    assert network.evaluate(X) == pytest.approx(_scores(built, "s", X), rel=1e-6)
    assert "output 'p' is read, and 'label' is left out." in network.notes


@pytest.mark.parametrize("softmax", [True, False])
def test_a_label_alone_is_that_of_the_largest_score(softmax: bool) -> None:
    end = _label() if softmax else [node("ArgMax", "s", "label", axis=-1, keepdims=0)]
    network = load(
        _classifier(
            *end,
            outputs=[helper.make_tensor_value_info("label", TensorProto.INT64, ["N"] if not softmax else ["M", "N"])],
        )
    )
    assert network.evaluate(X) == pytest.approx(_scores(_classifier(outputs=[_output("s")]), "s", X), rel=1e-6)
    assert any("ArgMax dropped; outputs are the scores of the classes." in note for note in network.notes)


def test_a_map_of_scores_is_these_scores() -> None:
    sequence = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    zipped = helper.make_node("ZipMap", ["p"], ["map"], domain=CLASSIC, classlabels_int64s=[4, 5, 9])
    outputs = [_output("label", TensorProto.INT64), helper.make_value_info("map", sequence)]
    network = load(_classifier(*_label(), zipped, outputs=outputs))
    assert network.evaluate(X) == pytest.approx(_scores(_classifier(outputs=[_output("s")]), "s", X), rel=1e-6)


@pytest.mark.parametrize(
    ("names", "fits"), [([0, 1, 2], True), ([4, 5, 9], True), ([1, 2, 3], False), ([0, 2, 1], False)]
)
@pytest.mark.parametrize("way", ["extractor", "beside", "map"])
def test_classes_called_by_the_places_of_others_are_refused(names: list[int], fits: bool, way: str) -> None:
    """Labels of samples are places: that 1 is the first class would be said nowhere."""
    zipped = helper.make_node("ZipMap", ["p"], ["map"], domain=CLASSIC, classlabels_int64s=names)
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["M", "N"])
    if way == "map":
        sequence = helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        )
        built = _classifier(_label()[0], zipped, outputs=[helper.make_value_info("map", sequence)])
    else:
        built = _classifier(*_label(), outputs=[label, _output("p")] if way == "beside" else [label])
        (tensor,) = [each for each in built.graph.initializer if each.name == "names"]
        tensor.CopyFrom(numpy_helper.from_array(np.array(names), "names"))
    if fits:
        assert load(built).output_size == 3
        return
    with pytest.raises(ModelError, match=r"calls its classes .*, and labels of samples are taken as their places"):
        load(built)


@pytest.mark.parametrize("length", [1, 4])
def test_a_scaler_of_inputs(length: int) -> None:
    rng = np.random.default_rng(5)
    first = helper.make_node(
        "Scaler", ["x"], ["scaled"], domain=CLASSIC,
        offset=rng.normal(size=length).tolist(), scale=rng.uniform(0.5, 2.0, length).tolist(),
    )  # fmt: skip
    built = _classifier(outputs=[_output("s")], first=(first,))
    assert load(built).evaluate(X) == pytest.approx(_scores(built, "s", X), rel=1e-5)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ([node("ArgMax", "s", "y", axis=0)], "ArgMax over axis 0 of shape (1, 3)"),
        ([node("ArgMax", "s", "y", axis=1, select_last_index=1)], "takes the last of equal outputs"),
        (
            [node("ArgMax", "s", "k", axis=1), node("Cast", "k", "f", to=1), node("Relu", "f", "y")],
            "it follows a Softmax, LogSoftmax or ArgMax, which is supported only at the end",
        ),
        ([helper.make_node("Normalizer", ["s"], ["y"], domain=CLASSIC)], "Normalizer giving 'y': the operator is not"),
        ([node("Cast", "s", "y", to=TensorProto.INT64)], "it casts to int64"),
    ],
)
def test_what_is_no_label(end: list[onnx.NodeProto], why: str) -> None:
    with pytest.raises(UnsupportedModel) as error:
        load(_classifier(*end, outputs=[_output("y")]))
    assert why in str(error.value)


def test_the_command_line_names_an_output(tmp_path: Path) -> None:
    path, data = tmp_path / "two.onnx", tmp_path / "d.npz"
    built = _classifier(outputs=[_output("s"), _output("h")])
    onnx.save(built, str(path))
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    np.savez(data, x=x, y=load(built, "s").evaluate(x).argmax(1))
    given = ("verify", path, "--data", data, "--bits", 12)
    assert qverify(*given).exit_code == 2
    run = tmp_path / "run"
    found = answer(*given, "--output", "s", "--out", run)
    assert found["verified"] + found["falsified"] + found["unknown"] == 5
    again = qverify(*given, "--output", "h", "--out", run, "--resume")
    assert again.exit_code == 2 and "Traceback" not in again.stderr
    page = qverify("report", run, "--format", "html", "--out", tmp_path / "page.html")
    assert page.exit_code == 0, page.stderr


def test_python_names_an_output() -> None:
    built = _classifier(outputs=[_output("s"), _output("h")])
    network = qverify_package.load(built, output="s")
    assert network.output_size == 3
    x = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    y = network.evaluate(x).argmax(1)
    found = qverify_package.verify(built, x, y, 12, output="s", method="ibp")
    assert len(found) == 4
    with pytest.raises(UsageError, match="a Network has one, so leave it out"):
        qverify_package.verify(network, x, y, 12, output="s")
