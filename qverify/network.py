"""The network: a tuple of immutable layers; nothing below this file knows ONNX.

Conventions, relied on everywhere:

- `Network.layers[0]` is the only `Input`; every layer names its producers by index, and producers
  come first, so the tuple is in topological order. The last layer is the output.
- Between layers every tensor is flat (C order) of length `layer.size`; `layer.shape` is the shape of
  one sample, without the batch axis. Layers that care about geometry (`Conv`) carry it themselves.
  Reshape, Flatten, Squeeze and the like therefore leave no trace.
- Numbers are float64. Arrays are read-only.
- `Dense` and `Conv` are what a quantiser touches, unless `quantised` is False (average pooling is a
  `Conv` with constant weights). `Scale` is an exact constant: input normalisation, for instance.
  `Relu` is the only activation layer, the only place where activation radii apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from qverify.arrays import Array, freeze, frozen_array, numbers
from qverify.errors import DataError, ModelError
from qverify.kinds import described, expected, whole_numbers
from qverify.text.brief import Brief

_PATCHES = 1 << 24
"""Floats of what output positions look at that a forward pass unfolds at once (128 MiB)."""
_VALUES = 1 << 24
"""Floats of layers' outputs that it holds at once, where only the last are wanted."""


@dataclass(frozen=True, eq=False, repr=False)
class Layer(Brief):
    """What all layers share. `inputs` are indices into `Network.layers`."""

    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Input(Layer):
    """The network's input, of the given shape."""


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """`z = weight @ x + bias`; weight (n_out, n_in), bias (n_out,)."""

    weight: Array
    bias: Array
    has_bias: bool = True
    quantised: bool = True

    def __post_init__(self) -> None:
        freeze(self, "weight", "bias")
        if self.weight.ndim != 2 or self.weight.shape[0] != self.size:
            raise ModelError(f"Layer {self.name!r}: weight of shape {self.weight.shape} does not give {self.shape}.")
        if self.bias.shape != (self.size,):
            raise ModelError(f"Layer {self.name!r}: bias has shape {self.bias.shape}, not ({self.size},).")

    @property
    def fan_in(self) -> int:
        return self.weight.shape[1]


