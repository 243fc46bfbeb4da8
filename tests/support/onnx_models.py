"""ONNX models generated for the tests of the loader, and onnxruntime as their oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference

from qverify.network import Network

Array = np.ndarray
Rng = np.random.Generator


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node called `output`; `inputs` separated by blanks, `-` for an absent one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=f"{output}_node", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    shape: Sequence[int | str],
    opset: int = 17,
    dtype: Any = np.float32,
) -> onnx.ModelProto:
    """From `x` to `y`; floating-point constants become `dtype`, and the shape of `y` is inferred."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = []
    for name, value in constants.items():
        array = np.asarray(value)
        tensors.append(numpy_helper.from_array(array.astype(dtype) if array.dtype == np.float64 else array, name))
    ends = [helper.make_tensor_value_info(name, kind, where) for name, where in (("x", shape), ("y", None))]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = shape_inference.infer_shapes(built)
    del inferred.graph.value_info[:]
    if not inferred.graph.output[0].type.tensor_type.HasField("shape"):
        inferred.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, ["?", "??"]))
    return inferred


def weights(rng: Rng, *shape: int) -> Array:
    """Mixed signs, about one in size, never zero, exact in float32."""
    return (rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.2, 1.2, size=shape)).astype(np.float32).astype(float)


BN = "scale offset mean variance"


def statistics(rng: Rng, channels: int) -> dict[str, Array]:
    """The four parameters of a BatchNormalization, whose inputs are called as in `BN`."""
    names = dict(zip(BN.split(), weights(rng, 4, channels), strict=True))
    return names | {"variance": np.abs(names["variance"])}


def run(built: onnx.ModelProto, x: Array) -> Array:
    """onnxruntime without graph optimisation, `x` as the model wants it; float64."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kind = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
    wanted = kind[built.graph.input[0].type.tensor_type.elem_type]
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.astype(wanted)})[0], dtype=np.float64)


def agree(network: Network, built: onnx.ModelProto, rng: Rng) -> None:
    """Asserts that onnxruntime gets the network's outputs on five random inputs, all at once if the batch is open."""
    shape = [axis.dim_value for axis in built.graph.input[0].type.tensor_type.shape.dim]
    x = rng.normal(size=(5, network.input_size)).astype(np.float32).astype(float)
    if len(shape) > 1 and shape[0] == 0:
        wanted = run(built, x.reshape(5, *shape[1:]))
    else:
        wanted = np.stack([run(built, row.reshape(shape)) for row in x])
    got = network.evaluate(x)
    np.testing.assert_allclose(got, wanted.reshape(got.shape), rtol=0, atol=2e-6 * np.abs(wanted).max())


def kinds(network: Network) -> str:
    """The layers after the input, by type: "Dense Relu Dense"."""
    return " ".join(type(layer).__name__ for layer in network.layers[1:])


def _newest_opset() -> int:
    """The newest that both onnx and onnxruntime know."""
    newest = onnx.defs.onnx_opset_version()
    while newest > 17:
        try:
            run(model([node("Relu", "x", "y")], {}, [1], newest), np.zeros(1))
            break
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            newest -= 1
    return newest


NEWEST_OPSET = _newest_opset()
