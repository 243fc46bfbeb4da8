"""The inputs of a graph: read as the one input of a network, and fed by it.

A model with several becomes a network whose input is theirs joined in the order of the graph (parts.py); each of them
is a `Gather` of its numbers, called as the input, into which no other is merged: toolchains round it to a grid of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from qverify.gather import Gather
from qverify.layers import Input
from qverify.onnx.graph import DynamicPoint, GraphInput, NetworkBuilder, Shape, Tensor, sample_shape
from qverify.parts import Part, slices
from qverify.text.brief import Brief
from qverify.text.shortened import listed, quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from qverify.arrays import Array
    from qverify.onnx.grid import Grid
    from qverify.onnx.refusals import Refusals

FLOATS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
INTEGERS: dict[int, Any] = {
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
}
"""Types that an input may have, if a node says what its integers stand for."""

JOINED = "inputs"
"""The name of the layer that several inputs become."""
_WANTED = "supported are float32 and float64, and integers of 8 or 16 bits where a DequantizeLinear reads them"


def given_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no initializers (old models list those as inputs, too)."""
    held = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [i for i in graph.input if i.name not in held]


def read_inputs(graph: onnx.GraphProto, refusals: Refusals, dynamic: bool) -> tuple[NetworkBuilder, dict[str, Tensor]]:
    """The builder of the network, and the tensor of each input that could be read; the others are in `refusals`.

    `dynamic`: the model is quantised dynamically.
    """
    found: list[tuple[GraphInput, bool]] = []
    values = given_inputs(graph)
    for value in values:
        read = _read(value, refusals)
        if read is not None:
            found.append(read)
    if not values:
        refusals.add("no inputs; a network needs at least one")
    inputs = tuple(read for read, _ in found) or (GraphInput("input", (1,), TensorProto.FLOAT),)
    points: dict[int, DynamicPoint] | None = {} if dynamic else None
    builder = NetworkBuilder(inputs=inputs, batched=any(batched for _, batched in found), dynamic=points)
    return builder, {one.name: tensor for one, tensor in zip(inputs, _tensors(builder), strict=True) if found}


def _tensors(builder: NetworkBuilder) -> list[Tensor]:
    """The tensor of each input, behind the input layer, which this fills in where there are several."""
    if len(builder.inputs) == 1:
        return [_tensor(builder.inputs[0], 0)]
    parts = [Part(one.name, sample_shape(one.shape, builder.batched)) for one in builder.inputs]
    size = sum(part.size for part in parts)
    builder.layers = [Input(JOINED, (), (size,), parts=tuple(parts))]
    whole = Tensor(layer=0, shape=(size,))
    tensors = []
    for one, part, at in zip(builder.inputs, parts, slices(parts), strict=True):
        index = np.arange(size)[at]
        made = builder.new(Gather, one.name, (whole,), one.shape, index=index, fill=np.zeros(part.size))
        tensors.append(_tensor(one, made.layer))
    return tensors


def _tensor(one: GraphInput, layer: int) -> Tensor:
    entry = np.dtype(INTEGERS[one.kind]).name if one.kind in INTEGERS else None
    return Tensor(layer=layer, shape=one.shape, double=one.kind == TensorProto.DOUBLE, entry=entry)


def _read(value: onnx.ValueInfoProto, refusals: Refusals) -> tuple[GraphInput, bool] | None:
    """An input, and whether its first axis is the batch; None where it is refused."""
    name, kind = value.name, value.type.tensor_type
    if kind.elem_type not in {*FLOATS, *INTEGERS}:
        known = kind.elem_type in TensorProto.DataType.values() and kind.elem_type
        found = TensorProto.DataType.Name(kind.elem_type).lower() if known else "no tensor of a known type"
        refusals.add(f"input {quoted(name)} is {found}; {_WANTED}")
        if kind.elem_type != TensorProto.FLOAT16:  # which the nodes behind it may say more about
            return None
    shape = _shape(name, kind, refusals)
    return None if shape is None else (GraphInput(name, shape[0], kind.elem_type), shape[1])


def _shape(name: str, kind: onnx.TypeProto.Tensor, refusals: Refusals) -> tuple[Shape, bool] | None:
    """The full shape at batch 1, and whether its first axis is the batch; None if it is not known."""
    if not kind.HasField("shape"):
        refusals.add(f"input {quoted(name)} has no shape; export the model with one")
        return None
    lengths = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in kind.shape.dim]
    batched = len(lengths) > 1 and lengths[0] in (None, 1)
    if None in lengths[1 if batched else 0 :] or 0 in lengths:
        shown = listed([shortened(str(d.dim_param or d.dim_value or "?"), 20) for d in kind.shape.dim])
        refusals.add(
            f"input {quoted(name)} has shape ({shown}); only the first of several axes, the batch, may be open: "
            "export it with the others fixed"
        )
        return None
    return tuple(length or 1 for length in lengths), batched


@dataclass(frozen=True, eq=False, repr=False)
class Feed(Brief):
    """What onnxruntime is given for one sample, by the names of the model's inputs."""

    inputs: Sequence[GraphInput]
    grids: Sequence[Grid | None]

    @staticmethod
    def of(builder: NetworkBuilder) -> Feed:
        """The feed of the model that a builder has read."""
        entries = [builder.entries.get(one.name) for one in builder.inputs]
        return Feed(builder.inputs, [None if entry is None else entry.integers for entry in entries])

    def split(self, sample: Array) -> tuple[dict[str, np.ndarray], Array]:
        """The arrays for a sample (n_in,), each of its input's type and shape; and the sample that they stand for: an
        input of integers lies on their grid."""
        given, seen, begin = {}, sample.copy(), 0
        for one, grid in zip(self.inputs, self.grids, strict=True):
            at = slice(begin, begin + int(np.prod(one.shape)))
            numbers, begin = sample[at], at.stop
            if grid is not None:
                whole = grid.integers(numbers)
                seen[at], numbers = grid.numbers(whole), whole.astype(INTEGERS[one.kind])
            else:
                numbers = numbers.astype(FLOATS.get(one.kind, np.float64))
                seen[at] = numbers
            given[one.name] = numbers.reshape(one.shape)
        return given, seen
