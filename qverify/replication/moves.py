"""How far the runtimes of an integer file may move the value of a rounding point, under a rule of `family/rules.py`.

What a multiplier of finite precision adds is relative to the value itself, so where an integer kernel multiplies a sum
once, a value v moves by `absolute + relative |v|` at most. Elsewhere the whole radius of the rule is absolute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelError
from qverify.family.rules import file_points
from qverify.layers import Conv, Dense
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.points import Point
    from qverify.network import Network

_RELATIVE = {"nearest": 2.0**-50, "float32": 2.0**-22, "single": 2.0**-22, "double": 2.0**-22}
"""The relative part of rules, as the table in `family/rules.py` has it; samples are always divided in float32."""


@dataclass(frozen=True, eq=False, repr=False)
class Move(Brief):
    """How far a rounding point may move its value v: by `absolute + relative |v|`; (size,), in units of v."""

    absolute: Array
    relative: float = 0.0


def moves(network: Network, rule: str) -> dict[int, Move]:
    """By the index of every rounding point of a file how far runtimes under a rule move its value at most.

    Raises ModelError for a network that is none of a quantised file.
    """
    if not network.roundings:
        raise ModelError(f"{network.source} is not quantised; give the integer file that was made of the network.")
    for index in network.roundings:
        layer: Any = network.layers[index]
        if layer.offset is not None or layer.dead.any() or (layer.step <= 0).any():
            raise ModelError(
                f"{network.source}: the rounding point {layer.name!r} is none of a file; give the file itself."
            )
    points = file_points(network, rule)
    return {i: _move(network, i, points[network.layers[i].name], rule) for i in network.roundings}


def _move(network: Network, index: int, point: Point, rule: str) -> Move:
    layer: Any = network.layers[index]
    radius = np.ravel(point.radius)
    read = network.layers[layer.inputs[0]]
    sample = layer.inputs[0] in network.entries
    relative = _RELATIVE["float32"] if sample and rule in _RELATIVE else _RELATIVE.get(rule, 0.0)
    once = sample or (layer.kernel and isinstance(read, (Dense, Conv)) and read.grid is not None)
    if not (relative and once):
        return Move(radius)
    largest = np.maximum(-layer.low, layer.high) + layer.step  # beyond the range everything is clipped
    return Move(np.maximum(radius - largest * relative, 0.5 * layer.step) + 2.0**-50 * layer.step, relative)
