"""Network -> ONNX, so that networks and the witnesses found for them can be run elsewhere.

The model has one input `input` (N, *input_shape) and one output `output` (N, output_size), opset 17. Nodes are
called as their layers. A `Relu` with an offset becomes Relu, Add, Relu.

In float32 weights are rounded to the nearest float32, and a model that `load` reads again. In float64 nothing is
rounded: what to replay a witness with. onnxruntime has no Conv in double on the CPU, so there a Conv is written
as Pad, Gather (of what each output position looks at), MatMul and Transpose. `load` does not read that form.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from qverify.errors import ModelError, UsageError
from qverify.network import Network

OPSET, IR_VERSION = 17, 8  # what every onnxruntime since 1.12 (2022) runs
_TYPES: dict[str, tuple[Any, int]] = {
    "float32": (np.float32, TensorProto.FLOAT),
    "float64": (np.float64, TensorProto.DOUBLE),
}
_Shape = tuple[int, ...]


def save(network: Network, path: str | PathLike[str], dtype: str = "float32") -> None:
    """Write `to_onnx(network, dtype)`; raises what that raises, and ModelError if the file cannot be written."""
    model = to_onnx(network, dtype)
    try:
        onnx.save_model(model, path, format="protobuf")
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def to_onnx(network: Network, dtype: str = "float32") -> onnx.ModelProto:
    """The network as an ONNX model, in "float32" or "float64".

    Raises UsageError for another dtype, and ModelError if a weight is too large for float32.
    """
    if dtype not in _TYPES:
        raise UsageError(f"dtype {dtype!r} is unknown; choose 'float32' or 'float64'.")
    writer = _Writer(dtype)
    for index, layer in enumerate(network.layers[1:], start=1):
        _WRITERS[type(layer)](writer, index, layer)
    writer.finish(len(network.layers) - 1, network.output_size)
    kind = _TYPES[dtype][1]
    graph = helper.make_graph(
        writer.nodes,
        "qverify",
        [helper.make_tensor_value_info("input", kind, ["N", *network.input_shape])],
        [helper.make_tensor_value_info("output", kind, ["N", network.output_size])],
        list(writer.constants.values()),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="qverify"
    )
