"""Functions local to a model: put in place as onnxruntime does it, or refused; never read as something else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from qverify.arrays import Array
from qverify.errors import ModelError, UnsupportedModel
from qverify.onnx.reader import load
from tests.support.networks import known_layers
from tests.support.onnx_models import agree, kinds, model, node, weights

LOCAL = "my.layers"


def function(
    name: str,
    inputs: str,
    outputs: str,
    *nodes: onnx.NodeProto,
    opset: int = 17,
    attributes: list[str] | tuple[()] = (),
    domain: str = LOCAL,
    overload: str = "",
) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(LOCAL, 1)]
    made = helper.make_function(domain, name, inputs.split(), outputs.split(), nodes, imports, list(attributes))
    made.overload = overload
    return made


def calling(
    nodes: list[onnx.NodeProto],
    functions: list[onnx.FunctionProto],
    constants: dict[str, Array],
    shape: tuple[str, int] = ("N", 4),
    outputs: int = 3,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model whose nodes of other operators than ONNX has call the functions; y is (N, outputs)."""
    kind = TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, s) for n, s in (("x", shape), ("y", ["N", outputs]))]  # type: ignore[arg-type]
    tensors = [numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in constants.items()]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(LOCAL, 1)]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def call(name: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, inputs.split(), output.split(), domain=LOCAL, **attributes)


def referring(made: onnx.NodeProto, attribute: str, to: str, kind: int = AttributeProto.FLOAT) -> onnx.NodeProto:
    """A node whose attribute is that of the function around it."""
    made.attribute.append(AttributeProto(name=attribute, ref_attr_name=to, type=kind))  # type: ignore[arg-type]
    return made


LAYER = function("Layer", "a w b", "z", node("Gemm", "a w b", "g"), node("Relu", "g", "z"))


@pytest.fixture
def constants(rng: np.random.Generator) -> dict[str, Array]:
    names = {"w": (4, 5), "b": (5,), "v": (5, 3), "c": (3,)}
    return {name: weights(rng, *shape) for name, shape in names.items()}


def test_a_function_called_twice(constants: dict[str, Array], rng: np.random.Generator) -> None:
    built = calling([call("Layer", "x w b", "h"), call("Layer", "h v c", "y")], [LAYER], constants)
    network = load(built)
    assert kinds(network) == "Dense Relu Dense Relu" and len({layer.name for layer in network.layers}) == 5
    assert load(built.SerializeToString() and built).notes == ()
    agree(network, built, rng)


def test_functions_within_functions(constants: dict[str, Array], rng: np.random.Generator) -> None:
    twice = function(
        "Two", "a w b v c", "z", call("Layer", "a w b", "h"), call("Half", "h", "i"), call("Layer", "i v c", "z")
    )
    half = function(
        "Half",
        "a",
        "z",
        node("Constant", "", "k", value_float=0.5),
        node("Mul", "a k", "m"),
        node("Identity", "m", "z"),
    )
    built = calling([call("Two", "x w b v c", "y")], [twice, LAYER, half], constants)
    network = load(built)
    assert kinds(network) == "Dense Relu Scale Dense Relu"
    agree(network, built, rng)


def test_attributes_of_a_function(constants: dict[str, Array], rng: np.random.Generator) -> None:
    """One is handed on, one has a default, one is left out where the caller gives none."""
    gemm = node("Gemm", "a w b", "z")
    for name, to in (("alpha", "factor"), ("beta", "share")):
        referring(gemm, name, to)
    referring(gemm, "transB", "turned", AttributeProto.INT)
    scaled = function("Scaled", "a w b", "z", gemm, attributes=["factor", "turned"])
    scaled.attribute_proto.append(helper.make_attribute("share", 0.25))
    nodes = [call("Scaled", "x w b", "h", factor=-1.5), call("Scaled", "h v c", "y", share=2.0)]
    built = calling(nodes, [scaled], constants)
    network = load(built)
    np.testing.assert_allclose(known_layers(network)[1].weight, -1.5 * constants["w"].T, rtol=1e-7)
    np.testing.assert_allclose(known_layers(network)[1].bias, 0.25 * constants["b"], rtol=1e-7)
    agree(network, built, rng)


