"""Real int8 and int16 files: models built by hand, quantised by onnxruntime.quantization, and run by onnxruntime.

Nothing of qverify is in here: it is what qverify's statements about toolchains are held against.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.support.sessions import ALL, NONE, exact_session

Array = np.ndarray
ort.set_default_logger_severity(4)


@dataclass(frozen=True)
class Form:
    """A form that `quantize_static` writes: of the graph, of weights and of activations."""

    format: str = "QDQ"
    channel: bool = True
    weight: str = "QInt8"
    activation: str = "QUInt8"
    symmetric: bool = True
    prepared: bool = False
    reduced: bool = False
    """Weights of 7 bits of 8."""
    centred: bool = False
    """Activations symmetric about 0."""
    calibration: str = "MinMax"

    @property
    def bits(self) -> int:
        return 16 if "16" in self.activation else 8

    @property
    def certified(self) -> int:
        """The bits of schemes tensor and channel whose radii cover it: coarser steps are those of a bit less."""
        return self.bits - (self.reduced or self.centred)

    def __str__(self) -> str:
        how = "sym" if self.symmetric else "asym"
        names = [self.format, "channel" if self.channel else "tensor", self.weight, self.activation, how]
        names += [self.calibration] * (self.calibration != "MinMax")
        flags = {"prepared": self.prepared, "reduced": self.reduced, "centred": self.centred}
        return "-".join([*names, *(name for name, on in flags.items() if on)])


_SIGNED = (("QInt8", "QUInt8"), ("QInt8", "QInt8"), ("QInt16", "QUInt16"), ("QInt16", "QInt16"))
_UNSIGNED = (("QUInt8", "QUInt8"), ("QUInt16", "QUInt16"))
FORMS = [
    *(Form("QDQ", channel, *kinds) for channel in (True, False) for kinds in _SIGNED),
    *(Form("QDQ", channel, *kinds, symmetric=False) for channel in (True, False) for kinds in (*_SIGNED, *_UNSIGNED)),
    *(Form("QDQ", channel, *kinds) for channel in (True, False) for kinds in _UNSIGNED),
    *(Form("QOperator", channel, *kinds) for channel in (True, False) for kinds in (_SIGNED[0], _UNSIGNED[0])),
    Form("QOperator", False, "QInt8", "QUInt8", symmetric=False),
]
"""All that the quantiser offers at 8 and 16 bits for the asymmetric activations of schemes tensor and channel."""

COARSE = [
    *(replace(form, centred=True) for form in FORMS if form.activation in ("QInt8", "QInt16")),
    *(replace(form, reduced=True) for form in FORMS if form.bits == 8),
    *(replace(form, reduced=True, centred=True) for form in FORMS if form.activation == "QInt8"),
]
"""With coarser steps of weights, of activations, or of both."""


def model(nodes: Sequence[Any], constants: dict[str, Any], entry: tuple[int, ...], classes: int) -> onnx.ModelProto:
    """Nodes from `x` (N, *entry) to `y` (N, classes), constants in float32."""
    initializers = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in constants.items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *entry])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dense(sizes: Sequence[tuple[Any, Any]]) -> onnx.ModelProto:
    """Gemm, Relu, Gemm, ...: (weight, bias) of each; nodes fc1, relu1, fc2, ..., constants W1, b1, ..."""
    nodes, source = [], "x"
    constants: dict[str, Any] = {}
    for k, (weight, bias) in enumerate(sizes, start=1):
        last = k == len(sizes)
        out = "y" if last else f"z{k}"
        nodes.append(helper.make_node("Gemm", [source, f"W{k}", f"b{k}"], [out], name=f"fc{k}", transB=1))
        constants |= {f"W{k}": weight, f"b{k}": bias}
        if not last:
            source = f"r{k}"
            nodes.append(helper.make_node("Relu", [out], [source], name=f"relu{k}"))
    return model(nodes, constants, (np.shape(sizes[0][0])[1],), len(sizes[-1][1]))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Array) -> None:
        self.left = [{"x": row[None].astype(np.float32)} for row in x]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


def prepared(source: onnx.ModelProto) -> onnx.ModelProto:
    """The model after the toolchain's own pre-processing."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.onnx")
        onnx.save(source, path)
        quant_pre_process(path, path)
        return onnx.load(path)


