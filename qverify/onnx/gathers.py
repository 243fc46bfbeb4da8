"""Numbers moved from one place to another, as layers: one `Gather`, or none where nothing moves.

A Gather of a Gather is one, unless the numbers between them may have a grid of their own in an int8 file, which radii
of such files then ask for (family/gathers.py): where the first joins layers or leaves numbers out, and the second does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qverify.gather import Gather
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Shape, Tensor
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.arrays import Array
    from qverify.gather import IntArray
    from qverify.onnx.grid import Grid

_LARGEST = 1 << 26
"""Numbers that a result may have: a file may ask for any."""
_WAY_OUT = "put a DequantizeLinear before it and a QuantizeLinear behind it"


@dataclass(frozen=True, eq=False, repr=False)
class Moved(Brief):
    """Numbers of some tensors, one behind the other, by their places `index`, -1 where `fill` is a constant; both have
    the full ONNX shape of the result."""

    parts: tuple[Tensor, ...]
    index: IntArray
    fill: Array

    @staticmethod
    def of(x: Tensor) -> Moved:
        """All numbers of a tensor, where they are."""
        index = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        return Moved((x,), index, np.zeros(x.shape))

    @property
    def shape(self) -> Shape:
        return tuple(self.index.shape)


def check_size(shape: Sequence[int]) -> None:
    """Refuse a result of this shape that is too large."""
    if prod(map(int, shape)) > _LARGEST:
        raise Refusal(f"its result of shape {tuple(map(int, shape))} has more than {_LARGEST} numbers")


def source(node: Node, index: int, still: bool = False) -> Tensor:
    """Input `index`, whose numbers are moved, or whose integers of one scale; `still`: it turns out that none is."""
    x = node.view(index)
    if still or (x.logits is None and x.dynamic is None and x.entry is None and x.integers is None):
        return x
    if x.entry is not None:
        raise Refusal(f"it moves the integers of {node.input_label(index)}, the network's input; {_WAY_OUT}")
    if x.integers is None or x.logits is not None or x.dynamic is not None:
        return node.tensor(index)  # refuses
    if x.integers.kind == "int32" or x.integers.step.size > 1:
        raise Refusal(f"it reads {node.input_label(index)}, sums or integers of several scales; {_WAY_OUT}")
    return x


def constant(node: Node, index: int, grid: Grid | None) -> Array:
    """Constant input `index`, put beside numbers, or beside integers on a grid: what they stand for."""
    if grid is None:
        return node.numbers(index)
    value = node.constant(index)
    if value.dtype.kind not in "iu":
        raise Refusal(f"{node.input_label(index)} is {value.dtype}, and what it goes with {grid.kind}")
    return (value.astype(np.float64) - float(grid.zero[0])) * float(grid.step[0])


def gathered(builder: NetworkBuilder, name: str, moved: Moved) -> Tensor:
    """The tensor of these numbers. It holds integers where all that it reads does, on one grid."""
    if not moved.index.size:
        raise Refusal("its result is empty")
    grid = moved.parts[0].integers
    for other in (part.integers for part in moved.parts):
        if (other is None) != (grid is None) or (grid is not None and other is not None and not grid.same(other)):
            raise Refusal(f"it joins integers of several scales, or integers and numbers; {_WAY_OUT}")
    double = any(part.double for part in moved.parts)
    found = _composed(builder, moved)
    (first, *others) = found.parts
    size = builder.layers[first.layer].size
    if not others and np.array_equal(found.index.reshape(-1), np.arange(size)):
        return replace(first, shape=found.shape, integers=grid, double=double)
    index = found.index.reshape(-1)
    fields = {"index": index, "fill": np.where(index < 0, found.fill.reshape(-1), 0.0)}
    out = builder.new(Gather, name, found.parts, found.shape, **fields)
    builder.read_by_gathers[out.layer] = found.parts
    return replace(out, integers=grid, double=double)


def _composed(builder: NetworkBuilder, moved: Moved) -> Moved:
    """The same with what Gathers read in the place of their outputs, where that may be, each layer once."""
    parts: list[Tensor] = []
    first: dict[int, int] = {}  # where the numbers of a layer begin
    index, fill = np.full(moved.shape, -1), np.where(moved.index < 0, moved.fill, 0.0)
    begin = total = 0
    for part in moved.parts:
        inside = (moved.index >= begin) & (moved.index < begin + part.size)
        at, begin = moved.index[inside] - begin, begin + part.size
        read, places, constants = _seen(builder, part, alone=len(moved.parts) == 1, used=at)
        own, where = np.full(part.size, -1), 0
        for tensor in read:
            if tensor.layer not in first:
                parts.append(tensor)
                first[tensor.layer], total = total, total + tensor.size
            mine = (places >= where) & (places < where + tensor.size)
            own[mine] = places[mine] - where + first[tensor.layer]
            where += tensor.size
        index[inside], fill[inside] = own[at], constants[at]
    return Moved(tuple(parts), index, fill)


def _seen(
    builder: NetworkBuilder, part: Tensor, alone: bool, used: IntArray
) -> tuple[tuple[Tensor, ...], IntArray, Array]:
    """Of one part: the tensors whose numbers it is, by which places, and with which constants. `alone`: there is no
    other part; `used`: the places of it that are read."""
    layer = builder.layers[part.layer]
    read = builder.read_by_gathers.get(part.layer)
    still = (part,), np.arange(part.size), np.zeros(part.size)
    if read is None or not isinstance(layer, Gather):
        return still
    moves = len(read) == 1 and not layer.drops([tensor.size for tensor in read])
    if not moves and not (alone and len(np.unique(used)) == part.size):
        return still
    inner = tuple(replace(tensor, exclusive=tensor.exclusive and part.exclusive) for tensor in read)
    return inner, np.array(layer.index), np.array(layer.fill)


def pruned(builder: NetworkBuilder, output: Tensor) -> Tensor:
    """Take the Gathers out of the layers that nothing reads, since others took their place; the output, renumbered."""
    layers = builder.layers
    used = {output.layer}
    for i in range(len(layers) - 1, -1, -1):
        if i in used or not isinstance(layers[i], Gather):
            used.add(i)
            used.update(layers[i].inputs)
    kept = sorted(used)
    place = {i: at for at, i in enumerate(kept)}
    builder.layers = [replace(layers[i], inputs=tuple(place[j] for j in layers[i].inputs)) for i in kept]
    builder.points = {place[i]: point for i, point in builder.points.items()}
    if builder.dynamic is not None:
        builder.dynamic = {place[i]: point for i, point in builder.dynamic.items()}
    return replace(output, layer=place[output.layer])


def joined(node: Node, builder: NetworkBuilder, values: list[Tensor | Array], axis: int) -> Tensor:
    """Tensors and constants one behind the other along an axis, each layer's number once."""
    parts = tuple(value for value in values if isinstance(value, Tensor))
    indices, fills, begin = [], [], 0
    for value in values:
        if isinstance(value, Tensor):
            indices.append(begin + np.arange(value.size).reshape(value.shape))
            fills.append(np.zeros(value.shape))
            begin += value.size
        else:
            indices.append(np.full(value.shape, -1))
            fills.append(value)
    shapes = [list(each.shape) for each in indices]
    if any(s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes):
        raise Refusal(f"its inputs have the shapes {', '.join(str(tuple(s)) for s in shapes)}, which do not fit")
    check_size((sum(each.size for each in indices),))
    moved = Moved(parts, np.concatenate(indices, axis), np.concatenate(fills, axis))
    return gathered(builder, node.name, moved)


def is_constant(node: Node, index: int) -> bool:
    """Whether input `index` is one."""
    return isinstance(node.inputs[index], Constant)


def on_batch(builder: NetworkBuilder, shape: Shape, axis: int = 0) -> bool:
    """Whether an axis of a tensor of this full shape is the batch."""
    return builder.batched and axis == 0 and len(shape) > 1 and shape[0] == 1
