"""TFLite operators other than those on images. A function consumes all of its operator or raises `Refusal`."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qverify.errors import ModelError
from qverify.layers import Add, Dense, Scale
from qverify.tflite.activations import finished, fused, output_grid, requantised
from qverify.tflite.graph import Constant, Node, Refusal, Tensor, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.tflite.graph import Grid

_WEIGHTS = {"INT8": ("INT8", "INT4"), "UINT8": ("UINT8",), "INT16": ("INT8", "INT4")}
"""Types of weights by that of the activations, where both are integers."""

_SCALES_AGREE = 1e-5
"""By how much a bias may say another scale than input times weights: float32 products round at 6e-8."""


def weights(node: Node, x: Tensor) -> Constant:
    """Input 1, the weights, of a type that goes with that of `x`; raises Refusal."""
    weight = node.constant(1)
    allowed = _WEIGHTS[x.grid.kind] if x.grid else ("FLOAT32", "INT8", "INT4")
    if weight.kind not in allowed or (x.grid and weight.grid is None):
        activations = x.grid.kind if x.grid else "FLOAT32"
        raise Refusal(f"its weights are {weight.kind} and what they multiply is {activations}; this is not supported")
    if weight.kind in ("INT8", "INT4"):
        if weight.grid is None:
            raise Refusal(f"its weights are {weight.kind} without scales")
        if weight.info.zeros.any():
            raise Refusal(f"its weights are {weight.kind} with a zero point; TFLite has 0 there")
    return weight


def bias_of(node: Node, x: Tensor, steps: Array | None, size: int) -> Array:
    """Input 2, the bias (size,), zeros if it is not given. Integers count steps of input times weights.

    `steps`: those of the weights, one or one an output. Raises Refusal, and ModelError where the file says another
    scale for the bias than the kernels use.
    """
    if not node.has(2):
        return np.zeros(size)
    bias = node.constant(2)
    if bias.values.shape != (size,):
        raise Refusal(f"its bias of shape {bias.values.shape} does not fit {size} outputs")
    if x.grid is None:
        if bias.kind != "FLOAT32":
            raise Refusal(f"its bias is {bias.kind} and what it reads is FLOAT32; this is not supported")
        return bias.values
    if bias.kind not in ("INT32", "INT64") or steps is None:
        raise Refusal(f"its bias is {bias.kind}; supported are INT32 and INT64")
    unit, said = x.grid.step * steps.reshape(-1), bias.info.scales
    if len(said) and (len(said) not in (1, size) or (abs(said - unit) > _SCALES_AGREE * unit).any()):
        raise ModelError(
            f"{node.builder.source}: {bias.info.label} has another scale than input times weights of {node.name!r}, "
            "by which kernels take it; quantise the model again."
        )
    return bias.values * unit


def fully_connected(node: Node) -> Value:
    """A Dense layer, whose columns follow the places of what it reads."""
    x, activation = node.tensor(0), fused(node)
    if node.option("WeightsFormat"):
        raise Refusal("its weights are shuffled; export the model with weights in their plain order")
    weight = weights(node, x)
    if weight.values.ndim != 2 or weight.values.shape[1] != x.size:
        raise Refusal(f"its weights of shape {weight.values.shape} do not fit one sample of shape {x.shape}")
    outputs = len(weight.values)
    if weight.grid is not None and weight.grid.size > 1 and weight.grid.shape[0] != outputs:
        raise Refusal("its weights have a scale an input; supported is one, or one an output")
    _expect_size(node, outputs)
    columns = np.empty_like(weight.values)
    columns[:, x.places] = weight.values
    layer = node.builder.new(
        Dense,
        node.name,
        (x.layer,),
        (outputs,),
        weight=columns,
        bias=bias_of(node, x, weight.grid, outputs),
        has_bias=node.has(2),
        grid=weight.grid,
    )
    if x.grid is None and weight.kind != "FLOAT32":
        node.builder.hybrid.add(layer)
    return finished(node, layer, np.arange(outputs), activation, x)


def _expect_size(node: Node, size: int) -> None:
    if prod(node.output.shape) != size:
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {size} elements")


def add(node: Node) -> Value:
    """The sum of two tensors of equal shape, or of a tensor and a constant."""
    activation = fused(node)
    constants = [i for i in (0, 1) if i < len(node.inputs) and isinstance(node.inputs[i], Constant)]
    if constants:
        return _shifted(node, node.tensor(1 - constants[0]), node.constant(constants[0]), activation)
    x, y = node.tensor(0), node.tensor(1)
    if not x.shape == y.shape == node.output.shape:
        raise Refusal(f"it adds tensors of shapes {x.shape} and {y.shape}; supported are equal shapes")
    if not np.array_equal(x.places, y.places):
        raise Refusal("it adds tensors whose elements lie in different orders after a RESHAPE")
    layers = node.builder.layers
    layer = node.builder.new(Add, node.name, (x.layer, y.layer), layers[x.layer].shape)
    return finished(node, layer, x.places, activation, x, y)


def _shifted(node: Node, x: Tensor, other: Constant, activation: str) -> Value:
    if other.kind != (x.grid.kind if x.grid else "FLOAT32") or (x.grid and other.grid is None):
        raise Refusal(f"it adds a constant of type {other.kind} that is quantised in another way")
    try:
        shift = np.broadcast_to(other.values, x.shape).reshape(-1)
    except ValueError:
        raise Refusal(f"its constant of shape {other.values.shape} does not fit {x.shape}") from None
    if node.output.shape != x.shape:
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {x.shape}")
    flat = np.empty(x.size)
    flat[x.places] = shift
    shape = node.builder.layers[x.layer].shape
    layer = node.builder.new(Scale, node.name, (x.layer,), shape, scale=np.ones(x.size), shift=flat)
    return finished(node, layer, x.places, activation, x)


def relu(node: Node) -> Value:
    """A RELU of its own."""
    return requantised(node, _of_one_type(node), "RELU")


def relu6(node: Node) -> Value:
    """A RELU6 of its own, on integers."""
    return requantised(node, _of_one_type(node), "RELU6")


def _of_one_type(node: Node) -> Tensor:
    x = node.tensor(0)
    _expect_size(node, x.size)
    output_grid(node, x)
    return x


def quantize(node: Node) -> Value:
    """A rounding point; of a tensor after a SOFTMAX, nothing that could be told from its logits."""
    x = node.view(0)
    _expect_size(node, x.size)
    if x.softmax:
        return x
    out = requantised(node, x)
    if out.grid is None:
        raise Refusal(f"it gives {node.output.kind}; supported are INT8, UINT8 and INT16")
    return out


def dequantize(node: Node) -> Value:
    """Nothing: layers give real numbers."""
    _expect_size(node, prod(node.output.shape))
    if node.output.kind != "FLOAT32":
        raise Refusal(f"it gives {node.output.kind}; supported is FLOAT32")
    given = node.inputs[0] if node.inputs else None
    if isinstance(given, Constant):
        if given.kind != "FLOAT16" and given.grid is None:
            raise Refusal(f"its input is {given.kind} without scales")
        return replace(given, kind="FLOAT32", info=node.output)
    return replace(node.view(0), grid=None)


def reshape(node: Node) -> Value:
    """Nothing but another shape: elements keep their places."""
    x = node.view(0)
    if output_grid(node, x) != x.grid:
        raise Refusal("its output is quantised in another way than its input, which it copies")
    if node.has(1):
        asked = [int(n) for n in node.integers(1).reshape(-1)]
    else:
        asked = [int(n) for n in np.atleast_1d(node.option("NewShapeAsNumpy"))]
    known = prod(n for n in asked if n != -1)
    if asked.count(-1) == 1 and known > 0 and x.size % known == 0:
        asked[asked.index(-1)] = x.size // known
    if tuple(asked) != node.output.shape or prod(asked) != x.size:
        raise Refusal(f"it asks for the shape {tuple(asked)}, which does not fit its input of shape {x.shape}")
    return replace(x, shape=node.output.shape)


def softmax(node: Node) -> Value:
    """Dropped where only other views follow: it keeps the order of the classes."""
    x = node.tensor(0)
    if x.shape[-1] != x.size:
        raise Refusal(f"it is taken over the last axis of shape {x.shape}; supported is one over all outputs")
    if not node.option("Beta", 0.0) > 0:
        raise Refusal("its beta is not positive")
    node.builder.notes.append(f"{node.name}: SOFTMAX dropped; outputs are the logits, in the same order.")
    return replace(x, softmax=True, grid=_named(node, x))


def _named(node: Node, x: Tensor) -> Grid | None:
    """The grid that later views of a SOFTMAX are compared by: the file's own of its output."""
    return output_grid(node) if node.output.kind != "FLOAT32" else None


OPERATORS: dict[str, Callable[[Node], Value]] = {
    "FULLY_CONNECTED": fully_connected,
    "ADD": add,
    "RELU": relu,
    "RELU6": relu6,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
}