def written(source: onnx.ModelProto, write: Callable[[str, str], None]) -> onnx.ModelProto:
    """What the toolchain writes of a model, by `write(before, after)`, the paths of both; in silence."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before, after = str(Path(folder) / "m.onnx"), str(Path(folder) / "q.onnx")
        onnx.save(source, before)
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            write(before, after)
        finally:
            logging.disable(level)
        return onnx.load(after)


def quantised(source: onnx.ModelProto, x: Array, form: Form) -> onnx.ModelProto:
    """The file that the toolchain makes of a model, calibrated on x (N, ...)."""

    def write(before: str, after: str) -> None:
        quantize_static(
            before,
            after,
            _Reader(x),
            quant_format=QuantFormat[form.format],
            per_channel=form.channel,
            weight_type=QuantType[form.weight],
            activation_type=QuantType[form.activation],
            reduce_range=form.reduced,
            calibrate_method=CalibrationMethod[form.calibration],
            extra_options={"WeightSymmetric": form.symmetric, "ActivationSymmetric": form.centred},
        )

    return written(prepared(source) if form.prepared else source, write)


def without_last_rounding(file: onnx.ModelProto, classes: int) -> onnx.ModelProto:
    """The file with its output as its last layer, a Gemm, gives it, before that is requantised."""
    cut = onnx.ModelProto()
    cut.CopyFrom(file)
    made = {name: node for node in cut.graph.node for name in node.output}
    name, gone = cut.graph.output[0].name, []
    while made[name].op_type in ("QuantizeLinear", "DequantizeLinear"):
        gone.append(made[name])
        name = made[name].input[0]
    for node in gone:
        cut.graph.node.remove(node)
    if made[name].op_type == "QGemm":  # without an output scale it gives floats
        del made[name].input[7:]
    cut.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes]))
    return cut


def outputs(file: onnx.ModelProto, x: Array, optimised: bool = True) -> Array:
    """(N, classes) by onnxruntime: with its integer kernels, or node by node in floating point."""
    session = exact_session(file, ALL if optimised else NONE)
    rows = [session.run(None, {"x": row[None].astype(np.float32)})[0].reshape(1, -1) for row in x]
    return np.concatenate(rows).astype(np.float64)


# --- reading a file ----------------------------------------------------------------------------------------------


def _constants(file: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}


def dequantised(file: onnx.ModelProto) -> dict[str, Array]:
    """Weights and biases by the names they had before: integers less zero point, times scale, in float64."""
    given, found = _constants(file), {}
    for name, scale, zero in _places(file, given):
        integers = given[name].astype(np.float64)
        shape = [1] * integers.ndim
        if scale.size > 1:
            shape[integers.shape.index(scale.size)] = scale.size
        zero = zero.reshape(shape) if zero.size > 1 else zero.reshape(-1)
        found[name.removesuffix("_quantized")] = (integers - zero) * scale.reshape(shape if scale.size > 1 else -1)
    return found


def _places(file: onnx.ModelProto, given: dict[str, Array]) -> list[tuple[str, Array, Array]]:
    """Every constant of integers with its scale and zero point; those of a bias in QOperator form are of its node."""
    found = []
    for node in file.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in given:
            found.append((node.input[0], given[node.input[1]], given[node.input[2]]))
        at = {"QGemm": 6, "QLinearConv": 8}.get(node.op_type)
        if at is not None:
            entry, scale = given[node.input[1]], given[node.input[4]]
            found.append((node.input[3], scale, given[node.input[5]]))
            if len(node.input) > at and node.input[at]:
                found.append((node.input[at], entry * scale, np.zeros(1)))
    return [(name, np.ravel(s).astype(np.float64), np.ravel(z).astype(np.float64)) for name, s, z in found]


def grid(file: onnx.ModelProto, tensor: str, form: Form) -> tuple[float, float, float]:
    """Scale of a quantised activation, and the smallest and largest value it can hold."""
    given = _constants(file)
    scale, zero = float(np.ravel(given[f"{tensor}_scale"])[0]), int(np.ravel(given[f"{tensor}_zero_point"])[0])
    low, high = (0, 2**form.bits - 1) if "U" in form.activation else (-(2 ** (form.bits - 1)), 2 ** (form.bits - 1) - 1)
    return scale, (low - zero) * scale, (high - zero) * scale


def hidden(form: Form, number: int) -> str:
    """The tensor that holds the output of Relu `number` of `dense`; in QOperator form it has the Gemm's name."""
    return f"{'z' if form.format == 'QOperator' else 'r'}{number}"
