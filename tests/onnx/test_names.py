"""Names in a model, wherever they appear in messages, notes and layers: printable, on one line, of bounded length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qverify.errors import ModelError
from qverify.onnx.reader import load, to_onnx
from tests.support.commands import qverify
from tests.support.onnx_models import BN, agree, model, node, statistics, weights

EVIL = "\x1b[2J\x1b]0;owned\x07\rqverify: verified\n\u202e\u2028"


def _renamed(built: onnx.ModelProto, evil: str) -> onnx.ModelProto:
    """Every name of the model with `evil` in it."""
    new = {"": ""}

    def name(old: str) -> str:
        return new.setdefault(old, f"{old}{evil}{len(new)}")

    graph = built.graph
    for one in graph.node:
        one.input[:], one.output[:] = map(name, list(one.input)), map(name, list(one.output))
        one.name, one.doc_string = name(f"node {one.name}"), evil
    for one in (*graph.input, *graph.output, *graph.initializer):
        one.name = name(one.name)
    for axis in graph.input[0].type.tensor_type.shape.dim:
        if axis.dim_param:
            axis.dim_param = evil
    graph.name, graph.doc_string, built.producer_name, built.doc_string = evil, evil, evil, evil
    built.opset_import.append(helper.make_opsetid(evil, 3))
    return built


def _network(rng: np.random.Generator) -> onnx.ModelProto:
    """With all the notes there are: a folded BatchNormalization, two shared constants, an unread one, a Softmax."""
    constants = {"w": weights(rng, 4, 4), "b": weights(rng, 4), "left": weights(rng, 2), **statistics(rng, 4)}
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("BatchNormalization", f"a {BN}", "n"),
        node("Relu", "n", "r"),
        node("Gemm", "r w b", "g"),
        node("Softmax", "g", "y"),
    ]
    return model(nodes, constants, ["N", 4])


@pytest.mark.parametrize("evil", [EVIL, EVIL * 10_000, "x" * 100_000], ids=["short", "long", "printable"])
def test_layers_and_notes_of_a_model_with_hostile_names(evil: str, rng: np.random.Generator) -> None:
    built = _renamed(_network(rng), evil)
    network = load(built)
    assert len(network.layers) == 4 and len({layer.name for layer in network.layers}) == 4 and len(network.notes) == 5
    assert all(layer.name.isprintable() and len(layer.name) <= 220 for layer in network.layers)
    assert all(note.isprintable() and len(note) < 1000 for note in network.notes)
    assert network.added_biases == (network.layers[1].name,)
    agree(network, to_onnx(network), rng)  # it can be written, and read again


def test_the_terminal_and_the_files_of_a_run(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "net\x1b[31m\n.onnx"
    path.write_bytes(_renamed(_network(rng), EVIL).SerializeToString())
    np.savez(tmp_path / "s.npz", x=rng.random((5, 4)), y=np.arange(5) % 4)
    for given in (("inspect", path, "--bits", 8), ("inspect", path, "--data", tmp_path / "s.npz")):
        result = qverify(*given)
        assert result.exit_code == 0, result.stderr
        for line in [*result.stderr.split("\n"), *result.stdout.split("\n")]:
            assert line.isprintable(), line


def _broken(kind: str, rng: np.random.Generator) -> onnx.ModelProto:
    """Models that are refused in different places."""
    if kind == "operator":
        return model([node("Sinh", "x", "t"), node("Neg", "t", "y")], {}, ["N", 4])
    if kind == "attribute":
        return model([node("Relu", "x", "y", **{f"__{EVIL}": 1})], {}, ["N", 4])
    if kind == "shape":
        return model([node("MatMul", "x w", "y")], {"w": weights(rng, 3, 3)}, ["N", 4])
    if kind == "open axes":
        return model([node("Relu", "x", "y")], {}, ["N", EVIL])
    if kind == "not a number":
        return model([node("MatMul", "x w", "y")], {"w": np.full((4, 2), np.nan)}, ["N", 4])
    if kind == "checker":
        return model([node("Relu", "nowhere", "y")], {}, ["N", 4])
    if kind == "runtime":
        return model([node("Relu", "x", "y")], {"w": weights(rng, 2)}, ["N", 4], 999)
    if kind == "circle":
        built = model([node("Relu", "x", "a"), node("Add", "a x", "y")], {}, ["N", 4])
        built.graph.node[1].input[1] = "y"
        return built
    built = model([node("Relu", "x", "a"), node("Relu", "a", "y")], {"w": weights(rng, 2)}, ["N", 4])
    if kind == "outputs":
        built.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("a", "x"))
    if kind == "inputs":
        built.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "uvw")
    if kind == "damaged":
        built.graph.initializer[0].data_type = 85
        built.graph.node.append(node("Add", "y w", "z"))
        built.graph.output[0].name = "z"
    if kind == "domain":
        built.graph.node[0].domain = EVIL
    return built


KINDS = ["operator", "attribute", "shape", "checker", "runtime", "circle", "outputs", "inputs", "damaged", "domain"]


@pytest.mark.parametrize("evil", [EVIL, EVIL * 2000], ids=["short", "long"])
@pytest.mark.parametrize("kind", [*KINDS, "open axes", "not a number"])
def test_messages_about_a_model_with_hostile_names(
    kind: str, evil: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    built = _renamed(_broken(kind, rng), evil)
    path = tmp_path / "m\x1b[31m.onnx"
    path.write_bytes(built.SerializeToString())
    for source in (built, path):
        with pytest.raises(ModelError) as caught:
            load(source)
        assert str(caught.value).isprintable() and len(str(caught.value)) <= 2000, str(caught.value)
    assert ("_[2J_" if kind == "not a number" else "\ufffd") in str(caught.value)


def test_hostile_names_in_functions(rng: np.random.Generator) -> None:
    function = helper.make_function(
        EVIL, EVIL, ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 17), helper.make_opsetid(EVIL, 1)]
    )
    function.node[0].name = EVIL
    built = model([node("Relu", "x", "y")], {}, ["N", 4])
    built.graph.node[0].op_type = built.graph.node[0].domain = EVIL
    built.opset_import.append(helper.make_opsetid(EVIL, 1))
    built.functions.append(function)
    built.ir_version = 10
    assert all(layer.name.isprintable() for layer in load(built).layers)
    function.node[0].CopyFrom(node("Sinh", "a", "b"))
    function.node[0].name = EVIL
    built.functions[0].CopyFrom(function)
    with pytest.raises(ModelError) as caught:
        load(built)
    assert str(caught.value).isprintable()


def test_layers_are_called_the_same_in_a_radii_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """A control character is a low line there, since nobody can type it."""
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 4, 3)}, ["N", 4])
    built.graph.node[0].name = "fc\x1b1"
    (tmp_path / "m.onnx").write_bytes(built.SerializeToString())
    (tmp_path / "r.toml").write_text('[layers."fc_1"]\nweight = 0.25\n')
    shown = json.loads(qverify("inspect", tmp_path / "m.onnx", "--radii", tmp_path / "r.toml", "--json").stdout)
    assert [layer["name"] for layer in shown["layers"]] == ["x", "fc_1"]
