"""The comparison with onnxruntime: a network counts as read only if it computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from qverify.errors import ModelError
from qverify.onnx import session as onnx_session
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.onnx.graph import NetworkBuilder, Tensor

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}

# How far onnxruntime may be from `Network.evaluate`, as (part of the sample's largest output, part of its largest
# value anywhere). float32 rounds at 6e-8; sums of a thousand terms over a dozen layers were seen to reach 3e-6 of
# the output, and anything a loader can get wrong (a lost bias, a swapped axis) is of order 1 on some sample. The
# second part covers outputs that cancel: what is left there is the rounding of larger numbers.
TOLERANCES = {TensorProto.FLOAT: (1e-4, 1e-6), TensorProto.DOUBLE: (1e-10, 1e-13)}


def compare(model: onnx.ModelProto, network: Network, builder: NetworkBuilder, output: Tensor) -> None:
    """Run eight inputs through the model and the network read from it, one at a time; raises ModelError where they
    differ. `builder` and `output` say what the model's input and logits are called and how they are stored."""
    kind = next(i for i in model.graph.input if i.name == builder.input_name).type.tensor_type.elem_type
    relative, floor = TOLERANCES[TensorProto.FLOAT if builder.single else kind]
    runtime = _runtime(model, network, builder.input_name, output)
    for sample in _probes(network.input_size):
        rounded = sample.astype(FLOATS[kind])
        theirs = runtime(rounded.reshape(builder.input_shape)).astype(np.float64).reshape(-1)
        values = network.evaluate_all(rounded[None])
        ours = values[-1][0]
        if theirs.shape != ours.shape:
            raise ModelError(
                f"{network.source}: onnxruntime gives {theirs.size} outputs, qverify {ours.size}. {_REPORT}"
            )
        if not np.isfinite(theirs).all():
            raise ModelError(
                f"{network.source}: onnxruntime overflows on inputs up to {np.abs(sample).max():.3g}, so the model "
                "cannot be checked; scale its constants down or export it in float64."
            )
        difference = np.abs(ours - theirs).max()
        allowed = relative * np.abs(theirs).max() + floor * max(np.abs(v).max() for v in values)
        if not difference <= allowed:
            raise ModelError(
                f"{network.source}: qverify and onnxruntime differ by {difference:.3g} where {allowed:.3g} is allowed. "
                + _REPORT
            )


# On AveragePool with ceil_mode and counted padding onnxruntime 1.18 and 1.20 differ from 1.32, which is right.
_REPORT = "Either the model was misread or onnxruntime is wrong: update it; if that does not help, please report it."


def _probes(size: int) -> list[Array]:
    """The inputs to compare on: pixels, both signs, raw bytes, and zeros, where a lost bias is all there is to see."""
    rng = np.random.default_rng(0)
    pixels = [rng.random(size) for _ in range(3)]
    return [*pixels, *rng.normal(size=(3, size)), rng.uniform(0.0, 255.0, size), np.zeros(size)]


def _runtime(
    model: onnx.ModelProto, network: Network, input_name: str, output: Tensor
) -> Callable[[np.ndarray], np.ndarray]:
    """The model in onnxruntime, up to the tensor `output.logits` if a Softmax was dropped; raises ModelError."""
    if output.logits is not None:
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        kind = TensorProto.DOUBLE if output.double else TensorProto.FLOAT
        cut.graph.output.append(helper.make_tensor_value_info(output.logits, kind, None))
        model = cut
    try:
        session = onnx_session.open_session(model.SerializeToString())
    except onnx_session.errors() as error:
        raise ModelError(
            f"{network.source}: onnxruntime cannot run the model, so it cannot be checked ({first_line(error)}); "
            "export it in float32 and with an opset that onnxruntime knows."
        ) from error

    def run(x: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {input_name: x})[0])
        except onnx_session.errors() as error:
            raise ModelError(f"{network.source}: onnxruntime cannot run the model ({first_line(error)}).") from error

    return run
