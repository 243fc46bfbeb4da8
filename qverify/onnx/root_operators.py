"""Square roots, what is divided by them, and powers: the arithmetic that normalisations are written out in.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. A root is one only of what is above 0 by
the way it is computed: squares, means of them, and what is not negative otherwise, plus a constant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, MaxPool, Product, Relu, Scale
from qverify.onnx.activation_operators import activated
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Tensor, Value

if TYPE_CHECKING:
    from qverify.layers import Layer


def least(builder: NetworkBuilder, index: int) -> float:
    """A number that no output of layer `index` is below, whatever input and member, by the kinds of layers; -inf where
    none is known. Rounded down."""
    found: dict[int, float] = {}

    def of(i: int) -> float:
        if i not in found:
            layer = builder.layers[i]
            opens = layer.inputs if isinstance(layer, _BY_WHAT_THEY_READ) else ()
            found[i] = _least(layer, [of(source) for source in opens])
        return found[i]

    return of(index)


_BY_WHAT_THEY_READ = (Product, Scale, Dense, Conv, Gather, MaxPool, Add)


def _least(layer: Layer, read: list[float]) -> float:
    """That of a layer, of what it reads given."""
    if isinstance(layer, Activation):
        return float(np.min(layer.curve.function.ends(np, *layer.parameters)[0]))
    if isinstance(layer, Scale):
        return _of_scale(layer, read[0])
    if isinstance(layer, (Gather, MaxPool)):
        fills = layer.fill[layer.constant].tolist() if isinstance(layer, Gather) else []
        return float(min([*read, *fills]))
    fixed = not isinstance(layer, (Dense, Conv)) or (
        not layer.quantised and (layer.weight >= 0).all() and (layer.bias >= 0).all()
    )
    square = isinstance(layer, Product) and layer.inputs[0] == layer.inputs[1]
    not_negative = bool(read) and min(read) >= 0.0 and fixed
    return 0.0 if isinstance(layer, Relu) or square or not_negative else -np.inf


def _of_scale(layer: Scale, before: float) -> float:
    if not np.isfinite(before) or (layer.scale < 0).any():
        return -np.inf
    found = float((layer.scale * before + layer.shift).min())
    # Of 0 the sum is exact.
    return found if before == 0.0 else found - 2.0**-50 * float((abs(layer.scale * before) + abs(layer.shift)).max())


def sqrt(node: Node, builder: NetworkBuilder) -> Value:
    """A Sqrt of what is at least some number above 0."""
    x = node.tensor(0)
    layer, low = builder.layers[x.layer], least(builder, x.layer)
    if not low > 0.0:
        raise Refusal(
            "it is the root of what may be 0 or negative; supported are roots of squares, of sums and means of these,"
            " and of other numbers that cannot be negative, plus a constant above 0"
        )
    if isinstance(layer, Activation) and layer.function == "clip" and x.exclusive:
        largest = float(np.finfo(np.float64 if x.double else np.float32).max)
        if (layer.parameters[1] >= largest).all():  # as `to_onnx` writes it
            return builder.change(x, function="sqrt", parameters=(layer.parameters[0],))
    return activated(node, builder, x, "sqrt", low)


def reciprocal(node: Node, builder: NetworkBuilder) -> Value:
    """A Reciprocal of a square root."""
    found = over_root(builder, node.tensor(0))
    if found is None:
        raise Refusal("it divides by a computed tensor; supported is division by a constant, or by a Sqrt")
    return found


def over_root(builder: NetworkBuilder, x: Tensor) -> Tensor | None:
    """One over a tensor that is a square root; else None."""
    layer = builder.layers[x.layer]
    if not isinstance(layer, Activation) or layer.function != "sqrt":
        return None
    if x.exclusive:
        return replace(builder.change(x, function="rsqrt"), exclusive=True)
    read = Tensor(layer=layer.inputs[0], shape=x.shape, exclusive=False, double=x.double)
    name = f"{layer.name}/inverse"
    return builder.new(Activation, name, (read,), x.shape, function="rsqrt", parameters=layer.parameters)


def power(node: Node, builder: NetworkBuilder) -> Value:
    """A Pow by the constant 2, 1 / 2 or -1 / 2."""
    exponent = np.unique(node.constant(1).astype(np.float64))
    if exponent.size == 1 and float(exponent[0]) == 2.0:
        x = node.tensor(0)
        return builder.new(Product, node.name, (x, x), x.shape)
    if exponent.size == 1 and float(exponent[0]) in (0.5, -0.5):
        root = sqrt(node, builder)
        assert isinstance(root, Tensor)
        return root if exponent[0] > 0 else over_root(builder, replace(root, exclusive=True))
    raise Refusal("supported are the exponents 2, 0.5 and -0.5, a constant for all numbers")
