"""Models with several inputs become networks with one, their numbers joined; onnxruntime says what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qverify.errors import DataError, ModelError, UnsupportedModel
from qverify.fingerprint import fingerprint
from qverify.network import Network
from qverify.onnx import load, to_onnx
from qverify.onnx.check import compare
from tests.support.onnx_models import node, weights
from tests.support.several_inputs import answers, joining, samples, two_branches

Rng = np.random.Generator
SHAPES = {"a": (3,), "b": (1, 4, 4)}


def agree(network: Network, model: onnx.ModelProto, given: dict[str, np.ndarray]) -> None:
    found, wanted = network.evaluate(given), answers(model, given)
    assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def test_numbers_are_joined_in_the_order_of_the_graph(rng: Rng) -> None:
    model = two_branches(rng)
    network, given = load(model), samples(rng, 5, SHAPES)
    assert network.input_shape == (19,) and network.parts is not None
    assert [(part.name, part.shape) for part in network.parts] == [("a", (3,)), ("b", (1, 4, 4))]
    agree(network, model, dict(reversed(given.items())))
    joined = np.concatenate([given["a"], given["b"].reshape(5, 16)], axis=1)
    assert np.array_equal(network.evaluate(joined), network.evaluate(given))
    assert [network.layers[i].name for i in sorted(network.entries)] == ["inputs", "a", "b"]


@pytest.mark.parametrize(
    ("nodes", "inputs"),
    [
        ([node("Add", "a b", "y")], {"a": ["N", 3], "b": ["N", 3]}),
        ([node("Sub", "b a", "y")], {"a": ["N", 3], "b": ["N", 1]}),
        ([node("Mul", "a b", "y")], {"a": [1, 3], "b": [3]}),
        ([node("Transpose", "a", "t", perm=[0, 2, 1]), node("Add", "t b", "y")], {"a": ["N", 2, 3], "b": [1, 3, 2]}),
        ([node("Concat", "b a b", "y", axis=1)], {"a": ["N", 3], "b": [1, 2]}),
        ([node("Max", "a b", "z"), node("Relu", "z", "y")], {"a": ["batch", 4], "b": ["n", 4]}),
        ([node("MatMul", "a w", "p"), node("Relu", "b", "q"), node("Add", "p q", "y")], {"b": ["N", 2], "a": ["N", 3]}),
    ],
    ids=["sum", "broadcast", "product, one without a batch", "moved", "joined twice", "maximum", "order"],
)
def test_what_reads_several_inputs(nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]], rng: Rng) -> None:
    used = {name for one in nodes for name in one.input}
    model = joining(nodes, {"w": weights(rng, 3, 2)} if "w" in used else {}, inputs)
    network = load(model)
    assert network.parts is not None and [part.name for part in network.parts] == list(inputs)
    agree(network, model, samples(rng, 5, {part.name: part.shape for part in network.parts}))


def test_types_may_differ(rng: Rng) -> None:
    nodes = [node("Cast", "b", "c", to=TensorProto.FLOAT), node("Add", "a c", "y")]
    model = joining(nodes, {}, {"a": ["N", 3], "b": ["N", 3]}, {"b": TensorProto.DOUBLE})
    agree(load(model), model, samples(rng, 3, {"a": (3,), "b": (3,)}))


def test_an_input_of_integers_beside_one_of_floats(rng: Rng) -> None:
    constants = {"s": np.float32(0.02), "z": np.uint8(100)}
    nodes = [node("DequantizeLinear", "b s z", "c"), node("QuantizeLinear", "a s z", "d")]
    nodes += [node("DequantizeLinear", "d s z", "e"), node("Add", "c e", "y")]
    model = joining(nodes, constants, {"a": ["N", 3], "b": ["N", 3]}, {"b": TensorProto.UINT8})
    network = load(model)
    whole = rng.integers(0, 256, (6, 3))
    a = rng.normal(size=(6, 3)).astype(np.float32).astype(float)
    wanted = answers(model, {"a": a, "b": whole})
    assert np.abs(network.evaluate({"a": a, "b": (whole - 100) * float(np.float32(0.02))}) - wanted).max() < 1e-6
    assert any(note.startswith("b: integers (uint8)") for note in network.notes)


def test_an_input_that_nothing_reads_is_said(rng: Rng) -> None:
    model = joining([node("Relu", "a", "y")], {}, {"a": ["N", 3], "b": ["N", 2]})
    network = load(model)
    assert "inputs that no node reads: b." in network.notes
    agree(network, model, samples(rng, 3, {"a": (3,), "b": (2,)}))


def test_each_input_that_cannot_be_read_is_named() -> None:
    model = joining(
        [node("Add", "a b", "p"), node("Add", "p c", "y")],
        {},
        {"a": ["N", "M"], "b": ["N", 3], "c": ["N", 3]},
        {"c": TensorProto.INT64},
    )
    with pytest.raises(UnsupportedModel) as caught:
        load(model)
    assert "input 'a' has shape (N, M); only the first of several axes" in str(caught.value)
    assert "input 'c' is int64; supported are float32" in str(caught.value)


def test_names_count_in_the_hash(rng: Rng) -> None:
    model, other = two_branches(np.random.default_rng(1)), two_branches(np.random.default_rng(1))
    other.graph.input[0].name = other.graph.node[0].input[0] = "other"
    assert fingerprint(load(model)) != fingerprint(load(other))
    assert fingerprint(load(model)) == fingerprint(load(two_branches(np.random.default_rng(1))))


def test_written_networks_have_the_inputs(rng: Rng) -> None:
    model = two_branches(rng)
    network, given = load(model), samples(rng, 4, SHAPES)
    again = to_onnx(network)
    assert [value.name for value in again.graph.input] == ["a", "b"]
    assert np.abs(answers(again, given) - answers(model, given)).max() < 1e-4
    read = load(again)
    assert read.parts == network.parts
    assert [(type(la), la.inputs, la.shape) for la in read.layers] == [
        (type(la), la.inputs, la.shape) for la in network.layers
    ]
    alone = to_onnx(network.with_one_input(), "float64")
    assert [value.name for value in alone.graph.input] == ["input"]
    joined = {"input": np.concatenate([given["a"], given["b"].reshape(4, 16)], axis=1)}
    assert np.abs(answers(alone, joined) - network.evaluate(given)).max() < 1e-12


def test_an_input_called_as_the_output_is_not_written(rng: Rng) -> None:
    model = joining([node("Add", "output b", "y")], {}, {"output": ["N", 3], "b": ["N", 3]})
    with pytest.raises(ModelError, match="an input is called 'output'"):
        to_onnx(load(model))


def test_samples_by_names_fit_or_are_refused(rng: Rng) -> None:
    network, given = load(two_branches(rng)), samples(rng, 5, SHAPES)
    for wrong, words in (
        ({"a": given["a"]}, "The samples have no 'b'; give one array for each input of the model: 'a', 'b'"),
        (given | {"c": given["a"]}, "The samples have 'c'"),
        (given | {"b": given["b"][:4]}, "The samples are 5 of 'a', 4 of 'b'"),
        (given | {"b": given["a"]}, "Input 'b' has shape (5, 3), but the model reads (1, 4, 4)"),
        (given | {"b": rng.random((5, 2, 8))}, "Input 'b' has shape (5, 2, 8)"),
        (given | {"b": ["text"] * 5}, "Input 'b' of the samples"),
    ):
        with pytest.raises(DataError) as caught:
            network.evaluate(wrong)
        assert words in str(caught.value)
    with pytest.raises(DataError, match="the network has one input"):
        network.with_one_input().evaluate(given)


def test_the_comparison_sees_inputs_that_are_swapped(rng: Rng) -> None:
    """`compare` itself, on a network of the same model whose inputs stand in another order."""
    from qverify.onnx.graph import GraphInput, NetworkBuilder, Tensor

    nodes = [node("Sub", "a b", "y")]
    model = joining(nodes, {}, {"a": ["N", 3], "b": ["N", 3]})
    right = load(model)
    builder = NetworkBuilder(inputs=(GraphInput("a", (1, 3)), GraphInput("b", (1, 3))), batched=True)
    output = Tensor(layer=len(right.layers) - 1, shape=(1, 3))
    assert compare(model, right, builder, output) == []
    builder.inputs = (builder.inputs[1], builder.inputs[0])
    with pytest.raises(ModelError, match="qverify and onnxruntime differ"):
        compare(model, right, builder, output)


def test_initializers_that_are_listed_as_inputs_are_none(rng: Rng) -> None:
    model = joining([node("Add", "a b", "y")], {}, {"a": ["N", 3], "b": [3]})
    model.graph.initializer.append(numpy_helper.from_array(weights(rng, 3).astype(np.float32), "b"))
    network = load(model)
    assert network.parts is None and network.input_shape == (3,)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
    with pytest.raises(ModelError):
        load(model)
