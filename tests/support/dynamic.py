"""Dynamically quantised files: written by onnxruntime.quantization, run by onnxruntime, without qverify."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.support.sessions import exact_session
from tests.support.toolchain import prepared, written

Array = np.ndarray
LEVELS = {
    "node by node": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "optimised": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True)
class DynamicForm:
    """A form that `quantize_dynamic` writes; only of pre-processed models are all Gemms quantised."""

    channel: bool = False
    weight: str = "QInt8"
    reduced: bool = False
    prepared: bool = True

    def __str__(self) -> str:
        names = ["dynamic", "channel" if self.channel else "tensor", self.weight]
        names += ["reduced"] * self.reduced + ["prepared"] * self.prepared
        return "-".join(names)


FORMS = [
    DynamicForm(*kind) for kind in itertools.product((False, True), ("QInt8", "QUInt8"), (False, True), (True, False))
]


def dynamic_file(source: onnx.ModelProto, form: DynamicForm) -> onnx.ModelProto:
    """The file that the toolchain makes of a model."""

    def write(before: str, after: str) -> None:
        quantize_dynamic(
            before,
            after,
            per_channel=form.channel,
            reduce_range=form.reduced,
            weight_type=QuantType[form.weight],
            extra_options={"MatMulConstBOnly": True},
        )

    return written(prepared(source) if form.prepared else source, write)


class DynamicRuntime:
    """A file in onnxruntime, one sample a batch: its outputs, and, where `shown`, what its DynamicQuantizeLinear nodes
    read and make, by their names."""

    def __init__(self, file: onnx.ModelProto, level: str, shown: bool) -> None:
        self.nodes = [n for n in file.graph.node if n.op_type == "DynamicQuantizeLinear"] if shown else []
        given = onnx.ModelProto()
        given.CopyFrom(file)
        kinds = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
        entry = given.graph.input[0].name
        names = {name: kind for n in self.nodes for name, kind in zip(n.output, kinds, strict=True)}
        names |= {n.input[0]: TensorProto.FLOAT for n in self.nodes if n.input[0] != entry}
        for name, kind in names.items():
            given.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        self.session = exact_session(given, LEVELS[level])
        self.entry, self.names = entry, list(names)

    def run(self, x: Array) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """x (N, ...) -> outputs (N, classes); by the name of each node what it reads and what it makes (N, size)."""
        answers: list[Array] = []
        read: dict[str, list[Array]] = {}
        made: dict[str, list[Array]] = {}
        for sample in x.astype(np.float32):
            found = self.session.run(None, {self.entry: sample[None]})
            answers.append(np.ravel(found[0]).astype(np.float64))
            seen = dict(zip(self.names, found[1:], strict=True)) | {self.entry: sample}
            for node in self.nodes:
                q, scale, zero = (np.asarray(seen[name]).astype(np.float64) for name in node.output)
                read.setdefault(node.name, []).append(np.ravel(seen[node.input[0]]).astype(np.float64))
                made.setdefault(node.name, []).append(np.ravel(q - zero) * float(scale))
        return np.array(answers), {name: (np.array(read[name]), np.array(made[name])) for name in read}
