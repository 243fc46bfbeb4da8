"""Which layer of the float network each layer of an integer file stands for, by structure and by name.

Both networks are walked from the input. A rounding point stands for what it reads, or for the Relu behind that if its
lower end is 0 and the file has no Relu of its own there; an affine layer for one of equal shape behind the same value.
Of several that fit, as at the start of a residual block, the one of the same name is taken, else the nearest weights.
Softmax at the end and layers that only reshape are in no network. A BatchNormalization that only one of both has
folded is taken apart in the float network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from qverify.activations.layer import Activation
from qverify.errors import ModelError
from qverify.family.activation_points import clips
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.replication.rewritten import factored, takes_up, with_clips
from qverify.text.brief import Brief
from qverify.text.shortened import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.network import Network


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Match(Brief):
    """`layers[j]`: the index in `trained` of the layer that layer j of `file` stands for.

    `trained` is the float network, perhaps with some BatchNormalization or activation taken apart: the same function.
    `file` is the file, perhaps with a Clip before points that took it up: what it may give is among what that may.
    """

    trained: Network
    file: Network
    layers: tuple[int, ...]

    @property
    def weighted(self) -> tuple[tuple[int, int], ...]:
        """Pairs of indices of the affine and scaling layers: of the float network, and of the file."""
        kinds = (Dense, Conv, Scale)
        return tuple((i, j) for j, i in enumerate(self.layers) if isinstance(self.file.layers[j], kinds))


class _Departure(Exception):
    """The structures depart at a layer of the file."""

    def __init__(self, index: int, sentence: str):
        super().__init__(sentence)
        self.index = index


def match(trained: Network, file: Network) -> Match:
    """Match the layers of a file with those of its float network. Raises ModelError, naming where they depart."""
    if file.dynamic:
        raise ModelError(
            f"{file.source} is quantised dynamically, and what compares a file with its network needs fixed steps; "
            "quantise the network statically, or ask verify about the file alone."
        )
    departures = []
    for candidate in _forms(trained):
        try:
            whole, stands = with_clips(candidate, file, _walked(candidate, file))
            return Match(trained=candidate, file=whole, layers=stands)
        except _Departure as departure:
            departures.append(departure)
    latest = max(departures, key=lambda departure: departure.index)
    raise ModelError(
        f"{file.source} is no integer file of {trained.source}: {latest}; give the file that was made of this network."
    )


def _forms(trained: Network) -> Iterator[Network]:
    """The network as it was read, then with what was folded taken apart: one after the other, and all; and all of
    these with activations taken apart."""
    yield from _unfolded(trained)
    if (products := factored(trained)) is not trained:
        yield from _unfolded(products)


def _unfolded(trained: Network) -> Iterator[Network]:
    yield trained
    folded = [norm.layer for norm in trained.batchnorms if norm.before is not None]
    if folded:
        yield apart(trained, folded)
        if len(folded) > 1:
            yield from (apart(trained, [name]) for name in folded)


def apart(network: Network, names: list[str]) -> Network:
    """The same function, with the BatchNormalizations that were folded into these layers as layers of their own."""
    norms = {norm.layer: norm for norm in network.batchnorms if norm.before is not None and norm.layer in names}
    layers: list[Layer] = []
    place: dict[int, int] = {}
    for index, layer in enumerate(network.layers):
        sources = tuple(place[source] for source in layer.inputs)
        norm = norms.get(layer.name)
        if norm is None:
            layers.append(replace(layer, inputs=sources))
        else:
            assert norm.before is not None
            before = replace(norm.before, name=f"{layer.name}/before {norm.name}", inputs=sources)
            factor = norm.scale / norm.deviation
            shift = norm.offset - norm.mean * factor
            shape = before.out_shape if isinstance(before, Conv) else (before.size, 1, 1)
            layers += [
                before,
                Conv(
                    layer.name,
                    (len(layers),),
                    layer.shape,
                    weight=factor.reshape(-1, 1, 1, 1),
                    bias=shift,
                    in_shape=shape,
                    groups=len(factor),
                ),
            ]
        place[index] = len(layers) - 1
    kept = tuple(norm for norm in network.batchnorms if norm.layer not in norms)
    return replace(network, layers=tuple(layers), batchnorms=kept)


def _walked(trained: Network, file: Network) -> tuple[int, ...]:
    """The layers that those of the file stand for. Raises _Departure."""
    found: list[int] = []
    taken: set[int] = set()
    for index, layer in enumerate(file.layers):
        before = [found[source] for source in layer.inputs]
        partner = _partner(trained, file, index, before, taken)
        found.append(partner)
        if not isinstance(layer, (Input, Rounding)):
            taken.add(partner)
    missing = [i for i, layer in enumerate(trained.layers) if isinstance(layer, (Dense, Conv)) and i not in taken]
    if found[-1] != len(trained.layers) - 1 or missing:
        last = trained.layers[missing[0] if missing else found[-1] + 1]
        ends = "ends" if found[-1] != len(trained.layers) - 1 else "goes on"
        raise _Departure(len(found), f"it {ends} without {_what(last)}")
    return tuple(found)


def _partner(trained: Network, file: Network, index: int, before: list[int], taken: set[int]) -> int:
    """The layer that one layer of the file stands for, where those it reads stand for `before`."""
    layer = file.layers[index]
    if isinstance(layer, Input):
        if layer.size != trained.input_size:
            raise _Departure(index, f"it reads {layer.shape} and the network {trained.input_shape}")
        if layer.parts != trained.parts:
            raise _Departure(index, f"it reads {_inputs(file)} and the network {_inputs(trained)}")
        return 0
    if isinstance(layer, Rounding):
        return _rounded(trained, file, index, before[0])
    users = [i for i in trained.consumers[before[0]] if i not in taken]
    if isinstance(layer, Relu):
        relus = [i for i in trained.consumers[before[0]] if isinstance(trained.layers[i], Relu)]
        fitting = relus or [before[0]] * isinstance(trained.layers[before[0]], Relu)
    elif isinstance(layer, Gather):
        wanted = _moved(layer, tuple(before), file)
        fitting = [i for i in users if _moved(trained.layers[i], trained.layers[i].inputs, trained) == wanted]
    elif isinstance(layer, (Add, Product)):
        fitting = [
            i for i in users if sorted(trained.layers[i].inputs) == sorted(before) and _alike(trained.layers[i], layer)
        ]
    else:
        fitting = [i for i in users if _alike(trained.layers[i], layer)]
    if not fitting:
        there = ", ".join(_what(trained.layers[i]) for i in trained.consumers[before[0]]) or "nothing"
        raise _Departure(
            index, f"behind {quoted(trained.layers[before[0]].name)} it has {_what(layer)}, and the network has {there}"
        )
    named = [i for i in fitting if _base(trained.layers[i].name) == _base(layer.name)]
    return min(named or fitting, key=lambda i: _distance(trained.layers[i], layer))


def _rounded(trained: Network, file: Network, index: int, before: int) -> int:
    """What a rounding point stands for: a Relu or Clip fused into it, or what it reads."""
    layer, users = file.layers[index], trained.consumers[before]
    assert isinstance(layer, Rounding)
    if len(users) != 1:
        return before
    next_ = trained.layers[users[0]]
    fused = takes_up(layer, next_) or (isinstance(next_, Relu) and not layer.low.any())
    return users[0] if fused and not _follows(file, index) else before


def _follows(file: Network, index: int) -> bool:
    """A Relu or Clip of the file's own reads a rounding point, perhaps through others."""
    readers = [file.layers[i] for i in file.consumers[index]]
    points = [i for i in file.consumers[index] if isinstance(file.layers[i], Rounding)]
    own = any(isinstance(reader, Relu) or clips(reader) for reader in readers)
    return own or any(_follows(file, i) for i in points)


