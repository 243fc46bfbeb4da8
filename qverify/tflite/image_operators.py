"""TFLite operators on images (1, height, width, channels): convolution, pooling and padding."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Conv, MaxPool, Scale
from qverify.onnx.image_operators import WindowAxis
from qverify.tflite.activations import finished, fused, output_grid
from qverify.tflite.graph import NO_PADS, Node, Refusal, Tensor, Value, channels_first, sample_shape
from qverify.tflite.operators import bias_of, weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.tflite.graph import Pads, Shape

Axes = tuple[WindowAxis, WindowAxis]

_SAME, _VALID = 0, 1
"""Padding of the schema."""


def conv_2d(node: Node) -> Value:
    """A Conv, whose kernel the file has as (outputs, height, width, inputs)."""
    x = node.image(0)
    weight = weights(node, x)
    if weight.values.ndim != 4:
        raise Refusal(f"its kernel has shape {weight.values.shape}; four axes are needed")
    outputs, _, _, inputs = weight.values.shape
    channels = x.shape[3]
    if channels % inputs or outputs % (channels // inputs):
        raise Refusal(f"its kernel of shape {weight.values.shape} does not fit {channels} channels")
    return _convolved(node, x, (0, 3, 1, 2), channels // inputs)


def depthwise_conv_2d(node: Node) -> Value:
    """A Conv with a group a channel, whose kernel the file has as (1, height, width, outputs)."""
    x = node.image(0)
    shape, channels = weights(node, x).values.shape, x.shape[3]
    if len(shape) != 4 or shape[0] != 1 or shape[3] % channels:
        raise Refusal(f"its kernel of shape {shape} does not fit {channels} channels")
    return _convolved(node, x, (3, 0, 1, 2), channels)


def _convolved(node: Node, x: Tensor, order: tuple[int, ...], groups: int) -> Value:
    """The Conv with the kernel (input 1) transposed by `order` to (outputs, inputs a group, height, width)."""
    activation, builder, given = fused(node), node.builder, weights(node, x)
    weight = given.values.transpose(order)
    outputs = len(weight)
    grid = given.grid
    if grid is not None:
        grid = grid.transpose(order)
        if grid.shape not in ((1, 1, 1, 1), (outputs, 1, 1, 1)):
            raise Refusal("its kernel has scales along another axis than its outputs; that is not supported")
    axes = _window(node, x, weight.shape[2:], (node.option("DilationHFactor", 1), node.option("DilationWFactor", 1)))
    shape = _shape(node, axes, outputs)
    layer = builder.new(
        Conv,
        node.name,
        (x.layer,),
        sample_shape(shape),
        weight=weight,
        bias=bias_of(node, x, grid, outputs),
        has_bias=node.has(2),
        grid=grid,
        groups=groups,
        **_geometry(x, axes),
    )
    if x.grid is None and given.kind != "FLOAT32":
        builder.hybrid.add(layer)
    return finished(node, layer, channels_first(shape), activation, x)


def _window(node: Node, x: Tensor, kernel: tuple[int, ...], dilations: tuple[int, int] = (1, 1)) -> Axes:
    """The window of an operator along height and width, over an image with its pads; raises Refusal."""
    strides, padding = (node.option("StrideH"), node.option("StrideW")), node.option("Padding")
    if min(*kernel, *strides, *dilations) < 1:
        raise Refusal("its kernel, strides and dilations must be at least 1")
    if padding not in (_SAME, _VALID):
        raise Refusal(f"its padding {padding} is not supported; SAME and VALID are")
    axes = []
    for i in (0, 1):
        begin, end = x.pads[i], x.pads[i + 2]
        axis = WindowAxis(size=x.shape[1 + i] + begin + end, kernel=kernel[i], stride=strides[i], dilation=dilations[i])
        if padding == _SAME:  # the odd element last, as TFLite does it
            total = max((-(-axis.size // axis.stride) - 1) * axis.stride + axis.span - axis.size, 0)
            axis = replace(axis, begin=total // 2, end=total - total // 2)
        axis = replace(axis, size=x.shape[1 + i], begin=axis.begin + begin, end=axis.end + end)
        if axis.span > axis.size + axis.begin + axis.end:
            raise Refusal(f"its kernel {tuple(kernel)} does not fit into its input of shape {x.shape}")
        axes.append(axis)
    return axes[0], axes[1]


def _geometry(x: Tensor, axes: Axes) -> dict[str, Any]:
    """The window as fields of a Conv layer."""
    h, w = axes
    return {
        "in_shape": sample_shape(x.shape),
        "strides": (h.stride, w.stride),
        "dilations": (h.dilation, w.dilation),
        "pads": (h.begin, w.begin, h.end, w.end),
    }


def _shape(node: Node, axes: Axes, channels: int) -> Shape:
    """The shape of the result, which must be that of the file; raises Refusal."""
    shape = (1, axes[0].output, axes[1].output, channels)
    if shape != node.output.shape:
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {shape}")
    return shape


def average_pool_2d(node: Node) -> Value:
    """A depthwise Conv of constant weights, and a Scale where windows at the border count fewer elements."""
    x, activation = _solid_image(node), fused(node)
    axes = _window(node, x, (node.option("FilterHeight"), node.option("FilterWidth")))
    shape = _shape(node, axes, x.shape[3])
    counts = np.outer(axes[0].counted(0, 0), axes[1].counted(0, 0)).reshape(-1)
    if not counts.all():
        raise Refusal("some of its windows lie wholly in the padding, where an average is not defined")
    _same_grid(node, x)
    layer = _average(node, x, axes, counts.max())
    if (counts != counts.max()).any():
        scale = np.tile(counts.max() / counts, x.shape[3])
        layer = node.builder.new(
            Scale, f"{node.name}/border", (layer,), sample_shape(shape), scale=scale, shift=0.0 * scale
        )
    return finished(node, layer, channels_first(shape), activation, x)


def max_pool_2d(node: Node) -> Value:
    """A MaxPool, whose output has the grid of its input."""
    x, activation = _solid_image(node), fused(node)
    axes = _window(node, x, (node.option("FilterHeight"), node.option("FilterWidth")))
    h, w = axes
    shape = _shape(node, axes, x.shape[3])
    if not (h.counted(0, 0).all() and w.counted(0, 0).all()):
        raise Refusal("some of its windows lie wholly in the padding, where there is no largest number")
    _same_grid(node, x)
    fields = {name: value for name, value in _geometry(x, axes).items() if name != "dilations"}
    source, kernel = (x.layer,), (h.kernel, w.kernel)
    layer = node.builder.new(MaxPool, node.name, source, sample_shape(shape), kernel=kernel, **fields)
    places = channels_first(shape)
    if activation != "NONE" or x.grid is None:
        return finished(node, layer, places, activation, x)
    node.builder.given[layer] = (node.output, places)
    return Tensor(layer=layer, shape=shape, places=places, grid=x.grid)


def _same_grid(node: Node, x: Tensor) -> None:
    if output_grid(node, x) != x.grid:
        raise Refusal("its output is quantised in another way than its input; TFLite has one way for both")


def mean(node: Node) -> Value:
    """The mean over height, width or both."""
    x = _solid_image(node)
    axes = {int(axis) % 4 if -4 <= axis < 4 else -1 for axis in node.integers(1).reshape(-1)}
    if not axes or not axes <= {1, 2}:
        raise Refusal(f"it takes the mean over axes {sorted(axes)} of {x.shape}; supported are height and width (1, 2)")
    keep = node.option("KeepDims")
    shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
    shown = tuple(n for axis, n in enumerate(shape) if keep or axis not in axes)
    if shown != node.output.shape:
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {shown}")
    h, w = (WindowAxis(size=x.shape[i], kernel=x.shape[i] if i in axes else 1) for i in (1, 2))
    layer = _average(node, x, (h, w), h.kernel * w.kernel)
    return finished(node, layer, channels_first(tuple(shape)), "NONE", x)


def _solid_image(node: Node) -> Tensor:
    node.image(0)
    return node.tensor(0)


def _average(node: Node, x: Tensor, axes: Axes, divisor: float) -> int:
    """A depthwise Conv that sums what a window sees, over this number."""
    channels = x.shape[3]
    return node.builder.new(
        Conv,
        node.name,
        (x.layer,),
        (channels, axes[0].output, axes[1].output),
        weight=np.full((channels, 1, axes[0].kernel, axes[1].kernel), 1.0 / divisor),
        bias=np.zeros(channels),
        has_bias=False,
        quantised=False,
        groups=channels,
        **_geometry(x, axes),
    )


def pad(node: Node) -> Value:
    """Zeros around an image: part of the convolutions that read it, else a layer of its own."""
    x, pads = node.image(0), node.integers(1)
    if pads.shape != (4, 2) or (pads < 0).any() or pads[[0, 3]].any():
        raise Refusal("it pads other axes than height and width of an image (1, height, width, channels)")
    if x.pads != NO_PADS:
        x = node.tensor(0)
    _same_grid(node, x)
    shape = tuple(int(n + before + after) for n, (before, after) in zip(x.shape, pads, strict=True))
    if shape != node.output.shape or prod(shape) > 64 * x.size + (1 << 20):
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {shape}")
    around: Pads = (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1]))
    return replace(x, pads=around)


IMAGE_OPERATORS: dict[str, Callable[[Node], Value]] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "AVERAGE_POOL_2D": average_pool_2d,
    "MAX_POOL_2D": max_pool_2d,
    "MEAN": mean,
    "PAD": pad,
}
