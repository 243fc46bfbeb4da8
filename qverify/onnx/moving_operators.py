"""ONNX operators that move, repeat, leave out or pad numbers: each is an index into what it reads, a `Gather`.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. The batch axis is left alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.onnx.gathers import Moved, check_size, constant, gathered, is_constant, joined, on_batch, source
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Shape, Tensor, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.arrays import Array

_BATCH = "it {} along the batch axis of a tensor of shape {}; supported are the other axes"


def _places(x: Tensor) -> Any:
    """The places of the numbers of a tensor, in its shape."""
    return np.arange(x.size, dtype=np.int64).reshape(x.shape)


def _moved(node: Node, builder: NetworkBuilder, places: Any, what: str, fill: float = 0.0) -> Tensor:
    """Input 0 by `places` in its flat numbers, -1 for the constant `fill`; `what` is done to it, in words."""
    x = node.view(0)
    if on_batch(builder, x.shape) and (not places.ndim or places.shape[0] != 1):
        raise Refusal(_BATCH.format(what, x.shape))
    return moved(node, builder, places, fill)


def moved(node: Node, builder: NetworkBuilder, places: Any, fill: float = 0.0) -> Tensor:
    """Input 0 by `places` in its flat numbers, -1 for the constant `fill`: itself where none moves."""
    places = np.asarray(places, dtype=np.int64)
    still = np.array_equal(places.reshape(-1), np.arange(node.view(0).size))
    x = source(node, 0, still)
    if still:
        return replace(x, shape=places.shape)
    return gathered(builder, node.name, Moved((x,), places, np.where(places < 0, fill, 0.0)))


def transpose(node: Node, builder: NetworkBuilder) -> Value:
    """A Transpose."""
    x = node.view(0)
    order = tuple(node.attributes.get("perm", reversed(range(len(x.shape)))))
    if sorted(order) != list(range(len(x.shape))):
        raise Refusal(f"perm {order} does not fit an input of shape {x.shape}")
    return moved(node, builder, _places(x).transpose(order))


def concat(node: Node, builder: NetworkBuilder) -> Value:
    """A Concat of tensors, and of constants beside them."""
    computed = [i for i in range(len(node.inputs)) if not is_constant(node, i)]
    found = {i: source(node, i) for i in computed}
    first = found[computed[0]]
    rank = len(first.shape)
    axis = node.axis(node.attributes.get("axis", 1), rank)
    if on_batch(builder, first.shape, axis):
        raise Refusal(_BATCH.format("joins", first.shape))
    values: list[Tensor | Array] = [
        found[i] if i in found else constant(node, i, first.integers) for i in range(len(node.inputs))
    ]
    if any(len(value.shape) != rank for value in values):
        raise Refusal("its inputs have another number of axes each")
    return joined(node, builder, values, axis)


def split(node: Node, builder: NetworkBuilder) -> list[Value]:
    """A Split: equal parts, or parts of given lengths."""
    x, count = node.view(0), len(node.proto.output)
    axis = node.axis(node.attributes.get("axis", 0), len(x.shape))
    length = x.shape[axis]
    if node.has(1):
        lengths = node.integers(1)
    elif "split" in node.attributes:
        lengths = tuple(node.attributes["split"])
    else:
        each = -(-length // int(node.attributes.get("num_outputs", count)))
        lengths = tuple(max(0, min(each, length - each * k)) for k in range(count))
    if len(lengths) != count or sum(lengths) != length or min(lengths) < 0:
        raise Refusal(f"its parts {lengths} are not {count} that make up axis {axis} of shape {x.shape}")
    if on_batch(builder, x.shape, axis) and count > 1:
        raise Refusal(_BATCH.format("splits", x.shape))
    parts = np.split(_places(x), np.cumsum(lengths)[:-1], axis)
    x = source(node, 0, still=count == 1)
    found: list[Value] = []
    for name, part in zip(node.proto.output, parts, strict=True):
        found.append(gathered(builder, name or node.name, Moved((x,), part, np.zeros(part.shape))))
    return found


def _given(node: Node, index: int, attribute: str) -> tuple[int, ...] | None:
    """Numbers that are an input or, in older opsets, an attribute; None where they are neither."""
    if node.has(index):
        return node.integers(index)
    found = node.attributes.get(attribute)
    return None if found is None else tuple(found)


def _axes(node: Node, given: tuple[int, ...] | None, count: int, rank: int) -> list[int]:
    """The axes that `count` numbers are for: those given, or the first."""
    axes = [node.axis(axis, rank) for axis in (range(count) if given is None else given)]
    if len(set(axes)) != count or len(axes) != count:
        raise Refusal(f"it has {count} numbers for the axes {tuple(axes)}")
    return axes


def slice_(node: Node, builder: NetworkBuilder) -> Value:
    """A Slice."""
    x = node.view(0)
    starts, ends = _given(node, 1, "starts") or (), _given(node, 2, "ends") or ()
    steps = node.integers(4) if node.has(4) else (1,) * len(starts)
    axes = _axes(node, _given(node, 3, "axes"), len(starts), len(x.shape))
    if not len(starts) == len(ends) == len(steps) or 0 in steps:
        raise Refusal(f"its starts {starts}, ends {ends} and steps {steps} do not fit")
    chosen = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen[axis] = _slice(start, end, step, x.shape[axis])
    return _moved(node, builder, _places(x)[tuple(chosen)], "cuts")


def _slice(start: int, end: int, step: int, length: int) -> slice:
    """The slice of Python that one of ONNX is."""
    start, end = (value + length if value < 0 else value for value in (start, end))
    if step > 0:
        return slice(min(max(start, 0), length), min(max(end, 0), length), step)
    start, end = min(max(start, 0), length - 1), min(max(end, -1), length - 1)
    return slice(start, end if end >= 0 else None, step)


def gather(node: Node, builder: NetworkBuilder) -> Value:
    """A Gather of constant indices."""
    x, indices = node.view(0), node.constant(1)
    axis = node.axis(node.attributes.get("axis", 0), len(x.shape))
    if indices.dtype.kind not in "iu":
        raise Refusal(f"{node.input_label(1)} is {indices.dtype}; integers are needed")
    length = x.shape[axis]
    if (indices < -length).any() or (indices >= length).any():
        raise Refusal(f"its indices leave axis {axis} of shape {x.shape}")
    if on_batch(builder, x.shape, axis):
        raise Refusal(_BATCH.format("picks", x.shape))
    check_size((x.size // length, indices.size))
    return _moved(node, builder, np.take(_places(x), indices.astype(np.int64), axis), "picks")


_PAD_MODES = ("constant", "reflect", "edge", "wrap")


def pad(node: Node, builder: NetworkBuilder) -> Value:
    """A Pad by a constant, by the edge, by what is reflected in it, or around; negative pads cut off."""
    x = node.view(0)
    mode, pads = node.attributes.get("mode", b"constant").decode(), _given(node, 1, "pads")
    if mode not in _PAD_MODES or pads is None or len(pads) % 2:
        raise Refusal(f"its mode is {mode} and its pads are {pads}; supported are {', '.join(_PAD_MODES)}")
    half = len(pads) // 2
    axes = _axes(node, node.integers(3) if node.has(3) else None, half, len(x.shape))
    widths, cuts = [(0, 0)] * len(x.shape), [slice(None)] * len(x.shape)
    for axis, begin, end in zip(axes, pads[:half], pads[half:], strict=True):
        length = x.shape[axis]
        if (min(begin, end) < 0 and mode != "constant") or (mode == "reflect" and max(begin, end) >= length):
            raise Refusal(f"it pads axis {axis} of shape {x.shape} by {(begin, end)}, which mode {mode} does not")
        widths[axis] = max(begin, 0), max(end, 0)
        cuts[axis] = slice(max(-begin, 0), length - max(-end, 0))
    inner = _places(x)[tuple(cuts)]
    if not inner.size:
        raise Refusal(f"its negative pads leave nothing of a tensor of shape {x.shape}")
    check_size([length + sum(width) for length, width in zip(inner.shape, widths, strict=True)])
    if mode != "constant":
        return _moved(node, builder, np.pad(inner, widths, mode=mode), "pads")
    return _moved(node, builder, np.pad(inner, widths, constant_values=-1), "pads", _fill(node, x))


def _fill(node: Node, x: Tensor) -> float:
    """The number that a Pad puts around others."""
    if not node.has(2):
        value = float(node.attributes.get("value", 0.0))
        return value if x.integers is None else float((value - x.integers.zero[0]) * x.integers.step[0])
    found = constant(node, 2, x.integers)
    if found.size != 1:
        raise Refusal(f"{node.input_label(2)} has shape {found.shape}; supported is one number")
    return float(found.reshape(-1)[0])


def expand(node: Node, builder: NetworkBuilder) -> Value:
    """An Expand to a constant shape."""
    x, wanted = node.view(0), node.integers(1)
    check_size([max(1, length) for length in wanted])
    try:
        shape = np.broadcast_shapes(x.shape, wanted)
    except ValueError:
        raise Refusal(f"a tensor of shape {x.shape} does not expand to {wanted}") from None
    check_size(shape)
    return _moved(node, builder, np.broadcast_to(_places(x), shape), "expands")


def tile(node: Node, builder: NetworkBuilder) -> Value:
    """A Tile by constant numbers."""
    x, repeats = node.view(0), node.integers(1)
    if len(repeats) != len(x.shape) or min(repeats, default=1) < 1:
        raise Refusal(f"it repeats a tensor of shape {x.shape} {repeats} times; supported is one number from 1 an axis")
    check_size([length * count for length, count in zip(x.shape, repeats, strict=True)])
    return _moved(node, builder, np.tile(_places(x), repeats), "repeats")


def _blocks(node: Node) -> tuple[Tensor, int, tuple[int, int, int, int]]:
    x, block = node.view(0), int(node.attributes.get("blocksize", 0))
    if len(x.shape) != 4 or block < 1:
        raise Refusal(
            f"its input has shape {x.shape} and its blocks {block}; supported is (1, channels, height, width)"
        )
    n, c, h, w = x.shape
    return x, block, (n, c, h, w)


def depth_to_space(node: Node, builder: NetworkBuilder) -> Value:
    """A DepthToSpace, by columns first (CRD) or depth first (DCR)."""
    x, b, (n, c, h, w) = _blocks(node)
    mode = node.attributes.get("mode", b"DCR")
    if c % (b * b) or mode not in (b"DCR", b"CRD"):
        raise Refusal(f"{c} channels are not whole blocks of {b} x {b}, or its mode {mode!r} is unknown")
    deep = c // (b * b)
    if mode == b"DCR":
        places = _places(x).reshape(n, b, b, deep, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        places = _places(x).reshape(n, deep, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return _moved(node, builder, places.reshape(n, deep, h * b, w * b), "moves")


def space_to_depth(node: Node, builder: NetworkBuilder) -> Value:
    """A SpaceToDepth."""
    x, b, (n, c, h, w) = _blocks(node)
    if h % b or w % b:
        raise Refusal(f"an image of {h} x {w} is not whole blocks of {b} x {b}")
    places = _places(x).reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return _moved(node, builder, places.reshape(n, c * b * b, h // b, w // b), "moves")


def resized(node: Node, builder: NetworkBuilder, maps: Sequence[Any], shape: Shape) -> Tensor:
    """Input 0 with its axes read by `maps`, an index array each."""
    return _moved(node, builder, _places(node.view(0))[np.ix_(*maps)].reshape(shape), "resizes")
