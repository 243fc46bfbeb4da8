"""Where toolchains round around activations other than Relu, and what their runtimes get wrong there.

onnxruntime (QDQ files, operators of its default list): Sigmoid, LeakyRelu, Add and Mul have rounding points at what
they read and give, each of its own range. A Clip is taken out where it is all that reads a tensor, since the range
behind it clips: a tensor is rounded behind it alone. Other functions stay in floating point, between the point of what
they read, if anything quantised made it, and that of what they give, if anything quantised reads it.

TensorFlow Lite: every tensor has a point. LOGISTIC and TANH have grids of their own, [0, 1) and [-1, 1) in 256 steps,
and a Clip to [0, 6] is fused like a Relu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.errors import RadiiError
from qverify.family.float_errors import FLOAT_ERRORS
from qverify.family.gathers import passes_on
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, MaxPool, Product, Relu

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.ranges import Range
    from qverify.family.steps import Quantiser
    from qverify.network import Network

_FIXED: dict[str, Range] = {"sigmoid": (0.0, 255.0 / 256.0), "tanh": (-1.0, 127.0 / 128.0)}
"""The ranges that TensorFlow Lite gives the outputs of functions on 8 bits."""
_TFLITE = (*_FIXED, "leaky_relu", "hard_swish")
_SEVERAL = ("silu", "gelu", "gelu_tanh", "softsign")
"""Functions that models mostly have as several nodes, which are rounded between."""


def clips(layer: Any) -> bool:
    """Whether a layer is a Clip."""
    return isinstance(layer, Activation) and layer.function == "clip"


def in_floats(layer: Any) -> bool:
    """Whether onnxruntime leaves an activation in floating point."""
    return isinstance(layer, Activation) and layer.function not in ("sigmoid", "leaky_relu", "clip")


def unrounded(network: Network, points: str) -> set[int]:
    """The layers (by index) that a toolchain does not round because of the activations around them."""
    found = set()
    for i, layer in enumerate(network.layers):
        users = [network.layers[u] for u in network.consumers[i]]
        alone = len(users) == 1 and clips(users[0])
        if alone or (points == "onnxruntime" and in_floats(layer) and not _read_rounded(network, i)):
            found.add(i)
    return found


def _read_rounded(network: Network, index: int) -> bool:
    """Whether onnxruntime certainly rounds what layer `index` gives because of what reads it.

    A Gather of all its numbers has the same range: to round it is to round what it moves, if nothing else reads that.
    """
    users = network.consumers[index]
    if any(_rounds(network.layers[u]) for u in users):
        return True
    return bool(users) and all(
        isinstance(layer := network.layers[u], Gather)
        and passes_on(network, u, "onnxruntime")
        and not layer.constant.any()
        and bool(network.consumers[u])
        and all(_rounds(network.layers[v]) for v in network.consumers[u])
        for u in users
    )


def _given_rounded(network: Network, index: int) -> bool:
    """Whether what layer `index` gives has a point in QDQ files where this module says, whatever node it comes from: a
    mean, a factor or a Gather may be a node that onnxruntime leaves in floating point."""
    layer = network.layers[index]
    if isinstance(layer, (Relu, MaxPool)) or clips(layer):
        return _given_rounded(network, layer.inputs[0])
    weighted = isinstance(layer, Dense) or (isinstance(layer, Conv) and layer.quantised)
    return weighted or isinstance(layer, (Add, Product, Activation))


def _rounds(layer: Any) -> bool:
    """Whether onnxruntime rounds what a layer reads, whatever it is."""
    if isinstance(layer, Activation):
        return layer.function == "sigmoid"
    return isinstance(layer, (Dense, Add, Product)) or (isinstance(layer, Conv) and layer.quantised)


def refuse_activations(network: Network, quantiser: Quantiser) -> None:
    """Raise RadiiError for activations around which it is not known where a toolchain rounds."""
    for i in sorted((*network.activations, *network.relus)):
        layer: Any = network.layers[i]
        if isinstance(layer, Relu) and layer.name not in (network.composed or ()):
            continue
        refuse = _refused_by_onnxruntime if quantiser.points == "onnxruntime" else _refused_by_tflite
        if why := refuse(network, i, layer, quantiser):
            what = getattr(layer, "function", "Relu")
            raise RadiiError(
                f"Layer {layer.name!r} ({what}): {why}, so --points {quantiser.points} is not known for it;"
                " use --points activations, --scheme paper or --radii."
            )


def _refused_by_onnxruntime(network: Network, index: int, layer: Any, quantiser: Quantiser) -> str:
    users = [network.layers[u] for u in network.consumers[index]]
    if isinstance(layer, Relu) or layer.function in _SEVERAL or layer.name in (network.composed or ()):
        return "onnxruntime rounds before or between the nodes that compute it"
    if clips(layer):
        if quantiser.activations == "symmetric":
            return "onnxruntime rounds before a Clip where integers are symmetric"
        return _odd_clip(network, index, layer)
    if layer.function != "sigmoid" and not _given_rounded(network, layer.inputs[0]):
        return "what it reads may be left in floating point"
    if layer.function == "leaky_relu":
        return "" if _read_rounded(network, index) else "a LeakyRelu is rounded there and a PRelu is not"
    if in_floats(layer) and not _read_rounded(network, index) and not all(map(in_floats, users)):
        return "onnxruntime leaves it in floating point, and what it gives is rounded behind what reads it, if at all"
    return ""


def _odd_clip(network: Network, index: int, layer: Any) -> str:
    """Why taking out a Clip is not known to be the same; empty if it is."""
    (source,) = layer.inputs
    low, high = layer.parameters
    if (low > 0).any() or (high < 0).any():
        return "the range behind it holds 0 and its own does not"
    read = network.layers[source]
    if source == 0 or len(network.consumers[source]) > 1 or isinstance(read, (MaxPool, Gather, Activation, Relu)):
        return "a Clip is fused where it is all that reads a layer that computes"
    return ""


def _refused_by_tflite(network: Network, index: int, layer: Any, quantiser: Quantiser) -> str:
    if isinstance(layer, Relu):
        return ""
    if clips(layer):
        low, high = layer.parameters
        relu6 = bool((low == 0.0).all() and (high == 6.0).all())
        return _odd_clip(network, index, layer) if relu6 else "TensorFlow Lite fuses a Clip to [0, 6], and no other"
    if layer.function not in _TFLITE:
        return "its operators are not known"
    eight = quantiser.of_activations == 8 and quantiser.activations == "asymmetric"
    return "" if eight or layer.function == "leaky_relu" else "its kernels are known for asymmetric integers of 8 bits"


def fixed_range(layer: Any, points: str) -> Range | None:
    """The range that a toolchain gives to what a layer gives whatever the data are; None: that of the data."""
    return _FIXED.get(layer.function) if points == "tflite" and isinstance(layer, Activation) else None


def errors_before(
    network: Network, quantiser: Quantiser, ranges: list[tuple[Range, ...]], places: list[int]
) -> dict[int, Array]:
    """By layer: what runtimes get wrong before its rounding point, (size,), of activations and products."""
    found: dict[int, Array] = {}
    pairs: list[tuple[Array, Array]] = []
    for i, layer in enumerate(network.layers):
        reach, error = _reach(quantiser, ranges[i], layer.size), np.zeros(layer.size)
        if isinstance(layer, (Activation, Product)) and not clips(layer):
            made, error = FLOAT_ERRORS[type(layer)](layer, [pairs[s] for s in layer.inputs])
            reach = reach if i in places else made
            if i in places:
                found[i] = error + _kernel(quantiser, layer, ranges, i)
                error = np.zeros(layer.size)
        pairs.append((reach, error))
    return found


def _reach(quantiser: Quantiser, ranges: tuple[Range, ...], size: int) -> Array:
    """The largest absolute number on the grids of some ranges: an end may be a step beyond that of the range."""
    ends = [max(-low, high) + quantiser.activation_step(low, high) for low, high in ranges]
    return np.full(size, 1.001 * max(ends))


def _kernel(quantiser: Quantiser, layer: Any, ranges: list[tuple[Range, ...]], index: int) -> Array:
    """What kernels of TensorFlow Lite add (function_errors.py), in units of the layer."""
    if quantiser.points != "tflite":
        return np.zeros(layer.size)
    out = min(quantiser.activation_step(*ends) for ends in ranges[index])
    most = max(quantiser.activation_step(*ends) for ends in ranges[index])
    entry = max(quantiser.activation_step(*ends) for source in layer.inputs for ends in ranges[source])
    steps = 0.25 if quantiser.rounding == "double" else 0.0
    if isinstance(layer, Activation):
        if layer.function == "leaky_relu" and quantiser.activation_share < 1.0:
            steps = 0.5
        elif layer.function == "hard_swish":
            _, exponent = np.frexp(1.001 * entry / (128.0 * out))
            steps = 5.0 * 2.0 ** int(exponent)
        elif layer.function in _FIXED:
            steps = 1.0 / 16.0 if quantiser.rounding == "double" else 0.0
    return np.full(layer.size, steps * most)
