"""A graph as a list of sums, Relus and additions in exact rationals, BatchNormalization folded or kept apart; and
maxima under windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .exact import rational, root

Array = np.ndarray
FOLDS = ("all", "behind", "none")
"""Which BatchNormalizations are folded: also those that stand alone (into weights of their own), those behind a sum,
or none."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One step. `kind`: input, sum, relu, add, max, or round (what a toolchain does on the way into a
    BatchNormalization).

    A sum has C channels of P positions, each over k entries: `entry` (C, P, k) says which entries of the input, the
    number after the last, `width`, standing for padding; `weight` (C, k), `bias` (C,); `shift` (C,) is taken off every
    entry. A max has `entry` (n, k) likewise, k = 1 where numbers only move. `folded`: a BatchNormalization is in it.
    `norm`: the constants scale and deviation of a BatchNormalization that stands apart. `sign`: of the second addend.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    size: int
    entry: Any = None
    weight: Any = None
    bias: Any = None
    shift: Any = None
    has_bias: bool = False
    folded: bool = False
    norm: Any = None
    sign: int = 1
    width: int = 0

    @cached_property
    def floats(self) -> tuple[Array, Array, Array]:
        """weight, bias, shift in float64."""
        return self.weight.astype(float), self.bias.astype(float), self.shift.astype(float)

    @cached_property
    def dense(self) -> bool:
        """Whether every channel reads the whole input in order."""
        return self.entry.shape[1:] == (1, self.width) and bool((self.entry == np.arange(self.width)).all())

    @cached_property
    def back(self) -> Array:
        """(C * P * k, width + 1): which entry of its input each product reads, the last for padding."""
        return np.asarray(np.eye(self.width + 1)[self.entry.ravel()])


@dataclass(frozen=True, eq=False)
class Plan:
    """`layers` in order; `rational`: every constant is what the product can hold in float64 without rounding."""

    layers: tuple[Layer, ...]
    rational: bool
    fold: str

    def indices(self, kind: str) -> list[int]:
        return [i for i, layer in enumerate(self.layers) if layer.kind == kind]


