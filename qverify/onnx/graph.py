"""The pieces of a graph being read: constants, tensors, one node with its inputs, and the growing layers.

`operators.py` turns one node into layers with the classes below; `reader.py` walks the graph.

Every tensor carries its full ONNX shape at batch 1, so that Reshape, Squeeze and the broadcasting rules
mean here what they mean there. Layers themselves are flat (network.py), so such nodes only change a shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import BatchNorm, Input, Layer
from qverify.text.brief import Brief
from qverify.text.shortened import quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from qverify.arrays import Array
    from qverify.onnx.grid import Grid

Shape = tuple[int, ...]

DOMAINS = ("", "ai.onnx")
"""Both names of the standard operators' domain."""

_LAYER_NAME = 200  # characters

_DYNAMIC = (
    "supported is what quantize_dynamic writes: MatMulInteger or ConvInteger with its zero point, a Cast, and a Mul "
    "with the product of its scale and a constant"
)


class Refusal(Exception):
    """A node that cannot be read. The walk catches it, puts the node's name in front, and goes on."""


class UnknownOperator(Refusal):
    """A node whose operator is not supported at all."""


@dataclass(frozen=True, eq=False)
class Logits:
    """The tensor of the model that a dropped Softmax or ArgMax reads: its name, and what it holds if it holds integers.

    `label`: an ArgMax was dropped, so that the model's tensor holds the number or name of a class.
    """

    name: str
    integers: Grid | None
    label: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Brief):
    """A number array that does not depend on the input; `sources` are the float tensors it was made from.

    `grid`: steps, of a shape that broadcasts to it, of which the numbers of a quantised file are whole multiples.
    """

    value: np.ndarray
    sources: frozenset[str] = frozenset()
    grid: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """The output of `layers[layer]`, seen under the full ONNX shape `shape` (batch 1).

    `exclusive`: no other node reads this value, so the layer may still be changed (bias, folding).
    `logits` is set once a Softmax was dropped: the tensor that went into it.
    `double`: the model computes it (or its logits) in float64, not in float32.
    `integers`: the model's tensor holds integers, and the layer gives the numbers that they stand for.
    `entry`: it is the network's input, integers of this type; what they stand for is said by the node that reads them.
    `dynamic`: it holds integers, or sums of them, in steps of the dynamic rounding point of this layer.
    `clip`: the ends to which a Clip keeps it, where only a QuantizeLinear reads it, whose rounding point takes them up.
    """

    layer: int
    shape: Shape
    exclusive: bool = True
    logits: Logits | None = None
    double: bool = False
    integers: Grid | None = None
    entry: str | None = None
    dynamic: int | None = None
    clip: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """The number of elements at batch 1."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Step(Brief):
    """What a DynamicQuantizeLinear gives beside its integers: the step of layer `layer`, times the constant `factor`;
    or, where that is None, the zero point."""

    layer: int
    factor: np.ndarray | None


@dataclass(frozen=True)
class Unknown:
    """A refused value, or one made from such; `computed`: it depends on the network's input, so it is no constant."""

    computed: bool


Value = Constant | Tensor | Step | Unknown | None


def label(node: onnx.NodeProto) -> str:
    """The word for a node in messages: its name, or its operator and first output if it has none."""
    kind = shortened(node.op_type)
    if node.name:
        return f"node {quoted(node.name)} ({kind})"
    return f"{kind} giving {quoted(node.output[0])}" if node.output else f"unnamed {kind}"


def layer_name(name: str) -> str:
    """The name of a layer made of the model's: fit to be typed in radii files, and to be a cell of CSV files."""
    return shortened(name, _LAYER_NAME).replace("\ufffd", "_")


