"""Convolutions and pools over three axes, as layers over two.

As in `operators.py`: a function consumes all of its node or raises `Refusal`; other ranks go to `image_operators`.

A kernel (k_d, k_h, k_w) slides over places (d, h, w). A Gather puts what its k_d k_h rows look at side by side, as
channels of an image with a row for each (d, h), and a Conv of kernel (1, k_w) does the rest: every kernel entry is
there once, shared by all places as before. A maximum over a window is one over its rows and columns, and then over its
depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Conv, Scale
from qverify.onnx import image_operators as images
from qverify.onnx.gathers import Moved, check_size, gathered
from qverify.onnx.graph import NetworkBuilder, Node, Tensor, Value
from qverify.onnx.grid import uncovered
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.onnx.image_operators import WindowAxis

_RANK = 5
"""Axes of (1, channels, depth, height, width)."""


def _is_volume(node: Node) -> bool:
    x = node.inputs[0]
    return isinstance(x, Tensor) and len(x.shape) == _RANK and x.shape[0] == 1


@dataclass(frozen=True, eq=False, repr=False)
class _Unfolded(Brief):
    """What a kernel looks at, (1, channels k_d k_h, rows, width), and the axes of its window."""

    x: Tensor
    axes: tuple[WindowAxis, WindowAxis, WindowAxis]

    @property
    def output(self) -> tuple[int, ...]:
        """The places of the window."""
        return tuple(axis.output for axis in self.axes)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the Conv that reads it, but for its weights."""
        width = self.axes[2]
        return {
            "in_shape": self.x.shape[1:],
            "strides": (1, width.stride),
            "dilations": (1, width.dilation),
            "pads": (0, width.begin, 0, width.end),
        }


def _unfolded(node: Node, builder: NetworkBuilder, x: Tensor, axes: list[WindowAxis]) -> _Unfolded:
    depth, height, width = axes
    rows = depth.output * height.output
    check_size((x.shape[1], depth.kernel, height.kernel, rows, width.size))
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape[1:])
    places = np.pad(places, ((0, 0), (depth.begin, depth.end), (height.begin, height.end), (0, 0)), constant_values=-1)
    first, second = (
        np.arange(axis.kernel)[:, None] * axis.dilation + np.arange(axis.output) * axis.stride
        for axis in (depth, height)
    )
    # (channels, k_d, k_h, d, h, width)
    found = places[:, first[:, None, :, None], second[None, :, None, :]]
    found = found.reshape(1, x.shape[1] * depth.kernel * height.kernel, rows, width.size)
    moved = gathered(builder, f"{node.name}/unfolded", Moved((x,), found, np.zeros(found.shape)))
    return _Unfolded(moved, (depth, height, width))


def conv(node: Node, builder: NetworkBuilder) -> Value:
    """A Conv over one, two or three axes."""
    if not _is_volume(node):
        return images.conv(node, builder)
    x = node.tensor(0)
    weight, bias, groups = images.kernel_of(node, x)
    seen = _unfolded(node, builder, x, images.window_axes(node, weight.shape[2:], x.shape[2:]))
    flat = (len(weight), weight.shape[1] * weight.shape[2] * weight.shape[3], 1, weight.shape[4])
    grid = node.grid(1)
    fields = {
        "groups": groups,
        "has_bias": node.has(2),
        "grid": None if grid is None else uncovered(grid.reshape(flat)),
    }
    shape = (1, len(weight), *seen.output)
    out = builder.new(
        Conv, node.name, (seen.x,), shape, weight=weight.reshape(flat), bias=bias, **fields, **seen.fields
    )
    return builder.uses(out, node.sources(1, 2))


def average_pool(node: Node, builder: NetworkBuilder) -> Value:
    """An AveragePool over one, two or three axes."""
    if not _is_volume(node):
        return images.average_pool(node, builder)
    x = node.tensor(0)
    axes, counted = images.pooled_axes(node, x)
    largest = counted.max()
    seen, channels = _unfolded(node, builder, x, axes), x.shape[1]
    weight = np.full((channels, axes[0].kernel * axes[1].kernel, 1, axes[2].kernel), 1.0 / largest)
    fields: dict[str, Any] = {"bias": np.zeros(channels), "has_bias": False, "quantised": False, "groups": channels}
    shape = (1, channels, *seen.output)
    out = builder.new(Conv, node.name, (seen.x,), shape, weight=weight, **fields, **seen.fields)
    if (counted == largest).all():
        return out
    scale = np.tile(largest / counted, channels)
    return builder.new(Scale, f"{node.name}/border", (out,), shape, scale=scale, shift=0.0 * scale)


def max_pool(node: Node, builder: NetworkBuilder) -> Value:
    """A MaxPool over one, two or three axes."""
    if not _is_volume(node):
        return images.max_pool(node, builder)
    x = images.passed_on(node)
    channels, deep = x.shape[1:3]
    depth, height, width = images.largest_axes(node, x)
    slices = replace(x, shape=(1, channels * deep, *x.shape[3:]))
    out = images.largest(node, builder, slices, images.Window((height, width), 2))
    across = images.WindowAxis(size=prod(out.shape[2:]))
    volume = replace(out, shape=(1, channels, deep, across.size))
    out = images.largest(node, builder, volume, images.Window((depth, across), 2))
    return replace(out, shape=(1, channels, depth.output, height.output, width.output))
