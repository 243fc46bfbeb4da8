"""Networks, and differences of two matched networks, as systems of nodes.

`runtimes_of` is an integer file at given inputs: its rounding points within their moves, everything else fixed.
`difference_of` holds the float network, and node by node by how much the file's value is above the float one: for an
affine layer

    d_z = W' d_x + (W' - W) x + (b' - b)                                                                       (38)

so that what both networks share cancels, whatever the input (mathematics.md, section 17). The difference of two maxima
lies between the least and the largest difference under the window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.affine import Affine
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.replication.differences import Deviation
from qverify.replication.functions import FunctionDifference, FunctionValue
from qverify.replication.maps import Map, Picked
from qverify.replication.products import Bilinear
from qverify.replication.relaxation import Lines, Staircase
from qverify.replication.system import Box, Kink, Largest, Leaf, Linear, Node, System
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.replication.moves import Move


def tensor(array: Any) -> Tensor:
    """float64, on the CPU."""
    return torch.tensor(array, dtype=torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class _Value(Brief):
    """The kink of one network's own values."""

    stairs: Staircase

    def lines(self, box: Box, seen: Sequence[Box]) -> Lines:
        del seen
        return self.stairs.within(*box).lines(*box)

    def ends(self, box: Box, seen: Sequence[Box]) -> Box:
        del seen
        stairs = self.stairs.within(*box)
        return stairs.least(box[0]), stairs.most(box[1])


@dataclass(frozen=True, eq=False, repr=False)
class _Difference(Brief):
    """The kink of differences; it sees the value of the first network before it."""

    deviation: Deviation

    def lines(self, box: Box, seen: Sequence[Box]) -> Lines:
        return self._within(box, seen[0]).lines(*box, seen[0])

    def ends(self, box: Box, seen: Sequence[Box]) -> Box:
        return self._within(box, seen[0]).ends(*box, seen[0])

    def _within(self, box: Box, v: Box) -> Deviation:
        stairs = self.deviation.stairs.within(v[0] + box[0], v[1] + box[1])
        return replace(self.deviation, stairs=stairs)


def affine_of(layer: Dense | Conv, weight: Array) -> Affine:
    """The linear map of a layer with another kernel of its shape."""
    kernel = tensor(weight)
    bias = torch.zeros(len(kernel), dtype=torch.float64)
    none = torch.zeros((), dtype=torch.float64).expand(kernel.shape)
    return Affine(layer=layer, weight=kernel, radius=none, bias=bias, bias_radius=bias)


def _spread(layer: Dense | Conv, bias: Array) -> Tensor:
    return tensor(bias).repeat_interleave(layer.positions) if isinstance(layer, Conv) else tensor(bias)


def _nodes(network: Network, moves: Mapping[int, Move]) -> list[Node]:
    """A node a layer, of the same index."""
    return [_node(network, layer, moves.get(index)) for index, layer in enumerate(network.layers)]


def _picked(layer: Gather, network: Network, sources: Sequence[int]) -> tuple[tuple[int, Map], ...]:
    """A Gather as maps of the nodes `sources`, which stand for its producers."""
    read = layer.read_of([network.layers[i].size for i in layer.inputs])
    maps = [
        Map(picked=Picked(torch.tensor(each), network.layers[i].size))
        for i, each in zip(layer.inputs, read, strict=True)
    ]
    return tuple(zip(sources, maps, strict=True))


def _node(network: Network, layer: Layer, move: Move | None) -> Node:
    name, size = layer.name, layer.size
    if isinstance(layer, Input):
        return Leaf(name, size)
    if isinstance(layer, (Dense, Conv)):
        part = layer.inputs[0], Map(affine_of(layer, layer.weight))
        return Linear(name, size, (part,), _spread(layer, layer.bias))
    if isinstance(layer, Scale):
        return Linear(name, size, ((layer.inputs[0], Map(scale=tensor(layer.scale))),), tensor(layer.shift))
    if isinstance(layer, Add):
        return Linear(name, size, tuple((source, Map()) for source in layer.inputs), tensor([0.0] * size))
    if isinstance(layer, Gather):
        return Linear(name, size, _picked(layer, network, layer.inputs), tensor(layer.fill))
    if isinstance(layer, MaxPool):
        return Largest(name, size, layer.inputs[0], torch.tensor(layer.windows))
    if isinstance(layer, Product):
        return Bilinear(name, size, _two(layer.inputs))
    if isinstance(layer, Activation):
        return Kink(name, size, layer.inputs[0], FunctionValue(layer.curve))
    return Kink(name, size, layer.inputs[0], _Value(_stairs(layer, move)))


def _two(sources: Sequence[int]) -> tuple[int, int]:
    one, other = sources
    return one, other


def _stairs(layer: Layer, move: Move | None) -> Staircase:
    if isinstance(layer, Rounding):
        return Staircase.of(layer, move)
    assert isinstance(layer, Relu)
    return Staircase.relu(layer.size)


def runtimes_of(network: Network, moves: Mapping[int, Move]) -> System:
    """The values of a network whose rounding points move theirs by at most `moves`; the leaf is its input."""
    nodes = _nodes(network, moves)
    return System(tuple(nodes), (len(nodes) - 1,))


def difference_of(trained: Network, file: Network, matched: Sequence[int], moves: Mapping[int, Move]) -> System:
    """The values of the float network, then layer by layer of the file its value less that of layer `matched[i]`.

    The leaves: the input of the first, and the difference of the inputs, 0.
    """
    first = len(trained.layers)
    nodes = _nodes(trained, {})
    for index, layer in enumerate(file.layers):
        sources = tuple(first + source for source in layer.inputs)
        name, size, partner = f"{layer.name} (difference)", layer.size, trained.layers[matched[index]]
        if isinstance(layer, Input):
            nodes.append(Leaf(name, size))
        elif isinstance(layer, (Dense, Conv)):
            assert isinstance(partner, (Dense, Conv))
            parts = (
                (sources[0], Map(affine_of(layer, layer.weight))),
                (partner.inputs[0], Map(affine_of(layer, layer.weight - partner.weight))),
            )
            nodes.append(Linear(name, size, parts, _spread(layer, layer.bias - partner.bias)))
        elif isinstance(layer, Scale):
            assert isinstance(partner, Scale)
            parts = (
                (sources[0], Map(scale=tensor(layer.scale))),
                (partner.inputs[0], Map(scale=tensor(layer.scale - partner.scale))),
            )
            nodes.append(Linear(name, size, parts, tensor(layer.shift - partner.shift)))
        elif isinstance(layer, Add):
            nodes.append(Linear(name, size, tuple((source, Map()) for source in sources), tensor([0.0] * size)))
        elif isinstance(layer, Gather):  # its constants are those of its partner
            nodes.append(Linear(name, size, _picked(layer, file, sources), tensor([0.0] * size)))
        elif isinstance(layer, MaxPool):
            nodes.append(Largest(name, size, sources[0], torch.tensor(layer.windows), difference=True))
        elif isinstance(layer, Product):
            nodes.append(Bilinear(name, size, _two(sources), tuple(matched[source] for source in layer.inputs)))
        elif isinstance(layer, Activation):
            kink = FunctionDifference(layer.curve)
            nodes.append(Kink(name, size, sources[0], kink, (matched[layer.inputs[0]],)))
        else:
            before = matched[layer.inputs[0]]
            relu = matched[index] != before
            deviation = Deviation(stairs=_stairs(layer, moves.get(index)), behind_relu=relu)
            nodes.append(Kink(name, size, sources[0], _Difference(deviation), (before,)))
    return System(tuple(nodes), (len(nodes) - 1,))
