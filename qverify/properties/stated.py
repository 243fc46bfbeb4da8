"""A property made part of the network: margins that are positive where it holds (mathematics.md, section 19).

Behind the network come the comparisons `g = a . y - b` of all clauses, in exact constants; a MaxPool takes the largest
of each clause, which is at most 0 where all of it is met; and a last layer gives 0 for class 0 and minus that for a
class a clause. So the margins of label 0 are the clauses' largest `g`, and all that decides margins decides properties.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from qverify.errors import UsageError
from qverify.layers import Dense, Layer, MaxPool
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.properties.cases import Clause


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Stated(Brief):
    """The network with a property behind it.

    `own`: the radii (m, n_out) and (m,) of the layer called `layer`, which hold what was rounded in making its numbers
    of rationals; None if nothing was.
    """

    network: Network
    layer: str
    own: tuple[Array, Array] | None

    def radii(self, radii: Radii, entry: Array) -> Radii:
        """The radii of the network with the property: `radii`, with `entry` (n_in,) for the input."""
        layers = dict(radii.layers)
        if self.own is not None:
            layers[self.layer] = {"weight": self.own[0], "bias": self.own[1]}
        return replace(radii, layers=layers, input=entry.reshape(self.network.input_shape))

    def outputs(self, member: Network, x: Array) -> Array:
        """What a member of the family gives (n_out,) at an input x (n_in,) before the property."""
        (before,) = member.layers[member.index(self.layer)].inputs
        outputs: Array = member.evaluate_all(x[None])[before][0]
        return outputs


def stated(network: Network, clauses: tuple[Clause, ...], deeper: float = 0.0) -> Stated:
    """The network with a property behind it, violated where all of some clause is met, each by `deeper`.

    Every clause has a comparison. Comparisons that are strict are taken as if they were not: what is proved holds all
    the more. Each is multiplied by a positive number, which changes no sign.
    """
    most = max(map(len, clauses))
    every = [one for clause in clauses for one in (*clause, *[clause[-1]] * (most - len(clause)))]
    rows = [_row({v.place: c for v, c in one.terms.items()}, one.limit, network.output_size) for one in every]
    weight, bias = np.array([row.weight for row in rows]), np.array([row.bias for row in rows]) + deeper
    off = np.array([row.off for row in rows]), np.array([row.bias_off for row in rows])
    inexact = bool(off[0].any() or off[1].any())
    taken, layers = {layer.name for layer in network.layers}, list(network.layers)
    names = [free_name(name, taken) for name in ("comparisons", "clauses", "margins")]

    def dense(name: str, matrix: Array, shift: Array, quantised: bool) -> Dense:
        return Dense(name, (len(layers) - 1,), (len(shift),), weight=matrix, bias=shift, quantised=quantised)

    count = len(clauses)
    if most == 1 and not inexact:
        nothing = np.zeros((1, network.output_size))
        layers.append(dense(names[0], np.vstack([nothing, -weight]), np.concatenate([[0.0], -bias]), False))
    else:
        layers.append(dense(names[0], weight, bias, inexact))
        if most > 1:
            layers.append(_largest(names[1], len(layers) - 1, count, most))
        layers.append(dense(names[2], np.vstack([np.zeros((1, count)), -np.eye(count)]), np.zeros(1 + count), False))
    made: tuple[Layer, ...] = tuple(layers)
    return Stated(network=replace(network, layers=made), layer=names[0], own=off if inexact else None)


def _largest(name: str, source: int, count: int, most: int) -> MaxPool:
    return MaxPool(name, (source,), (count, 1, 1), in_shape=(count, 1, most), kernel=(1, most))


def free_name(name: str, taken: set[str]) -> str:
    """A name that is not taken yet, like `name`; takes it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Row(Brief):
    """`g = weight . y + bias`, each number off by at most that of `off`, `bias_off`."""

    weight: Array
    bias: float
    off: Array
    bias_off: float


def _row(terms: dict[int, Fraction], limit: Fraction, outputs: int) -> _Row:
    """A comparison `terms . y <= limit` times a positive number that makes its numbers floats, if one does: whole
    numbers of 53 bits, and then a power of 2 that brings the largest to about 1."""
    numbers = [*terms.values(), -limit]
    unit = lcm(*(number.denominator for number in numbers))
    size = max(abs(number) for number in terms.values()) * unit
    unit_of_two = Fraction(unit) / Fraction(2) ** (int(size).bit_length() - 1)
    exact = [number * unit_of_two for number in numbers]
    try:
        floats = [float(number) for number in exact]
    except OverflowError:
        raise UsageError(
            "A comparison of outputs has a limit too large for its factors; leave it out, or write it with others."
        ) from None
    lost = [_above(abs(Fraction(near) - number)) for near, number in zip(floats, exact, strict=True)]
    weight, off = np.zeros(outputs), np.zeros(outputs)
    for place, index in enumerate(terms):
        weight[index], off[index] = floats[place], lost[place]
    return _Row(weight=weight, bias=floats[-1], off=off, bias_off=lost[-1])


def _above(number: Fraction) -> float:
    """A float at or above a number >= 0; 0 for 0."""
    near = float(number)
    return near if Fraction(near) >= number else float(np.nextafter(near, np.inf))
