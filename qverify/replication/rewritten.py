"""Networks rewritten so that a float network and its file have the same layers (matching.py): the same functions.

Models that have x Sigmoid(x) and x HardSigmoid(x) as two nodes are read as one activation, and a file rounds between
them. A Clip before a rounding point whose range lies within it is left out by toolchains.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.family.activation_points import clips
from qverify.layers import Layer, Product, Rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.network import Network

_SIXTH = float(np.float32(1.0 / 6.0))
"""The slope of a HardSigmoid that models have where it is part of a HardSwish."""


def factored(network: Network) -> Network:
    """The network with every SiLU, and every HardSwish of two nodes, as a product; itself where it has none."""
    composed = network.composed or ()
    layers: list[Layer] = []
    place: dict[int, int] = {}
    for index, layer in enumerate(network.layers):
        moved: Any = replace(layer, inputs=tuple(place[i] for i in layer.inputs))
        hard = isinstance(layer, Activation) and layer.function == "hard_swish" and layer.name in composed
        if hard or (isinstance(layer, Activation) and layer.function == "silu"):
            numbers = (np.full(layer.size, _SIXTH), np.full(layer.size, 0.5)) if hard else ()
            name = "hard_sigmoid" if hard else "sigmoid"
            fields: dict[str, Any] = {"function": name, "parameters": numbers}
            layers.append(Activation(f"{layer.name}/factor", moved.inputs, layer.shape, **fields))
            moved = Product(layer.name, (moved.inputs[0], len(layers) - 1), layer.shape)
        layers.append(moved)
        place[index] = len(layers) - 1
    if len(layers) == len(network.layers):
        return network
    return replace(network, layers=tuple(layers), composed=None)


def with_clips(trained: Network, file: Network, stands: Sequence[int]) -> tuple[Network, tuple[int, ...]]:
    """The file with a Clip of the float network before every rounding point that took one up, and what its layers stand
    for then; `stands`: what they stand for so far.

    A point within the Clip's range and half a step gives, of what lies beyond, an end, which is as near to the clipped
    value as any error brings it: what the file may give is among what this may.
    """
    layers: list[Layer] = []
    place: dict[int, int] = {}
    found: list[int] = []
    for index, layer in enumerate(file.layers):
        sources = tuple(place[i] for i in layer.inputs)
        partner = trained.layers[stands[index]]
        if isinstance(layer, Rounding) and clips(partner) and stands[layer.inputs[0]] != stands[index]:
            layers.append(replace(partner, name=f"{layer.name}/{partner.name}", inputs=sources, shape=layer.shape))
            found.append(stands[index])
            sources = (len(layers) - 1,)
        layers.append(replace(layer, inputs=sources))
        found.append(stands[index])
        place[index] = len(layers) - 1
    if len(layers) == len(file.layers):
        return file, tuple(stands)
    return replace(file, layers=tuple(layers)), tuple(found)


def takes_up(point: Rounding, clip: Any) -> bool:
    """Whether a point gives nothing beyond a Clip by more than half a step, and the Clip keeps 0."""
    if not clips(clip) or clip.size != point.size:
        return False
    low, high = clip.parameters
    if (low > 0).any() or (high < 0).any():
        return False
    room = 0.5 * point.step
    return bool((point.low >= low - room).all() and (point.high <= high + room).all())
