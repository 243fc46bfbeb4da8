"""ONNX operators on images: convolution, batch normalisation and pooling.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. One-dimensional
windows are two-dimensional ones of height 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import BatchNorm, Conv, Dense, MaxPool, Scale
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Tensor, Value
from qverify.onnx.grid import uncovered

if TYPE_CHECKING:
    from qverify.arrays import Array

_IMAGE = "(1, channels, length) or (1, channels, height, width)"
_SAME_GRID = 12
"""The opset from which on a MaxPool takes integers, so that what it gives has the scale of what it reads."""
_ONE_SAMPLE = ": export it with a first axis for the batch that is open or 1"


@dataclass(frozen=True, kw_only=True)
class WindowAxis:
    """A window sliding along one axis of an image of `size`, padded by `begin` and `end`."""

    size: int = 1
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0

    @property
    def span(self) -> int:
        """The elements from the first to the last under the window, dilations included."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def output(self) -> int:
        """The number of places that the window takes."""
        return (self.size + self.begin + self.end - self.span) // self.stride + 1

    def rounded_up(self) -> WindowAxis:
        """The axis under `ceil_mode`: one more window at the end if it starts before the end padding does.

        `end` of the result is just what the last window needs.
        """
        output = -(-(self.size + self.begin + self.end - self.span) // self.stride) + 1
        if (output - 1) * self.stride >= self.size + self.begin:
            output -= 1
        return replace(self, end=max(0, (output - 1) * self.stride + self.span - self.size - self.begin))

    def counted(self, begin: int, end: int) -> Array:
        """Per window the number of its elements in [-begin, size + end)."""
        starts = np.arange(self.output)[:, None] * self.stride - self.begin
        places = starts + np.arange(self.kernel) * self.dilation
        inside = (places >= -begin) & (places < self.size + end)
        return np.asarray(inside.sum(axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Window:
    """The window of a Conv or a pool; `rank` is 1 or 2, `axes` always height and width."""

    axes: tuple[WindowAxis, WindowAxis]
    rank: int

    @property
    def kernel(self) -> tuple[int, int]:
        """The kernel's height and width."""
        return self.axes[0].kernel, self.axes[1].kernel

    @property
    def sizes(self) -> tuple[int, int]:
        """The image's height and width."""
        return self.axes[0].size, self.axes[1].size

    @property
    def output(self) -> tuple[int, ...]:
        """The spatial shape of the result as ONNX has it."""
        return tuple(axis.output for axis in self.axes)[2 - self.rank :]

    @property
    def fields(self) -> dict[str, Any]:
        """The window as fields of a Conv layer."""
        h, w = self.axes
        return {
            "strides": (h.stride, w.stride),
            "dilations": (h.dilation, w.dilation),
            "pads": (h.begin, w.begin, h.end, w.end),
        }


def _padded(axis: WindowAxis, auto_pad: str) -> WindowAxis:
    """The axis padded by SAME_UPPER or SAME_LOWER: `ceil(size / stride)` windows, the odd element last or first."""
    output = -(-axis.size // axis.stride)
    total = max((output - 1) * axis.stride + axis.span - axis.size, 0)
    less, more = total // 2, total - total // 2
    return replace(axis, begin=less, end=more) if auto_pad == "SAME_UPPER" else replace(axis, begin=more, end=less)


def window_axes(node: Node, kernel: tuple[int, ...], sizes: tuple[int, ...]) -> list[WindowAxis]:
    """Kernel, strides, dilations, pads and auto_pad, axis by axis, checked against the image."""
    rank = len(sizes)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    pads = node.attributes.get("pads", [0] * 2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise Refusal(f"kernel_shape, strides, dilations and pads must fit an image with {rank} axes")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise Refusal("kernel_shape, strides and dilations must be at least 1, pads at least 0")
    auto_pad = node.attributes.get("auto_pad", b"NOTSET").decode(errors="replace")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Refusal(f"auto_pad {auto_pad!r} is not supported; NOTSET, VALID, SAME_UPPER and SAME_LOWER are")
    if auto_pad != "NOTSET" and any(pads):
        raise Refusal(f"it has both pads {list(pads)} and auto_pad {auto_pad}; remove one of them")
    if auto_pad.startswith("SAME") and max(dilations) > 1:
        raise Refusal(f"runtimes disagree on auto_pad {auto_pad} with dilations; write the pads out")
    axes = [
        WindowAxis(size=size, kernel=k, stride=stride, dilation=dilation, begin=begin, end=end)
        for size, k, stride, dilation, begin, end in zip(
            sizes, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True
        )
    ]
    if auto_pad.startswith("SAME"):
        axes = [_padded(axis, auto_pad) for axis in axes]
    if any(axis.span > axis.size + axis.begin + axis.end for axis in axes):
        raise Refusal(f"its kernel {tuple(kernel)} does not fit into the padded image {tuple(sizes)}")
    return axes


def _window(axes: list[WindowAxis]) -> Window:
    """The window with one axis or two."""
    height, width = [WindowAxis()] * (2 - len(axes)) + axes
    return Window((height, width), len(axes))


def _image(node: Node, integers: bool = False) -> Tensor:
    """Input 0 as an image; `integers`: of integers, too, as the numbers that they stand for."""
    x = node.tensor(0) if not integers else passed_on(node)
    if len(x.shape) not in (3, 4) or x.shape[0] != 1:
        raise Refusal(f"its input has shape {x.shape} at batch 1; supported is {_IMAGE}{_ONE_SAMPLE}")
    return x


def conv(node: Node, builder: NetworkBuilder) -> Value:
    """A Conv over one or two axes."""
    x = _image(node)
    weight, bias, groups = kernel_of(node, x)
    window = _window(window_axes(node, weight.shape[2:], x.shape[2:]))
    grid = node.grid(1)
    if grid is not None:
        grid = uncovered(grid.reshape(*weight.shape[:2], *window.kernel))
    fields = {
        "grid": grid,
        "has_bias": node.has(2),
        "groups": groups,
        "in_shape": (x.shape[1], *window.sizes),
        **window.fields,
    }
    weight, shape = weight.reshape(*weight.shape[:2], *window.kernel), (1, len(weight), *window.output)
    out = builder.new(Conv, node.name, (x,), shape, weight=weight, bias=bias, **fields)
    return builder.uses(out, node.sources(1, 2))


def kernel_of(node: Node, x: Tensor) -> tuple[Array, Array, int]:
    """The weight of a Conv, its bias or zeros, and its groups, checked against the input."""
    weight = node.numbers(1)
    kernel, groups = weight.shape[2:], node.attributes.get("group", 1)
    if weight.ndim != len(x.shape) or tuple(node.attributes.get("kernel_shape", kernel)) != kernel:
        raise Refusal(f"a weight of shape {weight.shape} does not fit its kernel_shape or its input of {x.shape}")
    if groups < 1 or weight.shape[1] * groups != x.shape[1] or len(weight) % groups:
        raise Refusal(f"a weight of shape {weight.shape} in {groups} groups does not fit {x.shape[1]} channels")
    bias = node.numbers(2) if node.has(2) else np.zeros(len(weight))
    if bias.shape != (len(weight),):
        raise Refusal(f"a bias of shape {bias.shape} does not fit {len(weight)} output channels")
    return weight, bias, groups


def batch_normalisation(node: Node, builder: NetworkBuilder) -> Value:
    """`a x + b` per channel, folded into the quantised layer before it, else a depthwise Conv of kernel 1."""
    if node.attributes.get("training_mode", 0) or any(node.proto.output[1:]):
        raise Refusal("it is in training mode; export the model for inference")
    if not node.attributes.get("spatial", 1):
        raise Refusal("spatial=0 (statistics per element) is not supported; supported is one per channel")
    if builder.dynamic is not None:
        raise Refusal(
            "it stands in a dynamically quantised file; fold it before the model is quantised, by quant_pre_process of "
            "onnxruntime.quantization"
        )
    x = node.tensor(0)
    if len(x.shape) < 2 or x.shape[0] != 1:
        raise Refusal(f"its input has shape {x.shape} at batch 1; supported is (1, channels, ...)")
    scale, offset, mean, variance = (node.numbers(i) for i in range(1, 5))
    if any(v.shape != (x.shape[1],) for v in (scale, offset, mean, variance)):
        raise Refusal(f"its parameters must have one number for each of the {x.shape[1]} channels")
    variance = variance + node.attributes.get("epsilon", 1e-5)
    if not (variance > 0).all():
        raise Refusal("its variance is not positive")
    norm = {"scale": scale, "offset": offset, "mean": mean, "deviation": np.sqrt(variance)}
    return _normalised(node, builder, x, norm)


def _normalised(node: Node, builder: NetworkBuilder, x: Tensor, norm: dict[str, Array]) -> Value:
    """`norm`: scale, offset, mean and deviation, one number a channel."""
    factor = norm["scale"] / norm["deviation"]
    shift = norm["offset"] - norm["mean"] * factor
    positions = x.size // x.shape[1]
    layer, sources = builder.layers[x.layer], node.sources(1, 2, 3, 4)
    free = isinstance(layer, (Dense, Conv)) and layer.quantised and layer.grid is None and x.exclusive
    if free and isinstance(layer, Dense):
        norm = {name: np.repeat(values, positions) for name, values in norm.items()}
        factor, shift = np.repeat(factor, positions), np.repeat(shift, positions)
        out = builder.change(x, weight=layer.weight * factor[:, None], bias=factor * layer.bias + shift, has_bias=True)
    elif free and isinstance(layer, Conv) and layer.weight.shape[0] == len(factor):
        weight = layer.weight * factor[:, None, None, None]
        out = builder.change(x, weight=weight, bias=factor * layer.bias + shift, has_bias=True)
    else:
        in_shape = x.shape[1:] if len(x.shape) == 4 else (len(factor), 1, positions)
        fields: dict[str, Any] = {"groups": len(factor), "in_shape": in_shape, "bias": shift}
        out = builder.new(Conv, node.name, (x,), x.shape, weight=factor.reshape(-1, 1, 1, 1), **fields)
        builder.batchnorms.append(BatchNorm(node.name, builder.layers[out.layer].name, None, **norm))
        return builder.uses(out, sources)
    builder.batchnorms.append(BatchNorm(node.name, layer.name, layer, **norm))
    builder.notes.append(f"{node.name}: folded into layer {layer.name!r}, so radii describe the folded weights.")
    return builder.uses(out, sources)


def average_pool(node: Node, builder: NetworkBuilder) -> Value:
    """A depthwise Conv of constant weights, and a Scale where windows at the border count fewer elements."""
    x = _image(node)
    axes, divisors = pooled_axes(node, x)
    largest = divisors.max()
    out = _average(node, builder, x, _window(axes), 1.0 / largest)
    if (divisors == largest).all():
        return out
    scale = np.tile(largest / divisors, x.shape[1])
    return builder.new(Scale, f"{node.name}/border", (out,), out.shape, scale=scale, shift=0.0 * scale)


def pooled_axes(node: Node, x: Tensor) -> tuple[list[WindowAxis], Array]:
    """The window of an AveragePool, axis by axis, and by how much each place divides, flat."""
    axes = window_axes(node, tuple(node.attributes["kernel_shape"]), x.shape[2:])
    _refuse_gaps(node, axes)
    count = node.attributes.get("count_include_pad", 0)
    pads = [(axis.begin, axis.end) if count else (0, 0) for axis in axes]
    if node.attributes.get("ceil_mode", 0):
        axes = [axis.rounded_up() for axis in axes]
    divisors = np.ones(1)
    for axis, (begin, end) in zip(axes, pads, strict=True):
        divisors = np.outer(divisors, axis.counted(begin, end)).reshape(-1)
    if not divisors.all():
        raise Refusal("some of its windows lie wholly in the padding, where an average is not defined")
    return axes, divisors


def _refuse_gaps(node: Node, axes: list[WindowAxis]) -> None:
    same = node.attributes.get("auto_pad", b"NOTSET").startswith(b"SAME")
    if same and any(axis.stride > axis.kernel for axis in axes):
        raise Refusal("runtimes disagree on auto_pad with strides larger than the kernel; write the pads out")


def max_pool(node: Node, builder: NetworkBuilder) -> Value:
    """A MaxPool, of numbers or of integers, whose grid it leaves as it is."""
    x = _image(node, integers=True)
    return largest(node, builder, x, _window(largest_axes(node, x)))


def largest_axes(node: Node, x: Tensor) -> list[WindowAxis]:
    """The window of a MaxPool, axis by axis."""
    if any(node.proto.output[1:]):
        raise Refusal("it gives the places of the largest numbers, too; supported is one that gives the numbers alone")
    if node.attributes.get("storage_order", 0):
        raise Refusal("storage_order 1 is not supported; export the model with storage_order 0")
    axes = window_axes(node, tuple(node.attributes["kernel_shape"]), x.shape[2:])
    if any(axis.dilation > 1 for axis in axes):
        raise Refusal("its window has dilations, which are not supported for a MaxPool; supported is a dense window")
    _refuse_gaps(node, axes)
    if node.attributes.get("ceil_mode", 0):
        axes = [axis.rounded_up() for axis in axes]
    if not all(axis.counted(0, 0).all() for axis in axes):
        raise Refusal("some of its windows lie wholly in the padding, where there is no largest number")
    return axes


def global_max_pool(node: Node, builder: NetworkBuilder) -> Value:
    """A GlobalMaxPool: the largest number of each channel."""
    x = passed_on(node)
    if len(x.shape) < 3 or x.shape[0] != 1:
        raise Refusal(f"its input has shape {x.shape} at batch 1; supported is (1, channels, ...){_ONE_SAMPLE}")
    positions = prod(x.shape[2:])
    window = Window((WindowAxis(), WindowAxis(size=positions, kernel=positions)), rank=1)
    return replace(largest(node, builder, x, window), shape=x.shape[:2] + (1,) * (len(x.shape) - 2))


def passed_on(node: Node) -> Tensor:
    """Input 0, numbers or integers of one scale, of which some are passed on as they are."""
    x = node.view(0)
    if x.logits is not None or x.entry is not None or x.integers is None:
        return node.tensor(0)
    if x.integers.kind == "int32" or x.integers.step.size > 1:
        raise Refusal(f"it reads {node.input_label(0)}, sums or integers of several scales; quantise the model again")
    return x


def largest(node: Node, builder: NetworkBuilder, x: Tensor, window: Window) -> Tensor:
    """A MaxPool layer with this window."""
    fields = {name: window.fields[name] for name in ("strides", "pads")}
    shape, in_shape = (*x.shape[:2], *window.output), (x.shape[1], *window.sizes)
    out = builder.new(MaxPool, node.name, (x,), shape, in_shape=in_shape, kernel=window.kernel, **fields)
    if node.opset < _SAME_GRID:
        oddity = f"a MaxPool of opset {node.opset}, which onnxruntime leaves in floating point and quantises again"
        builder.oddities.append((builder.layers[out.layer].name, oddity))
    return replace(out, integers=x.integers)


def global_average_pool(node: Node, builder: NetworkBuilder) -> Value:
    """A GlobalAveragePool: the mean of each channel."""
    x = node.tensor(0)
    if len(x.shape) < 3 or x.shape[0] != 1:
        raise Refusal(f"its input has shape {x.shape} at batch 1; supported is (1, channels, ...){_ONE_SAMPLE}")
    return replace(means(node, builder, x), shape=x.shape[:2] + (1,) * (len(x.shape) - 2))


def means(node: Node, builder: NetworkBuilder, x: Tensor, weight: float | None = None) -> Tensor:
    """The mean of each channel over all positions of x (1, channels, ...), or their sum times `weight`, as layers."""
    positions = prod(x.shape[2:])
    window = Window((WindowAxis(), WindowAxis(size=positions, kernel=positions)), rank=1)
    return _average(node, builder, x, window, 1.0 / positions if weight is None else weight)


def _average(node: Node, builder: NetworkBuilder, x: Tensor, window: Window, value: float) -> Tensor:
    """A depthwise Conv with this one number as weight."""
    channels = x.shape[1]
    fields: dict[str, Any] = {"bias": np.zeros(channels), "has_bias": False, "quantised": False, "groups": channels}
    weight, shape = np.full((channels, 1, *window.kernel), value), (*x.shape[:2], *window.output)
    return builder.new(
        Conv, node.name, (x,), shape, weight=weight, in_shape=(channels, *window.sizes), **fields, **window.fields
    )
