"""Integer files of a real toolchain: every form that onnxruntime.quantization offers and a scheme claims."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.support.toolchain import without_last_rounding

from .models import Case

Array = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Form:
    """What `quantize_static` is asked for. `reduced`: weights of 7 bits of 8."""

    format: str = "QDQ"
    channel: bool = True
    weight: str = "QInt8"
    activation: str = "QUInt8"
    symmetric: bool = True
    prepared: bool = False
    reduced: bool = False

    @property
    def pairs(self) -> bool:
        """Whether `--kernel any` claims kernels that add pairs of products in int16.

        Not for a reduced range of uint8, 0 to 127: no kernel takes that for int8 and adds pairs.
        """
        signed = "U" not in self.weight
        return "16" not in self.activation and (signed or not self.reduced)

    def __str__(self) -> str:
        words = [self.format, "channel" if self.channel else "tensor", self.weight, self.activation]
        words.append("sym" if self.symmetric else "asym")
        words += [word for word in ("prepared", "reduced") if getattr(self, word)]
        return "-".join(words)


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


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Array) -> None:
        self.left = [{"x": row[None].astype(np.float32)} for row in x]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


def written(case: Case, form: Form, calibration: Array) -> onnx.ModelProto:
    """The file of a case, rounded only where the schemes say so: at the input, after Relus, before a kept norm."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = str(Path(folder) / "m.onnx"), str(Path(folder) / "q.onnx")
        onnx.save(case.model, before)
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            if form.prepared:
                quant_pre_process(before, before)
            quantize_static(
                before,
                after,
                _Reader(calibration),
                quant_format=QuantFormat[form.format],
                per_channel=form.channel,
                reduce_range=form.reduced,
                weight_type=QuantType[form.weight],
                activation_type=QuantType[form.activation],
                extra_options={"WeightSymmetric": form.symmetric},
            )
        finally:
            logging.disable(level)
        file = onnx.load(after)
    if form.format == "QOperator":
        return without_last_rounding(file, len(case.constants[case.last]))
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
