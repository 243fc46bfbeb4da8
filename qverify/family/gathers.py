"""Where toolchains round what a Gather gives (mathematics.md, section 7): what holds whatever operator it came from.

onnxruntime quantises the outputs of Transpose, Split, Gather, Pad by zeros and Resize on the grid of what they read, in
both of its formats, and so those of Slice in QDQ files; in files of integer operators the output of a Slice stays in
floating point until something reads it, on a grid of its own. What of it repeats or moves every number has the range,
and so the grid, of what it reads. A Concat is rounded to a grid of its own, like a sum (`QDQOperatorBase`,
`QLinearConcat`). TensorFlow Lite gives all inputs of a concatenation the grid of its output, which changes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.gather import Gather

if TYPE_CHECKING:
    from qverify.network import Network


def leaves_out(network: Network, layer: Gather) -> bool:
    """Whether some number that a Gather reads is no output of it, so that its range may be smaller."""
    return layer.drops([network.layers[i].size for i in layer.inputs])


def passes_on(network: Network, index: int, points: str) -> bool:
    """Whether a layer is a Gather whose numbers lie on the grid of what it reads, by the toolchain of `points`."""
    layer = network.layers[index]
    if not isinstance(layer, Gather) or len(layer.inputs) > 1:
        return False
    return points == "tflite" or not leaves_out(network, layer)
