"""The networks of the matrix, in float32, with samples and labels; nothing of qverify makes them.

Dense ones are the network that ships for digits; convolutional ones have random layers and a last one fitted to digits
by least squares; two are MLPerf Tiny's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qverify.datasets import load, load_train
from tests.support.paths import MODELS
from tests.support.toolchain import dense, model, outputs

Array = np.ndarray
CALIBRATION = 48
"""Samples that a file is calibrated on."""
_RIDGE = 3.0


@dataclass(frozen=True)
class Source:
    """A network as a model, the data that files are calibrated on, and samples (N, ...) to run: all float32."""

    model: onnx.ModelProto
    calibration: Array
    x: Array


def _digits(train: bool) -> tuple[Array, Array]:
    data = (load_train if train else load)("digits")
    return np.asarray(data.x, np.float32).reshape(len(data.x), 1, 8, 8), np.asarray(data.y)


def _fitted(make: Callable[[Array, Array], onnx.ModelProto], features: int) -> onnx.ModelProto:
    """The network whose last layer, a Gemm of `features` numbers, is fitted to digits; `make` builds it around that."""
    x, y = _digits(True)
    seen = outputs(make(np.eye(features), np.zeros(features)), x)
    wide = np.concatenate([seen, np.ones((len(seen), 1))], axis=1)
    target = 2.0 * np.eye(10)[y] - 1.0
    found = np.linalg.solve(wide.T @ wide + _RIDGE * np.eye(wide.shape[1]), wide.T @ target)
    return make(found[:-1].T, found[-1])


def _robust() -> list[tuple[Array, Array]]:
    """The layers of the network that ships for digits, 64-40-24-10, which was trained for 8 bits."""
    built = onnx.load(MODELS / "digits.onnx")
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in built.graph.initializer}
    return [(given[node.input[1]], given[node.input[2]]) for node in built.graph.node if node.op_type == "Gemm"]


def mlp() -> onnx.ModelProto:
    """Of Gemm."""
    built = dense(_robust())
    built.graph.node[0].input[0] = "flat"
    built.graph.node.insert(0, helper.make_node("Flatten", ["x"], ["flat"], name="flatten"))
    kind = built.graph.input[0].type.tensor_type.elem_type
    built.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, ["N", 1, 8, 8]))
    return built


def matmul(biases: bool = False) -> onnx.ModelProto:
    """The same of MatMul, without its biases or with an Add for each."""
    nodes, source = [helper.make_node("Flatten", ["x"], ["flat"], name="flatten")], "flat"
    constants: dict[str, Any] = {}
    layers = _robust()
    for k, (weight, bias) in enumerate(layers, start=1):
        constants |= {f"W{k}": weight.T}
        out = "y" if k == len(layers) else f"z{k}"
        nodes.append(helper.make_node("MatMul", [source, f"W{k}"], [f"m{k}" if biases else out], name=f"fc{k}"))
        if biases:
            constants[f"b{k}"] = bias
            nodes.append(helper.make_node("Add", [f"m{k}", f"b{k}"], [out], name=f"bias{k}"))
        if k < len(layers):
            source = f"r{k}"
            nodes.append(helper.make_node("Relu", [out], [source], name=f"relu{k}"))
    return model(nodes, constants, (1, 8, 8), 10)


class _Images:
    """Nodes of images being put together, with random constants of the right size."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}

    def node(self, op: str, inputs: list[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"{op.lower()}_{out}", **attributes))
        return out

    def conv(self, source: str, out: str, channels: tuple[int, int], groups: int = 1, size: int = 3) -> str:
        n, m = channels
        fan = n // groups * size * size
        weight = self.rng.normal(size=(m, n // groups, size, size)) / np.sqrt(fan / 2)
        self.constants |= {f"W_{out}": weight, f"b_{out}": 0.2 * self.rng.normal(size=m)}
        names = [source, f"W_{out}", f"b_{out}"]
        half = size // 2
        return self.node("Conv", names, out, kernel_shape=[size] * 2, pads=[half] * 4, group=groups)

    def norm(self, source: str, out: str, channels: int) -> str:
        values = {
            "scale": self.rng.uniform(0.6, 1.4, channels),
            "offset": 0.2 * self.rng.normal(size=channels),
            "mean": 0.2 * self.rng.normal(size=channels),
            "variance": self.rng.uniform(0.5, 1.5, channels),
        }
        self.constants |= {f"{name}_{out}": value for name, value in values.items()}
        return self.node("BatchNormalization", [source, *(f"{name}_{out}" for name in values)], out)

    def ended(self, source: str, weight: Array, bias: Array) -> onnx.ModelProto:
        """With a Gemm behind it."""
        flat = helper.make_node("Flatten", [source], ["flat"], name="flatten")
        last = helper.make_node("Gemm", ["flat", "W", "b"], ["y"], name="last", transB=1)
        return model([*self.nodes, flat, last], self.constants | {"W": weight, "b": bias}, (1, 8, 8), len(bias))


def conv() -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, AveragePool twice, and a GlobalAveragePool of a third Conv."""
    built = _Images(3)
    value = built.node("Relu", [built.norm(built.conv("x", "c1", (1, 8)), "n1", 8)], "r1")
    value = built.node("AveragePool", [value], "p1", kernel_shape=[2, 2], strides=[2, 2])
    value = built.node("Relu", [built.norm(built.conv(value, "c2", (8, 16)), "n2", 16)], "r2")
    value = built.node("Relu", [built.conv(value, "c3", (16, 48))], "r3")
    value = built.node("GlobalAveragePool", [value], "p3")
    return _fitted(lambda weight, bias: built.ended(value, weight, bias), 48)


def residual() -> onnx.ModelProto:
    """Two sums of branches, one with a Conv on each side, depthwise too, and an AveragePool."""
    built = _Images(4)
    entry = built.node("Relu", [built.conv("x", "c1", (1, 8))], "r1")
    inner = built.node("Relu", [built.conv(entry, "c2", (8, 8), groups=8)], "r2")
    value = built.node("Add", [built.conv(inner, "c3", (8, 8)), entry], "s1")
    value = built.node("Relu", [value], "r3")
    value = built.node("AveragePool", [value], "p1", kernel_shape=[2, 2], strides=[2, 2])
    left, right = built.conv(value, "c4", (8, 12)), built.conv(value, "c5", (8, 12), size=1)
    value = built.node("Relu", [built.node("Add", [left, right], "s2")], "r4")
    return _fitted(lambda weight, bias: built.ended(value, weight, bias), 192)


def added() -> onnx.ModelProto:
    """As Keras writes it: the bias of a MatMul is added by a node of its own."""
    return matmul(biases=True)


SMALL: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    "matmul": matmul,
    "added": added,
    "conv": conv,
    "residual": residual,
}
TINY = {
    "kws": ("kws_ref_model_float32.onnx", "kws01_1000.npz"),
    "resnet": ("pretrainedResnet.onnx", "ic_1000_0_255.npz"),
}
NETWORKS = (*SMALL, *TINY)


def tiny_folder() -> Path:
    """Where MLPerf Tiny lies, if it does."""
    return Path(os.environ.get("QVERIFY_DATA", "data")) / "mlperf_tiny"


def present(name: str) -> bool:
    """Whether a network of the matrix is here."""
    return name in SMALL or (tiny_folder() / TINY[name][0]).exists()


@cache
def source(name: str) -> Source:
    """A network of NETWORKS."""
    if name in SMALL:
        return Source(SMALL[name](), _digits(True)[0][:CALIBRATION], _digits(False)[0])
    file, data = TINY[name]
    x = np.load(tiny_folder() / data)["x_test"].astype(np.float32)
    return Source(onnx.load(tiny_folder() / file), x[-CALIBRATION:], x[:-CALIBRATION])
