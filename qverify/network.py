"""The network: a tuple of immutable layers; nothing below this file knows ONNX.

Conventions, relied on everywhere:

- `Network.layers[0]` is the only `Input`; every layer names its producers by index, and producers
  come first, so the tuple is in topological order. The last layer is the output.
- Between layers every tensor is flat (C order) of length `layer.size`; `layer.shape` is the shape of
  one sample, without the batch axis. Layers that care about geometry (`Conv`) carry it themselves.
  Reshape, Flatten, Squeeze and the like therefore leave no trace.
- Numbers are float64. Arrays are read-only. Layers are those of `layers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.arrays import Array, numbers
from qverify.errors import DataError, ModelError
from qverify.forward_pass import forward
from qverify.gather import Gather
from qverify.kinds import described
from qverify.layers import (
    Add,
    BatchNorm,
    Conv,
    Dense,
    DynamicRounding,
    Input,
    Layer,
    MaxPool,
    Product,
    Relu,
    Rounding,
    Scale,
)
from qverify.parts import Part, joined, slices
from qverify.text.brief import Brief

__all__ = [
    "Activation",
    "Add",
    "Array",
    "BatchNorm",
    "Conv",
    "Dense",
    "DynamicRounding",
    "Gather",
    "Input",
    "Layer",
    "MaxPool",
    "Network",
    "Product",
    "Relu",
    "Rounding",
    "Scale",
    "forward",
    "margins",
]

_VALUES = 1 << 24
"""Floats of layers' outputs that it holds at once, where only the last are wanted."""


