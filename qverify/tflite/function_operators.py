"""TFLite operators that are functions other than Relu, and products. Each consumes its operator or raises `Refusal`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import Product, Scale
from qverify.tflite.activations import finished, fused, output_grid
from qverify.tflite.graph import Constant, Grid, Node, Refusal, Tensor, Value

if TYPE_CHECKING:
    from collections.abc import Callable

_FIXED = {
    "LOGISTIC": {"INT8": (2.0**-8, -128), "UINT8": (2.0**-8, 0)},
    "TANH": {"INT8": (2.0**-7, 0), "UINT8": (2.0**-7, 128)},
}
"""Step and zero point of the outputs that kernels have a grid of their own for."""
_WIDE = ("LEAKY_RELU",)
"""Functions of which kernels for 16 bits come within a step; others interpolate in tables, up to 80 steps beside."""


def function_of(kind: str, name: str, option: str = "") -> Callable[[Node], Value]:
    """The reader of an operator that is one function of one tensor, `option` its parameter."""

    def read(node: Node) -> Value:
        x = node.tensor(0)
        if node.output.shape != x.shape:
            raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {x.shape}")
        _check_grids(kind, x.grid, output_grid(node, x))
        numbers = [float(np.float32(node.option(option)))] if option else []
        return _activated(node, x, name, numbers)

    return read


def _check_grids(kind: str, entry: Grid | None, grid: Grid | None) -> None:
    """Raises Refusal for integers that kernels do not have, or compute in ways that no rule covers."""
    if entry is None or grid is None:
        return
    if entry.kind == "INT16" and kind not in _WIDE:
        raise Refusal("it is on INT16, where kernels interpolate in tables, beyond a step; supported are 8 bits")
    wanted = _FIXED.get(kind, {}).get(grid.kind)
    if wanted is not None and (grid.step, grid.zero) != wanted:
        raise Refusal(
            f"its output has the scale {grid.step:g} and the zero point {grid.zero}; kernels have {wanted[0]:g} and"
            f" {wanted[1]}"
        )
    if kind == "HARD_SWISH" and np.frexp(entry.step / 128.0 / grid.step)[1] > 0:
        raise Refusal("its output is on a grid too fine for what it reads, which kernels refuse")


def _activated(node: Node, x: Tensor, name: str, numbers: list[float]) -> Tensor:
    parameters = tuple(np.full(x.size, number) for number in numbers)
    fields: dict[str, Any] = {"function": name, "parameters": parameters}
    layer = node.builder.new(Activation, node.name, (x.layer,), node.builder.layers[x.layer].shape, **fields)
    return finished(node, layer, x.places, "NONE", x)


def gelu(node: Node) -> Value:
    """In its exact form, or by tanh."""
    name = "gelu_tanh" if node.option("Approximate", False) else "gelu"
    return function_of("GELU", name)(node)


def multiply(node: Node) -> Value:
    """The product of two tensors, one of which may be repeated to the shape of the other, or of one and a constant."""
    activation = fused(node)
    constants = [i for i in (0, 1) if i < len(node.inputs) and isinstance(node.inputs[i], Constant)]
    if constants:
        return _scaled(node, node.tensor(1 - constants[0]), node.constant(constants[0]), activation)
    x, y = node.tensor(0), node.tensor(1)
    whole = next((z for z in (x, y) if z.shape == node.output.shape), None)
    if whole is None:
        raise Refusal(
            f"it multiplies tensors of shapes {x.shape} and {y.shape}; supported is where one has the shape of the"
            f" product, {node.output.shape}"
        )
    factors = tuple(_repeated(node, z, whole) for z in (x, y))
    layer = node.builder.new(Product, node.name, factors, node.builder.layers[whole.layer].shape)
    return finished(node, layer, whole.places, activation, x, y)


def _repeated(node: Node, x: Tensor, whole: Tensor) -> int:
    """The layer that gives the numbers of x in the places of `whole`, repeated along axes of length 1."""
    builder = node.builder
    if x.shape == whole.shape and np.array_equal(x.places, whole.places):
        return x.layer
    try:
        read = np.broadcast_to(x.places.reshape(x.shape), whole.shape).reshape(-1)
    except ValueError:
        raise Refusal(f"it multiplies tensors of shapes {x.shape} and {whole.shape}, which do not fit") from None
    index = np.empty(whole.size, dtype=np.int64)
    index[whole.places] = read
    shape = builder.layers[whole.layer].shape
    return builder.new(Gather, f"{node.name}/repeated", (x.layer,), shape, index=index, fill=np.zeros(whole.size))


def _scaled(node: Node, x: Tensor, other: Constant, activation: str) -> Value:
    if other.kind != (x.grid.kind if x.grid else "FLOAT32") or (x.grid and other.grid is None):
        raise Refusal(f"it multiplies by a constant of type {other.kind} that is quantised in another way")
    if node.output.shape != x.shape:
        raise Refusal(f"the file gives its output the shape {node.output.shape}, but it has {x.shape}")
    try:
        factor = np.broadcast_to(other.values, x.shape).reshape(-1)
    except ValueError:
        raise Refusal(f"its constant of shape {other.values.shape} does not fit {x.shape}") from None
    flat = np.empty(x.size)
    flat[x.places] = factor
    shape = node.builder.layers[x.layer].shape
    layer = node.builder.new(Scale, node.name, (x.layer,), shape, scale=flat, shift=np.zeros(x.size))
    return finished(node, layer, x.places, activation, x)


FUNCTION_OPERATORS: dict[str, Callable[[Node], Value]] = {
    "GELU": gelu,
    "HARD_SWISH": function_of("HARD_SWISH", "hard_swish"),
    "LEAKY_RELU": function_of("LEAKY_RELU", "leaky_relu", "Alpha"),
    "LOGISTIC": function_of("LOGISTIC", "sigmoid"),
    "MUL": multiply,
    "TANH": function_of("TANH", "tanh"),
}
"""What is read, by the names of the schema."""
