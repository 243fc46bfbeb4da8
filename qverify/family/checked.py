"""The check of a quantiser as it is stated: bit-widths and words, and what a network has that it cannot speak for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.choices import (
    ACTIVATIONS,
    BATCHNORMS,
    INPUTS,
    KERNELS,
    PLAIN_ROUNDINGS,
    POINTS,
    RANGED,
    RANGES,
    ROUNDINGS,
    SCHEMES,
)
from qverify.errors import RadiiError
from qverify.gather import Gather
from qverify.kinds import is_word
from qverify.layers import Scale
from qverify.text.escapes import shown
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from qverify.family.steps import Quantiser
    from qverify.network import Network

_WORDS = {
    "rounding": ROUNDINGS,
    "scheme": SCHEMES,
    "kernel": KERNELS,
    "batchnorm": BATCHNORMS,
    "points": POINTS,
    "input": INPUTS,
    "activations": ACTIVATIONS,
    "ranges": RANGES,
}
_RANGED_ONLY = ("points", "input", "activations", "ranges")
"""Words that say more of the schemes that take steps from ranges."""


def check(quantiser: Quantiser) -> None:
    """Raise RadiiError unless every bit-width and word of a quantiser is one."""
    ranged = is_word(quantiser.scheme, RANGED)
    for what, bits in _widths(quantiser).items():
        _check_width(what, bits, 2 if ranged else 1, quantiser.scheme)
    for name, allowed in _WORDS.items():
        if not is_word(getattr(quantiser, name), allowed):
            words = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
            raise RadiiError(f"Unknown {name} {shown(getattr(quantiser, name))}; it is {words}.")
    for name, own in quantiser.layers:
        if own.scheme is not None and not is_word(own.scheme, RANGED):
            raise RadiiError(f"Layer {name!r} has scheme {shown(own.scheme)}; it is one of {', '.join(RANGED)}.")
        if own.block is not None and (isinstance(own.block, bool) or not isinstance(own.block, int) or own.block < 1):
            raise RadiiError(f"Layer {name!r} has blocks of {shown(own.block)} weights; give a whole number from 1.")
    if not ranged and quantiser.rounding not in PLAIN_ROUNDINGS:
        raise RadiiError(f"Scheme {quantiser.scheme} knows no runtimes, so no rounding {shown(quantiser.rounding)}.")
    more = [name for name in ("bias_bits", "layers") if getattr(quantiser, name)]
    more += [name for name in _RANGED_ONLY if getattr(quantiser, name) != _WORDS[name][0]]
    if more and not ranged:
        raise RadiiError(f"Scheme {quantiser.scheme} has no {more[0].replace('_', ' ')}; tensor and channel have.")


def refuse_constants(network: Network) -> None:
    """Raise RadiiError where onnxruntime rounds constants to the bits of an activation: those of Mul and Add.

    One number alone is the end of its own range, so it stays what it is.
    """
    if network.added_biases:
        raise RadiiError(
            f"A node of its own adds the bias of {listed([repr(n) for n in network.added_biases], 3)}, which"
            " onnxruntime rounds to the bits of an activation, and the product before it too, where --points"
            " onnxruntime has nothing: give the model after onnxruntime's pre-processing (quant_pre_process), which"
            " makes it a Gemm."
        )
    for layer in network.layers:
        if isinstance(layer, Scale) and not _one_number(layer):
            raise RadiiError(
                f"Layer {layer.name!r} computes with constants that onnxruntime rounds to the bits of an activation,"
                " where --points onnxruntime has nothing: fold them into the data or into the layer that reads them."
            )


def refuse_gathers(network: Network, points: str) -> None:
    """Raise RadiiError where toolchains round constants beside numbers that are moved, or change grids to join some."""
    for layer in network.layers:
        if not isinstance(layer, Gather):
            continue
        if layer.fill.any():
            raise RadiiError(
                f"Layer {layer.name!r} puts constants other than 0 beside numbers, which toolchains round to the bits"
                f" of an activation, where --points {points} has nothing: use --points activations."
            )
        if points == "tflite" and len(layer.inputs) > 1:
            raise RadiiError(
                f"Layer {layer.name!r} joins several layers, which TensorFlow Lite all rounds to one grid, that of the"
                " result; --points tflite has nothing for that: use --points activations, or verify the .tflite file."
            )


def _one_number(layer: Scale) -> bool:
    """Whether a layer adds or multiplies by a single positive number."""
    scale, shift = layer.scale[0], layer.shift[0]
    if (layer.scale != scale).any() or (layer.shift != shift).any():
        return False
    return bool((scale == 1.0) or (shift == 0.0 and scale > 0.0))


def _widths(quantiser: Quantiser) -> dict[str, Any]:
    """Every bit-width that is stated, by what it is of."""
    found: dict[str, Any] = {"bit-width": quantiser.bits}
    for kind in ("weight", "activation", "input", "bias"):
        if (bits := getattr(quantiser, f"{kind}_bits")) is not None:
            found[f"bit-width of the {kind}"] = bits
    own = {f"bit-width of layer {name!r}": own.bits for name, own in quantiser.layers}
    return found | {what: bits for what, bits in own.items() if bits is not None}


def _check_width(what: str, bits: Any, least: int, scheme: Any) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not least <= bits <= 32:
        raise RadiiError(
            f"The {what} is {shown(bits)}; it must be a whole number from {least} to 32 for {shown(scheme)}."
        )