def test_overloads_are_told_apart(constants: dict[str, Array], rng: np.random.Generator) -> None:
    other = function("Layer", "a w b", "z", node("Gemm", "a w b", "z", alpha=0.5), overload="half")
    second = call("Layer", "h v c", "y")
    second.overload = "half"
    built = calling([call("Layer", "x w b", "h"), second], [LAYER, other], constants)
    network = load(built)
    assert kinds(network) == "Dense Relu Dense"
    agree(network, built, rng)


def test_a_softmax_inside_a_function_is_dropped(constants: dict[str, Array], rng: np.random.Generator) -> None:
    head = function("Head", "a w b", "z", node("Gemm", "a w b", "g"), node("Softmax", "g", "z"))
    network = load(calling([call("Layer", "x w b", "h"), call("Head", "h v c", "y")], [LAYER, head], constants))
    assert kinds(network) == "Dense Relu Dense" and "Softmax dropped" in network.notes[0]
    plain = [node("Gemm", "x w b", "g"), node("Relu", "g", "h"), node("Gemm", "h v c", "y")]
    agree(network, model(plain, constants, ["N", 4]), rng)


def test_what_a_function_makes_and_nobody_asks_for_is_left_out(
    constants: dict[str, Array], rng: np.random.Generator
) -> None:
    """The second output of the function, and a ThresholdedRelu that is not supported."""
    both = function("Both", "a w b", "z t", node("Gemm", "a w b", "z"), node("ThresholdedRelu", "z", "t"))
    nodes = [call("Both", "x w b", "h unread"), call("Layer", "h v c", "y")]
    built = calling(nodes, [LAYER, both], constants)
    network = load(built)
    assert kinds(network) == "Dense Dense Relu"
    agree(network, built, rng)


def test_a_function_that_nothing_calls_is_harmless(constants: dict[str, Array], rng: np.random.Generator) -> None:
    unsupported = function("Never", "a", "z", node("ThresholdedRelu", "a", "z"))
    shadow = function("Gemm", "a", "z", node("Neg", "a", "z"), domain="ai.onnx.preview")
    built = calling([call("Layer", "x w b", "h"), call("Layer", "h v c", "y")], [LAYER, unsupported, shadow], constants)
    assert kinds(load(built)) == "Dense Relu Dense Relu"


@pytest.mark.parametrize("opset", [13, 14, 17, 20])
def test_a_function_of_another_opset_whose_operators_mean_the_same(
    opset: int, constants: dict[str, Array], rng: np.random.Generator
) -> None:
    """onnx's inliner by itself leaves such functions where they are. Gemm and Relu are those of opset 13 and 14."""
    older = function("Layer", "a w b", "z", node("Gemm", "a w b", "z"), opset=opset)
    built = calling([call("Layer", "x w b", "h"), call("Layer", "h v c", "y")], [older], constants)
    network = load(built)
    assert kinds(network) == "Dense Dense"
    agree(network, built, rng)


# --- refused ----------------------------------------------------------------------------------------------


