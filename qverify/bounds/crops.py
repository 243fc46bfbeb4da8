"""BP on the part of an image that a neuron sees (mathematics.md, section 4.10). Sound.

A number in an image reads a window of the image before it, that a larger window of the one before, and so on down to
the input: a row on it has no coefficients anywhere else. A `Crop` is the network cut to those windows for a tile of
numbers. It is a network like any other, with the bounds of the whole one on what is left, so what BP says of it holds.
Tiles whose windows lie alike to the borders have the same crop and are worked on together, as samples of it are.

Where few positions share a kernel, its errors are bounded coarsely, which is little worse then.

Only images are cut: layers behind a dense layer, a Gather or a dynamic rounding point see everything.

Shapes: T tiles of a crop, N samples; n numbers of a layer of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qverify.activations.layer import Activation
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.bounds.windows import Read, Shape, Window, likeness, read_by, seen, shapes, tiled
from qverify.gather import Gather
from qverify.layers import Conv, Input, Layer, MaxPool
from qverify.network import Network
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from qverify.budget import Deadline

_TILES = (1, 2, 4, 8)
"""Rows and columns of a tile that are tried."""
_TOUCHES = 40
"""Multiplications that take as long as the work on one coefficient of a row that is not a sum (measured)."""
_LOOKS = 4
"""The same of an entry of a kernel."""
_BEGIN = 2e7
"""The same of beginning with one crop."""
_COPIES = 24
"""Tensors of the size of all layers that the bounds of a tile take, with what is made of them."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Crop(Brief):
    """A crop of `BoundModel`: the model, whose last layer gives the tiles. `places`: by layer of the crop, where its
    numbers are in the whole network's layer `layers[i]`, (T, n); of what only cuts, there are none."""

    model: BoundModel
    layers: dict[int, int]
    places: dict[int, Tensor]

    @property
    def last(self) -> int:
        """The index of its last layer."""
        return len(self.model.network.layers) - 1

    @property
    def tiles(self) -> Tensor:
        """(T, n): where in the whole layer the numbers of each tile are."""
        return self.places[self.last]

    @property
    def together(self) -> int:
        """Tiles whose bounds, and what is made of them, fit into the memory of one piece, at least 1."""
        network = self.model.network
        return self.model.rows_that_fit(
            _COPIES, sum(layer.size for layer in network.layers) + sum(self.model.unfolded), 1
        )

    def bounds(self, bounds: Bounds, sample: Tensor, tile: Tensor) -> Bounds:
        """What `bounds` (N) are on tile (E,) of sample (E,)."""

        def part(i: int, whole: Tensor) -> Tensor:
            return whole[sample.unsqueeze(1), self.places[i][tile]]

        lower: list[Tensor] = []
        upper: list[Tensor] = []
        for i, layer in enumerate(self.model.network.layers):
            if i in self.layers:
                lower.append(part(i, bounds.lower[self.layers[i]]))
                upper.append(part(i, bounds.upper[self.layers[i]]))
            else:
                for ends in (lower, upper):
                    ends.append(self.model.gathered(i, [ends[source] for source in layer.inputs]))
        activation = {}
        for i, own in self.layers.items():
            radius = bounds.activation.get(own)
            if radius is not None:
                activation[i] = radius[self.places[i][tile]] if radius.ndim == 1 else part(i, radius)
        return Bounds(lower=lower, upper=upper, activation=activation)


def cut(
    model: BoundModel, bounds: Bounds, index: int, wanted: Tensor, deadline: Deadline | None
) -> Iterator[tuple[BoundModel, Bounds, int, Any]]:
    """What to bound the numbers of layer `index` with that are wanted, mask (N, size): crops, as many tiles at once as
    fit in the memory, until the deadline passes, or the whole network where nothing is cut. A model, the bounds on it,
    the layer there, and the places of its numbers in tensors (N, size)."""
    if not crops(model, index):
        yield model, bounds, index, ...
    for crop in crops(model, index):
        sample, tile = torch.nonzero(wanted[:, crop.tiles].any(2), as_tuple=True)
        for some in torch.split(torch.arange(len(sample), device=model.device), crop.together):
            if deadline is not None and deadline.passed():
                return
            entry, own = sample[some], tile[some]
            yield crop.model, crop.bounds(bounds, entry, own), crop.last, (entry.unsqueeze(1), crop.tiles[own])


def crops(model: BoundModel, index: int) -> list[Crop]:
    """Crops whose tiles hold each number of layer `index` once; none where the whole network is as cheap or cheaper, or
    where it cannot be cut."""
    if index not in model.cropped:
        model.cropped[index] = _crops(model, index)
    found: list[Crop] = model.cropped[index]
    return found


def _crops(model: BoundModel, index: int) -> list[Crop]:
    layers, images = model.network.layers, shapes(model.network)
    if index not in images or not layers[index].inputs:
        return []
    _, height, width = images[index]
    whole = seen(layers, images, index, Window(0, height, 0, width))
    if whole is None:
        return []
    best, groups = _cost(layers, images, [whole], index), list[list[dict[int, Window]]]()
    for size in _TILES:
        if size >= max(height, width):
            break
        plans = [seen(layers, images, index, tile) for tile in tiled(height, width, size)]
        if any(plan is None for plan in plans):
            continue
        alike: dict[Any, list[dict[int, Window]]] = {}
        for plan in plans:
            if plan is not None:
                alike.setdefault(likeness(layers, plan), []).append(plan)
        some = list(alike.values())
        cost = sum(_cost(layers, images, group, index) for group in some)
        if cost < best:
            best, groups = cost, some
    found = [_crop(model, images, group, index) for group in groups]
    return [crop for crop in found if crop is not None] if all(found) else []


