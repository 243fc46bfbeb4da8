"""Networks of the operators and shapes of VNN-COMP's families, built here: they load and agree with onnxruntime.

The public files are tried by `examples/try_folder.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from qverify.onnx.reader import load
from tests.support.onnx_models import agree, model, node, weights

Rng = np.random.Generator


class Graph:
    """Nodes one after the other, from `x`; `take` gives the last tensor's name."""

    def __init__(self, rng: Rng, *shape: int | str) -> None:
        self.rng, self.shape = rng, shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.last = "x"

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def then(self, kind: str, *inputs: Any, source: str | None = None, first: bool = True, **attributes: Any) -> str:
        """A node that reads the last tensor, first or last of its inputs, and constants or names."""
        own = self.last if source is None else source
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = f"t{len(self.nodes)}"
        joined = " ".join([own, *names] if first else [*names, own])
        self.nodes.append(node(kind, joined, output, **attributes))
        self.last = output
        return output

    def dense(self, n_in: int, n_out: int, activation: str | None = "Relu") -> None:
        self.then("MatMul", weights(self.rng, n_in, n_out))
        self.then("Add", weights(self.rng, n_out))
        if activation:
            self.then(activation)

    def gemm(self, n_in: int, n_out: int, activation: str | None = "Relu") -> None:
        self.then("Gemm", weights(self.rng, n_out, n_in), weights(self.rng, n_out), transB=1)
        if activation:
            self.then(activation)

    def conv(self, c_in: int, c_out: int, kernel: int = 3, activation: str | None = "Relu", **window: Any) -> None:
        self.then("Conv", weights(self.rng, c_out, c_in, kernel, kernel), weights(self.rng, c_out), **window)
        if activation:
            self.then(activation)

    def norm(self, channels: int) -> None:
        rng = self.rng
        self.then("BatchNormalization", *(rng.random(channels) + 0.5 for _ in range(4)))

    def built(self, opset: int = 13) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        return model(self.nodes, self.constants, self.shape, opset)


def acasxu(g: Graph) -> None:
    g.then("Sub", g.rng.normal(size=(1, 1, 1, 5)))
    g.then("Flatten")
    for n_in, n_out in ((5, 12), (12, 12), (12, 12)):
        g.dense(n_in, n_out)
    g.dense(12, 5, None)


def mnistfc(g: Graph) -> None:
    g.then("Flatten")
    g.gemm(36, 16)
    g.gemm(16, 16)
    g.gemm(16, 10, None)


def mnistfc_columns(g: Graph) -> None:
    """Weights on the left of a column."""
    for n_in, n_out in ((36, 16), (16, 10)):
        g.then("MatMul", weights(g.rng, n_out, n_in), first=False)
        g.then("Add", weights(g.rng, n_out, 1))
        g.then("Relu")
    g.then("Flatten")


def oval21(g: Graph) -> None:
    g.conv(3, 4, 4, strides=[2, 2], pads=[1, 1, 1, 1])
    g.conv(4, 6, 4, strides=[2, 2], pads=[1, 1, 1, 1])
    g.then("Reshape", np.array([-1, 24]))
    g.gemm(24, 10)
    g.gemm(10, 10, None)


def eran(g: Graph) -> None:
    g.then("Sub", np.array([0.1307]))
    g.then("Div", np.array([0.3081]))
    g.then("Reshape", np.array([1, 36]))
    for _, activation in (("a", "Sigmoid"), ("b", "Tanh")):
        g.dense(36, 36, activation)
    g.dense(36, 10, None)


def marabou_cifar10(g: Graph) -> None:
    """Channels last, as tf2onnx writes it."""
    g.then("Transpose", perm=[0, 3, 1, 2])
    g.conv(3, 4, 3, strides=[2, 2])
    g.conv(4, 4, 2)
    g.then("Transpose", perm=[0, 2, 3, 1])
    g.then("Reshape", np.array([-1, 4]))
    g.dense(4, 12)
    g.dense(12, 10, None)


def verivital(g: Graph) -> None:
    g.then("Sub", np.array(0.5))
    g.conv(1, 4, 3)
    g.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    g.conv(4, 4, 2)
    g.then("AveragePool", kernel_shape=[1, 1])
    g.then("Flatten")
    g.gemm(4, 10, None)


