"""What part of an image a layer reads: windows, from a tile of its outputs down to the input.

Layers that give images are convolutions, pools, and those that work number by number on images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qverify.activations.layer import Activation
from qverify.layers import Add, Conv, Input, Layer, MaxPool, Product, Relu, Rounding, Scale

if TYPE_CHECKING:
    from qverify.network import Network

Shape = tuple[int, int, int]
_BY_ELEMENT = (Relu, Activation, Rounding, Scale, Add, Product)


class Window(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of an image, the ends left out."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Positions in it."""
        return (self.bottom - self.top) * (self.right - self.left)

    def hull(self, other: Window | None) -> Window:
        """The least window that holds both."""
        if other is None:
            return self
        first, last = map(min, self, other), map(max, self, other)
        (top, _, left, _), (_, bottom, _, right) = first, last
        return Window(top, bottom, left, right)

    def within(self, other: Window) -> Window:
        """The same, its rows and columns counted from those of `other`."""
        return Window(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)


class Read(NamedTuple):
    """What a layer reads for a window of its outputs: the window of each producer, and the padding around it."""

    window: Window
    pads: tuple[int, int, int, int]


def shapes(network: Network) -> dict[int, Shape]:
    """The layers that give images, and may be cut: their channels, rows and columns."""
    layers = network.layers
    found: dict[int, Shape] = {}
    for layer in layers:
        if isinstance(layer, (Conv, MaxPool)) and isinstance(layers[layer.inputs[0]], Input):
            found.setdefault(0, layer.in_shape)
    if 0 not in found and len(layers[0].shape) == 3:
        channels, height, width = layers[0].shape
        found[0] = channels, height, width
    for i, layer in enumerate(layers):
        images = [found[source] for source in layer.inputs if source in found]
        if not images or len(images) < len(layer.inputs):
            continue
        if isinstance(layer, (Conv, MaxPool)) and images[0] == layer.in_shape:
            found[i] = layer.out_shape
        elif isinstance(layer, _BY_ELEMENT) and images[0] == images[-1]:
            found[i] = images[0]
    return found


def tiled(height: int, width: int, size: int) -> list[Window]:
    """An image of so many rows and columns in tiles of `size` each way, or of what is left."""
    return [
        Window(top, min(top + size, height), left, min(left + size, width))
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]


def read_by(layer: Layer, window: Window) -> Read:
    """What a layer reads for a window of its outputs."""
    if not isinstance(layer, (Conv, MaxPool)):
        return Read(window, (0, 0, 0, 0))
    kernel = layer.weight.shape[2:] if isinstance(layer, Conv) else layer.kernel
    dilations = layer.dilations if isinstance(layer, Conv) else (1, 1)
    ends, pads = [], []
    for axis, (first, last) in enumerate(((window.top, window.bottom), (window.left, window.right))):
        start = first * layer.strides[axis] - layer.pads[axis]
        stop = (last - 1) * layer.strides[axis] - layer.pads[axis] + dilations[axis] * (kernel[axis] - 1) + 1
        inside = max(start, 0), min(stop, layer.in_shape[1 + axis])
        ends.append(inside)
        pads.append((inside[0] - start, stop - inside[1]))
    (top, bottom), (left, right) = pads
    return Read(Window(*ends[0], *ends[1]), (top, left, bottom, right))


def seen(layers: tuple[Layer, ...], images: dict[int, Shape], index: int, tile: Window) -> dict[int, Window] | None:
    """The windows of all layers that a tile of layer `index` sees; None if one sees nothing but padding."""
    found = {index: tile}
    for i in range(index, 0, -1):
        if i not in found:
            continue
        read = read_by(layers[i], found[i]).window
        if read.top >= read.bottom or read.left >= read.right:
            return None
        for source in layers[i].inputs:
            if source not in images:
                return None
            found[source] = read.hull(found.get(source))
    return found


def likeness(layers: tuple[Layer, ...], plan: dict[int, Window]) -> Any:
    """What tiles with the same crop have in common."""
    key = []
    for i, window in sorted(plan.items()):
        read = read_by(layers[i], window)
        inputs = tuple(read.window.within(plan[source]) for source in layers[i].inputs)
        key.append((i, window.within(window)[1::2], read.pads, inputs))
    return tuple(key)
