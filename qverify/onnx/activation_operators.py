"""ONNX operators that are activations other than Relu, and what exporters write in their place.

As in `operators.py`: a function consumes all of its node or raises `Refusal`.

Torch writes SiLU as x Sigmoid(x), Hardswish as x HardSigmoid(x), and GELU as x (1 + Erf(x / sqrt 2)) / 2 below opset
20: `product` knows them where nothing else reads what is between.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.functions import FUNCTIONS
from qverify.activations.layer import Activation
from qverify.layers import DynamicRounding, Layer, Scale
from qverify.onnx.fusing import THRESHOLD
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Tensor, Value

if TYPE_CHECKING:
    from qverify.onnx.refusals import Refusals

_NEAR = 1e-6
"""How near a constant of float32 is to what it stands for, relatively."""
_DEFAULTS = {
    "Celu": {"alpha": 1.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
}
"""What ONNX says of attributes that are not given."""
_BETWEEN = (
    " beside tensors quantised dynamically, where what runtimes get wrong in it is not known; supported there are Relu"
    " and a Clip that a QuantizeLinear follows: quantise the model statically"
)
_NAMES = {
    "Abs": "abs",
    "Celu": "celu",
    "Elu": "elu",
    "Erf": "erf",
    "Exp": "exp",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "LeakyRelu": "leaky_relu",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}


_SINGLE = ("hard_swish", "gelu", "gelu_tanh")
"""Functions whose constants onnxruntime has in float32, in models of float64 too."""


def refuse_between(builder: NetworkBuilder, refusals: Refusals) -> None:
    """Refuse activations in a file whose tensors are quantised dynamically."""
    if any(isinstance(layer, DynamicRounding) for layer in builder.layers):
        for layer in builder.layers:
            if isinstance(layer, Activation):
                refusals.add(f"activation {layer.name!r} ({layer.function})", _BETWEEN)


def activated(node: Node, builder: NetworkBuilder, x: Tensor, function: str, *parameters: Any) -> Tensor:
    """The layer of a function of x; parameters are numbers, or flat arrays. Refuses those that it does not have."""
    arrays = tuple(np.broadcast_to(np.asarray(p, dtype=np.float64), (x.size,)) for p in parameters)
    if why := FUNCTIONS[function].refused(*arrays):
        raise Refusal(f"it is not supported where {why}")
    builder.single |= x.double and function in _SINGLE
    return builder.new(Activation, node.name, (x,), x.shape, function=function, parameters=arrays)


def activation(node: Node, builder: NetworkBuilder) -> Value:
    """An operator that is one function of one tensor, with numbers as attributes."""
    values = [float(node.attributes.get(name, usual)) for name, usual in _DEFAULTS.get(node.op, {}).items()]
    return activated(node, builder, node.tensor(0), _NAMES[node.op], *values)


def softplus(node: Node, builder: NetworkBuilder) -> Value:
    """A Softplus, or one that is its argument above a threshold (fusing.py)."""
    threshold = node.attributes.get(THRESHOLD)
    if threshold is None:
        return activation(node, builder)
    return activated(node, builder, node.tensor(0), "softplus_threshold", float(threshold))


def prelu(node: Node, builder: NetworkBuilder) -> Value:
    """Slopes that broadcast to the tensor: one, one a channel or one an element."""
    x, slope = node.tensor(0), node.numbers(1)
    try:
        slopes = np.broadcast_to(slope, x.shape)
    except ValueError:
        raise Refusal(f"its slope of shape {slope.shape} does not broadcast to the input of shape {x.shape}") from None
    return activated(node, builder, x, "leaky_relu", slopes.reshape(-1))


def gelu(node: Node, builder: NetworkBuilder) -> Value:
    """In its exact form, or by tanh."""
    form = node.attributes.get("approximate", b"none")
    word = form.decode(errors="replace") if isinstance(form, bytes) else str(form)
    if word not in ("none", "tanh"):
        raise Refusal(f"its approximate is {word!r}; ONNX knows none and tanh")
    return activated(node, builder, node.tensor(0), "gelu" if word == "none" else "gelu_tanh")


def clipped(node: Node, builder: NetworkBuilder, x: Tensor, low: Any, high: Any) -> Tensor:
    """x kept in [low, high], numbers or flat arrays; merged with a Clip that only this node reads."""
    layer = builder.layers[x.layer]
    if isinstance(layer, Activation) and layer.function == "clip" and x.exclusive:
        before = layer.parameters
        least, most = (np.clip(end, *(np.broadcast_to(e, (x.size,)) for e in (low, high))) for end in before)
        return builder.change(x, parameters=(least, most))
    return activated(node, builder, x, "clip", low, high)


def product(builder: NetworkBuilder, one: Tensor, other: Tensor) -> Tensor | None:
    """The product of two computed tensors where it is an activation of one of them; else None."""
    for x, factor in ((one, other), (other, one)):
        for read in (_gated, _gelu):
            if x.size == factor.size and x.shape == factor.shape and (found := read(builder, x, factor)) is not None:
                return found
    return None


def _gated(builder: NetworkBuilder, x: Tensor, factor: Tensor) -> Tensor | None:
    """x times its Sigmoid or its HardSigmoid."""
    layer = builder.layers[factor.layer]
    if not (isinstance(layer, Activation) and factor.exclusive and layer.inputs == (x.layer,)):
        return None
    if layer.function == "sigmoid":
        return builder.change(factor, function="silu")
    if (
        layer.function == "hard_sigmoid"
        and _all_near(layer.parameters[0], 1 / 6)
        and _all_near(layer.parameters[1], 0.5)
    ):
        builder.composed.append(layer.name)
        return builder.change(factor, function="hard_swish", parameters=())
    return None


def _gelu(builder: NetworkBuilder, x: Tensor, factor: Tensor) -> Tensor | None:
    """x times c (1 + Erf(x / sqrt 2)), which is 2 c times its Gelu: its layers are the last three."""
    count = len(builder.layers)
    if count < 4 or factor.layer != count - 1 or not factor.exclusive:
        return None
    scaled, erf, sum_ = builder.layers[-3:]
    if not (isinstance(scaled, Scale) and isinstance(erf, Activation) and isinstance(sum_, Scale)):
        return None
    alone = not builder.shared & {count - 3, count - 2}
    chained = alone and scaled.inputs == (x.layer,) and erf.inputs == (count - 3,) and sum_.inputs == (count - 2,)
    halved = (sum_.scale == sum_.shift).all() and not scaled.shift.any() and _all_near(scaled.scale, 1 / sqrt(2.0))
    if not (chained and halved and erf.function == "erf"):
        return None
    del builder.layers[-3:]
    builder.single |= x.double
    out = builder.new(Activation, erf.name, (x,), x.shape, function="gelu")
    factor_of = 2.0 * sum_.scale
    if (factor_of == 1.0).all():
        return out
    return builder.new(Scale, sum_.name, (out,), x.shape, scale=factor_of, shift=np.zeros(x.size))


def quotient(builder: NetworkBuilder, x: Tensor, divisor: Tensor) -> Tensor | None:
    """x divided by 1 + |x|, which is its Softsign, where the divisor's layers are the last two; else None."""
    count = len(builder.layers)
    if count < 3 or divisor.layer != count - 1 or not divisor.exclusive or x.shape != divisor.shape:
        return None
    size, sum_ = builder.layers[-2:]
    if not (isinstance(size, Activation) and size.function == "abs" and isinstance(sum_, Scale)):
        return None
    chained = size.inputs == (x.layer,) and sum_.inputs == (count - 2,) and count - 2 not in builder.shared
    if not chained or (sum_.scale != 1.0).any() or (sum_.shift != 1.0).any():
        return None
    del builder.layers[-2:]
    return builder.new(Activation, size.name, (x,), x.shape, function="softsign")


def undone(layers: list[Layer], scale: Any, shift: Any) -> bool:
    """Whether the last layer, a Scale behind a Gelu, comes to nothing with these numbers: the 2 and 1 / 2 above."""
    read = layers[layers[-1].inputs[0]]
    gelu_before = isinstance(read, Activation) and read.function == "gelu"
    return bool(gelu_before and (scale == 1.0).all() and not shift.any())


def _all_near(values: Any, number: float) -> bool:
    return bool((abs(values - number) <= _NEAR * abs(number)).all())
