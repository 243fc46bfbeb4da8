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
y, is clipped. Where y is all that enters the Relu, the ends of the range of z, seen from y, are ends of y itself, up
to `(r_scale / deviation) |end - mean| + r_offset`: ends of the rounding point at the Relu (`Separate.ends`). Where a
branch is added on the way, |a'| times what is cut off is added to the radius, sample by sample (`Saturation`). A
BatchNormalization that stands alone is the case W = 1, b = 0, and e = 0 where what it reads is rounded already. The
union with the folded family is the larger of both radii everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import RadiiError
from qverify.family.kernels import IntegerLayer, overflowing
from qverify.layers import BatchNorm, Conv, Dense, Relu
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.ranges import Range, Ranges
    from qverify.family.steps import Quantiser
    from qverify.network import Network

_REMEDY = (
    "write the model anew with it folded (in Python: qverify.save(qverify.load(MODEL), FILE)) and give that file to"
    " the toolchain too"
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Saturation(Brief):
    """A range that cuts off a branch of a sum on its way into a Relu: what exceeds it widens the activation radius.

    `source`: the layer whose output y is cut off, by name; `low`, `high` (size,) the ends in units of y; `gain`
    (size,) by how much the Relu's input moves where y is cut off by 1.
    """

    source: str
    low: Array
    high: Array
    gain: Array


@dataclass(eq=False, repr=False, kw_only=True)
class Separate(Brief):
    """Radii and clipping that toolchains add which keep a BatchNormalization apart; layers by name.

    `weight`, `bias`: radii around the folded numbers, like the layer's own; `before`: by Relu, what its input may be
    off by (size,); `ends`: by Relu, the two numbers (size,) between which its input is clipped at the narrowest;
    `saturations`: by Relu; `integers`: the layers before as such toolchains quantise them; `refused`: what integer
    kernels cannot do, in words.
    """

    weight: dict[str, Array] = field(default_factory=dict)
    bias: dict[str, Array] = field(default_factory=dict)
    before: dict[str, Array] = field(default_factory=dict)
    ends: dict[str, tuple[Array, Array]] = field(default_factory=dict)
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


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Scaling(Brief):
    """Factors of a BatchNormalization, a channel: `size` (c,) is |a| = |scale / deviation|, `error` (c,) its radius
    r_scale / deviation."""

    size: Array
    error: Array


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _RoundingBetween(Brief):
    """The rounding of z, on the way from the layer before into a BatchNormalization.

    `radius`: of z; `ends`: what z is clipped to; `gain` (c,): by how much y moves at most where z moves by 1; `drift`
    (c,): how far from the folded one an end may lie behind it.
    """

    radius: float
    ends: Range
    gain: Array
    drift: Array


def separate(network: Network, quantiser: Quantiser, norms: list[BatchNorm], ranges: Ranges) -> Separate:
    """The radii of toolchains that keep `norms` apart (mathematics.md, section 11)."""
    found = Separate()
    for norm in norms:
        _add_norm(found, network, quantiser, norm, ranges)
    return found


def _add_norm(found: Separate, network: Network, quantiser: Quantiser, norm: BatchNorm, ranges: Ranges) -> None:
    index = network.index(norm.layer)
    source = network.grid_of(network.layers[index].inputs[0])
    layer: Any = network.layers[index]
    z_range = ranges.before[norm.layer] if norm.before is not None else ranges.outputs[source]
    z_step = quantiser.activation_step(*z_range)
    rounded, r_offset = quantiser.weight_radii(np, np.full(len(norm.scale), abs(norm.scale).max()), norm.offset, z_step)
    error = np.where(norm.scale == 0, 0.0, rounded) / norm.deviation  # 0 stays 0
    scaling = _Scaling(size=abs(norm.scale / norm.deviation), error=error)
    found.refused += _unfit(norm, quantiser, z_step)
    if norm.before is None:
        found.weight[norm.layer] = np.broadcast_to(error.reshape(-1, 1, 1, 1), layer.weight.shape)
        found.bias[norm.layer] = error * abs(norm.mean) + r_offset
    else:
        read = ranges.outputs[source]
        own = integer_layer(norm.before, quantiser, quantiser.activation_step(*read), read)
        found.integers.append(own)
        weight, bias = _around_folded(norm, quantiser, own, scaling)
        found.weight[norm.layer], found.bias[norm.layer] = weight, bias + r_offset
    if norm.before is not None or not (isinstance(network.layers[source], Relu) or source in network.entries):
        lows, highs = quantiser.ends(*z_range)
        moved = [error * abs(end - norm.mean) + r_offset for end in (*lows, *highs)]
        between = _RoundingBetween(
            radius=quantiser.activation_radius(z_step),
            ends=(lows[1], highs[0]),  # of the narrowest range that it may be
            gain=scaling.size + scaling.error,
            drift=np.max(moved, axis=0),
        )
        _round_between(found, network, index, norm, between)


def _unfit(norm: BatchNorm, quantiser: Quantiser, z_step: float) -> list[str]:
    """Reasons why scale and offset, quantised per tensor like a weight and its bias, do not fit; empty if they do."""
    low, high = (np.full(len(norm.scale), end) for end in (min(0.0, norm.scale.min()), max(0.0, norm.scale.max())))
    own = IntegerLayer(
        name=norm.layer,
        bits=quantiser.widest,
        weight=norm.scale[:, None],
        bias=norm.offset,
        low=low,
        high=high,
        entry=z_step,
        offset=0.0,
    )
    if reason := own.never():
        return [reason]
    return [] if own.always else overflowing([own.name])


def integer_layer(layer: Dense | Conv, quantiser: Quantiser, entry: float, input_range: Range) -> IntegerLayer:
    """The integers of a layer under a scheme; the range of its weights is a channel's or the whole tensor's.

    `entry`: the step of its input, `input_range`: what that is clipped to.
    """
    flat = layer.weight.reshape(len(layer.weight), -1)
    low, high = np.minimum(flat.min(axis=1), 0.0), np.maximum(flat.max(axis=1), 0.0)
    if not quantiser.per_channel:
        low, high = np.full(len(low), low.min()), np.full(len(high), high.max())
    bias = layer.bias if layer.has_bias else np.zeros_like(layer.bias)
    return IntegerLayer(
        name=layer.name,
        bits=quantiser.widest,
        weight=layer.weight,
        bias=bias,
        low=low,
        high=high,
        entry=entry,
        offset=input_range[0],
    )


def _around_folded(norm: BatchNorm, quantiser: Quantiser, own: IntegerLayer, scaling: _Scaling) -> tuple[Array, Array]:
    """Radii of the folded weights and biases, formulas (26) and (27), the latter without r_offset."""
    layer = norm.before
    assert layer is not None
    radius, bias_radius = quantiser.weight_radii(np, own.top, own.bias, own.entry)
    bias_radius = bias_radius if layer.has_bias else np.zeros_like(bias_radius)
    shape = (-1, *[1] * (layer.weight.ndim - 1))
    a, r, rows = (values.reshape(shape) for values in (scaling.size, scaling.error, radius))
    weight = a * rows + r * (abs(layer.weight) + rows)
    bias = scaling.size * bias_radius + scaling.error * (abs(layer.bias) + abs(norm.mean) + bias_radius)
    return weight, bias


def _round_between(found: Separate, network: Network, index: int, norm: BatchNorm, between: _RoundingBetween) -> None:
    """Radius and clipping of the Relu behind layer `index`, formulas (28) and (29)."""
    layer = network.layers[index]
    behind = network.relu_behind(index)
    assert behind is not None  # `kept_apart`
    positions = layer.size // len(between.gain)
    a = norm.scale / norm.deviation
    ends = [a * (end - norm.mean) + norm.offset for end in between.ends]
    gain = np.where(a == 0, 0.0, between.gain / np.where(a == 0, 1.0, abs(a)))
    name = network.layers[behind].name
    found.before[name] = found.before.get(name, np.zeros(layer.size)) + np.repeat(
        between.gain * between.radius, positions
    )
    below, above = np.minimum(*ends), np.maximum(*ends)
    if network.consumers[index] == (behind,):
        found.ends[name] = (np.repeat(below + between.drift, positions), np.repeat(above - between.drift, positions))
        return
    low, high, gain = (np.repeat(array, positions) for array in (below, above, gain))
    cut = Saturation(source=norm.layer, low=low, high=high, gain=gain)
    found.saturations[name] = (*found.saturations.get(name, ()), cut)
