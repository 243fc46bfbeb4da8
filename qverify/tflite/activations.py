"""What follows the arithmetic of an operator: its fused activation, and the rounding to the grid of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qverify.layers import Relu
from qverify.tflite.graph import Grid, Refusal, Tensor, activation_grid

if TYPE_CHECKING:
    from qverify.tflite.graph import Node

ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
"""ActivationFunctionType of the schema."""

_FLOAT_RELU6 = "RELU6 on floats is not supported; give the quantised file"


def fused(node: Node) -> str:
    """The operator's fused activation; raises Refusal."""
    number = node.option("FusedActivationFunction")
    kind = ACTIVATIONS.get(number, f"number {number}")
    if kind not in ("NONE", "RELU", "RELU6"):
        raise Refusal(f"its fused activation {kind} is not supported; NONE, RELU and RELU6 are")
    return kind


def output_grid(node: Node, *sources: Tensor) -> Grid | None:
    """The grid of the operator's output, whose type must be that of what it reads; raises Refusal."""
    grid = activation_grid(node.output)
    for x in sources:
        kinds = [None if g is None else g.kind for g in (x.grid, grid)]
        if kinds[0] != kinds[1]:
            shown = " and gives ".join(kind or "FLOAT32" for kind in kinds)
            raise Refusal(f"it reads {shown}; supported is one type for both")
    return grid


def finished(node: Node, layer: int, places: np.ndarray, activation: str, *sources: Tensor) -> Tensor:
    """The operator's output, given the layer of its arithmetic: activated, and rounded if it is quantised.

    Raises Refusal if the file gives it another shape than so many elements.
    """
    grid = output_grid(node, *sources)
    return _finished(node, layer, places, activation, grid)


def requantised(node: Node, x: Tensor, activation: str = "NONE") -> Tensor:
    """The operator's output where it does nothing else than to activate or to round; its type may be another."""
    return _finished(node, x.layer, x.places, activation, activation_grid(node.output))


def _finished(node: Node, layer: int, places: np.ndarray, activation: str, grid: Grid | None) -> Tensor:
    builder, shape = node.builder, node.output.shape
    if grid is not None:
        layer = builder.rounded(layer, node.name, grid, clipped(grid, activation))
    elif activation == "RELU6":
        raise Refusal(_FLOAT_RELU6)
    elif activation == "RELU":
        layer = builder.new(Relu, f"{node.name}/relu", (layer,), builder.layers[layer].shape)
    builder.given[layer] = (node.output, places)
    return Tensor(layer=layer, shape=shape, places=places, grid=grid)


def clipped(grid: Grid, activation: str) -> tuple[int, int]:
    """The ends of a grid under an activation, in steps from 0: 6 is rounded to the grid as the kernels do it."""
    low, high = grid.ends
    if activation == "NONE":
        return low, high
    if activation == "RELU6":
        six = np.floor(np.float32(6) / np.float32(grid.step) + np.float32(0.5))
        high = int(min(high, six))
    return 0, high
