"""The layers of a network: immutable, each with its own numbers and geometry (network.py has the conventions).

`Dense` and `Conv` are what a quantiser touches, unless `quantised` is False (average pooling is a `Conv` with constant
weights). `Scale` is an exact constant: input normalisation, for instance. `Relu` is an activation, where the activation
radii of scheme `paper` apply; `Rounding` is what a quantiser does to a tensor (mathematics.md, section 15), and
`DynamicRounding` what one does that takes the step from the tensor itself. `MaxPool` passes some of the numbers that it
reads on as they are, so its output lies on the grid of its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from qverify.arrays import Array, freeze, frozen_array
from qverify.errors import ModelError
from qverify.kinds import expected, whole_numbers
from qverify.moved import former_names
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.parts import Part

__getattr__ = former_names(__name__, {"forward": "qverify.forward_pass:forward"})

_PATCHES = 1 << 24
"""Floats of what output positions look at that a forward pass unfolds at once (128 MiB)."""
LEVELS = 255.0
"""Steps in the range of a dynamic rounding point, and of any of 8 bits."""
INT32, INT16 = 2.0**31 - 1, 2.0**15 - 1
"""The largest numbers that accumulators hold."""


@dataclass(frozen=True, eq=False, repr=False)
class Layer(Brief):
    """The base of all layers. `inputs` are indices into `Network.layers`."""

    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def size(self) -> int:
        """The number of outputs."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Input(Layer):
    """The network's input, of the given shape. `parts`: what is joined in it, where the model has several inputs."""

    parts: tuple[Part, ...] | None = None

    def __post_init__(self) -> None:
        freeze(self)
        if self.parts is not None and sum(part.size for part in self.parts) != self.size:
            raise ModelError(f"Layer {self.name!r}: its parts have not {self.size} numbers together.")


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """`z = weight @ x + bias`; weight (n_out, n_in), bias (n_out,).

    `grid`: the steps that the weights of a quantised file are whole multiples of, of a shape that broadcasts to them;
    None in a trained network.
    """

    weight: Array
    bias: Array
    has_bias: bool = True
    quantised: bool = True
    grid: Array | None = None

    def __post_init__(self) -> None:
        freeze(self, "weight", "bias")
        _freeze_grid(self)
        if self.weight.ndim != 2 or self.weight.shape[0] != self.size:
            raise ModelError(f"Layer {self.name!r}: weight of shape {self.weight.shape} does not give {self.shape}.")
        if self.bias.shape != (self.size,):
            raise ModelError(f"Layer {self.name!r}: bias has shape {self.bias.shape}, not ({self.size},).")

    @property
    def fan_in(self) -> int:
        """The number of inputs that each output sums over."""
        return int(self.weight.shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class Conv(Layer):
    """2-d cross-correlation (1-d ones have height 1), as ONNX defines it.

    weight (c_out, c_in / groups, kh, kw), bias (c_out,); `in_shape` (c_in, h, w), `out_shape`
    (c_out, h', w'); pads (top, left, bottom, right), filled with exact zeros. `shape` is the shape
    shown to people and may lack the height of a 1-d convolution. Every kernel entry is used at
    every position: shared weights (mathematics.md, section 6). `grid`: see `Dense`.
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
    grid: Array | None = None

    def __post_init__(self) -> None:
        freeze(self, "weight", "bias")
        _freeze_grid(self)
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
        """The shape (channels, rows, columns) of the output."""
        _, height, width = self.in_shape
        top, left, bottom, right = self.pads
        kernel_h, kernel_w = self.weight.shape[2:]
        rows = (height + top + bottom - self.dilations[0] * (kernel_h - 1) - 1) // self.strides[0] + 1
        columns = (width + left + right - self.dilations[1] * (kernel_w - 1) - 1) // self.strides[1] + 1
        return self.weight.shape[0], rows, columns

    @property
    def fan_in(self) -> int:
        """The number of weights that each output sums over."""
        return prod(self.weight.shape[1:])

    @property
    def positions(self) -> int:
        """The number of output positions that share one kernel; 1 means the layer is dense in disguise."""
        return self.out_shape[1] * self.out_shape[2]

    def patches(self, x: Array) -> Array:
        """(N, n_in) -> (N, groups, positions, fan_in): the inputs under the kernel at each output position."""
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


def _freeze_grid(layer: Dense | Conv) -> None:
    """Make the steps of a layer's weights, if it has any, a read-only array; ModelError unless weights lie on them."""
    if layer.grid is None:
        return
    freeze(layer, "grid")
    try:
        whole = layer.weight / np.broadcast_to(layer.grid, layer.weight.shape)
    except ValueError:
        raise ModelError(
            f"Layer {layer.name!r}: steps of shape {layer.grid.shape} do not fit weights {layer.weight.shape}."
        ) from None
    if (layer.grid <= 0).any() or (abs(whole - np.rint(whole)) > 1e-9 * np.maximum(1.0, abs(whole))).any():
        raise ModelError(f"Layer {layer.name!r}: its weights are no whole multiples of their steps.")


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

    `offset` (size,) or None is the activation error (mathematics.md, section 3); None in a trained network.
    """

    offset: Array | None = None

    def __post_init__(self) -> None:
        freeze(self, *["offset"] * (self.offset is not None))


@dataclass(frozen=True, eq=False, repr=False)
class Rounding(Layer):
    """A rounding point: a tensor is rounded to the multiples of a step and clipped (mathematics.md, section 15).

    `y = clip(round(x + offset), low, high)`, and y is 0 where |x| <= `dead` and has the sign of x elsewhere, unless
    `dead` is negative. Arrays (size,): `step` > 0, ties to even, or 0 for no grid: then nothing is rounded; `low` <= 0
    <= `high`, on the grid. `offset`: the rounding error of a member of a family; None in a file, which rounds to
    nearest. `kernel`: in a file, an integer kernel makes what is rounded; else it is made in floating point.
    """

    step: Array
    low: Array
    high: Array
    dead: Array
    offset: Array | None = None
    kernel: bool = False

    def __post_init__(self) -> None:
        names = ["step", "low", "high", "dead", *["offset"] * (self.offset is not None)]
        freeze(self, *names)
        if any(getattr(self, name).shape != (self.size,) for name in names):
            raise ModelError(
                f"Layer {self.name!r}: step, ends and errors of a rounding point have {self.size} entries."
            )
        if (self.low > 0).any() or (self.high < 0).any() or (self.step < 0).any():
            raise ModelError(
                f"Layer {self.name!r}: the range of a rounding point holds 0, and its step is not negative."
            )

    @staticmethod
    def on_grid(
        name: str, source: int, shape: tuple[int, ...], step: Any, ends: tuple[Any, Any], kernel: bool = False
    ) -> Rounding:
        """The rounding point of a file: `step` and the ends, `ends` counted in steps from 0, broadcast to (size,)."""
        steps = np.broadcast_to(np.asarray(step, dtype=np.float64), (prod(shape),))
        low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), steps.shape) * steps for end in ends)
        none = np.zeros_like(steps)
        return Rounding(name, (source,), shape, step=steps, low=low, high=high, dead=none, kernel=kernel)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Layer):
    """The largest number under each window of an image, channel by channel; padding is left out.

    `in_shape` (channels, h, w), `kernel` (kh, kw), pads (top, left, bottom, right); every window holds some number.
    `shape` is the shape shown to people and may lack the height of a 1-d pool. Numbers are passed on as they are.
    """

    in_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        freeze(self)
        for name, length in (("in_shape", 3), ("kernel", 2), ("strides", 2), ("pads", 4)):
            whole_numbers(getattr(self, name), f"{name} of layer {self.name!r}", ModelError, length)
        if min((*self.in_shape, *self.kernel, *self.strides)) < 1 or min(self.pads) < 0:
            raise ModelError(f"Layer {self.name!r}: a kernel and strides are at least 1 and pads at least 0.")
        if self.size != prod(self.out_shape) or min(self.out_shape) < 1:
            raise ModelError(f"Layer {self.name!r}: the kernel does not fit into the padded input.")
        starts = [(n - 1) * stride for n, stride in zip(self.out_shape[1:], self.strides, strict=True)]
        inside = [s - p < n for s, p, n in zip(starts, self.pads[:2], self.in_shape[1:], strict=True)]
        if not all(inside) or any(p >= k for p, k in zip(self.pads[:2], self.kernel, strict=True)):
            raise ModelError(f"Layer {self.name!r}: a window lies wholly in the padding, where there is no largest.")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """The shape (channels, rows, columns) of the output."""
        channels, height, width = self.in_shape
        top, left, bottom, right = self.pads
        rows = (height + top + bottom - self.kernel[0]) // self.strides[0] + 1
        return channels, rows, (width + left + right - self.kernel[1]) // self.strides[1] + 1

    @cached_property
    def windows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(size, k): the inputs (by index) under the window of each output; a number stands in for padding beside it,
        which changes no maximum."""
        channels, height, width = self.in_shape
        _, rows, columns = self.out_shape
        row = np.arange(rows)[:, None] * self.strides[0] - self.pads[0] + np.arange(self.kernel[0])
        column = np.arange(columns)[:, None] * self.strides[1] - self.pads[1] + np.arange(self.kernel[1])
        row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
        image = row[:, None, :, None] * width + column[None, :, None, :]
        every = np.arange(channels).reshape(-1, 1, 1, 1, 1) * (height * width) + image
        return np.asarray(every.reshape(self.size, prod(self.kernel)), dtype=np.int64)

    def apply(self, x: Array) -> Array:
        """The largest numbers (N, size) of inputs x (N, n_in)."""
        out = np.empty((len(x), self.size))
        step = max(1, _PATCHES // self.windows.size)
        for start in range(0, len(out), step):
            out[start : start + step] = x[start : start + step, self.windows].max(axis=2)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class DynamicRounding(Layer):
    """A rounding point whose step each tensor brings along, as DynamicQuantizeLinear of ONNX has it, for one sample.

    With `low = min(0, min x)`, `high = max(0, max x)` and `step = (high - low) / 255` it gives
    `clip(round(x / step), -zero, 255 - zero) step`, where `zero = round(-low / step)`; 0 where all of x is 0. Ties to
    even (mathematics.md, section 15).
    """


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer):
    """The sum of two branches of equal shape (a residual connection)."""


@dataclass(frozen=True, eq=False, repr=False)
class Product(Layer):
    """The product of two branches of equal shape, element by element (a gate)."""


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