def cifar10_resnet(g: Graph) -> None:
    g.conv(3, 4, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    skip = g.last
    g.conv(4, 4, 3, pads=[1, 1, 1, 1])
    g.conv(4, 4, 3, None, pads=[1, 1, 1, 1])
    g.then("Add", skip)
    g.then("Relu")
    g.then("Flatten")
    g.gemm(64, 10, None)


def sri_resnet(g: Graph) -> None:
    g.then("Sub", g.rng.random((3, 1, 1)))
    g.then("Div", g.rng.random((3, 1, 1)) + 0.5)
    g.conv(3, 4, 3, None, pads=[1, 1, 1, 1], strides=[2, 2])
    g.norm(4)
    g.then("Relu")
    block = g.last
    g.conv(4, 4, 1, None)
    g.norm(4)
    skip = g.last
    g.last = block
    g.conv(4, 4, 3, None, pads=[1, 1, 1, 1])
    g.norm(4)
    g.then("Add", skip)
    g.then("Relu")
    g.then("GlobalAveragePool")
    g.then("Flatten")
    g.gemm(4, 10, None)


def rl(g: Graph) -> None:
    g.gemm(4, 16)
    g.gemm(16, 16)
    g.gemm(16, 2, None)


def tll(g: Graph) -> None:
    """A lattice: the smallest of largest of linear functions, by Relus, and by Max and Min."""
    g.dense(2, 8, None)
    g.then("Reshape", np.array([-1, 4, 2]))
    g.then("ReduceMax", axes=[2], keepdims=0)
    g.then("Neg")
    g.then("Reshape", np.array([-1, 1, 4]))
    g.then("ReduceMax", axes=[2], keepdims=0)
    g.then("Neg")


def rul(g: Graph) -> None:
    g.then("Reshape", np.array([-1, 1, 8, 4]))
    g.then("Conv", weights(g.rng, 4, 1, 3, 1), weights(g.rng, 4), kernel_shape=[3, 1])
    g.norm(4)
    g.then("Relu")
    g.then("Dropout")
    g.then("Flatten")
    g.gemm(96, 12)
    g.gemm(12, 1, None)


def biasfield(g: Graph) -> None:
    g.gemm(16, 48, None)
    g.then("Reshape", np.array([-1, 3, 4, 4]))
    g.conv(3, 4, 3, None, pads=[1, 1, 1, 1])
    g.norm(4)
    g.then("Relu")
    g.then("Reshape", np.array([-1, 64]))
    g.gemm(64, 10, None)


def nn4sys(g: Graph) -> None:
    """A learned index: the features' parts, each through layers of its own."""
    parts = []
    for start, end in ((0, 4), (4, 9)):
        g.last = "x"
        g.then("Slice", np.array([start]), np.array([end]), np.array([1]))
        g.dense(end - start, 6)
        parts.append(g.last)
    g.then("Concat", parts[1], source=parts[0], axis=1)
    g.dense(12, 8)
    g.dense(8, 1, "Sigmoid")


def dist_shift(g: Graph) -> None:
    """A generator's numbers, added to part of the input, before a classifier."""
    g.then("Gather", np.arange(4), axis=1)
    g.gemm(4, 12)
    g.gemm(12, 16, "Sigmoid")
    made = g.last
    g.last = "x"
    g.then("Slice", np.array([4]), np.array([20]), np.array([1]))
    g.then("Concat", made, axis=-1)
    g.then("Clip", np.array(0.0), np.array(1.0))
    g.gemm(32, 10, None)


def cgan(g: Graph) -> None:
    """A generator of images, and a discriminator behind it."""
    condition = g.then("Slice", np.array([0]), np.array([1]), np.array([1]))
    noise = g.then("Slice", np.array([1]), np.array([5]), np.array([1]), source="x")
    g.then("Gemm", weights(g.rng, 4, 16), weights(g.rng, 16), source=noise)
    g.then("Reshape", np.array([-1, 4, 2, 2]))
    g.norm(4)
    g.then("ConvTranspose", weights(g.rng, 4, 3, 4, 4), weights(g.rng, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    g.norm(3)
    g.then("Relu")
    g.then("Resize", "-", np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32), mode="nearest",
           coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    g.conv(3, 1, 3, "Tanh", pads=[1, 1, 1, 1])
    image = g.last
    g.then("Gemm", weights(g.rng, 1, 64), weights(g.rng, 64), source=condition)
    g.then("Reshape", np.array([-1, 1, 8, 8]))
    g.then("Concat", image, axis=1)
    g.then("Conv", weights(g.rng, 2, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    g.then("LeakyRelu", alpha=0.2)
    g.then("Flatten")
    g.gemm(32, 1, None)


FAMILIES: dict[str, tuple[Callable[[Graph], None], tuple[int | str, ...]]] = {
    "acasxu": (acasxu, (1, 1, 1, 5)),
    "mnistfc": (mnistfc, (1, 36, 1)),
    "mnistfc_columns": (mnistfc_columns, (1, 36, 1)),
    "oval21": (oval21, ("N", 3, 8, 8)),
    "eran": (eran, (1, 1, 6, 6)),
    "marabou_cifar10": (marabou_cifar10, ("N", 6, 6, 3)),
    "verivital": (verivital, (1, 1, 6, 6)),
    "cifar10_resnet": (cifar10_resnet, (1, 3, 8, 8)),
    "sri_resnet": (sri_resnet, (1, 3, 8, 8)),
    "rl": (rl, ("N", 4)),
    "tll": (tll, ("N", 2)),
    "rul": (rul, ("N", 32)),
    "biasfield": (biasfield, ("N", 16)),
    "nn4sys": (nn4sys, ("N", 9)),
    "dist_shift": (dist_shift, ("N", 20)),
    "cgan": (cgan, ("N", 5)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads(name: str, rng: Rng) -> None:
    build, shape = FAMILIES[name]
    graph = Graph(rng, *shape)
    build(graph)
    built = graph.built()
    agree(load(built), built, rng)
