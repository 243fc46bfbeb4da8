"""The pieces of a graph being read: inputs of a node, axes, names, and constants that are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from qverify.layers import Dense, Input
from qverify.onnx.folding import fold
from qverify.onnx.graph import Constant, GraphInput, Logits, NetworkBuilder, Node, Refusal, Tensor, label, layer_name
from qverify.onnx.session import open_session


def floats(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def whole(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def node(*inputs: Any, **more: Any) -> Node:
    names = [f"i{k}" for k in range(len(inputs))]
    return Node(helper.make_node("Op", names, ["out"], **more), inputs, 17, {})


COMPUTED = Tensor(layer=0, shape=(1, 3))
AFTER_SOFTMAX = Tensor(layer=0, shape=(1, 3), logits=Logits("z", None))


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        ("view", Constant(np.ones(2)), "'i0' is a constant; it must depend"),
        ("tensor", AFTER_SOFTMAX, "only at the end of the network"),
        ("constant", COMPUTED, "'i0' depends on the network's input; it must be a constant"),
        ("constant", Constant(np.ones(0)), "'i0' is empty"),
        ("numbers", Constant(np.array([1])), "'i0' is int64; weights must be float32 or float64"),
        ("numbers", Constant(np.ones(1, dtype=np.float16)), "'i0' is float16; weights"),
        ("integers", Constant(np.ones(1)), "'i0' is float64; integers are needed"),
        ("integers", Constant(np.array([True])), "'i0' is bool; integers are needed"),
    ],
)
def test_an_input_of_another_kind_is_refused_by_name(read: str, value: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        getattr(node(value), read)(0)


def test_inputs_are_read_as_what_they_are() -> None:
    one = node(COMPUTED, None, Constant(np.array([[2, 3]], dtype=np.int32)), Constant(floats([0.1]), frozenset("w")))
    assert one.view(0) is one.tensor(0) is COMPUTED and node(AFTER_SOFTMAX).view(0) is AFTER_SOFTMAX
    assert [one.has(k) for k in range(5)] == [True, False, True, True, False]
    assert one.integers(2) == (2, 3) and one.shape(0) == (1, 3) and one.shape(2) == (1, 2)
    assert one.numbers(3).dtype == np.float64 and one.numbers(3).tolist() == [float(np.float32(0.1))]
    assert one.sources(0, 1, 2, 3, 4) == {"w"}


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_axes_count_as_in_numpy(rank: int) -> None:
    array = np.zeros(range(2, 2 + rank))
    for axis in range(-rank - 2, rank + 3):
        if -rank <= axis < rank:
            assert array.shape[node().axis(axis, rank)] == array.shape[axis]
        else:
            with pytest.raises(Refusal, match=f"axis {axis} does not exist: the tensor has {rank} axes"):
                node().axis(axis, rank)
    assert node().axis(rank, rank, end=rank) == rank  # Flatten may end behind the last axis


def test_nodes_have_a_word_for_messages() -> None:
    assert label(helper.make_node("Gemm", ["a"], ["b"], name="fc")) == "node 'fc' (Gemm)"
    assert label(helper.make_node("Gemm", ["a"], ["b"])) == "Gemm giving 'b'"
    assert label(helper.make_node("Gemm", ["a"], [])) == "unnamed Gemm"


def test_names_of_layers_can_be_typed() -> None:
    assert layer_name("fc1/Gemm") == "fc1/Gemm" and layer_name("a\x1b\nb") == "a__b"
    assert len(layer_name("x" * 5000)) == 200


def test_layers_get_names_of_their_own_and_the_shape_of_one_sample() -> None:
    builder = NetworkBuilder(inputs=(GraphInput("x", (1, 3)),), batched=True)
    assert [(type(layer), layer.shape) for layer in builder.layers] == [(Input, (3,))]
    fields = {"weight": np.ones((2, 3)), "bias": np.zeros(2)}
    made = [builder.new(Dense, "x", (COMPUTED,), (1, 2), **fields) for _ in range(3)]
    assert [layer.name for layer in builder.layers] == ["x", "x_2", "x_3", "x_4"]
    assert [tensor.layer for tensor in made] == [1, 2, 3] and builder.layers[3].shape == (2,)
    changed = builder.change(made[1], bias=np.ones(2))
    assert changed.layer == 2 and [la.bias.sum() for la in builder.layers[1:]] == [0, 2, 0]  # type: ignore[attr-defined]
    for tensor in (made[0], made[0], made[2]):
        builder.uses(tensor, frozenset(["w"]))
    assert builder.weight_uses == {"w": ["x_2", "x_4"]}


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs"),
    [
        ("Add", {}, [floats([1, 2]), floats([[3], [4]])]),
        ("Transpose", {"perm": [1, 0]}, [floats([[1, 2, 3]])]),
        ("Concat", {"axis": 0}, [whole([1]), whole([2, 3])]),
        ("Gather", {"axis": 0}, [whole([5, 6, 7]), whole([2, 0])]),
        ("Unsqueeze", {}, [floats([1, 2]), whole([0])]),
        ("Cast", {"to": 1}, [whole([1, 2])]),
    ],
)
def test_constants_are_what_onnxruntime_makes_of_them(kind: str, attributes: dict[str, Any], inputs: list[Any]) -> None:
    names = [f"i{k}" for k in range(len(inputs))]
    one = helper.make_node(kind, names, ["out"], **attributes)
    own = {
        n: Constant(v, frozenset([n]) if v.dtype.kind == "f" else frozenset())
        for n, v in zip(names, inputs, strict=True)
    }
    (found,) = fold(one, 17, own)
    ends = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=True)
    ]
    out = helper.make_tensor_value_info("out", helper.np_dtype_to_tensor_dtype(found.value.dtype), None)
    graph = helper.make_graph([one], "g", ends, [out])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (expected,) = open_session(built.SerializeToString()).run(None, dict(zip(names, inputs, strict=True)))
    assert found.value.dtype == expected.dtype and np.array_equal(found.value, expected)
    floats = {n for n, v in zip(names, inputs, strict=True) if v.dtype.kind == "f"}
    assert found.sources == (floats or {"out"} if expected.dtype.kind == "f" else set())


def test_constants_that_cannot_be_computed_are_refused() -> None:
    one = helper.make_node("Add", ["a", "b"], ["out"])
    with pytest.raises(Refusal, match="its constant inputs cannot be evaluated"):
        fold(one, 17, {"a": Constant(np.ones(2)), "b": Constant(np.ones(3))})