@dataclass(frozen=True, repr=False)
class Node(Brief):
    """A node with its inputs resolved. `opset` is that of the default domain; `rounded`: its output is read by
    QuantizeLinear alone."""

    proto: onnx.NodeProto
    inputs: tuple[Value, ...]
    opset: int
    attributes: Mapping[str, Any]
    rounded: bool = False

    @property
    def op(self) -> str:
        """The operator's name in ONNX."""
        return str(self.proto.op_type)

    @property
    def name(self) -> str:
        """The name of the layer this node becomes."""
        return layer_name(self.proto.name or self.proto.output[0])

    def input_label(self, index: int) -> str:
        """The word for input `index` in messages."""
        return f"input {quoted(self.proto.input[index])}"

    def has(self, index: int) -> bool:
        """Whether the optional input with this position is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int) -> Shape:
        """The shape of input `index`, constant or not."""
        value = self.inputs[index]
        return value.shape if isinstance(value, Tensor) else self.constant(index).shape

    def view(self, index: int) -> Tensor:
        """Input `index`, which depends on the network's input and is only looked at under another shape."""
        value = self.inputs[index]
        if isinstance(value, Step):
            raise Refusal(
                f"{self.input_label(index)} is the scale or zero point of a DynamicQuantizeLinear; {_DYNAMIC}"
            )
        if not isinstance(value, Tensor):
            raise Refusal(f"{self.input_label(index)} is a constant; it must depend on the network's input")
        return value

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which depends on the network's input and is computed with."""
        value = self.view(index)
        if value.logits is not None:
            raise Refusal(
                "it follows a Softmax, LogSoftmax or ArgMax, which is supported only at the end of the network"
            )
        if value.dynamic is not None:
            raise Refusal(f"it computes with the integers of {self.input_label(index)}; {_DYNAMIC}")
        if value.integers is not None or value.entry is not None:
            raise Refusal(
                f"it computes with the integers of {self.input_label(index)}, which is for DequantizeLinear and the "
                "operators of quantised tensors; put a DequantizeLinear before it"
            )
        return value

    def constant(self, index: int) -> np.ndarray:
        """Input `index`, a constant of any type."""
        value = self.inputs[index]
        if not isinstance(value, Constant):
            raise Refusal(f"{self.input_label(index)} depends on the network's input; it must be a constant")
        if not value.value.size:
            raise Refusal(f"{self.input_label(index)} is empty")
        return value.value

    def numbers(self, index: int) -> Array:
        """Input `index` as float64: a float32 or float64 constant of any shape."""
        value = self.constant(index)
        if value.dtype not in (np.float32, np.float64):
            raise Refusal(
                f"{self.input_label(index)} is {value.dtype}; weights must be float32 or float64: "
                "export the model in float32"
            )
        with np.errstate(invalid="ignore"):  # the layer it goes into refuses NaN, with its name
            return value.astype(np.float64)

    def grid(self, index: int) -> Array | None:
        """The steps of constant input `index`, in its shape; None if it is on no grid."""
        value = self.inputs[index]
        if not isinstance(value, Constant) or value.grid is None:
            return None
        return np.broadcast_to(value.grid, value.value.shape)

    def integers(self, index: int) -> tuple[int, ...]:
        """Input `index` as integers: axes or a shape."""
        value = self.constant(index)
        if value.dtype.kind not in "iu":
            raise Refusal(f"{self.input_label(index)} is {value.dtype}; integers are needed")
        return tuple(int(v) for v in value.reshape(-1))

    def sources(self, *indices: int) -> frozenset[str]:
        """The float tensors behind the constant inputs with these positions."""
        given = [self.inputs[i] for i in indices if self.has(i)]
        return frozenset().union(*(v.sources for v in given if isinstance(v, Constant)))

    def axis(self, axis: int, rank: int, end: int | None = None) -> int:
        """A possibly negative axis as one in [0, rank), or up to `end` if given."""
        last = rank - 1 if end is None else end
        if not -rank <= axis <= last:
            raise Refusal(f"axis {axis} does not exist: the tensor has {rank} axes")
        return axis + rank if axis < 0 else axis