@dataclass(frozen=True, eq=False, repr=False)
class Conv(Layer):
    """2-d cross-correlation (1-d ones have height 1), as ONNX defines it.

    weight (c_out, c_in / groups, kh, kw), bias (c_out,); `in_shape` (c_in, h, w), `out_shape`
    (c_out, h', w'); pads (top, left, bottom, right), filled with exact zeros. `shape` is the shape
    shown to people and may lack the height of a 1-d convolution. Every kernel entry is used at
    every position: shared weights (design.md, section 6).
    """

    weight: Array
    bias: Array
    in_shape: tuple[int, int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    has_bias: bool = True
    quantised: bool = True

    def __post_init__(self) -> None:
        freeze(self, "weight", "bias")
        for name, length in (("in_shape", 3), ("strides", 2), ("pads", 4), ("dilations", 2)):
            whole_numbers(getattr(self, name), f"{name} of layer {self.name!r}", ModelError, length)
        expected(self.groups, int, f"groups of layer {self.name!r}", "a whole number", ModelError)
        if self.weight.ndim != 4 or min((*self.strides, *self.dilations, self.groups)) < 1 or min(self.pads) < 0:
            raise ModelError(f"Layer {self.name!r}: a kernel has 4 axes, strides are at least 1 and pads at least 0.")
        c_out, c_group, _, _ = self.weight.shape
        if c_group * self.groups != self.in_shape[0] or c_out % self.groups or self.bias.shape != (c_out,):
            raise ModelError(f"Layer {self.name!r}: kernel, groups and {self.in_shape[0]} input channels do not fit.")
        if self.size != prod(self.out_shape) or min(self.out_shape) < 1:
            raise ModelError(f"Layer {self.name!r}: the kernel does not fit into the padded input.")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        _, height, width = self.in_shape
        top, left, bottom, right = self.pads
        kernel_h, kernel_w = self.weight.shape[2:]
        rows = (height + top + bottom - self.dilations[0] * (kernel_h - 1) - 1) // self.strides[0] + 1
        columns = (width + left + right - self.dilations[1] * (kernel_w - 1) - 1) // self.strides[1] + 1
        return self.weight.shape[0], rows, columns

    @property
    def fan_in(self) -> int:
        return prod(self.weight.shape[1:])

    @property
    def positions(self) -> int:
        """How many output positions share one kernel; 1 means the layer is dense in disguise."""
        return self.out_shape[1] * self.out_shape[2]

    def patches(self, x: Array) -> Array:
        """(N, n_in) -> (N, groups, positions, fan_in): what each output position looks at."""
        top, left, bottom, right = self.pads
        image = np.pad(x.reshape(-1, *self.in_shape), ((0, 0), (0, 0), (top, bottom), (left, right)))
        kernel_h, kernel_w = self.weight.shape[2:]
        span_h, span_w = self.dilations[0] * (kernel_h - 1) + 1, self.dilations[1] * (kernel_w - 1) + 1
        windows = sliding_window_view(image, (span_h, span_w), axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1], :: self.dilations[0], :: self.dilations[1]]
        count, channels, rows, columns = windows.shape[:4]
        grouped = windows.reshape(count, self.groups, channels // self.groups, rows, columns, kernel_h, kernel_w)
        return grouped.transpose(0, 1, 3, 4, 2, 5, 6).reshape(count, self.groups, rows * columns, self.fan_in)

    def apply(self, weight: Array, x: Array) -> Array:
        """The layer's linear map with another kernel of the same shape and no bias; (N, n_in) -> (N, n_out)."""
        kernels = weight.reshape(self.groups, -1, self.fan_in)
        out = np.empty((len(x), self.groups, kernels.shape[1], self.positions))
        step = max(1, _PATCHES // (self.groups * self.positions * self.fan_in))
        for start in range(0, len(x), step):
            some = slice(start, start + step)
            out[some] = np.einsum("ngpk,gck->ngcp", self.patches(x[some]), kernels, optimize=True)
        return out.reshape(len(x), self.size)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Layer):
    """`y = scale * x + shift` element by element, with exact constants of shape (size,)."""

    scale: Array
    shift: Array

    def __post_init__(self) -> None:
        freeze(self, "scale", "shift")
        if self.scale.shape != (self.size,) or self.shift.shape != (self.size,):
            raise ModelError(f"Layer {self.name!r}: scale and shift must have {self.size} elements.")


@dataclass(frozen=True, eq=False, repr=False)
class Relu(Layer):
    """`x = max(z, 0)`, or `x = max(max(z, 0) + offset, 0)` in a member of a quantised family.

    `offset` (size,) or None is the activation error (design.md, section 3); None in a trained network.
    """

    offset: Array | None = None

    def __post_init__(self) -> None:
        freeze(self, *["offset"] * (self.offset is not None))


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer):
    """The sum of two branches of equal shape (a residual connection)."""


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Brief):
    """A BatchNormalization of the model, `y = scale (z - mean) / deviation + offset` a channel of layer `layer`.

    It was folded into that layer, and `before` is the layer as the model has it, or it stands alone as that layer, a
    depthwise Conv, and `before` is None. Toolchains that do not fold round other numbers (schemes `tensor` and
    `channel`). Arrays (c_out,) of the layer.
    """

    name: str
    layer: str
    before: Dense | Conv | None
    scale: Array
    offset: Array
    mean: Array
    deviation: Array

    def __post_init__(self) -> None:
        for name in ("scale", "offset", "mean", "deviation"):
            array = frozen_array(getattr(self, name), f"{name} of BatchNormalization {self.name!r}")
            object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False, repr=False)
