"""A BatchNormalization that a toolchain does not fold: its family as radii around the folded layer.

Derived in mathematics.md, section 11.

With a the folded factor `scale / deviation` of a channel, a toolchain that keeps the nodes apart computes

    z = W' x + b'          the layer before, its own weights and biases rounded
    z' = z + e             rounded to the range of z, and clipped to it
    y = (scale' / deviation) (z' - mean) + offset'

where scale' and offset' may be rounded too. Written around the folded weights a W and the folded bias, y differs by
at most

    a weight     |a| R_W + (r_scale / deviation) (|W| + R_W)
    a bias       |a| r_b + (r_scale / deviation) (|b| + |mean| + r_b) + r_offset
    an output    (|a| + r_scale / deviation) |e|

The first two are radii of the folded layer. The third is one a position, so it is no bias; behind a Relu, which
moves by no more than its input, it is part of that Relu's activation radius. What exceeds the range of z, seen from
y, is clipped and adds to it (`Saturation`): |a'| times what is cut off, or, behind a Relu that is 0 without the cut,
what the cut itself leaves, `(scale' / deviation) (end - mean) + offset'`, which lies above the end of the folded y by
`(r_scale / deviation) |end - mean| + r_offset` at most. A BatchNormalization that stands alone is the case W = 1,
b = 0, and e = 0 where what it reads is rounded already. The union with the folded family is the larger of both radii
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.errors import RadiiError
from qverify.family.kernels import IntegerLayer, overflowing
from qverify.family.steps import Quantiser
from qverify.layers import BatchNorm, Conv, Dense, Input, Relu
from qverify.network import Network
from qverify.text.brief import Brief

_REMEDY = (
    "write the model anew with it folded (in Python: qverify.save(qverify.load(MODEL), FILE)) and give that file to"
    " the toolchain too"
)
Range = tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Saturation(Brief):
    """A range that cuts off values on their way into a Relu: what exceeds it widens the activation radius.

    `source`: the layer whose output y is cut off, by name; `low`, `high` (size,) the ends in units of y; `gain`
    (size,) by how much the Relu's input moves where y is cut off by 1; `drift` (size,) how far above `low` the lower
    end of a member may lie. `straight`: y is the Relu's input, so that nothing below 0 matters.
    """

    source: str
    low: Array
    high: Array
    gain: Array
    drift: Array
    straight: bool


@dataclass(eq=False, repr=False)
class Separate(Brief):
    """What toolchains that do not fold add to the radii; layers by name.

    `weight`, `bias`: radii around the folded numbers, like the layer's own; `before`: by Relu, what its input may be
    off by (size,); `saturations`: by Relu; `integers`: the layers before as such toolchains quantise them; `refused`:
    what integer kernels cannot do, in words.
    """

    weight: dict[str, Array] = field(default_factory=dict)
    bias: dict[str, Array] = field(default_factory=dict)
    before: dict[str, Array] = field(default_factory=dict)
    saturations: dict[str, tuple[Saturation, ...]] = field(default_factory=dict)
    integers: list[IntegerLayer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def kept_apart(network: Network, quantiser: Quantiser) -> list[BatchNorm]:
    """The BatchNormalizations that a covered toolchain may keep apart. RadiiError for those that no radius covers."""
    alone = [norm for norm in network.batchnorms if norm.before is None]
    chosen = alone if quantiser.batchnorm == "folded" else list(network.batchnorms)
    names = [norm.layer for norm in network.batchnorms]
    for norm in chosen:
        if names.count(norm.layer) > 1:
            raise RadiiError(
                f"Layer {norm.layer!r} has {names.count(norm.layer)} BatchNormalizations behind it, which scheme"
                f" {quantiser.scheme} covers only folded: {_REMEDY}, or say --batchnorm folded."
            )
        if network.relu_behind(network.index(norm.layer)) is None:
            instead = "" if norm.before is None else ", say --batchnorm folded if it folds,"
            how = _REMEDY if norm.before is not None else "fold it into the layer that reads it"
            raise RadiiError(
                f"No Relu alone follows BatchNormalization {norm.name!r}, so a toolchain that keeps it apart rounds"
                f" where scheme {quantiser.scheme} has no radius: {how}{instead} or use --scheme paper or --radii."
            )
    return chosen


def separate(
    network: Network, quantiser: Quantiser, norms: list[BatchNorm], ranges: tuple[list[Range], dict[str, Range]]
) -> Separate:
    """The radii of toolchains that keep `norms` apart.

    `ranges`: of the output of each layer, and of the layers before the `norms`, by name.
    """
    found = Separate()
    for norm in norms:
        _add(found, network, quantiser, norm, ranges)
    return found


def _add(
    found: Separate,
    network: Network,
    quantiser: Quantiser,
    norm: BatchNorm,
    ranges: tuple[list[Range], dict[str, Range]],
) -> None:
    index = network.index(norm.layer)
    (source,) = network.layers[index].inputs
    layer: Any = network.layers[index]
    z_range = ranges[1][norm.layer] if norm.before is not None else ranges[0][source]
    z_step = quantiser.activation_step(*z_range)
    rounded, r_offset = quantiser.weight_radii(np, np.full(len(norm.scale), abs(norm.scale).max()), norm.offset, z_step)
    ratio = np.where(norm.scale == 0, 0.0, rounded) / norm.deviation  # 0 stays 0
    factor = abs(norm.scale / norm.deviation)
    found.refused += _unfit(norm, quantiser, z_step)
    if norm.before is None:
        found.weight[norm.layer] = np.broadcast_to(ratio.reshape(-1, 1, 1, 1), layer.weight.shape)
        found.bias[norm.layer] = ratio * abs(norm.mean) + r_offset
    else:
        own = integer_layer(norm.before, quantiser, quantiser.activation_step(*ranges[0][source]), ranges[0][source])
        found.integers.append(own)
        weight, bias = _around_folded(norm, quantiser, own, (factor, ratio))
        found.weight[norm.layer], found.bias[norm.layer] = weight, bias + r_offset
    if norm.before is not None or not isinstance(network.layers[source], (Relu, Input)):
        ends = quantiser.activation_range(*z_range)
        moved = [ratio * abs(end - norm.mean) + r_offset for end in ends]
        rounding = factor + ratio, quantiser.activation_radius(z_step), ends, np.maximum(*moved)
        _round_between(found, network, index, norm, rounding)


def _unfit(norm: BatchNorm, quantiser: Quantiser, z_step: float) -> list[str]:
    """Why scale and offset, quantised per tensor like a weight and its bias, do not fit; empty if they do."""
    low, high = (np.full(len(norm.scale), end) for end in (min(0.0, norm.scale.min()), max(0.0, norm.scale.max())))
    own = IntegerLayer(norm.layer, quantiser.bits, norm.scale[:, None], norm.offset, low, high, z_step, 0.0)
    if reason := own.never():
        return [reason]
    return [] if own.always else overflowing([own.name])


def integer_layer(layer: Dense | Conv, quantiser: Quantiser, entry: float, input_range: Range) -> IntegerLayer:
    """A layer as the quantiser of a scheme has it, its weights' range a channel or the whole tensor's."""
    flat = layer.weight.reshape(len(layer.weight), -1)
    low, high = np.minimum(flat.min(axis=1), 0.0), np.maximum(flat.max(axis=1), 0.0)
    if quantiser.scheme == "tensor":
        low, high = np.full(len(low), low.min()), np.full(len(high), high.max())
    bias = layer.bias if layer.has_bias else np.zeros_like(layer.bias)
    return IntegerLayer(layer.name, quantiser.bits, layer.weight, bias, low, high, entry, input_range[0])


def _around_folded(
    norm: BatchNorm, quantiser: Quantiser, own: IntegerLayer, factors: tuple[Array, Array]
) -> tuple[Array, Array]:
    """The first two lines of the module docstring; `factors`: |a| and r_scale / deviation."""
    layer, (factor, ratio) = norm.before, factors
    assert layer is not None
    radius, bias_radius = quantiser.weight_radii(np, own.top, own.bias, own.entry)
    bias_radius = bias_radius if layer.has_bias else np.zeros_like(bias_radius)
    shape = (-1, *[1] * (layer.weight.ndim - 1))
    a, r, rows = (values.reshape(shape) for values in (factor, ratio, radius))
    weight = a * rows + r * (abs(layer.weight) + rows)
    return weight, factor * bias_radius + ratio * (abs(layer.bias) + abs(norm.mean) + bias_radius)


def _round_between(
    found: Separate, network: Network, index: int, norm: BatchNorm, rounding: tuple[Array, float, Range, Array]
) -> None:
    """The third line; `rounding`: its factor, the radius of z, the range of z, and how far its ends move behind it."""
    (factor, radius, z_range, drift), layer = rounding, network.layers[index]
    behind = network.relu_behind(index)
    assert behind is not None  # `kept_apart`
    positions = layer.size // len(factor)
    a = norm.scale / norm.deviation
    ends = [a * (end - norm.mean) + norm.offset for end in z_range]
    gain = np.where(a == 0, 0.0, factor / np.where(a == 0, 1.0, abs(a)))
    name = network.layers[behind].name
    found.before[name] = found.before.get(name, np.zeros(layer.size)) + np.repeat(factor * radius, positions)
    below, above = np.minimum(*ends), np.maximum(*ends)
    low, high, gain, drift = (np.repeat(array, positions) for array in (below, above, gain, drift))
    cut = Saturation(norm.layer, low, high, gain, drift, network.consumers[index] == (behind,))
    found.saturations[name] = (*found.saturations.get(name, ()), cut)
