"""Nodes in any order: sorted as they were before they were mixed up, and a circle is refused."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qverify.errors import ModelError
from qverify.onnx.reader import load
from tests.support.onnx_models import agree, model, node, weights


def _residual(rng: np.random.Generator) -> onnx.ModelProto:
    """Two branches, so that there is more than one order."""
    constants = {"w": weights(rng, 3, 4), "v": weights(rng, 3, 4), "u": weights(rng, 4, 2), "k": np.array([-1, 4])}
    nodes = [
        node("MatMul", "x w", "a"),
        node("Relu", "a", "b"),
        node("MatMul", "x v", "c"),
        node("Add", "b c", "d"),
        node("Neg", "k", "m"),
        node("Neg", "m", "n"),
        node("Reshape", "d n", "e"),
        node("Gemm", "e u", "y"),
    ]
    return model(nodes, constants, ["N", 3])


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_nodes_does_not_matter(seed: int, rng: np.random.Generator) -> None:
    built = _residual(rng)
    names = [layer.name for layer in load(built).layers]
    nodes = list(built.graph.node)
    del built.graph.node[:]
    built.graph.node.extend(nodes[i] for i in np.random.default_rng(seed).permutation(len(nodes)))
    before = built.SerializeToString()
    network = load(built)
    assert sorted(layer.name for layer in network.layers) == sorted(names)
    assert built.SerializeToString() == before  # what the caller holds is left alone
    agree(network, built, rng)


def test_sorted_nodes_keep_their_order(rng: np.random.Generator) -> None:
    assert [layer.name for layer in load(_residual(rng)).layers] == [
        "x",
        "a_node",
        "b_node",
        "c_node",
        "d_node",
        "y_node",
    ]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_is_refused_and_named(length: int) -> None:
    built = model([node("Relu", "x", "a"), node("Add", "a x", "y")], {}, ["N", 3])
    del built.graph.node[1:]
    names = [f"t{n}" for n in range(length)]
    for name, source in zip(names, names[1:] + names[:1], strict=True):
        built.graph.node.append(node("Add", f"a {source}", name))
    built.graph.node.append(node("Add", f"a {names[-1]}", "y"))
    with pytest.raises(ModelError, match=r"node 't\d_node' \(Add\) reads what is made from its own output; export"):
        load(built)


def test_what_a_branch_reads_comes_first() -> None:
    """Only the graphs inside an If read `a`; valid once sorted, and refused for the If alone."""
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Relu", "a", "r")], "branch", [], [result])
    nodes = [node("If", "c", "y", then_branch=branch, else_branch=branch), node("Mul", "x k", "a")]
    built = model(nodes[::-1], {"c": np.array(True), "k": np.array(2.0)}, ["N", 3])
    del built.graph.node[:]
    built.graph.node.extend(nodes)
    with pytest.raises(ModelError) as caught:
        load(built)
    assert [problem[:17] for problem in caught.value.problems] == ["node 'y_node' (If"]  # type: ignore[attr-defined]


def test_ten_thousand_nodes_backwards(rng: np.random.Generator) -> None:
    names = ["x", *(f"t{n}" for n in range(10_000)), "y"]
    graph = _chain_of(names)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert len(load(built).layers) == 2


def _chain_of(names: list[str]) -> onnx.GraphProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in (names[0], names[-1])]
    nodes = [onnx.helper.make_node("Identity", [a], [b]) for a, b in itertools.pairwise(names)]
    nodes[0].op_type = "Relu"
    return helper.make_graph(nodes[::-1], "g", ends[:1], ends[1:])
