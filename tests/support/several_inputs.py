"""Models with several inputs, and onnxruntime as their oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.onnx_models import node, weights
from tests.support.sessions import exact_session

Array = np.ndarray
Rng = np.random.Generator
KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def joining(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    inputs: Mapping[str, Sequence[int | str]],
    kinds: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """From these inputs, by name and shape, to `y`."""
    tensors = [
        numpy_helper.from_array(np.asarray(v).astype(np.float32) if np.asarray(v).dtype == float else np.asarray(v), n)
        for n, v in constants.items()
    ]
    given = [
        helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)
        for name, shape in inputs.items()
    ]
    graph = helper.make_graph(
        list(nodes), "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["?", "??"])], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_branches(rng: Rng) -> onnx.ModelProto:
    """A vector `a` (3) and an image `b` (1, 4, 4), each with a layer of its own, joined before the last: 3 classes."""
    nodes = [
        node("Gemm", "a v u", "p", transB=1),
        node("Relu", "p", "q"),
        node("Conv", "b k", "r"),
        node("Relu", "r", "s"),
        node("Flatten", "s", "t"),
        node("Concat", "q t", "z", axis=1),
        node("Gemm", "z w c", "y", transB=1),
    ]
    constants = {
        "v": weights(rng, 4, 3),
        "u": weights(rng, 4),
        "k": weights(rng, 2, 1, 3, 3),
        "w": weights(rng, 3, 12),
        "c": weights(rng, 3),
    }
    return joining(nodes, constants, {"a": ["N", 3], "b": ["N", 1, 4, 4]})


def answers(model: onnx.ModelProto, given: Mapping[str, Array]) -> Array:
    """onnxruntime's outputs (N, n_out) on arrays (N, ...), sample by sample."""
    session = exact_session(model)
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
    rows = []
    for k in range(len(next(iter(given.values())))):
        fed = {}
        for one in session.get_inputs():
            shape = [length if isinstance(length, int) else 1 for length in one.shape]
            fed[one.name] = np.asarray(given[one.name][k]).reshape(shape).astype(kinds[one.type])
        rows.append(np.asarray(session.run(None, fed)[0], dtype=np.float64).ravel())
    return np.array(rows)


def samples(rng: Rng, count: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Inputs of both signs that float32 holds."""
    return {name: rng.normal(size=(count, *shape)).astype(np.float32).astype(float) for name, shape in shapes.items()}