def _alike(one: Layer, other: Layer) -> bool:
    """Two layers are of one kind, geometry and shape."""
    if type(one) is not type(other) or one.size != other.size:
        return False
    if isinstance(one, (Dense, Conv)) and isinstance(other, (Dense, Conv)):
        same = one.weight.shape == other.weight.shape and one.quantised == other.quantised
        names = ("in_shape", "strides", "pads", "dilations", "groups") if isinstance(one, Conv) else ()
        return same and all(getattr(one, name) == getattr(other, name) for name in names)
    if isinstance(one, Activation) and isinstance(other, Activation):
        pairs = zip(one.parameters, other.parameters, strict=True) if one.function == other.function else ()
        return one.function == other.function and all(np.array_equal(*pair) for pair in pairs)
    if isinstance(one, MaxPool) and isinstance(other, MaxPool):
        return all(getattr(one, name) == getattr(other, name) for name in ("in_shape", "kernel", "strides", "pads"))
    return True


def _moved(layer: Layer, sources: tuple[int, ...], network: Network) -> object:
    """What a Gather is, its producers being called `sources`: for every output the producer and its number, or the
    constant. None for other layers."""
    if not isinstance(layer, Gather):
        return None
    which, at = np.full(layer.size, -1), np.full(layer.size, -1)
    for source, read in zip(sources, layer.read_of([network.layers[i].size for i in layer.inputs]), strict=True):
        which[read >= 0], at[read >= 0] = source, read[read >= 0]
    return which.tolist(), at.tolist(), layer.fill.tolist()


def _distance(one: Layer, other: Layer) -> float:
    """The mean difference of the weights of two alike layers."""
    if isinstance(one, (Dense, Conv)) and isinstance(other, (Dense, Conv)):
        return float(np.abs(one.weight - other.weight).mean())
    return 0.0


def _base(name: str) -> str:
    """A layer's name without folders and endings that toolchains add."""
    return re.sub(r"(/rounded|_quantized?|_quant|_DequantizeLinear.*|_QuantizeLinear.*)$", "", PurePath(name).name)


def _inputs(network: Network) -> str:
    """The inputs of a network for people."""
    if network.parts is None:
        return "one input"
    return f"the inputs {listed([quoted(part.name) + ' ' + str(part.shape) for part in network.parts], 5)}"


def _what(layer: Layer) -> str:
    """A layer for people: kind, name and the shape of its weights."""
    shape = layer.weight.shape if isinstance(layer, (Dense, Conv)) else layer.shape
    kind = layer.function if isinstance(layer, Activation) else type(layer).__name__
    return f"{kind} {quoted(layer.name)} {' x '.join(map(str, shape))}"
