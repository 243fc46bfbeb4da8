"""Where the rounding points of a family stand: the trained network with a `Rounding` layer at each.

A point named after a Relu takes its place, its range beginning at 0: the two are one clip. A point of any other layer
stands behind it; one of the input is no layer, but part of the input's box. A `Rounding` that the network has already,
because it was read from a quantised file, is where it is, and a point of its name says how far its runtimes err.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qverify.errors import RadiiError
from qverify.family.points import Point
from qverify.layers import Layer, Relu, Rounding
from qverify.text.brief import Brief
from qverify.text.escapes import shown
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.network import Network

BEHIND = "/rounded"
"""What is appended to the name of a layer to name the rounding point behind it."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Placed(Brief):
    """The network with its rounding points as layers; `points[i]`, resolved, of layer i; `entry` that of the input.

    `where[k]`: the index in `network` of what was layer k before.
    """

    network: Network
    points: Mapping[int, Point]
    entry: Point | None
    where: tuple[int, ...]


def placed(network: Network, points: Mapping[str, Point]) -> Placed:
    """Put rounding points into a network, by the names of its layers. Raises RadiiError for names that do not exist."""
    names = [layer.name for layer in network.layers]
    if unknown := sorted(set(points) - set(names)):
        raise RadiiError(
            f"The network has no layer {shown(unknown[0])} to put a rounding point at; its layers are {listed(names)}."
        )
    layers: list[Layer] = []
    found: dict[int, Point] = {}
    where: list[int] = []
    outputs: list[int] = []  # where the output of each old layer is read
    for layer in network.layers:
        inputs = tuple(outputs[i] for i in layer.inputs)
        point = points.get(layer.name)
        if isinstance(layer, Rounding):
            found[len(layers)] = _of_file(layer, point)
        elif point is not None and isinstance(layer, Relu):
            resolved = point.behind_relu().resolved(layer.shape, layer.name)
            found[len(layers)] = resolved
            layer = resolved.layer(layer.name, inputs[0], layer.shape)
        layer = layer if layer.inputs == inputs else replace(layer, inputs=inputs)
        where.append(len(layers))
        layers.append(layer)
        if point is not None and layer.inputs and not isinstance(layer, Rounding):
            resolved = point.resolved(layer.shape, layer.name)
            found[len(layers)] = resolved
            layers.append(resolved.layer(_fresh(layer.name, names), len(layers) - 1, layer.shape))
        outputs.append(len(layers) - 1)
    entry = points.get(names[0])
    return Placed(
        network=network if not found else replace(network, layers=tuple(layers)),
        points=found,
        entry=None if entry is None else entry.resolved(network.input_shape, names[0]),
        where=tuple(where),
    )


def _fresh(name: str, names: list[str]) -> str:
    """The name of the point behind a layer."""
    name += BEHIND
    while name in names:
        name += "_"
    return name


def _of_file(layer: Rounding, stated: Point | None) -> Point:
    """The point of a layer of a quantised file: its grid and ends, and an error that is stated, half a step at least,
    since rounding takes that; whether 0 stays 0 is stated, too."""
    if layer.offset is not None:
        raise RadiiError("The network is a member of a quantised family already; state radii for the file it is of.")
    if (layer.step <= 0).any():
        raise RadiiError(f"The rounding point {layer.name!r} has no step; read the quantised file that it is of again.")
    radius, dead, summed = layer.step / 2, np.zeros(layer.size), None
    if stated is not None:
        resolved = replace(stated, step=0.0).resolved(layer.shape, layer.name)
        radius, dead, summed = resolved.radius, np.minimum(resolved.dead, 0.0), resolved.summed
        if summed is not None:
            summed = replace(summed, absolute=np.maximum(summed.absolute, layer.step / 2))
    return Point(
        radius=np.maximum(radius, layer.step / 2),
        low=(layer.low, layer.low),
        high=(layer.high, layer.high),
        dead=dead,
        step=layer.step,
        summed=summed,
    )