class _Reader:
    def __init__(self, model: onnx.ModelProto, fold: str) -> None:
        self.fold, self.exact = fold, True
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        entry = model.graph.input[0]
        shape = tuple(d.dim_value for d in entry.type.tensor_type.shape.dim[1:])
        self.layers = [Layer("input", "input", (), int(np.prod(shape)))]
        self.values = {entry.name: (0, shape)}
        self.used = [name for node in model.graph.node for name in node.input]
        for node in model.graph.node:
            self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.values[node.output[0]] = getattr(self, f"_{node.op_type.lower()}")(node)

    def append(self, layer: Layer, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        self.layers.append(layer)
        return len(self.layers) - 1, shape

    def _flatten(self, node: Any) -> Any:
        source, shape = self.values[node.input[0]]
        return source, (int(np.prod(shape)),)

    def _relu(self, node: Any) -> Any:
        source, shape = self.values[node.input[0]]
        return self.append(Layer("relu", node.name, (source,), self.layers[source].size), shape)

    def _add(self, node: Any, sign: int = 1) -> Any:
        (left, shape), (right, _) = (self.values[name] for name in node.input)
        return self.append(Layer("add", node.name, (left, right), self.layers[left].size, sign=sign), shape)

    def _sub(self, node: Any) -> Any:
        return self._add(node, -1)

    def _sum(self, node: Any, weight: Array, entry: Array, shape: tuple[int, ...]) -> Any:
        source, _ = self.values[node.input[0]]
        weight = rational(weight.reshape(len(weight), -1))
        has_bias = len(node.input) > 2
        bias = rational(self.constants[node.input[2]] if has_bias else np.zeros(len(weight)))
        shift = rational(np.zeros(len(weight)))
        size = int(np.prod(shape))
        width = self.layers[source].size
        layer = Layer("sum", node.name, (source,), size, entry, weight, bias, shift, has_bias, width=width)
        return self.append(layer, shape)

    def _gemm(self, node: Any) -> Any:
        weight = self.constants[node.input[1]]
        return self._sum(node, weight, np.tile(np.arange(weight.shape[1]), (len(weight), 1, 1)), (len(weight),))

    def _matmul(self, node: Any) -> Any:
        weight = self.constants[node.input[1]].T
        return self._sum(node, weight, np.tile(np.arange(weight.shape[1]), (len(weight), 1, 1)), (len(weight),))

    def _conv(self, node: Any) -> Any:
        _, shape = self.values[node.input[0]]
        weight, a = self.constants[node.input[1]], self.attributes
        groups, strides, pads = a.get("group", 1), a.get("strides", [1, 1]), a.get("pads", [0] * 4)
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        padding = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
        image = np.pad(numbers, padding, constant_values=numbers.size)
        out = [(image.shape[i + 1] - weight.shape[i + 2]) // strides[i] + 1 for i in range(2)]
        entry = np.empty((len(weight), out[0] * out[1], weight[0].size), dtype=int)
        for o in range(len(weight)):
            first = o // (len(weight) // groups) * weight.shape[1]
            part = image[first : first + weight.shape[1]]
            for p, (i, j) in enumerate(np.ndindex(*out)):
                r, s = i * strides[0], j * strides[1]
                entry[o, p] = part[:, r : r + weight.shape[2], s : s + weight.shape[3]].ravel()
        return self._sum(node, weight, entry, (len(weight), *out))

    def _maxpool(self, node: Any) -> Any:
        source, (channels, height, width) = self.values[node.input[0]]
        kernel, strides, pads = (self.attributes[name] for name in ("kernel_shape", "strides", "pads"))
        numbers = np.arange(channels * height * width).reshape(channels, height, width)
        padding = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
        image = np.pad(numbers, padding, constant_values=numbers.size)
        out = [(image.shape[i + 1] - kernel[i]) // strides[i] + 1 for i in range(2)]
        corners = [(c, i * strides[0], j * strides[1]) for c, i, j in np.ndindex(channels, *out)]
        entry = np.array([image[c, r : r + kernel[0], s : s + kernel[1]].ravel() for c, r, s in corners])
        layer = Layer("max", node.name, (source,), len(entry), entry, width=numbers.size)
        return self.append(layer, (channels, *out))

    def _moved(self, node: Any, places: Array) -> Any:
        """Numbers in other places: maxima over one number each."""
        source, shape = self.values[node.input[0]]
        layer = Layer("max", node.name, (source,), places.size, places.reshape(-1, 1), width=int(np.prod(shape)))
        return self.append(layer, places.shape)

    def _places(self, node: Any) -> Array:
        _, shape = self.values[node.input[0]]
        return np.arange(int(np.prod(shape))).reshape(shape)

    def _transpose(self, node: Any) -> Any:
        return self._moved(node, self._places(node).transpose([axis - 1 for axis in self.attributes["perm"][1:]]))

    def _gather(self, node: Any) -> Any:
        index = self.constants[node.input[1]]
        return self._moved(node, np.take(self._places(node), index, self.attributes["axis"] - 1))

    def _batchnormalization(self, node: Any) -> Any:
        source, shape = self.values[node.input[0]]
        scale, offset, mean, variance = (rational(self.constants[name]) for name in node.input[1:])
        epsilon = Fraction(float(np.float32(self.attributes.get("epsilon", 1e-5))))
        deviation = np.array([root(v + epsilon) for v in variance], dtype=object)
        self.exact = self.exact and epsilon == 0
        before, factor = self.layers[source], scale / deviation
        if before.kind == "sum" and before.norm is None and self.fold != "none" and self.used.count(node.input[0]) == 1:
            bias = factor * (before.bias - mean) + offset
            self.layers[source] = replace(
                before, weight=before.weight * factor[:, None], bias=bias, has_bias=True, folded=True
            )
            return source, shape
        if self.fold == "none" and before.kind not in ("relu", "input"):
            source, _ = self.append(Layer("round", node.name, (source,), before.size), shape)
        entry = np.arange(before.size).reshape(len(scale), -1, 1)
        bias, shift = offset, mean
        norm: tuple[Any, Any] | None = (scale, deviation)
        if self.fold == "all":
            bias, shift, norm = offset - factor * mean, rational(np.zeros(len(scale))), None
        layer = Layer("sum", node.name, (source,), before.size, entry, factor[:, None], bias, shift, True, norm=norm)
        layer = replace(layer, width=before.size)
        return self.append(layer, shape)


def plan(model: onnx.ModelProto, fold: str = "all") -> Plan:
    """Read a model of `models.py`, its BatchNormalizations folded as one of FOLDS says."""
    read = _Reader(model, fold)
    return Plan(tuple(read.layers), read.exact, fold)
