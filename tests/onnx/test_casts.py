"""Casts between float32 and float64 as the loader reads them, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from qverify.onnx.reader import load
from tests.support.networks import known_layers
from tests.support.onnx_models import NEWEST_OPSET, agree, kinds, model, node, weights

# Name: (type of the input, types cast to before and after the layer, opset)
CASTS = {
    "to the same": (np.float32, [TensorProto.FLOAT], [], 17),
    "to float64 and back": (np.float32, [TensorProto.DOUBLE], [TensorProto.FLOAT], 13),
    "to float64": (np.float32, [TensorProto.DOUBLE], [], 8),
    "to float64 at the end": (np.float32, [], [TensorProto.DOUBLE], 17),
    "to float32": (np.float64, [TensorProto.FLOAT], [], NEWEST_OPSET),
    "to float32 and back": (np.float64, [TensorProto.FLOAT], [TensorProto.DOUBLE], 17),
    "to float32 at the end": (np.float64, [], [TensorProto.FLOAT], 17),
    "through many": (np.float64, [TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.DOUBLE], [TensorProto.FLOAT], 17),
}


@pytest.mark.parametrize("like", [False, True])
@pytest.mark.parametrize("name", CASTS)
def test_casts_between_floats_leave_no_trace(name: str, like: bool, rng: np.random.Generator) -> None:
    read, before, after, opset = CASTS[name]
    nodes, here = [], "x"
    constants: dict[str, Any] = {}
    opset = max(opset, 15) if like else opset
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(read))
    for n, to in enumerate([*before, None, *after]):
        if to is None:
            w = weights(rng, 4, 3).astype(helper.tensor_dtype_to_np_dtype(kind))
            nodes.append(node("Constant", "", "w", value=numpy_helper.from_array(w)))
            nodes.append(node("MatMul", f"{here} w", f"t{n}"))
        elif like:
            sample = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(to)))
            nodes.append(node("Constant", "", f"k{n}", value=sample))
            nodes.append(node("CastLike", f"{here} k{n}", f"t{n}"))
        else:
            nodes.append(node("Cast", here, f"t{n}", to=to))
        kind, here = kind if to is None else to, f"t{n}"
    nodes[-1].output[0] = "y"
    built = model(nodes, constants, ["N", 4], opset, read)
    built.graph.output[0].type.tensor_type.elem_type = kind
    network = load(built)
    assert kinds(network) == "Dense"
    agree(network, built, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_cast_like_the_input(dtype: type[Any], rng: np.random.Generator) -> None:
    """As functions of onnxscript write every number; what float32 loses of it is lost."""
    constants = {"k": np.array([0.1, 16777217.0, 1 / 3]).astype(object).astype(np.float64)}
    nodes = [node("Constant", "", "k", value=numpy_helper.from_array(constants["k"]))]
    nodes += [node("CastLike", "k x", "l"), node("Mul", "x l", "m"), node("CastLike", "m x", "y")]
    network = load(built := model(nodes, {}, ["N", 3], dtype=dtype))
    np.testing.assert_array_equal(known_layers(network)[1].scale, constants["k"].astype(dtype))
    agree(network, built, rng)


def test_a_cast_after_the_softmax(rng: np.random.Generator) -> None:
    """The logits are float32 while the output is float64, and the other way round."""
    for read, to in ((np.float32, TensorProto.DOUBLE), (np.float64, TensorProto.FLOAT)):
        nodes = [node("MatMul", "x w", "z"), node("Softmax", "z", "p"), node("Cast", "p", "y", to=to)]
        built = model(nodes, {"w": weights(rng, 4, 3)}, ["N", 4], dtype=read)
        built.graph.output[0].type.tensor_type.elem_type = to
        assert kinds(load(built)) == "Dense"