def _cost(layers: tuple[Layer, ...], images: dict[int, Shape], group: list[dict[int, Window]], index: int) -> float:
    """What rows on all numbers of some tiles that are alike cost, in multiplications."""
    plan = group[0]
    numbers = {i: images[i][0] * window.area for i, window in plan.items()}
    convolutions = [(numbers[i], layer) for i in plan if isinstance(layer := layers[i], Conv)]
    row = sum(2.0 * number * layer.fan_in + _LOOKS * layer.weight.size for number, layer in convolutions)
    return _BEGIN + len(group) * 2.0 * numbers[index] * (row + _TOUCHES * sum(numbers.values()))


def _crop(model: BoundModel, images: dict[int, Shape], group: list[dict[int, Window]], index: int) -> Crop | None:
    """The crop of some tiles that are alike; None if their numbers are not alike."""
    whole, plan = model.network.layers, group[0]
    places = {i: np.stack([_places(images[i], one[i]) for one in group]) for i in plan}
    layers: list[Layer] = []
    new: dict[int, int] = {}
    for i in sorted(plan):
        read = read_by(whole[i], plan[i])
        inputs = []
        for source in whole[i].inputs:
            inputs.append(new[source])
            if read.window != plan[source]:
                window, held = read.window.within(plan[source]), plan[source]
                shape = images[source][0], held.bottom - held.top, held.right - held.left
                layers.append(_cut(f"{len(layers)} cuts {whole[source].name}", new[source], shape, window))
                inputs[-1] = len(layers) - 1
        new[i] = len(layers)
        layers.append(_layer(whole[i], tuple(inputs), images[i][0], plan[i], read, places[i][0]))
    own = {at: i for i, at in new.items()}
    where = {at: torch.as_tensor(places[i], device=model.device) for at, i in own.items()}
    found = _model(model, Network(tuple(layers), f"a crop of {model.network.source}"), own, where)
    return None if found is None else Crop(model=found, layers=own, places=where)


def _places(image: Shape, window: Window) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers in a window of an image, all channels, in the order of the crop."""
    every = np.arange(image[0] * image[1] * image[2]).reshape(image)
    return every[:, window.top : window.bottom, window.left : window.right].ravel()


def _cut(name: str, source: int, image: Shape, window: Window) -> Gather:
    """A window of an image."""
    index = _places(image, window)
    return Gather(name, (source,), (len(index),), index, np.zeros(len(index)))


def _layer(
    layer: Layer, inputs: tuple[int, ...], channels: int, window: Window, read: Read, place: np.ndarray[Any, Any]
) -> Layer:
    """A layer cut to a window."""
    shape = channels, window.bottom - window.top, window.right - window.left
    if isinstance(layer, Input):
        return Input(layer.name, (), shape)
    if isinstance(layer, (Conv, MaxPool)):
        inside = layer.in_shape[0], read.window.bottom - read.window.top, read.window.right - read.window.left
        return replace(layer, inputs=inputs, shape=shape, in_shape=inside, pads=read.pads)
    arrays: dict[str, Any] = {}
    for name in ("scale", "shift", "step", "low", "high", "dead", "offset"):
        if getattr(layer, name, None) is not None:
            arrays[name] = getattr(layer, name)[place]
    if isinstance(layer, Activation):
        arrays["parameters"] = tuple(parameter[place] for parameter in layer.parameters)
    return replace(layer, inputs=inputs, shape=shape, **arrays)


def _coarse(network: Network, layer: Conv) -> bool:
    """Whether the kernel of a cut convolution has more entries than there are numbers that it joins."""
    return layer.weight.size > layer.size + network.layers[layer.inputs[0]].size


class _Unlike(Exception):
    """Tiles of a crop have different numbers in a layer."""


def _model(model: BoundModel, network: Network, layers: dict[int, int], places: dict[int, Tensor]) -> BoundModel | None:
    """The model cut to the network of a crop; None where tiles have different numbers in a layer."""

    def taken(at: int, whole: Tensor) -> Tensor:
        if whole.ndim == 0:
            return whole
        own = whole[places[at]]
        if not bool((own == own[0]).all()):
            raise _Unlike
        return own[0]

    affine = {
        at: replace(model.affine[i], layer=layer, coarse=_coarse(network, layer))
        for at, i in layers.items()
        if isinstance(layer := network.layers[at], Conv)
    }
    try:
        scale = {at: tuple(taken(at, t) for t in model.scale[i]) for at, i in layers.items() if i in model.scale}
        points = {at: model.points[i].mapped(partial(taken, at)) for at, i in layers.items() if i in model.points}
        curves = {
            at: model.curves[i].mapped(partial(taken, at), torch) for at, i in layers.items() if i in model.curves
        }
    except _Unlike:
        return None
    return replace(
        model,
        network=network,
        affine=affine,
        scale={at: (one, other) for at, (one, other) in scale.items()},
        activation={},
        points=points,
        cuts={},
        curves=curves,
    )
