"""Operators that leave the numbers alone, against onnxruntime on the same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from qverify.onnx.session import open_session
from tests.support.onnx_models import Rng, model, node, weights

VIEWS: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "flatten": ("Flatten", {}, None, 17),
    "flatten from the end": ("Flatten", {"axis": -3}, None, 17),
    "reshape with -1": ("Reshape", {}, [1, -1], 17),
    "reshape with 0": ("Reshape", {}, [0, 4, -1], 17),
    "squeeze all": ("Squeeze", {}, None, 17),
    "squeeze some": ("Squeeze", {}, [-1], 17),
    "squeeze by an attribute": ("Squeeze", {"axes": [1]}, None, 11),
    "unsqueeze": ("Unsqueeze", {}, [-1, 1], 17),
    "unsqueeze by an attribute": ("Unsqueeze", {"axes": [0, 5]}, None, 11),
    "transpose": ("Transpose", {"perm": [1, 0, 2, 3]}, None, 17),
    "identity": ("Identity", {}, None, 17),
    "dropout": ("Dropout", {}, None, 17),
}
SHAPE = (1, 1, 12, 1)


@pytest.mark.parametrize("name", VIEWS)
def test_what_follows_a_view_reads_it_under_the_shape_it_has_in_onnxruntime(name: str, rng: Rng) -> None:
    """A second Reshape keeps axis 0 and 1 of the view, so it fails, or gives another network, if a shape is wrong."""
    kind, attributes, constant, opset = VIEWS[name]
    constants: dict[str, Any] = {} if constant is None else {"c": np.array(constant)}
    view = node(kind, "x c" if constants else "x", "y", **attributes)
    x = rng.normal(size=SHAPE).astype(np.float32)
    (seen,) = open_session(model([view], constants, SHAPE, opset).SerializeToString()).run(None, {"x": x})
    view = node(kind, "x c" if constants else "x", "v", **attributes)
    ends = constants | {"n": np.array([1, 12]), "w": weights(rng, 12, 3)}
    nodes = [
        view,
        node("Shape", "v", "s"),
        node("Reshape", "v s", "u"),
        node("Reshape", "u n", "f"),
        node("MatMul", "f w", "y"),
    ]
    built = model(nodes, ends, SHAPE, opset)
    network = load(built)
    (expected,) = open_session(built.SerializeToString()).run(None, {"x": x})
    assert network.evaluate(x.reshape(1, -1)) == pytest.approx(expected.reshape(1, -1), abs=1e-5)
    assert np.array_equal(seen.reshape(-1), x.reshape(-1))


@pytest.mark.parametrize(
    ("view", "constant", "words"),
    [
        (("Reshape", {}), [1, 5], r"shape \(1, 5\) does not hold the 12 elements"),
        (("Reshape", {}), [-1, 0, 7], "does not hold the 12 elements"),
        (("Unsqueeze", {}), [1, 1], "name an axis twice"),
        (("Squeeze", {}), [7], "axis 7 does not exist"),
        (("Flatten", {"axis": 9}), None, "axis 9 does not exist"),
    ],
)
def test_views_that_cannot_be_are_refused(view: tuple[str, dict[str, Any]], constant: Any, words: str) -> None:
    from onnx import helper

    from qverify.onnx import views
    from qverify.onnx.graph import Constant, GraphInput, NetworkBuilder, Node, Refusal, Tensor

    kind, attributes = view
    inputs: list[Any] = [Tensor(layer=0, shape=SHAPE), *([] if constant is None else [Constant(np.array(constant))])]
    proto = helper.make_node(kind, ["x", "c"][: len(inputs)], ["y"], **attributes)
    builder = NetworkBuilder(inputs=(GraphInput("x", SHAPE),), batched=True)
    with pytest.raises(Refusal, match=words):
        getattr(views, kind.lower())(Node(proto, tuple(inputs), 17, attributes), builder)


def test_a_softmax_is_dropped_at_the_end_alone(rng: Rng) -> None:
    constants = {"w": weights(rng, 3, 3), "u": weights(rng, 3, 2)}
    last = model([node("MatMul", "x w", "z"), node("Softmax", "z", "y", axis=-1)], constants, [1, 3])
    network = load(last)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    assert network.evaluate(x) == pytest.approx(x @ constants["w"], abs=1e-5)
    assert any("Softmax dropped" in note for note in network.notes)
    nodes = [node("MatMul", "x w", "z"), node("Softmax", "z", "s", axis=-1), node("MatMul", "s u", "y")]
    with pytest.raises(UnsupportedModel, match="only at the end"):
        load(model(nodes, constants, [1, 3]))