@dataclass(frozen=True, eq=False)
class Point:
    """A tensor of integers in the model: its name, what it holds, and whether an integer kernel makes it."""

    tensor: str
    grid: Grid
    kernel: bool


@dataclass(frozen=True)
class DynamicPoint:
    """Of a DynamicQuantizeLinear in the model: the names of its integers, their scale and their zero point."""

    tensor: str
    scale: str
    zero: str


@dataclass(frozen=True, repr=False)
class GraphInput(Brief):
    """An input of the model: its name, its full shape at batch 1, and its type, a `TensorProto.DataType`."""

    name: str
    shape: Shape
    kind: int = 1


def sample_shape(shape: Shape, batched: bool) -> Shape:
    """The shape of one sample, given the full ONNX shape at batch 1; `batched`: its first axis may be the batch."""
    return shape[1:] if batched and len(shape) > 1 and shape[0] == 1 else shape


@dataclass(repr=False, kw_only=True)
class NetworkBuilder(Brief):
    """A network being built: its layers so far.

    `batched`: the first axis of some input of the model is a batch axis. `single`: some of a model that reads float64
    computes in float32. `points`: by layer, where the rounding points of a quantised file are in it; `entries`: inputs
    of integers, by name, as the numbers that these stand for. `dynamic`: None, or in a dynamically
    quantised model where its points are: no two nodes become one Scale then, whose float32 would hide that of both.
    `shared`: layers that several nodes read.
    `read_by_gathers`: by layer, what each Gather reads.
    """

    inputs: tuple[GraphInput, ...]
    batched: bool
    layers: list[Layer] = field(init=False)
    notes: list[str] = field(default_factory=list)
    weight_uses: dict[str, list[str]] = field(default_factory=dict)
    added_biases: list[str] = field(default_factory=list)
    batchnorms: list[BatchNorm] = field(default_factory=list)
    oddities: list[tuple[str, str]] = field(default_factory=list)
    composed: list[str] = field(default_factory=list)
    single: bool = False
    points: dict[int, Point] = field(default_factory=dict)
    entries: dict[str, Tensor] = field(default_factory=dict)
    dynamic: dict[int, DynamicPoint] | None = None
    shared: set[int] = field(default_factory=set)
    read_by_gathers: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.inputs[0]
        self.layers = [Input(layer_name(first.name), (), self.sample_shape(first.shape))]

    def sample_shape(self, shape: Shape) -> Shape:
        """The shape of one sample, given the full ONNX shape at batch 1."""
        return sample_shape(shape, self.batched)

    def input_at(self, layer: int) -> str:
        """The name of the input whose numbers layer `layer` gives: the first layer, or the one of a part of it."""
        return self.inputs[max(0, layer - 1)].name

    def new(self, kind: type[Layer], name: str, inputs: tuple[Tensor, ...], shape: Shape, **fields: Any) -> Tensor:
        """Append a layer of this kind; `shape` is the full ONNX shape of its output."""
        taken = {layer.name for layer in self.layers}
        name = layer_name(name)
        unique, count = name, 2
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        producers = tuple(t.layer for t in inputs)
        self.layers.append(kind(unique, producers, self.sample_shape(shape), **fields))
        return Tensor(layer=len(self.layers) - 1, shape=shape, double=any(t.double for t in inputs))

    def change(self, tensor: Tensor, shape: Shape | None = None, **fields: Any) -> Tensor:
        """Replace fields of the layer behind an exclusive tensor."""
        self.layers[tensor.layer] = replace(self.layers[tensor.layer], **fields)
        return Tensor(layer=tensor.layer, shape=tensor.shape if shape is None else shape, double=tensor.double)

    def uses(self, tensor: Tensor, sources: frozenset[str]) -> Tensor:
        """Remember that the weighted layer behind `tensor` holds numbers from these constants."""
        for source in sources:
            users = self.weight_uses.setdefault(source, [])
            name = self.layers[tensor.layer].name
            if name not in users:
                users.append(name)
        return tensor