@dataclass(frozen=True, eq=False, repr=False)
class Network(Brief):
    """An immutable network. `notes` are remarks of the loader a person should see.

    How the model's file has it, where that matters to int8 toolchains: `added_biases`, the names of layers whose bias
    is added by a node of its own, which may be quantised to 8 bits like an activation; `batchnorms`; `oddities`,
    layers (by name) in a form that toolchains quantise in ways of their own, and which; `composed`, names of
    activations that are no nodes of their own, as a HardSwish of two nodes and a Relu by Max, or None.

    Raises ModelError if the layers are not in topological order or their sizes do not fit.
    """

    layers: tuple[Layer, ...]
    source: str = "network"
    notes: tuple[str, ...] = field(default=())
    added_biases: tuple[str, ...] = field(default=())
    batchnorms: tuple[BatchNorm, ...] = field(default=())
    oddities: tuple[tuple[str, str], ...] = field(default=())
    composed: tuple[str, ...] | None = field(default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, Layer) for layer in self.layers):
            raise ModelError(f"The layers of a network are {described(self.layers)}; give a tuple of layers.")
        if len(self.layers) < 2 or not isinstance(self.layers[0], Input):
            raise ModelError(f"{self.source}: a network needs an input and at least one layer.")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ModelError(f"{self.source}: two layers share a name; every layer needs its own.")
        for index, layer in enumerate(self.layers[1:], start=1):
            wanted = 2 if isinstance(layer, (Add, Product)) else 1
            if isinstance(layer, Gather):
                wanted = max(1, len(layer.inputs))
            if len(layer.inputs) != wanted or not all(0 <= i < index for i in layer.inputs):
                raise ModelError(f"{self.source}: layer {layer.name!r} has the wrong producers {layer.inputs}.")
            if isinstance(layer, Gather):
                _check_index(self, layer)
                continue
            size = layer.size
            if isinstance(layer, (Conv, MaxPool)):
                size = prod(layer.in_shape)
            elif isinstance(layer, Dense):
                size = layer.fan_in
            if any(self.layers[i].size != size for i in layer.inputs):
                raise ModelError(f"{self.source}: layer {layer.name!r} expects {size} inputs and gets another number.")
        unused = [self.layers[i].name for i, users in enumerate(self.consumers[:-1]) if not users]
        if unused:
            raise ModelError(f"{self.source}: the output of layer {unused[0]!r} is never used.")

    @property
    def parts(self) -> tuple[Part, ...] | None:
        """The inputs of a model that has several, whose numbers are joined in this order; None for one."""
        first = self.layers[0]
        return first.parts if isinstance(first, Input) else None

    @cached_property
    def entries(self) -> frozenset[int]:
        """Indices of the layers that give samples as they are: the input, and each of several inputs of the model."""
        found = {0}
        if self.parts is not None:
            own = [np.arange(at.start, at.stop) for at in slices(self.parts)]
            for i, layer in enumerate(self.layers):
                if isinstance(layer, Gather) and layer.inputs == (0,):
                    found |= {i for part in own if np.array_equal(layer.index, part)}
        return frozenset(found)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.layers[0].shape

    @property
    def input_size(self) -> int:
        """The number of inputs."""
        return self.layers[0].size

    @property
    def output_size(self) -> int:
        """The number of outputs, or classes."""
        return self.layers[-1].size

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every layer the indices of the layers that read it."""
        users: list[list[int]] = [[] for _ in self.layers]
        for index, layer in enumerate(self.layers):
            for producer in layer.inputs:
                users[producer].append(index)
        return tuple(tuple(u) for u in users)

    @cached_property
    def relus(self) -> tuple[int, ...]:
        """Indices of the Relus."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Relu))

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Indices of the activations other than Relu."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Activation))

    @cached_property
    def smooth(self) -> tuple[int, ...]:
        """Indices of the activations that are not piecewise linear: programs cannot have them exactly."""
        return tuple(i for i in self.activations if not self.layers[i].curve.linear)  # type: ignore[attr-defined]

    @cached_property
    def roundings(self) -> tuple[int, ...]:
        """Indices of the rounding points; there are some in what was read from a quantised file."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Rounding))

    @cached_property
    def products(self) -> tuple[int, ...]:
        """Indices of the products of two branches."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Product))

    @cached_property
    def dynamic(self) -> tuple[int, ...]:
        """Indices of the dynamic rounding points; there are some in what was read from a dynamically quantised file."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, DynamicRounding))

    @cached_property
    def multiplications(self) -> int:
        """Those of one forward pass of one sample, padding included."""
        return sum(la.size * la.fan_in for la in self.layers if isinstance(la, (Dense, Conv)))

    @property
    def rounds(self) -> bool:
        """It was read from a quantised file: it has rounding points, of either kind."""
        return bool(self.roundings or self.dynamic)

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Indices of the layers whose weights a quantiser touches."""
        return tuple(i for i, la in enumerate(self.layers) if isinstance(la, (Dense, Conv)) and la.quantised)

    @cached_property
    def shares_weights(self) -> bool:
        """True if some quantised kernel is used at more than one position: mathematics.md, section 6."""
        return any(isinstance(self.layers[i], Conv) and self.layers[i].positions > 1 for i in self.weighted)  # type: ignore[attr-defined]

    def grid_of(self, index: int) -> int:
        """The layer whose numbers layer `index` gives: its own, or those that a MaxPool, or a Gather of one layer,
        passes on. Each of several inputs has its own."""
        passing = (MaxPool, Gather)
        while (
            isinstance(self.layers[index], passing)
            and len(self.layers[index].inputs) == 1
            and index not in self.entries
        ):
            (index,) = self.layers[index].inputs
        return index

    def before(self, index: int) -> int:
        """The layer that layer `index` reads, looking through Relus and Clips, which kernels fuse with it."""
        (source,) = self.layers[index].inputs
        read = self.layers[source]
        fused = isinstance(read, Relu) or (isinstance(read, Activation) and read.function == "clip")
        return self.before(source) if fused else source

    def relu_behind(self, index: int) -> int | None:
        """The Relu that layer `index` reaches through sums alone and that nothing else can see it past; None if none.

        What is added to the layer's output changes that Relu's output by no more.
        """
        while len(self.consumers[index]) == 1:
            (index,) = self.consumers[index]
            if isinstance(self.layers[index], Relu):
                return index
            if not isinstance(self.layers[index], Add):
                return None
        return None

    def index(self, name: str) -> int:
        """Index of the layer with this name; KeyError if there is none."""
        for i, layer in enumerate(self.layers):
            if layer.name == name:
                return i
        raise KeyError(name)

    def flat(self, x: Any) -> Array:
        """(N, *input_shape) or (N, input_size), any number type -> (N, input_size) float64. Of a model with several
        inputs also arrays (N, ...) by their names."""
        array = self.joined(x)
        if not array.ndim or array.size != len(array) * self.input_size:
            raise DataError(
                f"The samples have shape {array.shape}, but the network reads {self.input_shape}; give (N, ...)."
            )
        return array.reshape(len(array), self.input_size)

    def joined(self, x: Any) -> Array:
        """Samples as one array: arrays by the names of the inputs joined, all else as it is. Raises DataError."""
        if not isinstance(x, Mapping):
            return numbers(x, "The samples")
        if self.parts is None:
            raise DataError("The samples are arrays by names, but the network has one input; give one array.")
        return joined(self.parts, x, "The samples")

    def evaluate_all(self, x: Any) -> list[Array]:
        """The output of every layer, each (N, size), by plain float64 arithmetic."""
        values: list[Array] = []
        for layer in self.layers:
            if isinstance(layer, Input):
                values.append(self.flat(x))
            else:
                values.append(forward(layer, [values[i] for i in layer.inputs]))
        return values

    def evaluate(self, x: Any) -> Array:
        """(N, *input_shape) -> (N, output_size): the plain forward pass."""
        flat = self.flat(x)
        step = self.samples_at_once
        parts = [self.evaluate_all(flat[start : start + step])[-1] for start in range(0, len(flat), step)]
        return np.concatenate(parts) if parts else np.zeros((0, self.output_size))

    @property
    def samples_at_once(self) -> int:
        """Samples whose values on all layers are held at once without taking much memory."""
        return max(1, _VALUES // sum(layer.size for layer in self.layers))

    def with_layers(self, changes: dict[int, Layer]) -> Network:
        """A copy in which the layers at the given indices are replaced."""
        return replace(self, layers=tuple(changes.get(i, layer) for i, layer in enumerate(self.layers)))

    def with_one_input(self) -> Network:
        """The same network, but for the names of its inputs: these are joined."""
        return self if self.parts is None else self.with_layers({0: replace(self.layers[0], parts=None)})  # type: ignore[call-arg]


def _check_index(network: Network, layer: Gather) -> None:
    """Raise ModelError unless the numbers that a Gather reads exist."""
    total = sum(network.layers[i].size for i in layer.inputs)
    if layer.index.max() >= total:
        raise ModelError(f"{network.source}: layer {layer.name!r} reads number {layer.index.max()} of {total}.")


def margins(outputs: Array, labels: Any) -> Array:
    """`y_label - max of the others`, (N, classes) and (N,) -> (N,): right if and only if positive."""
    rows = np.arange(len(outputs))
    others = np.array(outputs, dtype=np.float64)
    others[rows, labels] = -np.inf
    found: Array = outputs[rows, labels] - others.max(axis=1)
    return found