def _refused(built: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        load(built)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def _negated(*domains: str) -> onnx.ModelProto:
    """Relu is a function here that gives -x, which onnxruntime does not call and onnx's inliner does."""
    built = model([node("Relu", "x", "y")], {}, ["N", 4])
    for domain in domains:
        built.functions.append(function("Relu", "a", "z", node("Neg", "a", "z"), domain=domain))
    built.opset_import.append(helper.make_opsetid(LOCAL, 1))
    built.ir_version = 10
    return built


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_called_as_a_standard_operator_is_refused(domain: str) -> None:
    message = _refused(_negated(domain))
    assert "functions called as operators that runtimes have of their own ('Relu')" in message and "rename" in message


def test_a_function_called_as_an_operator_of_onnxruntime_is_refused() -> None:
    built = model([node("Relu", "x", "y")], {}, ["N", 4])
    built.graph.node[0].op_type, built.graph.node[0].domain = "Gelu", "com.microsoft"
    built.functions.append(function("Gelu", "a", "z", node("Relu", "a", "z"), domain="com.microsoft"))
    built.opset_import.extend([helper.make_opsetid("com.microsoft", 1), helper.make_opsetid(LOCAL, 1)])
    built.ir_version = 10
    assert "runtimes have of their own ('Gelu')" in _refused(built)


def test_a_shadow_deep_inside_is_refused(constants: dict[str, Array]) -> None:
    outer = function("Outer", "a w b", "z", call("Layer", "a w b", "g"), node("Relu", "g", "z"))
    shadow = function("Relu", "a", "z", node("Neg", "a", "z"), domain="")
    built = calling([call("Outer", "x w b", "h"), call("Layer", "h v c", "y")], [LAYER, outer, shadow], constants)
    assert "('Relu')" in _refused(built)


def test_an_operator_that_changed_between_the_opsets_is_refused(constants: dict[str, Array]) -> None:
    older = function("Head", "a w b", "z", node("Add", "a b", "g"), node("Softmax", "g", "z"), opset=12)
    built = calling([call("Layer", "x w b", "h"), call("Head", "h v c", "y")], [LAYER, older], constants)
    with pytest.raises(ModelError, match="FunctionOp imports version 12 whereas model imports version 17"):
        load(built)


def test_what_is_in_a_function_is_refused_like_anything_else(constants: dict[str, Array]) -> None:
    tanh = function("Layer", "a w b", "z", node("Gemm", "a w b", "g"), node("ThresholdedRelu", "g", "z"))
    problem = _refused(calling([call("Layer", "x w b", "h"), call("Layer", "h v c", "y")], [tanh], constants))
    assert "(ThresholdedRelu) and 1 more: the operator is not supported (it jumps" in problem


def test_a_function_that_calls_itself_is_refused() -> None:
    """Directly, or through another one."""
    for inner in ("A", "B"):
        functions = [function("A", "a", "z", call(inner, "a", "z")), function("B", "a", "z", call("A", "a", "z"))]
        with pytest.raises(ModelError, match=r"recursive|calls itself"):
            load(calling([call("A", "x", "y")], functions, {}, outputs=4))


@pytest.mark.parametrize(("deep", "calls"), [(40, 2), (90, 30), (150, 1), (3, 1100)])
def test_functions_that_would_fill_the_memory_are_refused(deep: int, calls: int) -> None:
    """Forty that each call the next one twice are 2^40 nodes; so may be many calls from the graph itself."""
    functions = [function("F0", "a", "z", node("Relu", "a", "z"))]
    names = ["a", *(f"t{i}" for i in range(calls - 1)), "z"]
    for n in range(1, deep):
        inner = [call(f"F{n - 1}", source, to) for source, to in itertools.pairwise(names)]
        functions.append(function(f"F{n}", "a", "z", *inner))
    outer = [call(functions[-1].name, *ends) for ends in itertools.pairwise(["x", *names[1:-1], "y"])]
    with pytest.raises(ModelError, match=r"functions that call each other|depth exceeds limit \(100\)"):
        load(calling(outer if deep == 3 else [call(functions[-1].name, "x", "y")], functions, {}, outputs=4))


def test_constants_of_a_function_that_lie_in_another_file(
    tmp_path: Path, constants: dict[str, Array], rng: np.random.Generator
) -> None:
    tensor = numpy_helper.from_array(np.asarray(constants["w"], dtype=np.float32), "w")
    inside = function("Layer", "a b", "z", node("Constant", "", "w", value=tensor), node("Gemm", "a w b", "z"))
    built = calling([call("Layer", "x b", "y")], [inside], {"b": constants["b"]}, outputs=5)
    agree(load(built), built, rng)
    there = built.functions[0].node[0].attribute[0].t
    (tmp_path / "w.data").write_bytes(there.raw_data)
    there.ClearField("raw_data")
    there.data_location = TensorProto.EXTERNAL
    there.external_data.add(key="location", value="w.data")
    (tmp_path / "net.onnx").write_bytes(built.SerializeToString())
    np.testing.assert_array_equal(known_layers(load(tmp_path / "net.onnx"))[1].weight, constants["w"].T)
    with pytest.raises(ModelError, match=r"keeps weights in another file; give its path, or read them with onnx\.load"):
        load(onnx.load(tmp_path / "net.onnx", load_external_data=False))
