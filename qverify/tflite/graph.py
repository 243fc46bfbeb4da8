"""The pieces of a TFLite graph being read: constants, tensors, one operator with its inputs, and the growing layers.

TFLite keeps images as (batch, height, width, channels), `Network` channels first. A tensor therefore says where each
of its elements, counted in the order of the file, lies in the flat output of its layer: a RESHAPE changes nothing but
the shape, and a FULLY_CONNECTED behind it picks its columns by these places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Conv, Input, Layer, Rounding
from qverify.onnx.graph import Refusal, UnknownOperator, layer_name
from qverify.text.brief import Brief
from qverify.tflite.file import ABSENT, RANGES, TensorInfo

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.tflite.file import Model, OperatorInfo

__all__ = ["Builder", "Constant", "Grid", "Node", "Refusal", "Tensor", "UnknownOperator", "channels_first"]

Shape = tuple[int, ...]
Pads = tuple[int, int, int, int]

NO_PADS: Pads = (0, 0, 0, 0)
MOST = 1 << 24
"""Numbers that a sample may have: a damaged file is not to fill the memory."""


@dataclass(frozen=True)
class Grid:
    """How a tensor is quantised: real = step * (integer - zero), integers of type `kind`."""

    kind: str
    step: float
    zero: int

    @property
    def ends(self) -> tuple[int, int]:
        """The ends of its range, in steps from 0: `ends[0] <= 0 <= ends[1]`."""
        low, high = RANGES[self.kind]
        return low - self.zero, high - self.zero


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Constant(Brief):
    """Numbers that do not depend on the input, dequantised: `values` in the shape and order of the file.

    `grid`: the steps they are whole multiples of, of a shape that broadcasts to theirs; None for floats.
    """

    info: TensorInfo
    kind: str
    values: Array
    grid: Array | None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Tensor(Brief):
    """A computed tensor: element i, in the order of the file, is output `places[i]` of `layers[layer]`.

    `grid`: how it is quantised, None for floats. `softmax`: a SOFTMAX was dropped before it. `pads` (top, left, bottom,
    right): zeros around the image that `layer` gives, not yet part of a layer; `shape` and `places` are without them.
    """

    layer: int
    shape: Shape
    places: np.ndarray
    grid: Grid | None
    softmax: bool = False
    pads: Pads = NO_PADS

    @property
    def size(self) -> int:
        """The number of elements, without pads."""
        return prod(self.shape)


Value = Constant | Tensor


def channels_first(shape: Shape) -> np.ndarray:
    """Where the elements of an image (1, height, width, channels) lie in a flat (channels, height, width)."""
    _, height, width, channels = shape
    return np.arange(prod(shape)).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)


def sample_shape(shape: Shape) -> Shape:
    """The shape of a sample, as qverify has it: without the batch, and channels first in images."""
    if len(shape) == 4 and shape[0] == 1:
        return shape[3], shape[1], shape[2]
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def activation_grid(info: TensorInfo) -> Grid | None:
    """How a computed tensor is quantised, None for floats; raises Refusal."""
    if info.oddity:
        raise Refusal(f"of {info.label}, {info.oddity}")
    if info.kind == "FLOAT32":
        return None
    if info.kind not in ("INT8", "UINT8", "INT16"):
        raise Refusal(f"{info.label} is {info.kind}; supported are FLOAT32, INT8, UINT8 and INT16")
    if len(info.scales) != 1:
        raise Refusal(f"{info.label} has {len(info.scales)} scales; supported is one for a tensor that is computed")
    zero = int(info.zeros[0])
    if info.kind == "INT16" and zero:
        raise Refusal(f"{info.label} is INT16 with the zero point {zero}; TFLite has 0 there")
    return Grid(info.kind, float(info.scales[0]), zero)


def constant(info: TensorInfo) -> Constant:
    """A constant of the file, dequantised where it has scales; raises Refusal."""
    assert info.values is not None
    with np.errstate(invalid="ignore"):  # the layer that NaN goes into refuses it, with its name
        values = info.values.astype(np.float64)
    if info.kind not in RANGES or not len(info.scales):
        return Constant(info=info, kind=info.kind, values=values, grid=None)
    along = [1] * len(info.shape)
    if len(info.scales) > 1:
        along[info.axis] = -1
    grid = info.scales.reshape(along)
    return Constant(info=info, kind=info.kind, values=(values - info.zeros.reshape(along)) * grid, grid=grid)


@dataclass(frozen=True, eq=False, repr=False)
class Node(Brief):
    """An operator with its inputs resolved; None for one that is not given. `output` is the first tensor it gives."""

    info: OperatorInfo
    inputs: tuple[Value | None, ...]
    output: TensorInfo
    builder: Builder

    @property
    def name(self) -> str:
        """The name of the layer this operator becomes."""
        return self.builder.names[self.output.index]

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the operator's options; the default is the schema's for a field that is not there."""
        return self.info.options.get(name, default)

    def has(self, index: int) -> bool:
        """Whether the optional input with this position is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def padded(self, index: int) -> Tensor:
        """Input `index`, which depends on the network's input and may have pads that are part of no layer yet."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Tensor):
            raise Refusal(f"its input {index} is a constant or missing; it must depend on the network's input")
        return value

    def view(self, index: int) -> Tensor:
        """Input `index`, which depends on the network's input and is only looked at in another form."""
        return self.builder.solid(self.padded(index), self.name)

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which depends on the network's input and is computed with."""
        return _computed(self.view(index))

    def image(self, index: int) -> Tensor:
        """Input `index` as an image (1, height, width, channels) that lies channels first; it may have pads."""
        x = _computed(self.padded(index))
        if len(x.shape) != 4 or x.shape[0] != 1:
            raise Refusal(f"its input has shape {x.shape}; supported are images (1, height, width, channels)")
        if not np.array_equal(x.places, channels_first(x.shape)):
            raise Refusal(
                f"its input of shape {x.shape} was reshaped from a tensor without channels, which would reorder it; "
                "supported is that for one channel"
            )
        return x

    def constant(self, index: int) -> Constant:
        """Input `index`, a constant."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Constant):
            raise Refusal(f"its input {index} is computed or missing; it must be a constant")
        if not value.values.size:
            raise Refusal(f"its input {index} is empty")
        return value

    def integers(self, index: int) -> np.ndarray:
        """Input `index`, constant integers: axes, pads or a shape."""
        value = self.constant(index)
        if value.kind not in ("INT32", "INT64"):
            raise Refusal(f"its input {index} is {value.kind}; integers are needed")
        return value.values.astype(np.int64)


def _computed(x: Tensor) -> Tensor:
    if x.softmax:
        raise Refusal("it follows a SOFTMAX, which is supported only at the end of the network")
    return x


@dataclass(repr=False)
class Builder(Brief):
    """A network being built from the file `source`: its layers so far.

    `given`: by layer, the tensor of the file that it gives, with places.
    `hybrid`: layers of float activations and integer weights, which the runtime computes in integers of its own.
    """

    model: Model
    source: str
    layers: list[Layer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    given: dict[int, tuple[TensorInfo, np.ndarray]] = field(default_factory=dict)
    hybrid: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Names of tensors: the first of those that the converter joined by semicolons, where no other has it."""
        full = {info.index: info.name or f"tensor {info.index}" for info in self.model.tensors}
        first = {index: name.split(";")[0] for index, name in full.items()}
        made = {index for operator in self.model.operators for index in operator.outputs} | set(self.model.inputs)
        taken = [first[index] for index in made if index != ABSENT]
        for index, name in full.items():
            self.names[index] = layer_name(first[index] if first[index] and taken.count(first[index]) < 2 else name)

    def new(self, kind: type[Layer], name: str, inputs: tuple[int, ...], shape: Shape, **fields: Any) -> int:
        """Append a layer of this kind; its index."""
        return self.append(kind(self._unique(name), inputs, shape, **fields))

    def append(self, layer: Layer) -> int:
        """Append a layer, which has a name of its own; its index."""
        self.layers.append(layer)
        return len(self.layers) - 1

    def _unique(self, name: str) -> str:
        taken, unique, count = {layer.name for layer in self.layers}, layer_name(name), 2
        while unique in taken:
            unique, count = f"{layer_name(name)}_{count}", count + 1
        return unique

    def start(self, info: TensorInfo) -> Tensor:
        """The input layer, and the rounding that the host does where the file reads integers. Raises Refusal."""
        grid, shape = activation_grid(info), info.shape
        if not shape or 0 in shape or (len(shape) > 1 and shape[0] != 1):
            raise Refusal(f"input {info.label} has shape {shape}; supported is one sample at a time, (1, ...)")
        if prod(shape) > MOST:
            raise Refusal(f"input {info.label} has shape {shape}; supported are up to {MOST} numbers")
        layer = self.append(Input(self.names[info.index], (), sample_shape(shape)))
        if len(shape) == 4 and shape[3] > 1 and shape[1] * shape[2] > 1:
            self.notes.append(
                f"the file reads images as (height, width, channels) {shape[1:]}; qverify reads them channels first, "
                f"{sample_shape(shape)}."
            )
        places = channels_first(shape) if len(shape) == 4 else np.arange(prod(shape))
        if grid is not None:
            layer = self.rounded(layer, self.names[info.index], grid, grid.ends)
            low, high = (end * grid.step for end in grid.ends)
            self.notes.append(
                f"the file reads {grid.kind}: samples are real numbers, rounded to steps of {grid.step:.6g} between "
                f"{low:.6g} and {high:.6g} first."
            )
        self.given[layer] = (info, places)
        return Tensor(layer=layer, shape=shape, places=places, grid=grid)

    def rounded(self, source: int, name: str, grid: Grid, ends: tuple[int, int]) -> int:
        """Append the rounding of a layer to a grid, with ends counted in steps from 0; its index."""
        shape = self.layers[source].shape
        return self.append(
            Rounding.on_grid(self._unique(f"{name}/rounded"), source, shape, grid.step, ends, kernel=True)
        )

    def solid(self, x: Tensor, name: str) -> Tensor:
        """A tensor whose pads, if any, are in a layer: a depthwise Conv that copies."""
        if x.pads == NO_PADS:
            return x
        _, height, width, channels = x.shape
        top, left, bottom, right = x.pads
        shape = (1, top + height + bottom, left + width + right, channels)
        layer = self.new(
            Conv,
            f"{name}/padded",
            (x.layer,),
            sample_shape(shape),
            weight=np.ones((channels, 1, 1, 1)),
            bias=np.zeros(channels),
            in_shape=(channels, height, width),
            pads=x.pads,
            groups=channels,
            has_bias=False,
            quantised=False,
        )
        return Tensor(layer=layer, shape=shape, places=channels_first(shape), grid=x.grid, softmax=x.softmax)
