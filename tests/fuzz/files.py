"""Integer files of a real toolchain: every form that onnxruntime.quantization offers and a scheme claims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tests.support import toolchain

from .models import Case

Array = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Form(toolchain.Form):
    """What `quantize_static` is asked for. `reduced`: weights of 7 bits of 8."""

    @property
    def pairs(self) -> bool:
        """Whether `--kernel any` claims kernels that add pairs of products in int16.

        Not for a reduced range of uint8, 0 to 127: no kernel takes that for int8 and adds pairs.
        """
        signed = "U" not in self.weight
        return "16" not in self.activation and (signed or not self.reduced)


def form(rng: Rng, bits: int, channel: bool, chain: bool, symmetric: float = 0.5) -> Form:
    """A random form of this bit-width (of weights) and granularity. `chain`: the network has one branch, so QOperator
    can be cut. `symmetric`: how often weights are.
    """
    wide = bits > 8
    size = "16" if wide else "8"
    weight = "QInt" if rng.random() < 0.6 else "QUInt"
    activation = "QUInt" if rng.random() < 0.6 else "QInt"
    operators = chain and not wide and rng.random() < 0.35
    if activation == "QInt":  # what else the toolchain refuses
        weight = "QInt"
    kinds = (weight + size, activation + size)
    how = (bool(rng.random() < symmetric), bool(rng.random() < 0.5), bits == 7)
    return Form("QOperator" if operators else "QDQ", channel, *kinds, *how)


def written(case: Case, form: Form, calibration: Array) -> onnx.ModelProto:
    """The file of a case, rounded only where the schemes say so: at the input, after Relus, before a kept norm."""
    file = toolchain.quantised(case.model, calibration, form)
    if form.format == "QOperator":
        return toolchain.without_last_rounding(file, len(case.constants[case.last]))
    return _only_claimed(file, case)


def _only_claimed(file: onnx.ModelProto, case: Case) -> onnx.ModelProto:
    """QDQ pairs taken out where schemes speak of none: the output, sums before a Relu and their branches."""
    kept = {"x"} | {node.output[0] for node in case.nodes if node.op_type == "Relu"}
    kept |= {node.input[0] for node in case.nodes if node.op_type == "BatchNormalization"}
    kept |= {node.output[0] for node in case.nodes if node.op_type == "Flatten"}
    constants = {t.name for t in file.graph.initializer}
    renamed: dict[str, str] = {}
    for node in list(file.graph.node):
        source = node.input[0]
        if node.op_type == "QuantizeLinear" and source not in constants and source not in kept:
            renamed[node.output[0]] = source
            file.graph.node.remove(node)
        elif node.op_type == "DequantizeLinear" and source in renamed:
            renamed[node.output[0]] = renamed[source]
            file.graph.node.remove(node)
    for node in file.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = renamed.get(name, name)
    output = file.graph.output[0]
    output.name = renamed.get(output.name, output.name)
    return file
