"""Random small ONNX models: dense, convolutional, residual, with BatchNormalization wherever it can stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray
Rng = np.random.Generator
KINDS = ("dense", "conv", "residual", "batchnorm", "mixed")
ODDITIES = ("dead", "dying", "zero", "bias", "tiny", "huge", "cancel", "onesided", "twin", "spread", "faint")


@dataclass
class Case:
    """A model, samples for it (N, *entry) in its own number type, and what was done to it, in words."""

    kind: str
    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]
    x: Array
    dtype: Any
    last: str  # the constant that is the last layer's bias
    about: list[str] = field(default_factory=list)

    @property
    def model(self) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        tensors = [
            numpy_helper.from_array(v if v.dtype.kind == "i" else v.astype(self.dtype), k)
            for k, v in self.constants.items()
        ]
        ends = [("x", ["N", *self.x.shape[1:]]), ("y", ["N", len(self.constants[self.last])])]
        values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in ends]
        graph = helper.make_graph(self.nodes, "g", values[:1], values[1:], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def shifted(self, label: int, by: float) -> Case:
        """The same with the output `label` moved by about `by`."""
        bias = self.constants[self.last].astype(self.dtype)
        bias[label] += self.dtype(by)
        return Case(
            self.kind, self.nodes, self.constants | {self.last: bias}, self.x, self.dtype, self.last, self.about
        )


class Builder:
    """Nodes, constants and shapes (without the batch) so far."""

    def __init__(self, rng: Rng, entry: tuple[int, ...], coarse: bool) -> None:
        self.rng, self.coarse = rng, coarse
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.shapes = {"x": entry}
        self.count = 0

    def numbers(self, *shape: int, size: float = 1.0) -> Array:
        """Normal, of few digits if `coarse`, so that folding them is exact in float64."""
        values = self.rng.normal(size=shape) * size
        return np.round(values * 256) / 256 if self.coarse else values.astype(np.float32).astype(float)

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def add(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes))
        self.shapes[f"{name}_out"] = shape
        return f"{name}_out"

    def dense(self, source: str, width: int, bias: bool = True, how: str = "Gemm") -> str:
        """Gemm, with a bias or not, or MatMul."""
        n = self.shapes[source][0]
        weight = self.name("W")
        self.constants[weight] = self.numbers(width, n, size=1 / np.sqrt(n))
        inputs = [source, weight]
        if how == "MatMul":
            self.constants[weight] = self.constants[weight].T.copy()
            return self.add("MatMul", inputs, (width,))
        if bias:
            inputs.append(self.name("b"))
            self.constants[inputs[-1]] = self.numbers(width, size=0.3)
        return self.add("Gemm", inputs, (width,), transB=1)

    def conv(self, source: str, channels: int, kernel: int, **attributes: Any) -> str:
        c, h, w = self.shapes[source]
        groups = attributes.get("group", 1)
        inputs = [source, self.name("W")]
        self.constants[inputs[1]] = self.numbers(channels, c // groups, kernel, kernel, size=1 / kernel / np.sqrt(c))
        if self.rng.random() < 0.8:
            inputs.append(self.name("b"))
            self.constants[inputs[2]] = self.numbers(channels, size=0.3)
        pads, strides = attributes.get("pads", [0] * 4), attributes.get("strides", [1, 1])
        out = [(n + pads[i] + pads[i + 2] - kernel) // strides[i] + 1 for i, n in enumerate((h, w))]
        return self.add("Conv", inputs, (channels, *out), kernel_shape=[kernel, kernel], **attributes)

    def norm(self, source: str) -> str:
        """Deviations are dyadic where epsilon is 0, so that folding is exact."""
        channels, rng = self.shapes[source][0], self.rng
        names = [self.name(p) for p in ("scale", "offset", "mean", "variance")]
        spread = rng.choice([0.0, 2.0])
        scale = self.numbers(channels) * 2.0 ** np.round(rng.uniform(-spread, spread, channels))
        values = [scale, self.numbers(channels, size=0.3), self.numbers(channels, size=0.3)]
        deviation = 2.0 ** rng.integers(-2, 3, channels)
        for name, value in zip(names, [*values, deviation**2], strict=True):
            self.constants[name] = value
        epsilon = float(rng.choice([0.0, 0.0, 0.0, 1e-3]))
        return self.add("BatchNormalization", [source, *names], self.shapes[source], epsilon=epsilon)

    def relu(self, source: str) -> str:
        return self.add("Relu", [source], self.shapes[source])

    def largest(self, source: str) -> str:
        """MaxPool, with windows that overlap or leave gaps, and pads that no window fits into."""
        c, h, w = self.shapes[source]
        kernel = [min(n, int(self.rng.integers(1, 4))) for n in (h, w)]
        strides = [int(v) for v in self.rng.integers(1, 3, 2)]
        pads = [int(self.rng.integers(0, k)) for k in kernel * 2]
        out = [(n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, n in enumerate((h, w))]
        return self.add("MaxPool", [source], (c, *out), kernel_shape=kernel, strides=strides, pads=pads)

    def moved(self, source: str) -> str:
        """Transpose, or a Gather that leaves some numbers out and has others twice."""
        shape = self.shapes[source]
        if len(shape) == 3 and self.rng.random() < 0.5:
            order = [int(axis) for axis in self.rng.permutation(3)]
            turned = (shape[order[0]], shape[order[1]], shape[order[2]])
            return self.add("Transpose", [source], turned, perm=[0, *(1 + axis for axis in order)])
        axis, index = int(self.rng.integers(len(shape))), self.name("i")
        self.constants[index] = self.rng.integers(0, shape[axis], int(self.rng.integers(1, shape[axis] + 2)))
        length = len(self.constants[index])
        return self.add("Gather", [source, index], (*shape[:axis], length, *shape[axis + 1 :]), axis=1 + axis)

    def flat(self, source: str) -> str:
        shape = self.shapes[source]
        return source if len(shape) == 1 else self.add("Flatten", [source], (int(np.prod(shape)),))


def case(rng: Rng, kind: str, dtype: Any = np.float32, hidden: int = 2, brim: bool = False) -> Case:
    """A random case of one of KINDS with `hidden` layers before the last or fewer, and 3 to 8 samples.

    `brim`: with a bias that about fills int32 in an int8 file.
    """
    image = kind == "conv" or (kind in ("batchnorm", "mixed") and rng.random() < 0.5)
    entry: tuple[int, ...] = ()
    if image:
        entry = (int(rng.integers(1, 3)), int(rng.integers(2, 5)), int(rng.integers(2, 4)))
    wide = brim and kind == "dense" and rng.random() < 0.3  # sums of so many products are felt beside the bias
    entry = entry or (int(rng.integers(300, 900)) if wide else int(rng.integers(1, 6)),)
    dtype = np.float32 if image else dtype  # onnxruntime has no Conv in double
    built = Builder(rng, entry, coarse=bool(rng.random() < 0.5) or kind in ("batchnorm", "mixed"))
    value = "x"
    if kind == "conv" and rng.random() < 0.2:
        value = built.largest(value)
    for _ in range(int(rng.integers(0 if kind == "dense" else 1, hidden + 1))):
        value = _block(built, value, kind)
    value = built.flat(value)
    value = built.dense(value, int(rng.integers(2, 5)))
    last = built.nodes[-1]
    last.output[0] = "y"
    about = _oddities(rng, built, last.input[2])
    count = int(rng.integers(3, 9))
    x = rng.random((count, *entry)) if rng.random() < 0.6 else rng.normal(size=(count, *entry))
    if rng.random() < 0.3:
        x = np.where(rng.random(x.shape) < 0.4, 0.0, x)
    if wide:
        x = np.where(rng.random(x.shape) < 0.9, 1.0, x)
    if brim:
        about += _fill(rng, built, x, rng.uniform(-0.02, 0.0) if wide else rng.uniform(-0.5, 2.3))
    constants = {k: v if v.dtype.kind == "i" else v.astype(dtype) for k, v in built.constants.items()}
    return Case(kind, built.nodes, constants, x.astype(np.float32).astype(dtype), dtype, last.input[2], about)


def _block(built: Builder, source: str, kind: str) -> str:
    """One affine layer (or a residual pair) with what belongs to it, up to a Relu."""
    rng = built.rng
    image = len(built.shapes[source]) == 3
    if kind == "residual" or (kind == "mixed" and rng.random() < 0.4):
        return built.relu(_residual(built, source, image))
    value = _affine(built, source, image)
    normed = kind == "batchnorm" or (kind == "mixed" and rng.random() < 0.5)
    if normed and rng.random() < 0.8:
        return built.relu(built.norm(value))
    value = built.relu(value)
    if kind == "conv" and rng.random() < 0.5:
        value = built.largest(value)
    if kind in ("dense", "conv") and rng.random() < 0.25:
        value = built.moved(value)
    return built.relu(built.norm(value)) if normed else value


def _residual(built: Builder, source: str, image: bool) -> str:
    """source + f(source), or g(source) + f(source), with a BatchNormalization in a branch now and then."""
    rng, shape = built.rng, built.shapes[source]
    size = shape[0]

    def branch() -> str:
        if image:
            return built.conv(source, size, 3, pads=[1, 1, 1, 1])
        return built.dense(source, size, bias=bool(rng.random() < 0.8))

    left = branch()
    if built.coarse and rng.random() < 0.4:
        left = built.norm(left)
    right = branch() if rng.random() < 0.5 else source
    return built.add(str(rng.choice(["Add", "Sub"])), [left, right], shape)


def _affine(built: Builder, source: str, image: bool) -> str:
    rng = built.rng
    if not image:
        how = "MatMul" if rng.random() < 0.2 else "Gemm"
        return built.dense(source, int(rng.integers(1, 6)), bool(rng.random() < 0.85), how)
    c, h, w = built.shapes[source]
    attributes: dict[str, Any] = {}
    if rng.random() < 0.4:
        attributes["pads"] = [int(v) for v in rng.integers(0, 2, 4)]
    if rng.random() < 0.3:
        attributes["strides"] = [int(rng.integers(1, 3)), 1]
    if c > 1 and rng.random() < 0.3:
        attributes["group"] = c
    channels = int(rng.integers(1, 3)) * attributes.get("group", 1)
    return built.conv(source, channels, min(h, w, int(rng.integers(1, 3))), **attributes)


def _oddities(rng: Rng, built: Builder, last: str) -> list[str]:
    """Change some constants so that a rule of scales or of bounds is at its edge; says which."""
    weights = [name for name in built.constants if name[0] == "W"]
    biases = [name for name in built.constants if name[0] == "b" and name != last]
    about = []
    for odd in ODDITIES:
        if rng.random() > 0.12:
            continue
        about.append(odd)
        name = str(rng.choice(weights))
        value = built.constants[name]
        row = int(rng.integers(len(value)))
        if odd in ("dead", "dying", "bias") and biases:
            target = built.constants[str(rng.choice(biases))]
            size = {"dead": -20.0, "dying": -1.0, "bias": 2.0 ** rng.integers(1, 24)}[odd]
            target[slice(None) if odd != "bias" else int(rng.integers(len(target)))] = size
        elif odd == "zero":
            value[row] = 0.0
        elif odd in ("tiny", "huge"):
            built.constants[name] = value * 2.0 ** (rng.integers(3, 24) * (-1 if odd == "tiny" else 1))
        elif odd == "cancel" and value.shape[-1] > 1:
            value[..., -1] = -value[..., 0]
        elif odd == "onesided":
            built.constants[name] = abs(value)
        elif odd == "twin":
            value[row] = value[0]
        elif odd == "spread":
            value[row] *= 2.0 ** -int(rng.integers(4, 12))
        elif odd == "faint":
            value[row] *= 2.0 ** -int(rng.integers(60, 130))
    return about


def _fill(rng: Rng, built: Builder, x: Array, power: float) -> list[str]:
    """Give an output of a first layer a bias of 2^(31 + power) in steps of 1/255 of its weights and inputs."""
    pairs = [node.input[1:3] for node in built.nodes if node.input[0] == "x" and len(node.input) == 3]
    if not pairs:
        return []
    weight, bias = pairs[int(rng.integers(len(pairs)))]
    row = int(rng.integers(len(built.constants[bias])))
    if rng.random() < 0.6:  # then asymmetric steps are the smallest
        built.constants[weight] = abs(built.constants[weight])
    step = abs(built.constants[weight][row]).max() / 255 * (max(x.max(), 0) - min(x.min(), 0)) / 255
    built.constants[bias][row] = 2.0 ** (31 + power) * step * (-1 if rng.random() < 0.1 else 1)
    return ["brim"]
