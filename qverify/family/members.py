"""Members of a quantised family: concrete networks, made at a chosen place and checked in exact arithmetic.

`realise` builds a member (a plain `Network` and an input), `Recipe` is what it takes to build one again,
`membership` says whether any network at all is a member (mathematics.md, sections 1 and 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qverify.activations.layer import Activation
from qverify.errors import InternalError
from qverify.fingerprint import encoding
from qverify.forward_pass import forward
from qverify.layers import Conv, Dense, Input, Layer, Relu, Rounding
from qverify.network import Network, margins
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.family import Family


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Witness(Brief):
    """A concrete member of the family and an input of it: evidence, not opinion.

    `network` is a plain network (its Relus and rounding points carry their errors), `input` (n_in,) a quantised
    input, `margin` what `network.evaluate(input)` gives for `label` against `rival`.
    """

    network: Network
    input: Array
    label: int
    rival: int
    margin: float


class Choice(Protocol):
    """The place of a member in the family; `realise` asks layer by layer, in order."""

    def weights(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        """Weight and bias of layer `index`, whose input in this very member is `x` (n,)."""
        ...

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        """Error (size,) of the Relu or rounding point `index`, which is added to `value`."""
        ...


def realise(family: Family, x: Array, x_hat: Array, label: int, choice: Choice) -> Witness:
    """The member at `choice`, pushed into the family by rounding inwards, with its margin by a plain forward pass.

    `x` (n_in,) is the sample, `x_hat` the wanted quantised input. Guarantee: the result passes
    `membership`, and `margin` is what its own `evaluate` returns. Raises InternalError otherwise.
    """
    low, high = family.inner_box(x[None])
    point = family.on_grid(np.clip(x_hat, low[0], high[0]))
    layers: list[Layer] = []
    values: list[Array] = []
    for i, layer in enumerate(family.network.layers):
        if isinstance(layer, Input):
            layers.append(layer)
            values.append(point)
            continue
        inputs = [values[j] for j in layer.inputs]
        if i in family.weight and isinstance(layer, (Dense, Conv)):
            weight, bias = choice.weights(i, layer, inputs[0], (family.weight[i], family.bias[i]))
            box_w, box_b = family.inner_weights[i]
            layer = replace(layer, weight=np.clip(weight, *box_w), bias=np.clip(bias, *box_b))
        elif isinstance(layer, (Relu, Activation, Rounding)):
            radius = family.freedom(i)
            value = inputs[0] if isinstance(layer, Rounding) else forward(layer, [inputs[0][None]])[0]
            layer = replace(layer, offset=np.clip(choice.offset(i, value, radius), -radius, radius))
        layers.append(layer)
        values.append(forward(layer, [v[None] for v in inputs])[0])
    member = Network(tuple(layers), source=f"member of the family of {family.network.source}")
    output = member.evaluate(point[None])
    if not np.isfinite(output).all():
        raise InternalError("A member of the family evaluates to NaN or infinity; its numbers overflow float64.")
    rival = int(np.argmax(np.where(np.arange(output.shape[1]) == label, -np.inf, output[0])))
    return Witness(
        network=member, input=point, label=label, rival=rival, margin=float(margins(output, np.array([label]))[0])
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PositionChoice(Brief):
    """A member given by positions in [-1, 1]; mathematics.md, formula (1), read backwards."""

    neuron: dict[int, Array]
    kernel: dict[int, Array]
    bias: dict[int, Array]
    offsets: dict[int, Array]

    def weights(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        if index in self.neuron:
            t = self.neuron[index]
            weight = t[:, None] * radius[0]
            weight *= np.where(x < 0, -1.0, 1.0)
            weight += layer.weight
            return weight, layer.bias + t * radius[1]
        return layer.weight + self.kernel[index] * radius[0], layer.bias + self.bias[index] * radius[1]

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        return self.offsets[index] * radius


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Recipe(Brief):
    """The place of a member and its input: a few numbers a neuron, where the member itself has one a weight.

    `x`, `x_hat` (n_in,): the sample and its quantised input.
    """

    family: Family
    x: Array
    x_hat: Array
    label: int
    choice: Choice

    def witness(self) -> Witness:
        """The member and its input, the same every time. Raises InternalError as `realise` does."""
        return realise(self.family, self.x, self.x_hat, self.label, self.choice)


def _exceeds(value: Array, centre: Array, radius: Array) -> Array:
    """Elementwise, in exact arithmetic: |value - centre| > radius? (Knuth's two-sum gives the rounding error.)"""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = value - centre
        back = difference - value
        error = (value - (difference - back)) + (-centre - back)
    sign = np.where(difference < 0, -1.0, 1.0)
    absolute, rest = difference * sign, error * sign
    result: Array = ~((absolute < radius) | ((absolute == radius) & (rest <= 0)))  # NaN exceeds every radius
    return result


def membership(family: Family, member: Network, x: Array, x_hat: Array) -> list[str]:
    """The reasons why (member, x_hat) is not in the quantised family at sample `x` (n_in,); empty if it is.

    Exact: the comparisons are decided in exact arithmetic, without a tolerance, but that of an input behind a
    rounding point, which may be off by a rounding. Where the scheme clips, pass the family `with_activation` of the
    sample.
    """
    problems = []
    base = family.network.layers
    if len(member.layers) != len(base) or any(type(a) is not type(b) for a, b in zip(base, member.layers, strict=True)):
        return ["the layers differ in number or kind"]
    if family.entry is None:
        outside = _exceeds(x_hat, x, family.input).any()
    else:  # what a rounding point gives is no interval around x
        low, high = family.box(x[None])
        outside = ((x_hat < low[0]) | (x_hat > high[0])).any()
    if outside:
        problems.append("the input leaves its radius")
    if family.clip is not None and ((x_hat < family.clip[0]) | (x_hat > family.clip[1])).any():
        problems.append("the input leaves the range it is clipped to")
    for i, (ours, theirs) in enumerate(zip(base, member.layers, strict=True)):
        if ours.inputs != theirs.inputs or ours.size != theirs.size:
            problems.append(f"layer {ours.name!r} is wired differently")
        elif isinstance(ours, (Dense, Conv)) and isinstance(theirs, (Dense, Conv)):
            problems += _weight_problems(family, i, ours, theirs)
        elif isinstance(ours, Rounding) and encoding(ours, ("name", "offset")) != encoding(theirs, ("name", "offset")):
            problems.append(f"the rounding point {ours.name!r} has another grid")
        elif isinstance(ours, Activation) and encoding(ours, ("name", "offset")) != encoding(
            theirs, ("name", "offset")
        ):
            problems.append(f"the activation {ours.name!r} is another function")
        elif isinstance(theirs, (Relu, Activation, Rounding)):
            offset = np.zeros(theirs.size) if theirs.offset is None else theirs.offset
            if (np.abs(offset) > family.freedom(i)).any():
                problems.append(f"an activation of {ours.name!r} is off by more than its radius")
        elif encoding(ours, ("name",)) != encoding(theirs, ("name",)):
            problems.append(f"the constants of {ours.name!r} differ")
    return problems


def _weight_problems(family: Family, index: int, ours: Any, theirs: Any) -> list[str]:
    problems = []
    rest = ("name", "weight", "bias")
    if encoding(ours, rest) != encoding(theirs, rest) or ours.weight.shape != theirs.weight.shape:
        return [f"layer {ours.name!r} has another geometry"]
    zero = np.zeros(1)
    if _exceeds(theirs.weight, ours.weight, family.weight.get(index, zero)).any():
        problems.append(f"a weight of {ours.name!r} leaves its radius")
    if _exceeds(theirs.bias, ours.bias, family.bias.get(index, zero)).any():
        problems.append(f"a bias of {ours.name!r} leaves its radius")
    return problems