class Network(Brief):
    """An immutable network. `notes` are remarks of the loader a person should see.

    How the model's file has it, where that matters to int8 toolchains: `added_biases`, the names of layers whose bias
    is added by a node of its own, which may be quantised to 8 bits like an activation; `batchnorms`; `oddities`,
    layers (by name) in a form that toolchains quantise in ways of their own, and which.

    Raises ModelError if the layers are not in topological order or their sizes do not fit.
    """

    layers: tuple[Layer, ...]
    source: str = "network"
    notes: tuple[str, ...] = field(default=())
    added_biases: tuple[str, ...] = field(default=())
    batchnorms: tuple[BatchNorm, ...] = field(default=())
    oddities: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, Layer) for layer in self.layers):
            raise ModelError(f"The layers of a network are {described(self.layers)}; give a tuple of layers.")
        if len(self.layers) < 2 or not isinstance(self.layers[0], Input):
            raise ModelError(f"{self.source}: a network needs an input and at least one layer.")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ModelError(f"{self.source}: two layers share a name; every layer needs its own.")
        for index, layer in enumerate(self.layers[1:], start=1):
            wanted = 2 if isinstance(layer, Add) else 1
            if len(layer.inputs) != wanted or not all(0 <= i < index for i in layer.inputs):
                raise ModelError(f"{self.source}: layer {layer.name!r} has the wrong producers {layer.inputs}.")
            size = layer.size
            if isinstance(layer, Conv):
                size = prod(layer.in_shape)
            elif isinstance(layer, Dense):
                size = layer.fan_in
            if any(self.layers[i].size != size for i in layer.inputs):
                raise ModelError(f"{self.source}: layer {layer.name!r} expects {size} inputs and gets another number.")
        unused = [self.layers[i].name for i, users in enumerate(self.consumers[:-1]) if not users]
        if unused:
            raise ModelError(f"{self.source}: the output of layer {unused[0]!r} is never used.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.layers[0].shape

    @property
    def input_size(self) -> int:
        return self.layers[0].size

    @property
    def output_size(self) -> int:
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
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Relu))

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Indices of the layers whose weights a quantiser touches."""
        return tuple(i for i, la in enumerate(self.layers) if isinstance(la, (Dense, Conv)) and la.quantised)

    @cached_property
    def shares_weights(self) -> bool:
        """True if some quantised kernel is used at more than one position: design.md, section 6."""
        return any(isinstance(self.layers[i], Conv) and self.layers[i].positions > 1 for i in self.weighted)  # type: ignore[attr-defined]

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
        """(N, *input_shape) or (N, input_size), any number type -> (N, input_size) float64."""
        array = numbers(x, "The samples")
        if not array.ndim or array.size != len(array) * self.input_size:
            raise DataError(
                f"The samples have shape {array.shape}, but the network reads {self.input_shape}; give (N, ...)."
            )
        return array.reshape(len(array), self.input_size)

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


def margins(outputs: Array, labels: Any) -> Array:
    """`y_label - max of the others`, (N, classes) and (N,) -> (N,): right if and only if positive."""
    rows = np.arange(len(outputs))
    others = np.array(outputs, dtype=np.float64)
    others[rows, labels] = -np.inf
    return outputs[rows, labels] - others.max(axis=1)


def forward(layer: Layer, inputs: list[Array]) -> Array:
    """The output (N, size) of one layer, given those of its producers."""
    return _FORWARD[type(layer)](layer, inputs)


def _relu(layer: Relu, x: Sequence[Array]) -> Array:
    y = np.maximum(x[0], 0.0)
    return y if layer.offset is None else np.maximum(y + layer.offset, 0.0)


_FORWARD: dict[type[Layer], Callable[[Any, list[Array]], Array]] = {
    Dense: lambda layer, x: x[0] @ layer.weight.T + layer.bias,
    Conv: lambda layer, x: layer.apply(layer.weight, x[0]) + np.repeat(layer.bias, layer.positions),
    Scale: lambda layer, x: layer.scale * x[0] + layer.shift,
    Relu: _relu,
    Add: lambda layer, x: x[0] + x[1],
}
