"""What real runtimes give: onnxruntime as it optimises graphs and node by node, LiteRT in all its kernels.

Tensors behind which a file rounds are found by the names of its nodes and read as integers, in exact numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.sessions import ALL, NONE, exact_session

Array = np.ndarray
SCALES = {
    "QuantizeLinear": 1,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QGemm": 7,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
}
"""The operators that round, and which of their inputs is the scale of what they give; the next is the zero point."""


_ADDED = {True: "_QuantizeLinear_Input", False: "_quantized"}
"""What the quantiser appends to the names of tensors."""


@dataclass(frozen=True)
class Place:
    """Where a file rounds: the tensor of integers, the tensor of the float model that it stands for, scale and zero."""

    node: str
    tensor: str
    stands_for: str
    scale: float
    zero: int
    kind: int

    def numbers(self, integers: Array) -> Array:
        """(N, ...) -> (N, size) in real numbers."""
        flat = np.asarray(integers).astype(np.float64).reshape(len(integers), -1)
        return (flat - self.zero) * self.scale


def places(file: onnx.ModelProto) -> list[Place]:
    """All of them, by the order of nodes."""
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    found = []
    for node in file.graph.node:
        at = SCALES.get(node.op_type)
        if at is None or (node.op_type == "QuantizeLinear" and node.input[0] in given):
            continue
        zero = given[node.input[at + 1]]
        exact = node.op_type == "QuantizeLinear"
        found.append(
            Place(
                node=node.name if exact else f"{node.name}/rounded",
                tensor=node.output[0],
                stands_for=node.input[0].removesuffix("_QuantizeLinear_Input")
                if exact
                else node.output[0].removesuffix("_quantized"),
                scale=float(given[node.input[at]].ravel()[0]),
                zero=int(zero.ravel()[0]),
                kind=helper.np_dtype_to_tensor_dtype(zero.dtype),
            )
        )
    return found


class OnnxRuntime:
    """A file in onnxruntime; `showing`: with the integers of these places as further outputs, which may keep it from
    fusing some nodes."""

    def __init__(self, file: onnx.ModelProto, optimised: bool, showing: list[Place] | None = None) -> None:
        self.places, shown = showing or [], onnx.ModelProto()
        shown.CopyFrom(file)
        for place in self.places:
            shown.graph.output.append(helper.make_tensor_value_info(place.tensor, place.kind, None))
        self.session = exact_session(shown, ALL if optimised else NONE)
        self.entry = self.session.get_inputs()[0]
        assert self.entry.type == "tensor(float)"

    def run(self, x: Array) -> tuple[Array, dict[str, Array]]:
        """x (N, ...) -> outputs (N, classes), and by the name of each place its numbers (N, size)."""
        found = self.session.run(None, {self.entry.name: x.astype(np.float32)})
        by_place = {place.node: place.numbers(a) for place, a in zip(self.places, found[1:], strict=True)}
        return np.asarray(found[0]).astype(np.float64).reshape(len(x), -1), by_place


def sessions(file: onnx.ModelProto) -> dict[str, OnnxRuntime]:
    """The ways to run a file that are told apart, by name."""
    shown = places(file)
    return {
        "optimised": OnnxRuntime(file, True),
        "optimised, tensors shown": OnnxRuntime(file, True, shown),
        "node by node": OnnxRuntime(file, False, shown),
    }
