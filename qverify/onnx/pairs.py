"""Layers of a quantised file that some kernels of onnxruntime compute with saturation: what a note says of them.

On x86 processors without dot-product instructions its kernels of uint8 and int8 add neighbouring products in saturating
16 bits, as onnxruntime documents. Rounding points describe no such kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from qverify.arrays import largest_two
from qverify.layers import INT16, LEVELS, Conv, Dense, DynamicRounding, Rounding
from qverify.text.shortened import listed

if TYPE_CHECKING:
    import onnx

    from qverify.network import Network

_SHOWN = 6
"""Names listed at most."""


def saturating_pairs(network: Network, model: onnx.ModelProto) -> list[str]:
    """A sentence on the layers of which two products may leave int16 together, with inputs of 8 bits; none for none."""
    if not any(held.data_type == TensorProto.INT8 and len(held.dims) > 1 for held in model.graph.initializer):
        return []
    names = [repr(layer.name) for index, layer in enumerate(network.layers) if _may_leave(network, index)]
    if not names:
        return []
    return [
        f"pairs of products of {listed(names, _SHOWN)} may leave int16, in which onnxruntime adds those of uint8 and"
        " int8 on x86 processors without dot-product instructions: such kernels saturate and are not covered. On these"
        ' set session.x64quantprecision to "1", or quantise with reduce_range.'
    ]


def _may_leave(network: Network, index: int) -> bool:
    layer: Any = network.layers[index]
    if not isinstance(layer, (Dense, Conv)) or layer.grid is None:
        return False
    read = network.layers[network.grid_of(layer.inputs[0])]
    levels = LEVELS if isinstance(read, DynamicRounding) else _levels(read)
    two = largest_two(np.abs(layer.weight / layer.grid)).max(initial=0.0)
    return bool(0.0 < levels <= LEVELS and two * levels > INT16)


def _levels(read: Any) -> float:
    """The number of steps in the range of a rounding point; 0 for what is none."""
    return float(np.rint((read.high - read.low) / read.step).max()) if isinstance(read, Rounding) else 0.0
