"""ConvTranspose: zeros between the numbers of an image, which is a Gather, and a Conv with its kernel turned around.

    y[o, s i + d k - p] += W[c, o, k] x[c, i]

is `y[o, j] = sum_k W'[o, c, k] x'[c, j + d k - (d (K - 1) - p)]`, with x' the image stretched by the stride s, and W'
the kernel of K numbers read backwards: each weight once, as it was.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from qverify.layers import Conv
from qverify.onnx.gathers import Moved, gathered
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Shape, Tensor, Value
from qverify.onnx.grid import uncovered


def conv_transpose(node: Node, builder: NetworkBuilder) -> Value:
    """A ConvTranspose over one or two axes."""
    x, weight = node.tensor(0), node.numbers(1)
    rank, groups = len(x.shape) - 2, node.attributes.get("group", 1)
    if rank not in (1, 2) or x.shape[0] != 1 or weight.ndim != rank + 2:
        raise Refusal(
            f"its input has shape {x.shape} at batch 1 and its weight {weight.shape}; supported are 1-d and 2-d"
        )
    kernel = weight.shape[2:]
    if groups < 1 or weight.shape[0] != x.shape[1] or weight.shape[0] % groups:
        raise Refusal(f"a weight of shape {weight.shape} in {groups} groups does not fit {x.shape[1]} channels")
    if tuple(node.attributes.get("kernel_shape", kernel)) != kernel:
        raise Refusal(f"a weight of shape {weight.shape} does not fit its kernel_shape")
    channels = weight.shape[1] * groups
    bias = node.numbers(2) if node.has(2) else np.zeros(channels)
    if bias.shape != (channels,):
        raise Refusal(f"a bias of shape {bias.shape} does not fit {channels} output channels")
    axes = _axes(node, x.shape[2:], kernel)
    stretched, pads = _stretched(node, builder, x, axes)
    pads, dilations = [(0, 0)] * (2 - rank) + pads, [1] * (2 - rank) + [axis["dilation"] for axis in axes]
    grid = node.grid(1)
    length = [axis["output"] for axis in axes]
    fields: dict[str, Any] = {
        "weight": _turned(weight, groups),
        "bias": bias,
        "has_bias": node.has(2),
        "grid": None if grid is None else uncovered(_turned(np.asarray(grid), groups)),
        "groups": groups,
        "in_shape": (x.shape[1], *((1,) * (2 - rank)), *stretched.shape[2:]),
        "pads": (pads[0][0], pads[1][0], pads[0][1], pads[1][1]),
        "dilations": tuple(dilations),
    }
    out = builder.new(Conv, node.name, (stretched,), (1, channels, *length), **fields)
    return builder.uses(out, node.sources(1, 2))


def _turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """(c_in, c_out / groups, *kernel) -> (c_out, c_in / groups, kh, kw), read backwards along the kernel."""
    c_in, each, *kernel = weight.shape
    kernel = [1] * (2 - len(kernel)) + kernel
    grouped = weight.reshape(groups, c_in // groups, each, *kernel).transpose(0, 2, 1, 3, 4)
    return grouped.reshape(groups * each, c_in // groups, *kernel)[:, :, ::-1, ::-1]


def _axes(node: Node, sizes: Shape, kernel: Shape) -> list[dict[str, int]]:
    """Stride, dilation, pads and length of the output, axis by axis."""
    rank = len(sizes)
    given = {
        "strides": node.attributes.get("strides", [1] * rank),
        "dilations": node.attributes.get("dilations", [1] * rank),
        "output_padding": node.attributes.get("output_padding", [0] * rank),
        "pads": node.attributes.get("pads", [0] * 2 * rank),
    }
    if any(len(values) != rank * (2 if name == "pads" else 1) for name, values in given.items()):
        raise Refusal("strides, dilations, output_padding and pads must fit its axes")
    if min(*given["strides"], *given["dilations"]) < 1 or min(*given["output_padding"], *given["pads"]) < 0:
        raise Refusal("strides and dilations must be at least 1, pads and output_padding at least 0")
    auto, wanted = (
        node.attributes.get("auto_pad", b"NOTSET").decode(errors="replace"),
        node.attributes.get("output_shape"),
    )
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Refusal(f"auto_pad {auto!r} is not supported; NOTSET, VALID, SAME_UPPER and SAME_LOWER are")
    if wanted is not None or auto.startswith("SAME"):
        raise Refusal(
            "its output_shape or auto_pad asks for pads that runtimes split in ways of their own; write pads out"
        )
    axes = []
    for i, size in enumerate(sizes):
        stride, dilation, extra = given["strides"][i], given["dilations"][i], given["output_padding"][i]
        begin, end = (0, 0) if auto == "VALID" else (given["pads"][i], given["pads"][rank + i])
        span = dilation * (kernel[i] - 1)
        output = stride * (size - 1) + extra + span + 1 - begin - end
        if output < 1:
            raise Refusal(f"its pads leave nothing of an image of shape {sizes}")
        axes.append(
            {
                "stride": stride,
                "dilation": dilation,
                "before": span - begin,
                "after": span - end + extra,
                "output": output,
            }
        )
    return axes


def _stretched(
    node: Node, builder: NetworkBuilder, x: Tensor, axes: list[dict[str, int]]
) -> tuple[Tensor, list[tuple[int, int]]]:
    """x with zeros between its numbers, and the pads of the Conv that reads it; negative ones are cut off."""
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    pads = []
    for number, axis in enumerate(axes, start=2):
        shape = list(places.shape)
        shape[number] = axis["stride"] * (shape[number] - 1) + 1
        wide = np.full(shape, -1, dtype=np.int64)
        wide[(slice(None),) * number + (slice(None, None, axis["stride"]),)] = places
        first, last = max(0, -axis["before"]), shape[number] - max(0, -axis["after"])
        places = wide[(slice(None),) * number + (slice(first, last),)]
        pads.append((max(0, axis["before"]), max(0, axis["after"])))
    if not prod(places.shape):
        raise Refusal("its pads leave nothing of the image")
    if np.array_equal(places.reshape(-1), np.arange(x.size)):
        return x, pads
    return gathered(builder, f"{node.name}/stretched", Moved((x,), places, np.zeros(places.shape))), pads
