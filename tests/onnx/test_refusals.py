"""What is said of models with many problems: a sentence a kind, of bounded length, and nothing that is not so."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import onnx
import onnx.utils
import pytest
from onnx import helper

from qverify.arrays import Array
from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from qverify.onnx.refusals import Refusals
from tests.support.onnx_models import model, node, weights


def _numbers(*shape: int) -> Array:
    return weights(np.random.default_rng(5), *shape)


def _chain(
    *nodes: onnx.NodeProto, shape: list[int | str] | tuple[str, int] = ("N", 4), **constants: Any
) -> onnx.ModelProto:
    return model(nodes, constants, shape)


W = _numbers(4, 3)


def _problems(built: onnx.ModelProto) -> tuple[Any, ...]:
    with pytest.raises(UnsupportedModel) as caught:
        load(built)
    return caught.value.problems, str(caught.value)


def test_all_problems_are_listed_at_once() -> None:
    """What is made from a refused node is judged only by what holds whatever it is: not by a shape."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("Cosh", "a", "b"),
        node("MatMul", "b w", "c"),
        node("LpPool", "c", "d", kernel_shape=[2]),
        node("Reshape", "d s", "e"),
        node("Relu", "e", "f", __slope=1),
        node("Asinh", "f", "y"),
    ]
    problems, message = _problems(model(nodes, {"w": W, "s": np.array([5, 5])}, [6, 4]))
    kinds = {"a": "MatMul", "f": "Relu", "b": "Cosh", "d": "LpPool", "y": "Asinh"}
    assert [problem.split(":")[0] for problem in problems] == [f"node '{n}_node' ({k})" for n, k in kinds.items()]
    assert message.count("supported are Abs, Add, ") == 1 and message.endswith(", Unsqueeze, Upsample, ZipMap")


def test_nothing_follows_from_a_refused_node() -> None:
    """Two halves of x by an operator that is not read, and what else a stand-in for the two would be wrong about."""
    constants = {"s": np.array([0]), "m": np.array([2]), "w": _numbers(9, 9)}
    nodes = [
        node("Compress", "x s", "left"),
        node("Compress", "x m", "right"),
        node("Sub", "left right", "difference"),
        node("MatMul", "difference w", "product"),
        node("Mul", "product left", "y"),
    ]
    problems, message = _problems(model(nodes, constants, ["N", 4]))
    assert problems == ("node 'left_node' (Compress) and 1 more: the operator is not supported",)
    assert "itself" not in message and "does not fit" not in message and "two computed" not in message


def test_constants_made_from_a_refused_one_are_not_judged() -> None:
    """Sign and Floor are fine on constants, and what follows Random is none that depends on the input."""
    nodes = [
        node("RandomNormal", "", "random", shape=[4]),
        node("Sign", "random", "negative"),
        node("Floor", "negative", "root"),
        node("Add", "x root", "y"),
    ]
    assert len(_problems(_chain(*nodes))[0]) == 1
    nodes[0] = node("Shape", "x", "random", __attribute=1)
    assert len(_problems(_chain(*nodes))[0]) == 1
    nodes[0] = node("Sinh", "x", "random")
    problems, _ = _problems(_chain(*nodes))
    assert [problem.split("(")[1].split(")")[0] for problem in problems] == ["Sinh", "Sign", "Floor"]


def test_an_input_of_unknown_shape_is_no_stand_in() -> None:
    problems, _ = _problems(_chain(node("MatMul", "x w", "y"), shape=["N", 3, "L"], w=W))
    assert len(problems) == 1 and problems[0].startswith("input 'x' has shape (N, 3, L)")


def test_a_hundred_refused_nodes_of_five_kinds_are_five_sentences() -> None:
    """They differ in names, numbers and shapes only."""
    kinds = ["Sinh", "Asinh", "LpPool", "Reshape", "Relu"]
    nodes, constants = [], {}
    for n in range(100):
        kind = kinds[n % 5]
        attributes: Any = {"LpPool": {"kernel_shape": [1, 1]}, "Relu": {"__slope": n}}.get(kind, {})
        constants[f"s{n}"] = np.full(2 + n % 4, 7)
        nodes.append(node(kind, f"x s{n}" if kind == "Reshape" else "x", f"t{n}", **attributes))
    nodes.append(node("Concat", " ".join(f"t{n}" for n in range(100)), "y", axis=1))
    problems, message = _problems(model(nodes, constants, ["N", 2, 3, 4]))
    assert len(problems) == 5 and len(message) < 1500 and message.count(" and 19 more: ") == 5


@pytest.mark.parametrize("count", [9, 10, 11, 12, 4000])
def test_a_hostile_file_gets_a_message_of_bounded_length(count: int) -> None:
    """Every node is of a kind of its own and has a long name with escape sequences in it."""
    long = 30_000 // count * "n\x1b[2J\u202e"
    names = [f"t{n}" for n in range(count)]
    built = _chain(*(node("Relu", "x", name) for name in names), node("Sum", " ".join(names), "y"))
    for n, one in enumerate(built.graph.node[:count]):
        letters = f"{n:04}".translate(str.maketrans("0123456789", "abcdefghij"))
        one.op_type, one.name, one.domain = f"Op{letters}{long}", f"{long}{n}", "d\x1b[31m"
    built.opset_import.append(helper.make_opsetid("d\x1b[31m", 1))
    problems, message = _problems(built)
    assert len(problems) == count + 1 and len(message) <= 2000 and message.isprintable()
    shown = message.count("operator domain") + message.count("(Sum)")
    assert 3 <= shown <= 10 and f"; and {count + 1 - shown} more kinds" in message


def test_a_message_survives_pickling() -> None:
    """As between processes."""
    problems, message = _problems(_chain(node("Sinh", "x", "y")))
    with pytest.raises(UnsupportedModel) as caught:
        load(_chain(node("Sinh", "x", "y")))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is UnsupportedModel and str(again) == message and again.problems == problems


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("shape (1, 3) of 'a'", "shape (2,) of 'b'", True),
        ("axes [0, 1]", "axes []", True),
        ("it keeps values in [-1, 1e+38]", "it keeps values in [0.5, 6]", True),
        ("input 'it\\'s' is", 'input "b" is', True),
        ("attribute a is not supported", "attribute b is not supported", False),
        ("casts to int32", "casts to float16", False),
    ],
)
def test_kinds_differ_by_more_than_names_and_numbers(one: str, other: str, same: bool) -> None:
    refusals = Refusals()
    assert not refusals
    for what in (one, other, one):
        refusals.add("node 'n'", f": {what}")
    first = f"node 'n' and {2 if same else 1} more: {one}"
    assert refusals and refusals.sentences == ([first] if same else [first, f"node 'n': {other}"])
